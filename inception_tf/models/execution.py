"""Runs a network in training, block by block.

`model.stateless_call` walks the layers one by one. Here the same layers are run with the same
numbers to rounding, but

- blocks that are built alike (the 20 block17 of an Inception-ResNet-v2) are traced once, and each
  is a call of that one function: less to trace and to optimise before the first step;
- layers are computed together where that takes less time (models/merging.py);
- with `recompute`, a block keeps nothing but its inputs for the backward pass, which computes the
  block again (Chen et al. 2016, arXiv 1604.06174).
"""

import functools
import json

import keras
import tensorflow as tf

from inception_tf.models.layer_table import layer_rows, totals_of
from inception_tf.models.merging import merge
from inception_tf.models.stage_builder import endpoints
from inception_tf.models.wiring import producers_of, wires

# A function of its own to the end: inlined, a block would be optimised once for each call, and what
# is to be computed again would be found computed already.
_KEPT = {"_noinline": True}


class Execution:
    """A functional model as a function of the values of its variables, for training.

    Args:
      model: functional keras.Model that calls each of its layers once; its stages (`endpoints`)
        are the blocks. One without stages is a single block.
      recompute: keep only the inputs of a block for the backward pass. The head, which comes
        after the last stage, keeps its values.
    """

    def __init__(self, model, *, recompute=False):
        self._model = model
        self._input, self._outputs, self._blocks = _blocks_of(model)
        groups = {}
        for block in self._blocks:
            groups.setdefault(block.signature, []).append(block)
        self._functions = {}
        for signature, blocks in groups.items():
            template = blocks[0]
            if recompute and template.is_stage:
                self._functions[signature] = _recomputed(template)
            elif len(blocks) > 1:
                self._functions[signature] = traced_once(template.run)
            else:
                self._functions[signature] = template.run

    @property
    def variables_of_blocks(self):
        """Lists of Keras variables, one of each block; alike blocks have alike lists."""
        return [[*block.trainable, *block.fixed] for block in self._blocks]

    def __call__(self, trainable, fixed, images):
        """The model's outputs and the new values of its variables that are not trainable.

        Args:
          trainable, fixed: values of `model.trainable_variables` and
            `model.non_trainable_variables`.
          images: [N, H, W, C].

        Returns:
          As `model.stateless_call(trainable, fixed, images, training=True)`.
        """
        variables = [*self._model.trainable_variables, *self._model.non_trainable_variables]
        values = {
            id(variable): value
            for variable, value in zip(variables, [*trainable, *fixed], strict=True)
        }
        found = {self._input: images}
        for block in self._blocks:
            outputs, changed = self._functions[block.signature](
                [found[name] for name in block.inputs],
                [values[id(variable)] for variable in block.trainable],
                [values[id(variable)] for variable in block.fixed],
            )
            found.update(zip(block.outputs, outputs))
            values.update(zip(map(id, block.fixed), changed))
        outputs = keras.tree.map_structure(lambda name: found[name], self._outputs)
        return outputs, [values[id(v)] for v in self._model.non_trainable_variables]


def num_kept_values(model, *, recompute=False):
    """Values per image that a training step keeps for its backward pass; see `layer_rows`.

    With `recompute` those that blocks hand on, and all of one block, the largest, while its
    gradient is computed.

    Args:
      model: a built functional model of one of the networks, of a fixed input size.
      recompute: see `Execution`.

    Raises:
      ConfigError: the model's input height or width is free.
    """
    rows = {row.name: row for row in layer_rows(model)}
    if not recompute:
        return totals_of(rows.values()).num_kept_values
    _, _, blocks = _blocks_of(model)
    inside, handed_on = {True: [0], False: [0]}, 0
    for block in blocks:
        inside[block.is_stage].append(sum(rows[name].num_kept_values for name in block.names))
        handed_on += sum(rows[name].num_activation_values for name in block.outputs)
    return handed_on + sum(inside[False]) + max(inside[True])


class _Block:
    """Layers that are run together, between tensors that others take.

    Attributes:
      names: of its layers.
      inputs, outputs: names of the layers (or of the model's input) that give and take its tensors.
      trainable, fixed: its Keras variables.
      is_stage: whether it belongs to the trunk.
      signature: equal for blocks that compute the same function of inputs and values.
    """

    def __init__(self, members, outputs, *, is_stage):
        self._steps = merge(members, outputs)
        self.outputs = outputs
        self.is_stage = is_stage
        self.names = {wire.layer.name for wire in members}
        outer = [name for wire in members for name in wire.sources if name not in self.names]
        self.inputs = list(dict.fromkeys(outer))
        self.trainable = [v for wire in members for v in wire.layer.trainable_variables]
        self.fixed = [v for wire in members for v in wire.layer.non_trainable_variables]
        self.signature = self._signature(members)

    def run(self, inputs, trainable, fixed):
        """([output], [new value of a fixed variable]) of tensors in the order of the attributes."""
        mapping = zip([*self.trainable, *self.fixed], [*trainable, *fixed], strict=True)
        found = dict(zip(self.inputs, inputs, strict=True))
        with keras.StatelessScope(state_mapping=list(mapping)) as scope:
            for step in self._steps:
                step(found)
            changed = [scope.get_current_value(variable) for variable in self.fixed]
        return [found[name] for name in self.outputs], changed

    def _signature(self, members):
        numbers = {name: f"input {i}" for i, name in enumerate(self.inputs)}
        numbers.update((wire.layer.name, i) for i, wire in enumerate(members))
        parts = [[numbers[name] for name in self.outputs], self.is_stage]
        for wire in members:
            layer = wire.layer
            config = {
                name: value
                for name, value in layer.get_config().items()
                # A seed sets the variable's first value, and values are given.
                if name not in ("name", "seed") and not name.endswith("_initializer")
            }
            parts.append([
                type(layer).__name__, config, [numbers[name] for name in wire.sources],
                [x.shape for x in keras.tree.flatten(layer.input)], layer.trainable,
                [(v.shape, v.dtype, v.trainable) for v in layer.variables],
            ])  # fmt: skip
        return json.dumps(parts, default=str)


def traced_once(compute):
    """A function of tensors as one of a graph, traced once for all calls that are alike."""
    return tf.function(compute, autograph=False, experimental_attributes=_KEPT)


def _recomputed(block):
    """`block.run`, which is run again to get its gradient."""
    forward = traced_once(block.run)

    @functools.partial(tf.function, autograph=False, experimental_attributes=_KEPT)
    def backward(inputs, trainable, fixed, upstream):
        watched = [*inputs, *trainable]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            outputs, _ = block.run(inputs, trainable, fixed)
        return tape.gradient(outputs, watched, upstream, unconnected_gradients="zero")

    def run(inputs, trainable, fixed):
        num_outputs = len(block.outputs)

        @tf.custom_gradient
        def call(*watched):
            inner, values = watched[: len(inputs)], watched[len(inputs) :]
            outputs, changed = forward(list(inner), list(values), fixed)

            def gradient(*upstream):
                return backward(list(inner), list(values), fixed, list(upstream[:num_outputs]))

            return (*outputs, *changed), gradient

        results = call(*inputs, *trainable)
        return results[:num_outputs], results[num_outputs:]

    return run


def _blocks_of(model):
    """(name of the model's input, structure of the names of its outputs, its blocks in order)."""
    everything = wires(model, model.output)
    by_name = {wire.layer.name: wire for wire in everything}
    producers = producers_of(model)
    outputs = keras.tree.map_structure(lambda x: producers[id(x)].name, model.output)
    input_name = producers[id(model.input)].name
    placed = {input_name}
    stages = []
    for name in endpoints(model):
        members = _ancestors(name, by_name, placed)
        placed |= members
        # Boxes one after the other, as in a stem, are one block: nothing but their input is kept.
        if len(members) == 1 and stages and stages[-1][1]:
            stages[-1] = (stages[-1][0] | members, True)
        elif members:
            stages.append((members, len(members) == 1))
    parts = [(members, True) for members, _ in stages]
    parts.append(({name for name in by_name if name not in placed}, False))
    blocks = []
    for names, is_stage in parts:
        members = [wire for wire in everything if wire.layer.name in names]
        taken = set(keras.tree.flatten(outputs))
        taken.update(n for w in everything if w.layer.name not in names for n in w.sources)
        ends = [wire.layer.name for wire in members if wire.layer.name in taken]
        if members:
            blocks.append(_Block(members, ends, is_stage=is_stage))
    return input_name, outputs, blocks


def _ancestors(name, by_name, placed):
    """Names of the layers that a layer needs, itself included, without those in `placed`."""
    found, pending = set(), [name]
    while pending:
        name = pending.pop()
        if name not in found and name not in placed:
            found.add(name)
            pending.extend(by_name[name].sources)
    return found
