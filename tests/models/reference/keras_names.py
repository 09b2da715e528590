"""Values of keras.applications' InceptionV3 and InceptionResNetV2 by tf-slim's scopes."""

import keras
import numpy as np

from reference.layer_rows import Values, read_rows


def randomize_batch_norm(model, *, seed):
    """Random beta and statistics for every batch norm of a Keras model."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.beta.shape
            layer.beta.assign(rng.normal(scale=0.1, size=shape))
            layer.moving_mean.assign(rng.normal(scale=0.1, size=shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, size=shape))


def keras_values(model, network):
    """Function Row -> Values that reads a keras.applications model with its classifier.

    The unnamed convolutions of both networks are numbered in the order of the layer table's rows,
    branch by branch.
    """
    numbered = {
        kind: sorted(
            (layer for layer in model.layers if layer.name.startswith(prefix)), key=_number
        )
        for kind, prefix in (("conv", "conv2d"), ("norm", "batch_normalization"))
    }
    units = iter(zip(numbered["conv"], numbered["norm"], strict=True))
    values = {}
    for name, row in read_rows(network).items():
        if "/AuxLogits/" in name:
            continue
        if "/Logits/" in name:
            values[name] = _biased(model.get_layer("predictions"))
        elif row.norm == "bias":
            block = name.split("/")[-2].replace("Block8", "block8_10")
            values[name] = _biased(model.get_layer(f"{block}_conv"))
        elif name.endswith("Conv2d_7b_1x1"):
            values[name] = _normed(model.get_layer("conv_7b"), model.get_layer("conv_7b_bn"))
        else:
            values[name] = _normed(*next(units))
    if next(units, None) is not None:
        raise ValueError(f"Keras' {network} has more convolutions than the layer table.")
    return lambda row: values[row.name]


def _number(layer):
    """Number at the end of 'conv2d_7'; the first layer of a kind has none."""
    ending = layer.name.rpartition("_")[2]
    return int(ending) if ending.isdigit() else 0


def _biased(layer):
    kernel, bias = layer.get_weights()
    return Values(kernel=kernel if kernel.ndim == 4 else kernel[None, None], bias=bias)


def _normed(conv, norm):
    beta, mean, variance = norm.get_weights()
    return Values(kernel=conv.get_weights()[0], beta=beta, mean=mean, variance=variance)
