"""Random changes of an image's colours, as the released trainers make them."""

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


def distort(
    image: tf.Tensor,
    *,
    kind: str,
    ordering: tf.Tensor,
    amounts: list[tf.Tensor],
    magnitudes,
) -> tf.Tensor:
    """The image with its colours distorted, not yet clipped.

    Args:
      image: float32 [H, W, 3] in [0, 1].
      kind: a key of `ORDERINGS`.
      ordering: int32 scalar, which of the kind's sequences of operations.
      amounts: four float32 scalars in [0, 1), where in its range each of brightness,
        saturation, hue and contrast lies; of 'tpu_fast' brightness, Cb and Cr.
      magnitudes: anything with the attributes that `MAGNITUDE_OF` names.

    Returns:
      float32 [H, W, 3]; brightness, contrast and bicubic resizing lead outside [0, 1].
    """
    if kind == "none":
        return image
    of = magnitudes
    if kind == "tpu_fast":
        offsets = [
            _between(amount, -delta, delta)
            for amount, delta in zip(amounts, (of.brightness_delta, *[of.chroma_delta] * 2))
        ]
        return shift_chroma(image, *offsets)
    brightness, saturation, hue, contrast = amounts
    operations = {
        "brightness": lambda x: x + _between(brightness, -of.brightness_delta, of.brightness_delta),
        "saturation": lambda x: scale_saturation(x, _between(saturation, *of.saturation_range)),
        "hue": lambda x: turn_hue(x, _between(hue, -of.hue_delta, of.hue_delta)),
        "contrast": lambda x: scale_contrast(x, _between(contrast, *of.contrast_range)),
    }

    def apply(names):
        distorted = planes
        for name in names:
            distorted = operations[name](distorted)
        return distorted

    # Colour planes let every operation run over contiguous rows: saturation and hue take 1.1 ms
    # at 299 px against 3.7 ms of tf.image's kernels (one core), transposing both ways included.
    planes = tf.transpose(tf.reshape(image, [-1, 3]))
    planes = pick([lambda names=names: apply(names) for names in ORDERINGS[kind]], ordering)
    return tf.reshape(tf.transpose(planes), tf.shape(image))


def shift_chroma(
    image: tf.Tensor, brightness: tf.Tensor, cb: tf.Tensor, cr: tf.Tensor
) -> tf.Tensor:
    """Offsets of Y, Cb and Cr (BT.601, full range) added to an RGB image, float32 [H, W, 3]."""
    red = 1.402 * cr + brightness
    green = -0.344136 * cb - 0.714136 * cr + brightness
    blue = 1.772 * cb + brightness
    return image + tf.stack([red, green, blue])


def scale_contrast(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """(x - mean) * factor + mean, with each channel's own mean; planes float32 [3, pixels]."""
    mean = tf.reduce_mean(planes, axis=1, keepdims=True)
    return (planes - mean) * factor + mean


def scale_saturation(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The saturation of HSV times `factor`, capped at 1; planes float32 [3, pixels].

    With V = max and S = (max - min) / V, a new S' only moves each channel's distance to V by
    S' / S = min(factor, 1 / S), so the hue is not needed. Without a positive V, S counts as 0.
    """
    value, least = _value_and_least(planes)
    inverse = tf.math.divide_no_nan(tf.maximum(value, 0.0), value - least)
    return value - (value - planes) * tf.minimum(factor, inverse)


def turn_hue(planes: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """The hue of HSV turned by `delta` of a full circle; planes float32 [3, pixels].

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


def _between(uniform, low, high):
    return low + uniform * (high - low)


def _value_and_least(planes):
    red, green, blue = tf.unstack(planes)
    value = tf.maximum(tf.maximum(red, green), blue)
    return value, tf.minimum(tf.minimum(red, green), blue)
