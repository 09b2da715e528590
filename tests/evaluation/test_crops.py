"""The crops of every protocol against NumPy, written from the sources they are named after."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import image as images
from inception_tf.errors import ConfigError
from inception_tf.evaluation import crop_images, crop_picture, crops

SLIM = images.EvaluationCrop()
CROP = 45
SHAPES = {
    "landscape": (60, 91),
    "portrait": (131, 80),
    "square": (100, 100),
    "tiny": (2, 3),
    "one pixel": (1, 1),
    "strip": (80, 9),
}
NAMES = [name for name in crops.PROTOCOLS if name != "1_recipe"]


def picture(height, width):
    return np.random.default_rng(height).integers(0, 256, [height, width, 3], np.uint8)


def made(pixels, name, *, crop=CROP, recipe=SLIM):
    protocol = crops.protocol(name, height_px=crop, width_px=crop)
    return crop_images.make_crops(pixels, protocol=protocol, recipe=recipe).numpy()


# ------------------------------------------------------------------ in NumPy, from the sources


def scaled(levels, height, width):
    """TF1's bilinear sampling; the op itself, whose last digits NumPy would not meet."""
    return tf.raw_ops.ResizeBilinear(images=levels[None], size=[height, width]).numpy()[0]


def short_side_to(pixels, short):
    height, width = pixels.shape[:2]
    if height < width:
        return scaled(pixels, short, width * short // height)
    return scaled(pixels, height * short // width, short)


def corners_and_centre(levels, crop):
    height, width = levels.shape[:2]
    y, x = (height - crop) // 2, (width - crop) // 2
    return [
        levels[:crop, :crop],
        levels[:crop, width - crop :],
        levels[height - crop :, :crop],
        levels[height - crop :, width - crop :],
        levels[y : y + crop, x : x + crop],
    ]


def mirrored(crops_of_image):
    return [crop[:, ::-1] for crop in crops_of_image]


def left_centre_right(levels):
    height, width = levels.shape[:2]
    if height < width:
        side = height
        lefts = [0, (width - side) // 2, width - side]
        return [levels[:, left : left + side] for left in lefts]
    side = width
    tops = [0, (height - side) // 2, height - side]
    return [levels[top : top + side] for top in tops]


def googlenet(pixels, crop, shorts):
    """arXiv 1409.4842 section 7."""
    found = []
    for short in shorts:
        for square in left_centre_right(short_side_to(pixels, short)):
            six = [*corners_and_centre(square, crop), scaled(square, crop, crop)]
            found += six + mirrored(six)
    return found


def soeaver_twelve(square, crop):
    """over_sample of evaluation_cls.py, of a square and of its mirror image.

    There both are resized; its sampling is symmetric, so that this is the resized one mirrored.
    """
    whole = scaled(square, crop, crop)
    plain = [*corners_and_centre(square, crop), whole]
    return plain + [*corners_and_centre(square[:, ::-1], crop), whole[:, ::-1]]


def soeaver_144(pixels, crop, shorts):
    """multi_crop of evaluation_cls.py."""
    found = []
    for i in shorts:
        resized = short_side_to(pixels, i)
        yy, xx = (resized.shape[0] - i) // 2, (resized.shape[1] - i) // 2
        for j in range(3):
            square = resized[yy * j : yy * j + i, xx * j : xx * j + i]
            found += soeaver_twelve(square, crop)
    return found


def soeaver_12(pixels, crop, base):
    """mirror_crop of evaluation_cls.py."""
    return soeaver_twelve(scaled(pixels, base, base), crop)


def ten(levels, crop):
    five = corners_and_centre(levels, crop)
    return five + mirrored(five)


def centre_square(levels):
    return left_centre_right(levels)[1]


def twelve_googlenet(square, crop):
    six = [*corners_and_centre(square, crop), scaled(square, crop, crop)]
    return six + mirrored(six)


# Scales for 45 px: 256..352 x 45 / 224, and 320..416 or 348..456 x 45 / 299.
REFERENCES = {
    "144_googlenet_ratio": lambda p: googlenet(p, CROP, [51, 58, 64, 71]),
    "144_googlenet_pixels": lambda p: googlenet(p, CROP, [256, 288, 320, 352]),
    "144_soeaver": lambda p: soeaver_144(p, CROP, [48, 53, 58, 63]),
    "144_soeaver_older": lambda p: soeaver_144(p, CROP, [52, 58, 63, 69]),
    "12_soeaver": lambda p: soeaver_12(p, CROP, 48),
    "12_googlenet_square": lambda p: twelve_googlenet(
        centre_square(short_side_to(p, 51)), CROP
    ),
    "12_googlenet_scales": lambda p: [
        corners_and_centre(square, CROP)[4]
        for short in (51, 58, 64, 71)
        for square in left_centre_right(short_side_to(p, short))
    ],
    "10_tensornets": lambda p: ten(short_side_to(p, 51), CROP),
    "10_alexnet": lambda p: ten(centre_square(short_side_to(p, 51)), CROP),
}


def digests(found):
    return [hash(np.ascontiguousarray(crop, np.float32).tobytes()) for crop in found]


def to_input(levels):
    unit = np.asarray(levels, np.float32) * np.float32(1 / 255)
    return np.clip((unit - np.float32(0.5)) * np.float32(2), -1, 1)


def test_every_protocol_has_a_reference():
    assert sorted(REFERENCES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_crops_are_those_of_the_source_to_the_bit(name, shape):
    pixels = picture(*SHAPES[shape])
    expected = to_input(REFERENCES[name](pixels))
    found = made(pixels, name)
    assert found.shape == expected.shape == (int(name.split("_")[0]), CROP, CROP, 3)
    missing = Counter(digests(expected)) - Counter(digests(found))  # duplicates count
    assert not missing


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_say_where_each_crop_lies(name, shape):
    height, width = SHAPES[shape]
    pixels = picture(height, width)
    found = iter(made(pixels, name))
    protocol = crops.protocol(name, height_px=CROP, width_px=CROP)
    for scale in crops.crop_boxes(protocol, height_px=height, width_px=width):
        resized = scaled(pixels, scale.height_px, scale.width_px)
        for top, left, rows, columns, is_flipped in scale.boxes:
            assert min(top, left) >= 0
            crop = resized[top : top + rows, left : left + columns]
            assert crop.shape == (rows, columns, 3)
            crop = scaled(crop, CROP, CROP) if rows > CROP else crop
            crop = crop[:, ::-1] if is_flipped else crop
            np.testing.assert_array_equal(next(found), to_input(crop))
    assert next(found, None) is None


# ------------------------------------------------------------------ by hand


def test_144_crops_of_a_landscape_at_299():
    protocol = crops.protocol(144, height_px=299, width_px=299)
    scales = crops.crop_boxes(protocol, height_px=375, width_px=500)
    assert [(s.height_px, s.width_px) for s in scales] == [
        (342, 456), (384, 512), (427, 569), (470, 626),
    ]  # fmt: skip
    assert [len(s.boxes) for s in scales] == [3 * 6 * 2] * 4
    plain = [box[:4] for box in scales[0].boxes if not box[4]]
    assert sorted(plain) == sorted(
        box
        for left in (0, 57, 114)
        for box in [
            (0, left, 299, 299), (0, left + 43, 299, 299), (43, left, 299, 299),
            (43, left + 43, 299, 299), (21, left + 21, 299, 299), (0, left, 342, 342),
        ]
    )  # fmt: skip
    flipped = [box[:4] for box in scales[0].boxes if box[4]]
    assert sorted(flipped) == sorted(plain)


def test_a_portrait_has_top_centre_and_bottom():
    protocol = crops.protocol(144, height_px=299, width_px=299)
    scale = crops.crop_boxes(protocol, height_px=500, width_px=375)[3]
    wholes = [box[:2] for box in scale.boxes if box[2] == 470 and not box[4]]
    assert (scale.height_px, scale.width_px) == (626, 470)
    assert wholes == [(0, 0), (78, 0), (156, 0)]


def test_of_a_square_image_the_three_squares_are_kept():
    found = made(picture(90, 90), 144)
    assert found.shape[0] == 144
    assert len({crop.tobytes() for crop in found}) == 48


def test_soeavers_last_square_and_mirrored_centre_are_a_pixel_off():
    ours, theirs = (
        crops.crop_boxes(
            crops.protocol(name, height_px=299, width_px=299), height_px=320, width_px=421
        )[0].boxes
        for name in ("144_googlenet_ratio", "144_soeaver")
    )
    assert {box[1] for box in theirs if box[2] == 320} == {0, 50, 100}  # 421 - 320 = 101
    # 342 x 449: the last square ends with the image.
    assert {box[1] for box in ours if box[2] == 342} == {0, 53, 107}
    centres = [box for box in theirs if box[0] == 10]
    assert {box[1] for box in centres if not box[4]} == {10, 60, 110}
    assert {box[1] for box in centres if box[4]} == {11, 61, 111}


SHORT_SIDES = [
    ("144", 299, (342, 384, 427, 470)),
    ("144_googlenet_ratio", 224, (256, 288, 320, 352)),
    ("144", 75, (86, 96, 107, 118)),
    ("144", 139, (159, 179, 199, 218)),
    ("144_soeaver", 299, (320, 352, 384, 416)),
    ("144_soeaver", 75, (80, 88, 96, 104)),
    ("144_soeaver_older", 299, (348, 384, 420, 456)),
    ("144_googlenet_pixels", 139, (256, 288, 320, 352)),
    ("12", 299, (320,)),
    ("12_googlenet_square", 299, (342,)),
    ("12_googlenet_scales", 299, (342, 384, 427, 470)),
    ("10", 299, (341,)),
    ("10", 331, (378,)),
    ("10", 224, (256,)),
    ("10_alexnet", 299, (342,)),
    ("1", 299, ()),
]


@pytest.mark.parametrize(("name", "crop", "expected"), SHORT_SIDES)
def test_scales_follow_the_input(name, crop, expected):
    protocol = crops.protocol(name, height_px=crop, width_px=crop)
    assert protocol.short_sides_px == expected
    assert protocol.num_crops == int(name.split("_")[0])


@pytest.mark.parametrize("number", [1, 10, 12, 144])
def test_a_number_is_its_default(number):
    assert crops.protocol(number, height_px=75, width_px=75) == crops.protocol(
        crops.DEFAULTS[str(number)], height_px=75, width_px=75
    )


# ------------------------------------------------------------------ resizing


def numpy_bilinear(levels, height, width):
    """Corner-aligned sampling without half-pixel centres, along one axis after the other."""
    for axis, count in enumerate((height, width)):
        size = levels.shape[axis]
        at = np.arange(count) * size / count
        low = np.floor(at).astype(int)
        weight = (at - low).reshape([-1] + [1] * (2 - axis))
        after = levels.take(np.minimum(low + 1, size - 1), axis)
        levels = levels.take(low, axis) * (1 - weight) + after * weight
    return levels


def test_whole_squares_are_the_scaled_squares_resized_again():
    """As the source says it: the square of the resized image, not of the image."""
    pixels = picture(60, 91).astype(float)
    found = (made(picture(60, 91), "144")[: 36 // 2] / 2 + 0.5) * 255
    square = numpy_bilinear(pixels, 51, 91 * 51 // 60)[:, :51]
    expected = numpy_bilinear(square, CROP, CROP)
    np.testing.assert_allclose(found[15], expected, atol=2e-2)
    direct = numpy_bilinear(pixels[:, :60], CROP, CROP)
    assert np.abs(found[15] - direct).max() > 5


@pytest.mark.parametrize("recipe", ["slim_tf1", "slim_tf2", "keras_timm"])
def test_images_are_resized_as_the_evaluation_recipe_does_it(recipe):
    pixels = picture(60, 91)
    found = made(pixels, "12_soeaver", recipe=images.EvaluationCrop(recipe=recipe))
    # The whole image as a square of 48 px, the recipe's own way of resizing a whole image.
    whole = images.EvaluationCrop(
        recipe="slim_tf2" if recipe == "slim_tf2" else "slim_tf1", central_fraction=1.0
    )
    if recipe == "keras_timm":
        resized = images.resize.resize_as_pillow(pixels, [48, 48], window=(0, 0, 48, 48))
    else:
        resized = images.evaluation_levels(pixels, crop=whole, height_px=48, width_px=48)
    np.testing.assert_array_equal(found[0], to_input(resized[:CROP, :CROP]))


@pytest.mark.parametrize("recipe", ["slim_tf1", "slim_tf2", "keras_timm"])
def test_one_crop_is_the_evaluation_recipe(recipe):
    pixels = picture(60, 91)
    crop = images.EvaluationCrop(recipe=recipe)
    protocol = crops.protocol(1, height_px=40, width_px=52)
    found = crop_images.make_crops(pixels, protocol=protocol, recipe=crop)
    expected = images.decode_evaluation(
        tf.io.encode_png(pixels), crop=crop, height_px=40, width_px=52
    )
    np.testing.assert_array_equal(found, expected[None])


# ------------------------------------------------------------------ in a pipeline


@pytest.mark.parametrize("name", ["1", "10", "144", "144_soeaver"])
def test_batches_of_squares_are_cut_in_the_compiled_step(name):
    """Static shapes from the pipeline; for 4 px the least scale is a crop itself."""
    side = 4 if name == "144_soeaver" else CROP
    protocol = crops.protocol(name, height_px=side, width_px=side)
    pixels = [picture(*shape) for shape in [(30, 40), (41, 29)]]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(pixels), output_signature=tf.TensorSpec([None, None, 3], tf.uint8)
    )
    dataset = dataset.map(
        lambda image: crop_images.make_squares(image, protocol=protocol, recipe=SLIM)
    ).batch(2, drop_remainder=True)
    shapes = crop_images.square_shapes(protocol)
    assert tuple(tuple(spec.shape) for spec in dataset.element_spec) == tuple(
        (2, *shape) for shape in shapes
    )
    squares = next(iter(dataset))
    cut = tf.function(lambda squares: crop_images.cut_crops(squares, protocol=protocol))
    found = cut(squares)
    assert found.shape == (2, protocol.num_crops, side, side, 3)
    for crops_of_one, image in zip(found, pixels):
        expected = crop_images.make_crops(image, protocol=protocol, recipe=SLIM)
        np.testing.assert_allclose(crops_of_one, expected, atol=1e-6)


def test_squares_that_are_crops_travel_once():
    shapes = crop_images.square_shapes(crops.protocol("10", height_px=CROP, width_px=CROP))
    assert shapes == ((5, CROP, CROP, 3),)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "height", "width", "message"),
    [
        ("144_googlenet_ration", 299, 299, "Did you mean 144_googlenet_ratio.*There are 1_recipe"),
        (11, 299, 299, "number of crops, 1, 10, 12, 144"),
        ("144", 299, 300, "--crops=144_googlenet_ratio for a network of 299 x 300 px"),
        ("12", 75, 74, "Evaluate it with --crops=1"),
        ("144_googlenet_pixels", 299, 299, "256 px for crops of 299 px.*144_googlenet_ratio"),
    ],
)
def test_what_cannot_be_cropped_is_refused(name, height, width, message):
    with pytest.raises(ConfigError, match=message):
        crops.protocol(name, height_px=height, width_px=width)


def test_an_endless_strip_is_refused_before_memory_is_asked_for():
    made(picture(1, 50), "10")
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 50 times.*--crops=1"):
        made(picture(1, 51), "10")


def test_the_geometry_needs_no_tensorflow():
    code = "import sys, inception_tf.evaluation.crops; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------ pictures


def test_the_picture_shows_every_place_and_every_crop(tmp_path):
    protocol = crops.protocol("144", height_px=CROP, width_px=CROP)
    figure = crop_picture.draw_protocol(picture(60, 91), protocol, recipe=SLIM)
    *places, sheet = figure.axes
    assert [axes.get_title(loc="left") for axes in places] == [
        "51 x 77 px, 36 crops", "58 x 87 px, 36 crops", "64 x 97 px, 36 crops",
        "71 x 107 px, 36 crops",
    ]  # fmt: skip
    for axes in places:
        sides = Counter(round(patch.get_width()) for patch in axes.patches)
        assert sides.pop(CROP) == 15
        assert list(sides.values()) == [3]
    shown = np.asarray(sheet.images[0].get_array())
    last = made(picture(60, 91), "144")[-1] / 2 + 0.5
    assert shown.shape == (12 * CROP, 12 * CROP, 3)
    np.testing.assert_allclose(shown[-CROP:, -CROP:], last, atol=1e-6)
    figure.savefig(tmp_path / "picture.jpg")
