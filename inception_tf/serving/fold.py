"""A network for inference alone: batch norm and residual scales folded into its convolutions.

Batch norm with fixed statistics is a multiplication and an addition per channel, and what stands
before it is linear, so both go into the convolution's own numbers:

    scale   = gamma / sqrt(variance + epsilon)
    kernel' = kernel * scale
    bias'   = (bias - mean) * scale + beta

A residual's scale goes into the linear convolution that ends it. What is left is a list of plain
operations, from which TensorFlow's graph and the ONNX file are written (serving/graph.py,
serving/onnx_file.py). Dropout and the auxiliary head, which only training uses, are not in it.
"""

import collections
import dataclasses

import keras
import numpy as np

from inception_tf.errors import ConfigError
from inception_tf.models.layers import ConvUnit, Dropout, ResidualSum, SumNorm, is_seed_state
from inception_tf.models.wiring import wires

CONV, AFFINE, ADD, CONCAT, DENSE = "conv", "affine", "add", "concat", "dense"
MAX_POOL, AVERAGE_POOL, GLOBAL_MEAN = "max_pool", "average_pool", "global_mean"
INPUT = "images"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of a folded network, on [N, H, W, C] (`dense`: [N, C]).

    Attributes:
      kind: one of the constants above.
      name: of the layer that it comes from, unique.
      inputs: names of the operations that it takes; `INPUT` for the images.
      kernel: float32 [kh, kw, C, filters] of `conv`, [C, outputs] of `dense`, [C] of `affine`.
      bias: float32 [filters], [outputs] or [C].
      window, strides: (vertical, horizontal) of `conv` and the pools.
      padding: 'same' or 'valid'; an average counts no padded zeros.
      has_relu: whether it ends with ReLU.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    kernel: np.ndarray | None = None
    bias: np.ndarray | None = None
    window: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: str = "valid"
    has_relu: bool = False


@dataclasses.dataclass(frozen=True)
class FoldedNetwork:
    """Images float32 [N, H, W, C] in [-1, 1] to logits float32 [N, outputs].

    Attributes:
      input_shape: (H, W, C).
      operations: each after those that it takes.
      logits: name of the operation that gives them.
      features: name of what the classifier takes, [N, C]: the trunk, averaged over its last grid.
    """

    input_shape: tuple[int, int, int]
    operations: tuple[Operation, ...]
    logits: str
    features: str

    @property
    def num_outputs(self):
        """Logits, the background's included."""
        return self.operations[-1].kernel.shape[-1]


def fold(model, values=None) -> FoldedNetwork:
    """The folded network of a model under given values.

    Computed in float64 and rounded once, to float32.

    Args:
      model: functional keras.Model of this project's layers and Keras' own Conv2D,
        BatchNormalization, pools, Concatenate, Dropout and Dense, one dense layer last; images ->
        logits, or a dict with 'logits'. It is not changed.
      values: (trainable, non-trainable) in the order of the model's lists: variables, tensors or
        arrays; None takes the model's own.

    Raises:
      ConfigError: a layer that is none of these, or another end.
    """
    by_path = values_by_path(model, values)
    output = model.output["logits"] if isinstance(model.output, dict) else model.output
    layers = [(wire.layer, wire.sources) for wire in wires(model, output)]
    operations = {}
    for layer, sources in layers:
        for operation in _operations_of(layer, sources, by_path):
            operations[operation.name] = operation
    ordered = _without_scales(tuple(_skip_identities(operations, layers).values()))
    if not ordered or ordered[-1].kind != DENSE:
        raise ConfigError(
            "An export needs a network that ends with a dense layer.",
            received=f"it ends with {layers[-1][0].name}",
        )
    return FoldedNetwork(
        input_shape=tuple(model.input_shape[1:]),
        operations=ordered,
        logits=ordered[-1].name,
        features=ordered[-1].inputs[0],
    )


def values_by_path(model, values=None) -> dict[str, np.ndarray]:
    """The values of a model's weights by their Keras paths, without the states of its dropout.

    By path and not by place: freezing moves variables from one list to the other.

    Args:
      model, values: see `fold`.
    """
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    given = variables if values is None else [*values[0], *values[1]]
    return {
        variable.path: np.asarray(value.numpy() if hasattr(value, "numpy") else value)
        for variable, value in zip(variables, given, strict=True)
        if not is_seed_state(variable.path)
    }


def _operations_of(layer, inputs, by_path):
    """The operations of a layer; none for one that inference passes through."""

    def value(variable):
        return None if variable is None else by_path[variable.path].astype(np.float64)

    def make(kind, **fields):
        return Operation(kind=kind, inputs=inputs, **{"name": layer.name, **fields})

    if isinstance(layer, (keras.layers.InputLayer, Dropout, keras.layers.Dropout)):
        return []
    if isinstance(layer, ConvUnit):
        scale, shift = _norm_of(layer, value)
        return [make(CONV, kernel=value(layer.kernel) * scale, bias=shift,
                     has_relu=layer.use_relu, **_window_of(layer, layer.kernel_size))]  # fmt: skip
    if isinstance(layer, (SumNorm, keras.layers.BatchNormalization)):
        scale, shift = _norm_of(layer, value)
        return [make(AFFINE, kernel=scale, bias=shift, has_relu=getattr(layer, "use_relu", False))]
    if isinstance(layer, ResidualSum):
        name, (x, up) = f"{layer.name}_scaled", inputs
        scale = np.full(layer.output.shape[-1], layer.scale, np.float64)
        scaled = make(AFFINE, name=name, kernel=scale, bias=np.zeros_like(scale))
        return [
            dataclasses.replace(scaled, inputs=(up,)),
            dataclasses.replace(make(ADD, has_relu=layer.use_relu), inputs=(x, name)),
        ]
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        kernel, bias = value(layer.kernel), value(layer.bias)
        bias = np.zeros(kernel.shape[-1], np.float64) if bias is None else bias
        is_conv = isinstance(layer, keras.layers.Conv2D)
        return [make(CONV if is_conv else DENSE, kernel=kernel, bias=bias,
                     has_relu=_activation_of(layer) == "relu",
                     **(_window_of(layer, layer.kernel_size) if is_conv else {}))]  # fmt: skip
    for kind, known in ((MAX_POOL, keras.layers.MaxPooling2D),
                        (AVERAGE_POOL, keras.layers.AveragePooling2D)):  # fmt: skip
        if isinstance(layer, known):
            return [make(kind, **_window_of(layer, layer.pool_size))]
    for kind, known in ((GLOBAL_MEAN, keras.layers.GlobalAveragePooling2D),
                        (CONCAT, keras.layers.Concatenate)):  # fmt: skip
        if isinstance(layer, known):
            return [make(kind)]
    raise ConfigError(
        "An export knows this project's layers and the plain ones of Keras.",
        received=f"{type(layer).__name__} {layer.name!r}",
        remedy="Export such a model with Keras' own model.export().",
    )


def _norm_of(layer, value):
    """Batch norm as y = scale * x + shift, float64 [C] each."""
    mean, variance = value(layer.moving_mean), value(layer.moving_variance)
    scale = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * value(layer.gamma)
    shift = -mean * scale
    return scale, shift if layer.beta is None else shift + value(layer.beta)


def _window_of(layer, size):
    """A layer's window as fields of an Operation; ConfigError where it has what they cannot say."""
    dilation = tuple(getattr(layer, "dilation_rate", (1, 1)))
    if dilation != (1, 1) or getattr(layer, "groups", 1) != 1:
        raise ConfigError(
            "An export knows convolutions without dilation and groups.", received=layer.name
        )
    return {
        "window": tuple(size), "strides": tuple(layer.strides), "padding": layer.padding,
    }  # fmt: skip


def _activation_of(layer):
    name = getattr(layer.activation, "__name__", str(layer.activation))
    if name not in ("relu", "linear"):
        raise ConfigError(
            "An export knows ReLU alone.", received=f"{name} of layer {layer.name!r}"
        )
    return name


def _skip_identities(operations, layers):
    """The operations, each taking what stands before the layers that left none."""
    instead = {}
    for layer, sources in layers:
        if layer.name not in operations:
            instead[layer.name] = instead.get(sources[0], sources[0]) if sources else INPUT
    return {
        name: dataclasses.replace(
            operation, inputs=tuple(instead.get(source, source) for source in operation.inputs)
        )
        for name, operation in operations.items()
    }


def _without_scales(operations):
    """The operations in float32, every `affine` that can be in the linear convolution before it."""
    num_takers = collections.Counter(name for operation in operations for name in operation.inputs)
    kept, instead = {}, {}
    for operation in operations:
        inputs = tuple(instead.get(name, name) for name in operation.inputs)
        before = kept.get(inputs[0])
        is_linear = before is not None and before.kind == CONV and not before.has_relu
        # A convolution that others take too has to stay as it is.
        if operation.kind == AFFINE and is_linear and num_takers[operation.inputs[0]] == 1:
            kept[before.name] = dataclasses.replace(
                before,
                kernel=before.kernel * operation.kernel,
                bias=before.bias * operation.kernel + operation.bias,
                has_relu=operation.has_relu,
            )
            instead[operation.name] = before.name
        else:
            kept[operation.name] = dataclasses.replace(operation, inputs=inputs)

    def rounded(values):
        return None if values is None else values.astype(np.float32)

    return tuple(
        dataclasses.replace(one, kernel=rounded(one.kernel), bias=rounded(one.bias))
        for one in kept.values()
    )
