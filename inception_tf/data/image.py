"""From JPEG bytes to a network's input, one image at a time: decode, crop, colour.

The released recipe (slim preprocessing/inception_preprocessing.py): TF1's resizing without
half-pixel centres, and colour distortions that are clipped once, at the very end. Everything
random is a pure function of a key, so the same position of a run gives the same pixels on any
worker and after any resume.
"""

import dataclasses
import math

import tensorflow as tf

from inception_tf.data import color
from inception_tf.errors import ConfigError
from inception_tf.errors import did_you_mean

# The raw ops because tf.image.resize is half-pixel centred (except 'area'): a shift of up to
# half a pixel against the released weights. Their defaults are TF1's, and they read uint8.
_RESIZE_OPS = {
    "bilinear": tf.raw_ops.ResizeBilinear,
    "nearest": tf.raw_ops.ResizeNearestNeighbor,
    "bicubic": tf.raw_ops.ResizeBicubic,
    "area": tf.raw_ops.ResizeArea,
}

# A JPEG decoded in part differs from the full decode by up to 14 levels in its border columns,
# where the chroma of the neighbours outside is missing to the upsampling filter.
_DECODE_MARGIN_PX = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random part of training images (gin section `augmentation`).

    Defaults: the released recipe, slim's inception_preprocessing.py with fast_mode=False.

    Attributes:
      area_range: crop area as a share of the image, least and most.
      aspect_ratio_range: crop width / height, least and most.
      min_object_covered: least share of the object inside the crop. The object is the whole
        image, as in the released trainer, so 0.1 lifts an area of 0.05 to 0.1.
      max_attempts: draws of a crop before the whole image is used.
      resize_methods: one is drawn per image: 'bilinear', 'nearest', 'bicubic', 'area'.
      horizontal_flip: mirror every second image (p = 0.5).
      color: 'full' (brightness, saturation, hue, contrast in one of four orders), 'fast'
        (brightness, saturation) or 'none'.
    """

    area_range: tuple[float, float] = (0.05, 1.0)
    aspect_ratio_range: tuple[float, float] = (0.75, 1.33)
    min_object_covered: float = 0.1
    max_attempts: int = 100
    resize_methods: tuple[str, ...] = ("bilinear", "nearest", "bicubic", "area")
    horizontal_flip: bool = True
    color: str = "full"

    def __post_init__(self):
        _check_range("area_range", self.area_range, most=1.0)
        _check_range("aspect_ratio_range", self.aspect_ratio_range, most=math.inf)
        if not 0.0 <= self.min_object_covered <= 1.0:
            raise ConfigError(
                "augmentation.min_object_covered must lie in [0, 1].",
                received=repr(self.min_object_covered),
                remedy="The released recipe has 0.1.",
            )
        if self.max_attempts < 1:
            raise ConfigError(
                "augmentation.max_attempts must be at least 1.",
                received=repr(self.max_attempts),
                remedy="The released recipe has 100.",
            )
        methods = self.resize_methods
        if isinstance(methods, str) or not methods:
            raise ConfigError(
                "augmentation.resize_methods must be a tuple of at least one name.",
                received=repr(methods),
                remedy="Write ('bilinear',) for one method; mind the comma.",
            )
        for method in methods:
            _check_name("augmentation.resize_methods", method, _RESIZE_OPS)
        _check_name("augmentation.color", self.color, color.ORDERINGS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationCrop:
    """The fixed crop of evaluation and serving (gin section `evaluation_crop`)."""

    central_fraction: float = 0.875  # of EACH side

    def __post_init__(self):
        if not 0.0 < self.central_fraction <= 1.0:
            raise ConfigError(
                "evaluation_crop.central_fraction must lie in (0, 1].",
                received=repr(self.central_fraction),
                remedy="It is the share of each side; the released evaluation has 0.875.",
            )


def decode_training(
    jpeg: tf.Tensor,
    key: tf.Tensor,
    *,
    augmentation: Augmentation,
    height_px: int,
    width_px: int,
) -> tf.Tensor:
    """One distorted training image: crop, resize, flip, colour.

    Only the crop is decoded, so damage below it goes unseen; evaluation decodes all.

    Args:
      jpeg: string scalar, a whole JPEG file of any colour space.
      key: int64 [2], (seed, position). The image is a pure function of the bytes and this.
      augmentation: an `Augmentation`.
      height_px: rows of the result.
      width_px: columns of the result.

    Returns:
      float32 [height_px, width_px, 3] in [-1, 1], RGB.

    Raises:
      tf.errors.InvalidArgumentError: the bytes are no JPEG or end inside the crop.
    """
    crop_key, choice_key = tf.unstack(tf.random.split(key, num=2, alg="philox"))
    choices = tf.random.stateless_uniform([7], seed=choice_key, alg="philox")
    method, mirror, ordering, *amounts = tf.unstack(choices)

    window = sample_window(
        tf.image.extract_jpeg_shape(jpeg), crop_key, augmentation=augmentation
    )
    crop = decode_window(jpeg, window)
    branches = [
        lambda name=name: _resize(crop, name, height_px=height_px, width_px=width_px)
        for name in augmentation.resize_methods
    ]
    image = color.pick(branches, method)
    if augmentation.horizontal_flip:
        image = tf.cond(mirror < 0.5, lambda: tf.reverse(image, axis=[1]), lambda: image)
    image = color.distort(image, kind=augmentation.color, ordering=ordering, amounts=amounts)
    return tf.ensure_shape(_to_input_range(image), [height_px, width_px, 3])


def decode_evaluation(
    jpeg: tf.Tensor, *, crop: EvaluationCrop, height_px: int, width_px: int
) -> tf.Tensor:
    """The central crop of one image, for evaluation and for serving.

    The whole image is decoded, so that truncated files are seen. PNG, BMP, WebP and GIF (first
    frame) are taken too; gray becomes RGB, transparency is dropped, EXIF rotation is ignored.

    Args:
      jpeg: string scalar, a whole image file.
      crop: an `EvaluationCrop`.
      height_px: rows of the result.
      width_px: columns of the result.

    Returns:
      float32 [height_px, width_px, 3] in [-1, 1], RGB.

    Raises:
      tf.errors.InvalidArgumentError: the bytes are no whole image of a known format.
    """
    # Equal to decode_jpeg on JPEGs; unlike it, rank 3 for every format.
    image = tf.io.decode_image(jpeg, channels=3, expand_animations=False)
    height, width = tf.unstack(tf.shape(image)[:2])
    top = central_offset_px(height, crop.central_fraction)
    left = central_offset_px(width, crop.central_fraction)
    image = image[top : height - top, left : width - left]
    image = _resize(image, "bilinear", height_px=height_px, width_px=width_px)
    return tf.ensure_shape(_to_input_range(image), [height_px, width_px, 3])


def central_offset_px(side_px: tf.Tensor, fraction: float) -> tf.Tensor:
    """What a central crop leaves out on either end of a side, int32 (299 at 0.875 -> 18)."""
    side = tf.cast(side_px, tf.float64)
    return tf.cast((side - side * fraction) / 2.0, tf.int32)


def sample_window(
    image_shape: tf.Tensor, key: tf.Tensor, *, augmentation: Augmentation
) -> tf.Tensor:
    """A random crop window, int32 [4]: top, left, height, width in pixels.

    Args:
      image_shape: int32 [3], height, width, channels of the image.
      key: int64 [2].
      augmentation: an `Augmentation`.
    """
    whole_image = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        image_shape,
        whole_image,
        key,
        min_object_covered=augmentation.min_object_covered,
        aspect_ratio_range=augmentation.aspect_ratio_range,
        area_range=augmentation.area_range,
        max_attempts=augmentation.max_attempts,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)


def decode_window(jpeg: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The pixels of one window, equal to decoding the whole JPEG and slicing.

    Args:
      jpeg: string scalar, a JPEG file.
      window: int32 [4], top, left, height, width in pixels, inside the image.

    Returns:
      uint8 [height, width, 3], RGB.
    """
    image_width = tf.image.extract_jpeg_shape(jpeg)[1]
    top, left, height, width = tf.unstack(window)
    wide_left = tf.maximum(left - _DECODE_MARGIN_PX, 0)
    wide_right = tf.minimum(left + width + _DECODE_MARGIN_PX, image_width)
    wide = tf.io.decode_and_crop_jpeg(
        jpeg, tf.stack([top, wide_left, height, wide_right - wide_left]), channels=3
    )
    skipped = left - wide_left
    return wide[:, skipped : skipped + width]


def _resize(image, method, *, height_px, width_px):
    """uint8 [h, w, 3] to float32 [height_px, width_px, 3] in [0, 1], bicubic slightly beyond."""
    resized = _RESIZE_OPS[method](images=image[tf.newaxis], size=[height_px, width_px])[0]
    return tf.cast(resized, tf.float32) * (1.0 / 255.0)


def _to_input_range(image):
    """[0, 1] to [-1, 1]; what lies beyond is clipped here and nowhere before."""
    return tf.clip_by_value((image - 0.5) * 2.0, -1.0, 1.0)


def _check_range(name, bounds, *, most):
    if len(bounds) != 2 or not 0.0 < bounds[0] <= bounds[1] <= most:
        limit = "" if math.isinf(most) else f" <= {most:g}"
        raise ConfigError(
            f"augmentation.{name} must be two numbers with 0 < least <= most{limit}.",
            received=repr(bounds),
            remedy="The released recipe has area_range (0.05, 1.0) and "
            "aspect_ratio_range (0.75, 1.33).",
        )


def _check_name(setting, name, known):
    if name not in known:
        near = did_you_mean(repr(name), map(repr, known))
        raise ConfigError(
            f"{setting} knows no such name.",
            received=repr(name),
            remedy=f"{near} Known: {', '.join(known)}.".lstrip(),
        )
