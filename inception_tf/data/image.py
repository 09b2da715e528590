"""From JPEG bytes to a network's input, one image at a time: decode, crop, colour.

The released recipes: TF1's resizing without half-pixel centres, and colour distortions that are
clipped once, at the very end. The defaults are slim's preprocessing/inception_preprocessing.py;
the others are the configs in parts/augmentation_*.gin and parts/evaluation_*.gin. Everything
random is a pure function of a key, so the same position of a run gives the same pixels on any
worker and after any resume.
"""

import dataclasses
import functools
import math

import tensorflow as tf

from inception_tf.data import color, png, resize
from inception_tf.data.augmentation import Augmentation, check_name
from inception_tf.errors import ConfigError

# A JPEG decoded in part differs from the full decode by up to 14 levels in its border columns,
# where the chroma of the neighbours outside is missing to the upsampling filter.
_DECODE_MARGIN_PX = 2

_EVALUATION_RECIPES = ("slim_tf1", "slim_tf2", "keras_timm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationCrop:
    """The fixed crop of evaluation, features and serving (gin section `evaluation_crop`).

    Attributes:
      recipe: 'slim_tf1', the released evaluation: the centre of the image, squashed to the
        network's input with TF1's bilinear sampling; 'slim_tf2', the same with TF2's half-pixel
        centres; 'keras_timm': the image shrunk or grown until its short side has floor(input /
        central_fraction) pixels, with Pillow's bicubic, then its centre.
      central_fraction: share of EACH side that is kept, of 'keras_timm' the short side's, which
        timm calls crop_pct.
    """

    recipe: str = "slim_tf1"
    central_fraction: float = 0.875

    def __post_init__(self):
        check_name("evaluation_crop.recipe", self.recipe, _EVALUATION_RECIPES)
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
    boxes: tf.Tensor | None = None,
) -> tf.Tensor:
    """One distorted training image: crop, resize, flip, colour.

    Only the crop is decoded, so damage below it goes unseen; evaluation decodes all.

    Args:
      jpeg: string scalar, a whole JPEG file of any colour space.
      key: int64 [2], (seed, position). The image is a pure function of the bytes and this.
      augmentation: an `Augmentation`.
      height_px, width_px: of the result.
      boxes: float32 [N, 4], the objects for a recipe that uses them: ymin, xmin, ymax, xmax in
        [0, 1]; N = 0 and None mean the whole image.

    Returns:
      float32 [height_px, width_px, 3] in [-1, 1], RGB.

    Raises:
      tf.errors.InvalidArgumentError: the bytes are no JPEG or end inside the crop.
    """
    crop_key, choice_key = tf.unstack(tf.random.split(key, num=2, alg="philox"))
    choices = tf.random.stateless_uniform([7], seed=choice_key, alg="philox")
    method, mirror, ordering, *amounts = tf.unstack(choices)

    def chosen(uniform, count):
        if augmentation.choose_by == "position":
            return tf.cast(key[1] % count, tf.int32)
        return tf.cast(uniform * count, tf.int32)

    window = sample_window(
        png.image_shape(jpeg),
        crop_key,
        augmentation=augmentation,
        boxes=boxes if augmentation.use_bounding_boxes else None,
    )
    crop = png.decode_window(jpeg, window, of_jpeg=decode_window)
    resized = [
        lambda name=name: tf.cast(
            resize.resize_as_tf1(crop, name, height_px=height_px, width_px=width_px), tf.float32
        )
        for name in augmentation.resize_methods
    ]
    levels = color.pick(resized, chosen(method, len(resized)))
    if augmentation.horizontal_flip:
        levels = tf.cond(mirror < 0.5, lambda: tf.reverse(levels, axis=[1]), lambda: levels)
    finished = [
        lambda finish=_finish_of(operations, augmentation): finish(levels, *amounts)
        for operations in color.ORDERINGS[augmentation.color]
    ]
    image = color.pick(finished, chosen(ordering, len(finished)))
    return tf.ensure_shape(image, [height_px, width_px, 3])


@functools.lru_cache(maxsize=64)
def _finish_of(operations, augmentation):
    """The part of `decode_training` after the flip: levels and amounts to pixels.

    Kept, so that every use of the same recipe shares what is compiled.
    """
    return color.compiled_distortion(
        operations, magnitudes=augmentation, first=_to_unit, last=_to_input_range
    )


def decode_evaluation(
    jpeg: tf.Tensor, *, crop: EvaluationCrop, height_px: int, width_px: int
) -> tf.Tensor:
    """The fixed crop of one image, for evaluation, features and serving.

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
    levels = evaluation_levels(
        decode_whole(jpeg), crop=crop, height_px=height_px, width_px=width_px
    )
    return to_input(levels)


def decode_whole(jpeg: tf.Tensor) -> tf.Tensor:
    """All pixels of an image file, uint8 [h, w, 3]; formats and errors of `decode_evaluation`."""
    # Equal to decode_jpeg on JPEGs; unlike it, rank 3 for every format.
    return tf.io.decode_image(jpeg, channels=3, expand_animations=False)


def evaluation_levels(
    image: tf.Tensor, *, crop: EvaluationCrop, height_px: int, width_px: int
) -> tf.Tensor:
    """The fixed crop of decoded pixels, uint8 [h, w, 3]: float32 levels in 0..255.

    Arguments and shape of the result as of `decode_evaluation`.
    """
    if crop.recipe == "keras_timm":
        image = _shrunk_then_cropped(image, crop, height_px=height_px, width_px=width_px)
    else:
        image = _cropped_then_squashed(image, crop, height_px=height_px, width_px=width_px)
    return tf.ensure_shape(image, [height_px, width_px, 3])


def evaluation_pixels(
    image: tf.Tensor, *, crop: EvaluationCrop, height_px: int, width_px: int
) -> tf.Tensor:
    """`evaluation_levels` in whole levels, uint8: what exports that hold no decoder take."""
    levels = evaluation_levels(image, crop=crop, height_px=height_px, width_px=width_px)
    return tf.cast(tf.round(tf.clip_by_value(levels, 0.0, 255.0)), tf.uint8)


def to_input(levels: tf.Tensor) -> tf.Tensor:
    """Levels in 0..255 to a network's input, float32 in [-1, 1], of the same shape."""
    return _to_input_range(_to_unit(levels))


def to_pixels(image: tf.Tensor) -> tf.Tensor:
    """The inverse of `to_input`, to the nearest level: uint8 of the same shape."""
    return tf.cast(tf.round((image + 1.0) * 127.5), tf.uint8)


def central_offset_px(side_px: tf.Tensor, fraction: float) -> tf.Tensor:
    """What a central crop leaves out on either end of a side, int32 (299 at 0.875 -> 18)."""
    side = tf.cast(side_px, tf.float64)
    return tf.cast((side - side * fraction) / 2.0, tf.int32)


def sample_window(
    image_shape: tf.Tensor,
    key: tf.Tensor,
    *,
    augmentation: Augmentation,
    boxes: tf.Tensor | None = None,
) -> tf.Tensor:
    """A random crop window, int32 [4]: top, left, height, width in pixels.

    Args:
      image_shape: int32 [3], height, width, channels of the image.
      key: int64 [2].
      augmentation: an `Augmentation`.
      boxes: float32 [N, 4], ymin, xmin, ymax, xmax of the objects in [0, 1]; N = 0 and None mean
        the whole image.
    """
    if boxes is None:
        boxes = tf.constant([[0.0, 0.0, 1.0, 1.0]])
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        image_shape,
        boxes[tf.newaxis],
        key,
        min_object_covered=augmentation.min_object_covered,
        aspect_ratio_range=augmentation.aspect_ratio_range,
        area_range=augmentation.area_range,
        max_attempts=augmentation.max_attempts,
        use_image_if_no_bounding_boxes=True,
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


def _cropped_then_squashed(image, crop, *, height_px, width_px):
    """slim's evaluation: float32 levels [height_px, width_px, 3] of uint8 [h, w, 3]."""
    height, width = tf.unstack(tf.shape(image)[:2])
    top = central_offset_px(height, crop.central_fraction)
    left = central_offset_px(width, crop.central_fraction)
    image = image[top : height - top, left : width - left]
    if crop.recipe == "slim_tf2":
        return resize.resize_as_tf2(image, height_px=height_px, width_px=width_px)
    return resize.resize_as_tf1(image, "bilinear", height_px=height_px, width_px=width_px)


def _shrunk_then_cropped(image, crop, *, height_px, width_px):
    """timm's evaluation (crop_mode 'center'), arguments and result as of the one above.

    As timm/data/transforms_factory.py (0893f5d) has it: torchvision's Resize for a square input,
    ResizeKeepRatio for another, which rounds. To the latter timm passes no interpolation, so that
    it is bilinear there; here it stays the bicubic of the weights' own configuration.
    """
    least = [math.floor(side / crop.central_fraction) for side in (height_px, width_px)]
    sides = tf.shape(image, out_type=tf.int64)[:2]
    if height_px == width_px:
        # The other side is floored, as torchvision's Resize does.
        size = least[0] * sides // tf.reduce_min(sides)
    else:
        # Python's round(), to even, as tf.round is; float64 as Python's floats.
        exact = tf.cast(sides, tf.float64)
        ratio = tf.reduce_min(exact / tf.constant(least, tf.float64))
        size = tf.cast(tf.round(exact / ratio), tf.int64)
    # torchvision's CenterCrop takes Python's round() too.
    first = tf.round(tf.cast(size - [height_px, width_px], tf.float64) / 2.0)
    top, left = tf.unstack(tf.cast(first, tf.int32))
    return resize.resize_as_pillow(image, size, window=(top, left, height_px, width_px))


def _to_unit(levels):
    """0..255 of any type to float32 in [0, 1]."""
    return tf.cast(levels, tf.float32) * (1.0 / 255.0)


def _to_input_range(image):
    """[0, 1] to [-1, 1]; what lies beyond is clipped here and nowhere before."""
    return tf.clip_by_value((image - 0.5) * 2.0, -1.0, 1.0)
