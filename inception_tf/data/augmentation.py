"""How training images may be changed at random: the arguments of every released recipe."""

import dataclasses
import math

from inception_tf.data import color, resize
from inception_tf.errors import ConfigError, did_you_mean

_CHOICES = ("draw", "position")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random part of training images (gin section `augmentation`).

    Defaults: the released recipe, slim's inception_preprocessing.py with fast_mode=False.

    Attributes:
      area_range: crop area as a share of the image, least and most.
      aspect_ratio_range: crop width / height, least and most.
      min_object_covered: least share of an object inside the crop. Where the whole image is the
        object, 0.1 lifts an area of 0.05 to 0.1.
      max_attempts: draws of a crop before the whole image is used.
      use_bounding_boxes: the objects are those of the record's image/object/bbox/*, of which a
        crop has to cover one; where a record has none, and always without this, the whole image.
      resize_methods: one is chosen per image: 'bilinear', 'nearest', 'bicubic', 'area'.
      horizontal_flip: mirror every second image (p = 0.5).
      color: 'full' (brightness, saturation, hue, contrast in one of four orders), 'distributed'
        (the same in one of two orders), 'fast' (brightness, saturation), 'tpu_fast' (offsets of
        brightness, Cb and Cr) or 'none'.
      choose_by: how resize method and colour order are chosen: 'draw' draws both for itself;
        'position' takes an image's position in the run modulo their number, as the released
        distributed trainer takes the number of the thread: threads that take turns.
      brightness_delta: most that is added or taken away, on [0, 1].
      saturation_range: factor of the saturation of HSV, least and most.
      hue_delta: most that the hue turns either way, in full turns of the colour circle.
      contrast_range: factor of the distance to the channel's mean, least and most.
      chroma_delta: most that is added to or taken from Cb and Cr, on [0, 1].
    """

    area_range: tuple[float, float] = (0.05, 1.0)
    aspect_ratio_range: tuple[float, float] = (0.75, 1.33)
    min_object_covered: float = 0.1
    max_attempts: int = 100
    use_bounding_boxes: bool = False
    resize_methods: tuple[str, ...] = ("bilinear", "nearest", "bicubic", "area")
    horizontal_flip: bool = True
    color: str = "full"
    choose_by: str = "draw"
    brightness_delta: float = 32.0 / 255.0
    saturation_range: tuple[float, float] = (0.5, 1.5)
    hue_delta: float = 0.2
    contrast_range: tuple[float, float] = (0.5, 1.5)
    chroma_delta: float = 0.1

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
            check_name("augmentation.resize_methods", method, resize.TF1_OPS)
        check_name("augmentation.color", self.color, color.ORDERINGS)
        check_name("augmentation.choose_by", self.choose_by, _CHOICES)
        _check_magnitudes(self)


def check_name(setting: str, name: str, known):
    """Raises ConfigError, with the nearest one, unless a setting's name is known."""
    if name not in known:
        near = did_you_mean(repr(name), map(repr, known))
        raise ConfigError(
            f"{setting} knows no such name.",
            received=repr(name),
            remedy=f"{near} Known: {', '.join(known)}.".lstrip(),
        )


def _check_range(name, bounds, *, most):
    if len(bounds) != 2 or not 0.0 < bounds[0] <= bounds[1] <= most:
        limit = "" if math.isinf(most) else f" <= {most:g}"
        raise ConfigError(
            f"augmentation.{name} must be two numbers with 0 < least <= most{limit}.",
            received=repr(bounds),
            remedy="The released recipe has area_range (0.05, 1.0) and "
            "aspect_ratio_range (0.75, 1.33).",
        )


def _check_magnitudes(augmentation):
    """Raises ConfigError for a magnitude that is impossible, or that the colours do not read."""
    most = {"hue_delta": 0.5}  # half a turn reaches every hue
    operations = {name for ordering in color.ORDERINGS[augmentation.color] for name in ordering}
    for field in dataclasses.fields(augmentation):
        if field.name not in color.MAGNITUDE_OF.values():
            continue
        value, name = getattr(augmentation, field.name), f"augmentation.{field.name}"
        is_range = isinstance(field.default, tuple)
        if is_range and not (len(value) == 2 and 0.0 <= value[0] <= value[1] < math.inf):
            raise ConfigError(
                f"{name} must be two numbers with 0 <= least <= most.", received=repr(value)
            )
        if not is_range and not 0.0 <= value <= most.get(field.name, 1.0):
            raise ConfigError(
                f"{name} must lie in [0, {most.get(field.name, 1.0):g}].", received=repr(value)
            )
        is_read = any(color.MAGNITUDE_OF[operation] == field.name for operation in operations)
        if not is_read and value != field.default:
            raise ConfigError(
                f"{name} changes nothing with augmentation.color = {augmentation.color!r}.",
                received=repr(value),
                remedy="Remove it, or choose a color that has it.",
            )
