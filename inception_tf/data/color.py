"""Random changes of an image's colours, as the released trainers make them."""

from collections.abc import Callable

import tensorflow as tf

# One of the orderings is chosen per image. 'full' and 'fast' are slim's inception_preprocessing.py
# with fast_mode=False and True, 'distributed' is inception/image_processing.py.
ORDERINGS = {
    "full": (
        ("brightness", "saturation", "hue", "contrast"),
        ("saturation", "brightness", "contrast", "hue"),
        ("contrast", "hue", "brightness", "saturation"),
        ("hue", "saturation", "contrast", "brightness"),
    ),
    "fast": (("brightness", "saturation"),),
    "distributed": (
        ("brightness", "saturation", "hue", "contrast"),
        ("brightness", "contrast", "saturation", "hue"),
    ),
    "tpu_fast": (("brightness", "chroma"),),
    "none": ((),),
}

# The argument that says how large each operation may be.
MAGNITUDE_OF = {
    "brightness": "brightness_delta",
    "saturation": "saturation_range",
    "hue": "hue_delta",
    "contrast": "contrast_range",
    "chroma": "chroma_delta",
}


def compiled_distortion(
    operations: tuple[str, ...], *, magnitudes, first: Callable, last: Callable
) -> Callable:
    """`f(image, *amounts)`: first, `distort` and last, compiled to as few passes as can be.

    Some sixty passes over the pixels become one loop, or two where the contrast is changed: its
    means, which need all that comes before, are TensorFlow's own op, since XLA's sums depend on
    the number of threads. Each size of images is compiled for itself.

    Args:
      operations: one ordering of `ORDERINGS`.
      magnitudes: as for `distort`.
      first, last: elementwise functions of the image, before and after.
    """

    def compiled(function):
        return tf.function(function, jit_compile=True, autograph=False)

    def at_once(image, *amounts):
        distorted = distort(
            first(image), operations=operations, amounts=amounts, magnitudes=magnitudes
        )
        return last(distorted)

    if "contrast" not in operations:
        return compiled(at_once)
    cut = operations.index("contrast")

    @compiled
    def head(image, *amounts):
        planes = tf.transpose(first(image), [2, 0, 1])
        return _change_planes(planes, operations[:cut], amounts, magnitudes)

    @compiled
    def tail(planes, means, *amounts):
        planes = _change_planes(planes, operations[cut:], amounts, magnitudes, means=means)
        return last(tf.transpose(planes, [1, 2, 0]))

    def in_two(image, *amounts):
        planes = head(image, *amounts)
        return tail(planes, _means(planes), *amounts)

    return in_two


def distort(
    image: tf.Tensor, *, operations: tuple[str, ...], amounts: list[tf.Tensor], magnitudes
) -> tf.Tensor:
    """The image with its colours distorted, not yet clipped.

    Args:
      image: float32 [H, W, 3] in [0, 1].
      operations: one ordering of `ORDERINGS`.
      amounts: four float32 scalars in [0, 1), where in its range each of brightness,
        saturation, hue and contrast lies; with 'chroma' those of brightness, Cb and Cr.
      magnitudes: anything with the attributes that `MAGNITUDE_OF` names.

    Returns:
      float32 [H, W, 3]; brightness, contrast and bicubic resizing lead outside [0, 1].
    """
    if not operations:
        return image
    if "chroma" in operations:
        deltas = magnitudes.brightness_delta, *[magnitudes.chroma_delta] * 2
        offsets = [_between(amount, -delta, delta) for amount, delta in zip(amounts, deltas)]
        return shift_chroma(image, *offsets)
    planes = tf.transpose(image, [2, 0, 1])
    planes = _change_planes(planes, operations, amounts, magnitudes)
    return tf.transpose(planes, [1, 2, 0])


def shift_chroma(
    image: tf.Tensor, brightness: tf.Tensor, cb: tf.Tensor, cr: tf.Tensor
) -> tf.Tensor:
    """Offsets of Y, Cb and Cr (BT.601, full range) added to an RGB image, float32 [H, W, 3]."""
    red = 1.402 * cr + brightness
    green = -0.344136 * cb - 0.714136 * cr + brightness
    blue = 1.772 * cb + brightness
    return image + tf.stack([red, green, blue])


def scale_contrast(
    planes: tf.Tensor, factor: tf.Tensor, *, means: tf.Tensor | None = None
) -> tf.Tensor:
    """(x - mean) * factor + mean, with each channel's own mean.

    Args:
      planes: float32 [3, H, W].
      factor: float32 scalar.
      means: float32 [3, 1, 1] where they are known.
    """
    means = _means(planes) if means is None else means
    return (planes - means) * factor + means


def scale_saturation(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The saturation of HSV times `factor`, capped at 1; planes float32 [3, H, W].

    With V = max and S = (max - min) / V, a new S' only moves each channel's distance to V by
    S' / S = min(factor, 1 / S), so the hue is not needed. Without a positive V, S counts as 0.
    """
    value, least = _value_and_least(planes)
    inverse = tf.math.divide_no_nan(tf.maximum(value, 0.0), value - least)
    return value - (value - planes) * tf.minimum(factor, inverse)


def turn_hue(planes: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """The hue of HSV turned by `delta` of a full circle; planes float32 [3, H, W].

    Maximum and minimum of each pixel stay, also outside [0, 1].
    """
    value, least = _value_and_least(planes)
    red, green, blue = tf.unstack(planes)
    spread = value - least
    inverse = tf.math.reciprocal_no_nan(spread)
    sixths = tf.where(
        tf.equal(value, red),
        (green - blue) * inverse,
        tf.where(
            tf.equal(value, green), 2.0 + (blue - red) * inverse, 4.0 + (red - green) * inverse
        ),
    )
    turns = sixths / 6.0 + delta
    sixths = (turns - tf.floor(turns)) * 6.0
    ramps = tf.stack(
        [tf.abs(sixths - 3.0) - 1.0, 2.0 - tf.abs(sixths - 2.0), 2.0 - tf.abs(sixths - 4.0)]
    )
    return least + spread * tf.clip_by_value(ramps, 0.0, 1.0)


def pick(branches: list, index: tf.Tensor):
    """Runs the branch with this number, an int32 scalar."""
    return branches[0]() if len(branches) == 1 else tf.switch_case(index, branches)


def _means(planes):
    return tf.reduce_mean(planes, axis=[1, 2], keepdims=True)


def _change_planes(planes, operations, amounts, magnitudes, *, means=None):
    """`distort` of colour planes, float32 [3, H, W], which are contiguous to every operation."""
    of = magnitudes
    brightness, saturation, hue, contrast = amounts[:4]
    change = {
        "brightness": lambda x: x + _between(brightness, -of.brightness_delta, of.brightness_delta),
        "saturation": lambda x: scale_saturation(x, _between(saturation, *of.saturation_range)),
        "hue": lambda x: turn_hue(x, _between(hue, -of.hue_delta, of.hue_delta)),
        "contrast": lambda x: scale_contrast(
            x, _between(contrast, *of.contrast_range), means=means
        ),
    }
    for name in operations:
        planes = change[name](planes)
    return planes


def _between(uniform, low, high):
    return low + uniform * (high - low)


def _value_and_least(planes):
    red, green, blue = tf.unstack(planes)
    value = tf.maximum(tf.maximum(red, green), blue)
    return value, tf.minimum(tf.minimum(red, green), blue)
