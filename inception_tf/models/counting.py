"""What a network costs and holds, counted on the built model."""

import math

import keras

from inception_tf.errors import ConfigError
from inception_tf.models.layers import ConvUnit, has_batch_norm


def count_parameters(model):
    """Values of a model's weights, moving statistics included; no state of random generators."""
    return count_values(model.weights)


def count_values(variables):
    """Values of some variables together."""
    return sum(math.prod(variable.shape) for variable in variables)


def count_multiply_adds(model):
    """Multiply-adds per image of a model's convolutions and dense layers at its input size.

    Raises:
      ConfigError: the model's input height or width is free.
    """
    return sum(layer_multiply_adds(layer) for layer in model.layers)


def layer_multiply_adds(layer):
    """Multiply-adds per image of one layer of a model; see `count_multiply_adds`."""
    if isinstance(layer, (ConvUnit, keras.layers.Conv2D)):
        return math.prod(layer.kernel.shape) * _grid_size(layer)
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape)
    return 0


def count_activation_values(model):
    """Values per image of all layers' outputs, the images themselves among them.

    Raises:
      ConfigError: the model's input height or width is free.
    """
    return sum(layer_activation_values(layer) for layer in model.layers)


def layer_activation_values(layer):
    """Values per image of one layer's output; see `count_activation_values`."""
    return _grid_size(layer) * layer.output.shape[-1]


def smallest_batch_norm_counts(model):
    """Values per image that each trained batch norm's statistics rest on, the fewest first.

    A declared replica of n images gives n times as many per channel; from fewer than 2 no variance
    can be estimated.

    Returns:
      list of (layer name, height * width of its output at the model's input size).

    Raises:
      ConfigError: the model's input height or width is free.
    """
    layers = [
        layer
        for layer in model.layers
        if has_batch_norm(layer) and layer.trainable
    ]
    counts = [(layer.name, _grid_size(layer)) for layer in layers]
    return sorted(counts, key=lambda named: named[1])


def _grid_size(layer):
    sizes = layer.output.shape[1:-1]
    if None in sizes:
        raise ConfigError(
            "Counting needs a model whose input height and width are fixed.",
            received=f"layer {layer.name} with output {tuple(layer.output.shape)}",
            remedy="Build it with an input_shape.",
        )
    return math.prod(sizes)
