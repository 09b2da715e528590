"""The layers of a block as the training step runs them: the same numbers to rounding, sooner."""

import collections

import keras
import tensorflow as tf

from inception_tf.models.layers import ConvUnit, ResidualSum, normalize


def merge(members, outputs):
    """The steps that run some layers in training: functions that add to {name: tensor}.

    - 1x1 convolutions with stride 1 that read the same tensor and differ in their variables alone
      are one step: three narrow products of matrices are slower than a wide one, and so are their
      gradients. The variables stay those of the layers.
    - A residual's scale multiplies the weights of its last convolution, not its values.
    - On CPUs a 1x1 convolution with stride 1 is a product of matrices: above all its weights'
      gradient then is, for which oneDNN's convolution takes more than twice as long in bfloat16.
      GPUs keep the convolution: the layout of its tensors is their own choice.

    What each brings is told in docs/results.md.

    Args:
      members: list of Wire, each after those that it takes.
      outputs: names of the members whose tensors others take.
    """
    pointwise = _convolution if tf.config.list_logical_devices("GPU") else _product
    by_name = {wire.layer.name: wire for wire in members}
    readers = collections.Counter([*outputs, *(name for w in members for name in w.sources)])
    siblings = collections.defaultdict(list)
    projections = {}  # name of a residual sum -> the wire of the convolution that it scales
    for wire in members:
        if isinstance(wire.layer, ConvUnit) and _is_pointwise(wire.layer):
            siblings[_sibling_key(wire)].append(wire)
        elif isinstance(wire.layer, ResidualSum):
            last = by_name.get(wire.sources[1])
            if last and _is_projection(last.layer) and readers[last.layer.name] == 1:
                projections[wire.layer.name] = last
    firsts = {wires[0].layer.name: wires for wires in siblings.values()}
    elsewhere = {wire.layer.name for wires in siblings.values() for wire in wires[1:]}
    elsewhere |= {wire.layer.name for wire in projections.values()}
    steps = []
    for wire in members:
        name = wire.layer.name
        if name in firsts:
            steps.append(_Units(firsts[name], pointwise))
        elif name in projections:
            steps.append(_Residual(wire, projections[name], pointwise))
        elif name not in elsewhere:
            steps.append(_Single(wire))
    return steps


def _sibling_key(wire):
    layer = wire.layer
    return (wire.sources, layer.use_relu, layer.use_scale, layer.momentum, layer.epsilon,
            layer.trainable, layer.compute_dtype)  # fmt: skip


def _is_pointwise(layer):
    return tuple(layer.kernel_size) == tuple(layer.strides) == (1, 1)


def _is_projection(layer):
    """Whether a layer is what ends a residual: a 1x1 convolution with a bias and nothing else."""
    return (
        isinstance(layer, keras.layers.Conv2D)
        and _is_pointwise(layer)
        and layer.groups == 1
        and layer.use_bias
        and layer.activation is keras.activations.linear
    )


def _convolution(x, kernel):
    """1x1 convolution of [N, H, W, C] with [1, 1, C, filters]."""
    return tf.nn.conv2d(x, kernel, strides=1, padding="SAME")


def _product(x, kernel):
    """`_convolution` where H and W are known."""
    channels, filters = kernel.shape[2:]
    y = tf.matmul(tf.reshape(x, [-1, channels]), tf.reshape(kernel, [channels, filters]))
    return tf.reshape(y, [-1, *x.shape[1:3], filters])


class _Single:
    def __init__(self, wire):
        self._wire = wire

    def __call__(self, found):
        inputs = [found[name] for name in self._wire.sources]
        layer = self._wire.layer
        x = inputs if len(inputs) > 1 else inputs[0]
        found[layer.name] = layer(x, training=True)


class _Units:
    """A `ConvUnit` with a 1x1 kernel, or several that read the same tensor."""

    def __init__(self, wires, pointwise):
        self._source = wires[0].sources[0]
        self._layers = [wire.layer for wire in wires]
        self._pointwise = pointwise

    def __call__(self, found):
        x, *own = _cast(
            self._layers[0], found[self._source], *(layer.kernel for layer in self._layers)
        )
        kernel = own[0] if len(own) == 1 else tf.concat(own, axis=-1)
        x = normalize(self._pointwise(x, kernel), self._layers, training=True)
        parts = [x]
        if len(own) > 1:
            parts = tf.split(x, [layer.filters for layer in self._layers], axis=-1)
        found.update(zip((layer.name for layer in self._layers), parts))


class _Residual:
    """A `ResidualSum` and the 1x1 convolution whose result it scales."""

    def __init__(self, wire, last, pointwise):
        self._layer, self._shortcut = wire.layer, wire.sources[0]
        self._last, (self._source,) = last.layer, last.sources
        self._pointwise = pointwise

    def __call__(self, found):
        last, scale = self._last, self._layer.scale
        kernel, bias = (tf.convert_to_tensor(v) * scale for v in (last.kernel, last.bias))
        x, kernel, bias = _cast(last, found[self._source], kernel, bias)
        scaled = tf.nn.bias_add(self._pointwise(x, kernel), bias)
        (shortcut,) = _cast(self._layer, found[self._shortcut])
        found[self._layer.name] = self._layer.add(shortcut, scaled)


def _cast(layer, *values):
    """Values in the dtype that a layer computes in."""
    return [tf.cast(tf.convert_to_tensor(value), layer.compute_dtype) for value in values]
