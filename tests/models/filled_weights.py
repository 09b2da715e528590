"""Values for the weights of networks that tests build: random ones, and quickly made zeros."""

import contextlib

import keras
import numpy as np
import pytest


@contextlib.contextmanager
def zero_initial_weights():
    """Inside, weights start at 0: for tests that look at no value, drawing is most of a build."""
    add_weight = keras.layers.Layer.add_weight

    def add_zeros(layer, *args, **kwargs):
        return add_weight(layer, *args, **{**kwargs, "initializer": "zeros"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.layers.Layer, "add_weight", add_zeros)
        yield


def fill_randomly(model, *, seed):
    """Gives stock convolutions, dense layers and batch norms weights and statistics of a seed.

    Kernels keep the size of what passes them on average; statistics are far from 0 and 1.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            shape = tuple(layer.kernel.shape)
            limit = np.sqrt(6 / np.prod(shape[:-1]))
            draws = rng.random(shape, dtype="float32")
            layer.kernel.assign((2 * draws - 1) * np.float32(limit))
            if layer.bias is not None:
                layer.bias.assign(rng.normal(scale=0.1, size=layer.bias.shape))
        elif isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.beta.shape
            layer.beta.assign(rng.normal(scale=0.1, size=shape))
            layer.moving_mean.assign(rng.normal(scale=0.1, size=shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, size=shape))
