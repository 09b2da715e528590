"""Sibling 1x1 convolutions as one wider convolution."""

import tensorflow as tf

from inception_tf.models.layers import ConvUnit, normalize


def merge(members):
    """The steps that run some layers in training: functions that add to {name: tensor}.

    1x1 convolutions with stride 1 that read the same tensor and differ in their variables alone are
    one step: three narrow products of matrices are slower than a wide one, and so are their
    gradients. The variables stay those of the layers.

    Args:
      members: list of Wire, each after those that it takes.
    """
    siblings = {}
    for wire in members:
        layer = wire.layer
        if isinstance(layer, ConvUnit) and layer.kernel_size == layer.strides == (1, 1):
            siblings.setdefault(_sibling_key(wire), []).append(wire)
    groups = {group[0].layer.name: group for group in siblings.values() if len(group) > 1}
    grouped = {wire.layer.name for group in groups.values() for wire in group}
    steps = []
    for wire in members:
        name = wire.layer.name
        if name in groups:
            steps.append(_Siblings(groups[name]))
        elif name not in grouped:
            steps.append(_Single(wire))
    return steps


def _sibling_key(wire):
    layer = wire.layer
    return (wire.sources, layer.use_relu, layer.use_scale, layer.momentum, layer.epsilon,
            layer.trainable, layer.compute_dtype)  # fmt: skip


class _Single:
    def __init__(self, wire):
        self._wire = wire

    def __call__(self, found):
        inputs = [found[name] for name in self._wire.sources]
        layer = self._wire.layer
        x = inputs if len(inputs) > 1 else inputs[0]
        found[layer.name] = layer(x, training=True)


class _Siblings:
    def __init__(self, wires):
        self._source = wires[0].sources[0]
        self._layers = [wire.layer for wire in wires]

    def __call__(self, found):
        dtype = self._layers[0].compute_dtype
        x = tf.cast(found[self._source], dtype)
        kernels = [tf.cast(tf.convert_to_tensor(layer.kernel), dtype) for layer in self._layers]
        x = tf.nn.conv2d(x, tf.concat(kernels, axis=-1), strides=1, padding="SAME")
        x = normalize(x, self._layers, training=True)
        parts = tf.split(x, [layer.filters for layer in self._layers], axis=-1)
        found.update(zip((layer.name for layer in self._layers), parts))
