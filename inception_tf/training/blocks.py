"""The variables of a step, block by block.

A step does the same with hundreds of variables: rounds, adds, averages, updates. Functions that do it
for a block are traced once for all blocks that are alike (models/execution.py).
"""

import tensorflow as tf


class VariableBlocks:
    """Which trained variables and which statistics the blocks of a network have.

    Iterating gives for each block that has any: (positions in `state.trained`, positions in
    `state.statistics`).

    Args:
      state: RunState.
      blocks: lists of the Keras variables of each block, which together hold all of them.
    """

    def __init__(self, state, blocks):
        wanted = (
            {item.path: position for position, item in enumerate(state.trained)},
            {variable.path: position for position, variable in enumerate(state.statistics)},
        )
        found = [
            tuple([positions[v.path] for v in block if v.path in positions] for positions in wanted)
            for block in blocks
        ]
        self._blocks = [block for block in found if any(block)]
        trained, statistics = (sum(lists, []) for lists in zip(*self._blocks))
        self._orders = tuple(map(_inverse, (trained, statistics)))

    def __iter__(self):
        return iter(self._blocks)

    def split(self, trained, statistics):
        """[(list, list)], one of each block, of values in the state's order."""
        return [
            ([trained[i] for i in of_trained], [statistics[i] for i in of_statistics])
            for of_trained, of_statistics in self._blocks
        ]

    def join_trained(self, vectors):
        """A vector in the state's order of what each block has: one number a trained variable."""
        return tf.gather(tf.concat(vectors, axis=0), self._orders[0])

    def join_statistics(self, vectors):
        """As `join_trained`: one number a statistic."""
        return tf.gather(tf.concat(vectors, axis=0), self._orders[1])


def stacked(scalars):
    """A vector of float32 scalars, of which there may be none."""
    return tf.stack(scalars) if scalars else tf.zeros([0])


def _inverse(positions):
    places = {position: place for place, position in enumerate(positions)}
    return tf.constant([places[position] for position in sorted(places)], tf.int32)
