"""Which parts of an image a network sees: the protocols of 1, 10, 12 and 144 crops.

Integers only; crop_images.py cuts the pixels. Where public sources disagree, every one of them has
a protocol of its own, named after it, and `DEFAULTS` says which one a number stands for:

* 144: `144_googlenet_ratio`. arXiv 1409.4842 defines it for inputs of 224 px, the papers of
  Inception-v3 and v4 refer to it without scales: those of 224 in the same ratio.
* 12: `12_soeaver`. The papers define nothing. It is the only public program for 12 crops with
  published errors, and of the same networks they are within 0.3 points of table 3 of 1602.07261.
* 10: `10_tensornets`, which the 10-crop column of keras-applications comes from.
"""

import dataclasses

from inception_tf.errors import ConfigError, did_you_mean

WINDOWS = {
    "corners_centre_whole": ("corner", "corner", "corner", "corner", "centre", "whole"),
    "corners_centre": ("corner", "corner", "corner", "corner", "centre"),
    "centre": ("centre",),
    "whole": ("whole",),
}
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """A protocol for inputs of any size.

    Attributes:
      source: who evaluates so.
      short_sides_px: of the resized image, one for each scale; () of the single crop, which is
        the evaluation recipe's own.
      at_px: input side that these belong to; other inputs get them in the same ratio, rounded to
        the nearest pixel. None: they are the same for every input.
      is_floored: rounded down instead.
      squares: which squares of the resized image: 'three' (left, centre, right; of a portrait top,
        centre, bottom), 'three_soeaver' (0, 1 and 2 times floor(slack / 2) from the start: the
        last one ends a pixel early where the slack is odd), 'centre', 'squashed' (the whole image
        as a square), 'crops' (crop-sized ones in the corners and the centre of the whole image).
      windows: what is taken of each square, a key of `WINDOWS`; 'whole' is resized to a crop.
      mirror: 'crops' mirrors each crop; 'squares' takes the crops of the mirrored square, whose
        centre lies a pixel beside the other where the slack is odd; None takes no mirror image.
    """

    source: str
    short_sides_px: tuple[int, ...] = ()
    at_px: int | None = None
    is_floored: bool = False
    squares: str = "three"
    windows: str = "corners_centre_whole"
    mirror: str | None = "crops"

    def short_sides(self, crop_px: int) -> tuple[int, ...]:
        """Short sides of the scales for crops of `crop_px`, in pixels."""
        if self.at_px is None:
            return self.short_sides_px
        half = 0 if self.is_floored else self.at_px
        return tuple(
            (2 * crop_px * side + half) // (2 * self.at_px) for side in self.short_sides_px
        )


_GOOGLENET_PX = (256, 288, 320, 352)
_GOOGLENET = {"at_px": 224, "short_sides_px": _GOOGLENET_PX}
_SOEAVER = {"at_px": 299, "squares": "three_soeaver", "mirror": "squares"}

PROTOCOLS = {
    "1_recipe": Rule(source="the config's evaluation recipe", windows="whole", mirror=None),
    "10_tensornets": Rule(
        source="taehoonlee/tensornets tests/all_imagenet_models.py (7190ad2)",
        at_px=224,
        short_sides_px=(256,),
        is_floored=True,
        squares="crops",
        windows="whole",
    ),
    "10_alexnet": Rule(
        source="Krizhevsky et al. 2012, section 4.1, in the same ratio",
        at_px=224,
        short_sides_px=(256,),
        squares="centre",
        windows="corners_centre",
    ),
    "12_soeaver": Rule(
        source="soeaver/caffe-model cls/evaluation_cls.py (20205fa), README: 320 for 299",
        at_px=299,
        short_sides_px=(320,),
        squares="squashed",
        mirror="squares",
    ),
    "12_googlenet_square": Rule(
        source="arXiv 1409.4842 section 7, its least scale and centre square alone",
        at_px=224,
        short_sides_px=(256,),
        squares="centre",
    ),
    "12_googlenet_scales": Rule(
        source="arXiv 1409.4842 section 7, the centre crop of each square alone",
        windows="centre",
        mirror=None,
        **_GOOGLENET,
    ),
    "144_googlenet_ratio": Rule(
        source="arXiv 1409.4842 section 7, in the same ratio", **_GOOGLENET
    ),
    "144_googlenet_pixels": Rule(
        source="arXiv 1409.4842 section 7, its very pixels", short_sides_px=_GOOGLENET_PX
    ),
    "144_soeaver": Rule(
        source="soeaver/caffe-model cls/evaluation_cls.py (20205fa), its line for 299",
        short_sides_px=(320, 352, 384, 416),
        **_SOEAVER,
    ),
    "144_soeaver_older": Rule(
        source="an older copy of soeaver/caffe-model cls/evaluation_cls.py",
        short_sides_px=(348, 384, 420, 456),
        **_SOEAVER,
    ),
}
DEFAULTS = {
    "1": "1_recipe",
    "10": "10_tensornets",
    "12": "12_soeaver",
    "144": "144_googlenet_ratio",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """The crops of every image for a network's input.

    Attributes:
      name: a key of `PROTOCOLS`.
      height_px, width_px: the network's input; equal, except of the single crop.
      short_sides_px: short side of the resized image at each scale; () of the single crop.
    """

    name: str
    height_px: int
    width_px: int
    short_sides_px: tuple[int, ...]

    @property
    def rule(self) -> Rule:
        return PROTOCOLS[self.name]

    @property
    def num_squares(self) -> int:
        """Squares of one scale."""
        return {"three": 3, "three_soeaver": 3, "crops": 5}.get(self.rule.squares, 1)

    @property
    def num_crops(self) -> int:
        """Crops of every image, whatever its shape: none is left out for being like another."""
        if not self.short_sides_px:
            return 1
        in_square = len(WINDOWS[self.rule.windows]) * (2 if self.rule.mirror else 1)
        return len(self.short_sides_px) * self.num_squares * in_square


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleBoxes:
    """Where the crops of one scale lie.

    Attributes:
      height_px, width_px: of the whole image at this scale.
      boxes: (top, left, height, width, is_flipped) of each crop in pixels of the image at this
        scale, in the order in which `crop_images.make_crops` has them. What is larger than the
        network's input is resized to it.
    """

    height_px: int
    width_px: int
    boxes: tuple[tuple[int, int, int, int, bool], ...]


def full_name(name: str | int) -> str:
    """The name of a protocol: of a number of crops that of `DEFAULTS`.

    Raises:
      ConfigError: there is no such protocol.
    """
    name = DEFAULTS.get(str(name), str(name))
    if name not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise ConfigError(
            f"--crops is the number of crops, {', '.join(DEFAULTS)}, or the name of a protocol.",
            received=repr(name),
            remedy=f"{did_you_mean(name, PROTOCOLS)} There are {known}.".lstrip(),
        )
    return name


def protocol(name: str | int, *, height_px: int, width_px: int) -> Protocol:
    """A protocol for a network's input.

    Args:
      name: a key of `PROTOCOLS`, or a number of crops, which means that of `DEFAULTS`.
      height_px, width_px: the network's input.

    Raises:
      ConfigError: no such protocol; several crops of an input that is not square; or a scale that
        is smaller than the input.
    """
    name = full_name(name)
    if name == DEFAULTS["1"]:
        short_sides = ()
    elif height_px != width_px:
        raise ConfigError(
            "Several crops are defined for square inputs only.",
            received=f"--crops={name} for a network of {height_px} x {width_px} px (H x W)",
            remedy="Evaluate it with --crops=1, which takes any input.",
        )
    else:
        short_sides = PROTOCOLS[name].short_sides(height_px)
        if min(short_sides) < height_px:
            raise ConfigError(
                "A crop must fit into the image at every scale.",
                received=f"--crops={name} has a short side of {min(short_sides)} px for crops of "
                f"{height_px} px",
                remedy=f"Take --crops={DEFAULTS[name.split('_')[0]]}, whose scales follow the "
                "network's input.",
            )
    return Protocol(
        name=name, height_px=height_px, width_px=width_px, short_sides_px=short_sides
    )


def resized_sides(chosen: Protocol, short_px: int, sides, *, shortest):
    """Height and width of an image at the scale with the short side `short_px`.

    Args:
      chosen: a Protocol.
      short_px: one of its short sides.
      sides: height and width of the image.
      shortest: the lesser one. All three may be Python ints or integer tensors.
    """
    if chosen.rule.squares == "squashed":
        return short_px, short_px
    # The longer side is floored, as in all the programs that are named above.
    return tuple(side * short_px // shortest for side in sides)


def square_px(chosen: Protocol, short_px: int) -> int:
    """Side of the squares that are taken of a scale."""
    return chosen.height_px if chosen.rule.squares == "crops" else short_px


def square_corners(chosen: Protocol, short_px: int, sides) -> list[tuple]:
    """(top, left) of the squares in an image at this scale; `sides` as of `resized_sides`."""
    slacks = [side - square_px(chosen, short_px) for side in sides]
    halves = [slack // 2 for slack in slacks]
    squares = chosen.rule.squares
    if squares == "squashed":
        return [(0, 0)]
    if squares == "centre":
        return [tuple(halves)]
    if squares == "crops":
        corners = [(row * slacks[0], column * slacks[1]) for row, column in _CORNERS]
        return [*corners, tuple(halves)]
    ends = slacks if squares == "three" else [2 * half for half in halves]
    return [(0, 0), tuple(halves), tuple(ends)]


def square_windows(
    chosen: Protocol, short_px: int
) -> list[tuple[bool, list[tuple[int, int, int]]]]:
    """What is taken of each square: (is_flipped, [(top, left, side)]) once or twice.

    Where it is flipped, the place is that in the mirrored square.
    """
    side, crop = square_px(chosen, short_px), chosen.height_px
    slack = side - crop
    centre = slack // 2
    corners = iter(_CORNERS)
    windows = []
    for kind in WINDOWS[chosen.rule.windows]:
        if kind == "whole":
            windows.append((0, 0, side))
        elif kind == "centre":
            windows.append((centre, centre, crop))
        else:
            row, column = next(corners)
            windows.append((row * slack, column * slack, crop))
    if chosen.rule.mirror is None:
        return [(False, windows)]
    mirrored = windows
    if chosen.rule.mirror == "crops":
        mirrored = [(top, side - left - width, width) for top, left, width in windows]
    return [(False, windows), (True, mirrored)]


def crop_boxes(chosen: Protocol, *, height_px: int, width_px: int) -> tuple[ScaleBoxes, ...]:
    """Where every crop of an image of this size lies, scale by scale.

    Of the single crop the result is empty: its place is the recipe's (data/image.py).
    """
    scales = []
    for short_px in chosen.short_sides_px:
        sides = resized_sides(
            chosen, short_px, (height_px, width_px), shortest=min(height_px, width_px)
        )
        side = square_px(chosen, short_px)
        boxes = tuple(
            (
                square_top + top,
                square_left + (side - left - width if is_flipped else left),
                width,
                width,
                is_flipped,
            )
            for is_flipped, windows in square_windows(chosen, short_px)
            for top, left, width in windows
            for square_top, square_left in square_corners(chosen, short_px, sides)
        )
        scales.append(ScaleBoxes(height_px=sides[0], width_px=sides[1], boxes=boxes))
    return tuple(scales)
