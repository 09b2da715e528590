"""From the sums over the declared replicas to the new values of this device's variables.

Everything is done block by block, in functions that alike blocks share: most operations of a step
are here, once for every variable and device, and so was most of the time before the first step.
"""

import math

import tensorflow as tf

from inception_tf.models.execution import traced_once
from inception_tf.training.averaging import apply_averages, decay_at
from inception_tf.training.blocks import stacked
from inception_tf.training.optimizer import Update, clip_scale
from inception_tf.training.reduction import GRADIENT_BITS, STATISTIC_BITS


class StateUpdate:
    """The update of a run's variables, in replica context.

    Args:
      state: RunState.
      recipe: StepRecipe.
      reduction: Reduction that made the sums.
      blocks: VariableBlocks of the network.
    """

    def __init__(self, state, recipe, *, reduction, blocks):
        self._state, self._recipe = state, recipe
        self._reduction, self._blocks = reduction, blocks
        self._mean_of_block = traced_once(self._mean_with_l2)
        self._update_block = traced_once(self._apply_to_block)

    def zero_sums(self):
        """The sums of a step before anything is added: see `DeclaredReplica.contribution`."""
        dtype = self._reduction.carried_dtype
        return [
            tuple(tf.zeros([sum(map(math.prod, shapes))], dtype) for shapes in block)
            for block in self._shapes()
        ]

    def _shapes(self):
        """For each block tuples of the shapes of its trained variables, and of its statistics."""
        blocks = self._blocks.split(
            [tuple(item.variable.shape) for item in self._state.trained],
            [tuple(variable.shape) for variable in self._state.statistics],
        )
        return [tuple(map(tuple, block)) for block in blocks]

    def means(self, sums):
        """What is applied: ([(gradients with L2, statistics)] of the blocks, L2 loss, norm).

        Args:
          sums: of all declared replicas, as `zero_sums`.

        Returns:
          The norm is the global one of the gradients with L2, before the clip.
        """
        blocks, trained = self._blocks, self._state.trained
        means, losses, halves = [], [], []
        for (positions, _), shapes, block_sums in zip(blocks, self._shapes(), sums):
            weights = [trained[position].variable.value.handle for position in positions]
            factors = tuple(trained[position].l2 for position in positions)
            gradients, statistics, loss, half = self._mean_of_block(
                *block_sums, weights, factors, shapes
            )
            means.append((gradients, statistics))
            losses.append(loss)
            halves.append(half)
        # As tf.linalg.global_norm, of all blocks.
        norm = tf.sqrt(2.0 * tf.reduce_sum(blocks.join_trained(halves)))
        return means, tf.reduce_sum(blocks.join_trained(losses)), norm

    def _mean_with_l2(self, gradients, statistics, weights, factors, shapes):
        """Means over the declared replicas of one block.

        Args:
          gradients, statistics: sums, as `Reduction.pack` makes the terms.
          weights: handles of the trained variables.
          factors: tuple of their L2 factors.
          shapes: (tuple of their shapes, tuple of the statistics' shapes).

        Returns:
          (gradients with L2, statistics, [L2 loss], [half the squared norm of the gradient]).
        """
        gradients = self._reduction.unpack(gradients, GRADIENT_BITS, shapes[0])
        statistics = self._reduction.unpack(statistics, STATISTIC_BITS, shapes[1])
        gradients, losses = self.add_l2(gradients, weights, factors)
        halves = [tf.nn.l2_loss(gradient) for gradient in gradients]
        return gradients, statistics, stacked(losses), stacked(halves)

    def add_l2(self, gradients, weights, factors):
        """Adds L2 once, to the mean over the declared replicas; returns the L2 losses too."""
        with_l2, losses = [], []
        for gradient, handle, factor in zip(gradients, weights, factors):
            loss = tf.constant(0.0)
            if factor:
                weight = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
                gradient += factor * weight
                loss = factor * tf.nn.l2_loss(weight)
            with_l2.append(gradient)
            losses.append(loss)
        return with_l2, losses

    def apply(self, step, is_applied, means, *, norm, learning_rate):
        """Updates weights, statistics and averages; int64, 1 if it clipped, else 0.

        Args:
          step: int64 scalar.
          is_applied: bool scalar; where False, nothing is changed.
          means, norm: see `means`.
          learning_rate: float32 scalar.
        """
        state, recipe = self._state, self._recipe
        scale, clipped = tf.constant(1.0), tf.constant(0, tf.int64)
        if recipe.clip_global_norm is not None:
            limit = tf.constant(recipe.clip_global_norm, tf.float32)
            scale = clip_scale(norm, limit)
            clipped = tf.cast(is_applied & (norm > limit), tf.int64)
        rates = {
            factor: learning_rate * factor
            for factor in {item.learning_rate_factor for item in state.trained}
        }
        decay = decay_at(step, recipe.averages)
        averages = state.averages
        for block, (gradients, statistics) in zip(self._blocks, means):
            items = [state.trained[position] for position in block[0]]
            moved = [state.statistics[position] for position in block[1]]
            weights = [
                (
                    item.variable.value.handle,
                    {name: slot.handle for name, slot in state.slots[item.path].items()},
                    rates[item.learning_rate_factor],
                    gradient,
                    averages[item.path].handle,
                )
                for item, gradient in zip(items, gradients)
            ]
            moving = [
                (variable.value.handle, statistic, averages[variable.path].handle)
                for variable, statistic in zip(moved, statistics)
            ]
            self._update_block(is_applied, scale, decay, weights, moving)
        return clipped

    def _apply_to_block(self, is_applied, scale, decay, weights, moving):
        """The update of one block.

        Args:
          weights: list of (handle, {slot name: handle}, learning rate, gradient, average's handle).
          moving: list of (handle of a statistic, its new value, average's handle).
        """

        def update():
            clips = self._recipe.clip_global_norm is not None
            self._recipe.optimizer.apply([
                Update(
                    handle=handle,
                    slots=slots,
                    gradient=gradient * scale if clips else gradient,
                    learning_rate=rate,
                )
                for handle, slots, rate, gradient, _ in weights
            ])
            for handle, value, _ in moving:
                tf.raw_ops.AssignVariableOp(resource=handle, value=value)
            averaged = [(average, handle) for handle, *_, average in [*weights, *moving]]
            apply_averages(
                [
                    (average, tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32))
                    for average, handle in averaged
                ],
                decay,
            )
            return tf.constant(True)

        tf.cond(is_applied, update, lambda: tf.constant(False))


def assign(variable, value):
    """Sets this device's copy of a variable."""
    # The handle: tf.distribute forbids assigning a mirrored variable from one replica.
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=tf.convert_to_tensor(value))
