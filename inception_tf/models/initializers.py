"""Initial weights: each a pure function of the model's seed and the layer's name.

An initializer here is a function (seed, layer name) -> `keras.initializers.Initializer`.
"""

import hashlib

import keras

# Standard deviation of a standard normal that is cut off at two of its standard deviations.
_TRUNCATED_STDDEV = 0.87962566103423978


def layer_seed(seed, layer_name):
    """Seed of one layer's random numbers: a pure function of the model's seed and its name.

    Keyed by name and not by order of creation, so that adding a head or a block changes no other
    layer's initial weights.

    Returns:
      int in [0, 2**31).
    """
    digest = hashlib.sha256(f"{seed}/{layer_name}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def xavier_uniform(seed, layer_name):
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), slim's default; both fans count kh * kw.

    The released Inception-ResNet-v2 names no initializer, so it has this one everywhere; in all
    released networks the dense layers have it.
    """
    return keras.initializers.GlorotUniform(seed=layer_seed(seed, layer_name))


def slim_variance_scaling(seed, layer_name):
    """Truncated normal of stddev sqrt(1.3 * 2 / fan_in) before the cut, fan_in = kh * kw * C.

    Of the convolutions of the released Inception-v3 and v4 (`inception_arg_scope`). Keras'
    VarianceScaling divides by the cut's own stddev, which the scale here takes back.
    """
    return keras.initializers.VarianceScaling(
        scale=1.3 * 2.0 * _TRUNCATED_STDDEV**2,
        mode="fan_in",
        distribution="truncated_normal",
        seed=layer_seed(seed, layer_name),
    )


def truncated_normal(stddev):
    """Initializer of a fixed stddev before the cut at two of them."""

    def initializer(seed, layer_name):
        return keras.initializers.TruncatedNormal(
            stddev=stddev, seed=layer_seed(seed, layer_name)
        )

    return initializer
