"""The named image recipes against NumPy written from the released code, and their random parts."""

import colorsys
import dataclasses
import functools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import config
from inception_tf.cluster import Assignment
from inception_tf.data import color, image, pipeline
from inception_tf.errors import ConfigError
from inception_tf.parameters import SECTIONS

PARTS = pathlib.Path(__file__).resolve().parents[2] / "configs" / "parts"
DRAWS = 1000
# Kolmogorov-Smirnov: two honest samples of DRAWS differ by more once in ten thousand.
KS_BOUND = 2.23 * np.sqrt(2 / DRAWS)
NEUTRAL = {
    "brightness_delta": 0.0,
    "saturation_range": (1.0, 1.0),
    "hue_delta": 0.0,
    "contrast_range": (1.0, 1.0),
}


def recipe(name, section="augmentation"):
    """The spec that a config part describes."""
    resolved = config.resolve(
        gin_files=[PARTS / f"{name}.gin"],
        gin_params=["training.num_steps = 1"],
        reads=tuple(SECTIONS),
    )
    return resolved.sections[section]


RECIPES = {
    name: recipe(f"augmentation_{name}")
    for name in ("slim", "slim_fast", "distributed", "tpu_fast_colour")
}


def jpeg_of(pixels):
    return tf.io.encode_jpeg(pixels, quality=100, chroma_downsampling=False).numpy()


def picture(height=60, width=80, seed=0):
    """Smooth colourful uint8 [height, width, 3], away from black and white."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, [1, 5, 6, 3]).astype(np.float32)
    return tf.cast(tf.image.resize(coarse, [height, width]), tf.uint8)[0].numpy()


def plain(**changes):
    """The whole image, resized by area: what is left is what is changed."""
    quiet = {"area_range": (1.0, 1.0), "max_attempts": 1, "horizontal_flip": False}
    return image.Augmentation(**{**quiet, "resize_methods": ("area",), **changes})


def decoded(jpeg, spec, *, count=DRAWS, seed=7, boxes=None, size=(2, 2)):
    """Images of the positions 0, 1, ...: float32 [count, *size, 3]."""

    def decode(position):
        return image.decode_training(
            tf.constant(jpeg),
            tf.stack([tf.constant(seed, tf.int64), position]),
            augmentation=spec,
            height_px=size[0],
            width_px=size[1],
            boxes=None if boxes is None else tf.constant(boxes, tf.float32),
        )

    dataset = tf.data.Dataset.range(count).map(decode, num_parallel_calls=2).batch(count)
    return next(iter(dataset)).numpy()


def ks_distance(first, second):
    """Largest difference of two samples' cumulative shares."""
    both = np.sort(np.concatenate([first, second]))
    shares = [np.searchsorted(np.sort(s), both, side="right") / len(s) for s in (first, second)]
    return np.abs(shares[0] - shares[1]).max()


def assert_uniform(sample, low, high):
    slack = 0.01 * (high - low)
    assert low <= sample.min() < low + slack and high - slack < sample.max() <= high
    expected = np.linspace(low, high, len(sample))
    assert ks_distance(sample, expected) < KS_BOUND


# ------------------------------------------------------------------ the numbers of each recipe


def test_the_parts_have_the_released_numbers():
    shared = {"area_range": (0.05, 1.0), "min_object_covered": 0.1, "max_attempts": 100}
    shared |= {"horizontal_flip": True, "brightness_delta": 32 / 255}
    four = {
        "resize_methods": ("bilinear", "nearest", "bicubic", "area"),
        "saturation_range": (0.5, 1.5),
        "hue_delta": 0.2,
        "contrast_range": (0.5, 1.5),
    }
    one = {"resize_methods": ("bilinear",), "choose_by": "draw", "use_bounding_boxes": False}
    narrow, wide = (0.75, 1.33), (3 / 4, 4 / 3)
    expected = {
        "slim": {"color": "full", "choose_by": "draw", "use_bounding_boxes": False, **four},
        "slim_fast": {"color": "fast", "saturation_range": (0.5, 1.5), **one},
        "distributed": {
            "color": "distributed", "choose_by": "position", "use_bounding_boxes": True, **four
        },
        "tpu_fast_colour": {"color": "tpu_fast", "chroma_delta": 0.1, **one},
    }  # fmt: skip
    for name, values in expected.items():
        aspect = {"aspect_ratio_range": wide if name == "tpu_fast_colour" else narrow}
        for field, value in {**shared, **aspect, **values}.items():
            assert getattr(RECIPES[name], field) == value, (name, field)
    assert RECIPES["slim"] == image.Augmentation()
    assert recipe("evaluation_slim", "evaluation_crop") == image.EvaluationCrop()
    timm = image.EvaluationCrop(recipe="keras_timm", central_fraction=0.875)
    assert recipe("evaluation_keras_timm", "evaluation_crop") == timm


def test_every_recipe_can_follow_every_other():
    for last in RECIPES:
        for first in tuple(RECIPES):
            names = dict.fromkeys([f"augmentation_{first}.gin", f"augmentation_{last}.gin"])
            resolved = config.resolve(
                gin_files=[PARTS / name for name in names],
                gin_params=["training.num_steps = 1"],
                reads=tuple(SECTIONS),
            )
            assert resolved.sections["augmentation"].color == RECIPES[last].color


def test_the_orders_are_the_released_ones():
    # Written out: turning the hue and scaling the saturation commute, so pixels cannot tell all.
    assert color.ORDERINGS["distributed"] == (
        ("brightness", "saturation", "hue", "contrast"),
        ("brightness", "contrast", "saturation", "hue"),
    )
    assert color.ORDERINGS["full"] == (
        ("brightness", "saturation", "hue", "contrast"),
        ("saturation", "brightness", "contrast", "hue"),
        ("contrast", "hue", "brightness", "saturation"),
        ("hue", "saturation", "contrast", "brightness"),
    )
    assert color.ORDERINGS["fast"] == (("brightness", "saturation"),)


# ------------------------------------------------------------------ pixel by pixel


def numpy_bilinear(levels, height, width, *, half_pixel):
    """By definition, in float64: sample between the two nearest rows and columns."""

    def between(count, size):
        at = np.arange(count) * size / count
        if half_pixel:
            at = (np.arange(count) + 0.5) * size / count - 0.5
        low = np.floor(at)
        edges = [np.clip(low + i, 0, size - 1).astype(int) for i in (0, 1)]
        return *edges, at - low

    top, bottom, y = between(height, levels.shape[0])
    left, right, x = between(width, levels.shape[1])
    x, y = x[None, :, None], y[:, None, None]
    levels = levels.astype(np.float64)
    rows = levels[top] * (1 - y) + levels[bottom] * y
    return rows[:, left] * (1 - x) + rows[:, right] * x


def numpy_nearest(levels, height, width):
    rows = np.arange(height) * levels.shape[0] // height
    columns = np.arange(width) * levels.shape[1] // width
    return levels[rows][:, columns].astype(np.float64)


def numpy_colours(x, names, amounts):
    for name in names:
        amount = amounts[name]
        if name == "brightness":
            x = x + amount
        elif name == "contrast":
            mean = x.mean(axis=(0, 1), keepdims=True)
            x = (x - mean) * amount + mean
        else:
            x = x.copy()
            for at in np.ndindex(*x.shape[:2]):
                h, s, v = colorsys.rgb_to_hsv(*x[at])
                h, s = ((h + amount) % 1.0, s) if name == "hue" else (h, min(1.0, s * amount))
                x[at] = colorsys.hsv_to_rgb(h, s, v)
    return x


RELEASED_ORDERS = {
    "slim_fast": [["brightness", "saturation"]],
    "distributed": [
        ["brightness", "saturation", "hue", "contrast"],
        ["brightness", "contrast", "saturation", "hue"],
    ],
}


def numpy_training(pixels, name, position, seed, height, width):
    """A recipe from the released code, given the window and the numbers drawn for a position."""
    spec = RECIPES[name]
    keys = tf.random.split(tf.constant([seed, position], tf.int64), num=2, alg="philox")
    top, left, h, w = image.sample_window(
        tf.constant(pixels.shape), keys[0], augmentation=spec
    ).numpy()
    drawn = tf.random.stateless_uniform([7], seed=keys[1], alg="philox").numpy().astype(float)
    crop = pixels[top : top + h, left : left + w]
    is_nearest = name == "distributed" and position % 4 == 1
    if is_nearest:
        x = numpy_nearest(crop, height, width) / 255
    else:
        x = numpy_bilinear(crop, height, width, half_pixel=False) / 255
    if drawn[1] < 0.5:
        x = x[:, ::-1]
    if name == "tpu_fast_colour":
        b = (2 * drawn[3] - 1) * 32 / 255
        cb, cr = (2 * drawn[4:6] - 1) * 0.1
        x = x + [1.402 * cr + b, -0.344136 * cb - 0.714136 * cr + b, 1.772 * cb + b]
    else:
        amounts = {
            "brightness": (2 * drawn[3] - 1) * 32 / 255,
            "saturation": 0.5 + drawn[4],
            "hue": (2 * drawn[5] - 1) * 0.2,
            "contrast": 0.5 + drawn[6],
        }
        orders = RELEASED_ORDERS[name]
        x = numpy_colours(x, orders[position % len(orders)], amounts)
    return np.clip(x, 0, 1) * 2 - 1


@pytest.mark.parametrize("name", ["slim_fast", "tpu_fast_colour", "distributed"])
def test_training_images_equal_numpy(name):
    jpeg = jpeg_of(picture(50, 70))
    pixels = tf.io.decode_jpeg(jpeg, channels=3).numpy()
    images = decoded(jpeg, RECIPES[name], count=14, size=(23, 31))
    for position, found in enumerate(images):
        if name == "distributed" and position % 4 > 1:
            continue  # bicubic and area: against TF1's ops in test_image.py
        expected = numpy_training(pixels, name, position, 7, 23, 31)
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_distributed_takes_method_and_order_by_position():
    jpeg = jpeg_of(picture(40, 40))
    spec = RECIPES["distributed"]
    fixed = {"area_range": (0.3, 1.0), "choose_by": "draw", "color": "none"}
    methods = spec.resize_methods
    mixed = decoded(jpeg, image.Augmentation(**{**fixed, "choose_by": "position"}), count=32)
    for number, method in enumerate(methods):
        alone = decoded(jpeg, image.Augmentation(**fixed, resize_methods=(method,)), count=32)
        np.testing.assert_array_equal(mixed[number::4], alone[number::4])


# ------------------------------------------------------------------ the random crop


def numpy_window(rng, height, width, spec):
    """TensorFlow's way of drawing a crop, from its description; None where it does not count."""
    aspect = rng.uniform(*spec.aspect_ratio_range)
    least, most = (
        np.rint(np.sqrt(share * height * width / aspect)) for share in spec.area_range
    )
    most = min(most, height, np.floor((width + 0.5) / aspect))
    h = rng.integers(int(min(least, most)), int(most) + 1)
    w = np.rint(h * aspect)
    if w > width or not spec.area_range[0] <= h * w / (height * width) <= spec.area_range[1]:
        return None
    if h * w < spec.min_object_covered * height * width:
        return None
    return rng.integers(0, height - h + 1), rng.integers(0, width - int(w) + 1), h, w


@pytest.mark.parametrize("name", ["slim", "tpu_fast_colour"])
def test_crops_are_distributed_as_released(name):
    spec, height, width = RECIPES[name], 300, 400

    def sample(position):
        key = tf.stack([tf.constant(11, tf.int64), position])
        return image.sample_window(tf.constant([height, width, 3]), key, augmentation=spec)

    windows = tf.data.Dataset.range(DRAWS).map(sample, num_parallel_calls=2).batch(DRAWS)
    found = next(iter(windows)).numpy().astype(float)
    rng = np.random.default_rng(0)
    expected = []
    while len(expected) < DRAWS:
        window = numpy_window(rng, height, width, spec)
        expected += [] if window is None else [window]
    expected = np.array(expected, float)
    for measure in (
        lambda w: w[:, 2] * w[:, 3],  # area
        lambda w: w[:, 3] / w[:, 2],  # aspect ratio
        lambda w: w[:, 0] / np.maximum(height - w[:, 2], 1),  # where it lies
        lambda w: w[:, 1] / np.maximum(width - w[:, 3], 1),
    ):
        assert ks_distance(measure(found), measure(expected)) < KS_BOUND


def covered_share(windows, box, height, width):
    """Share of a box inside each window."""
    y0, x0, y1, x1 = box * np.array([height, width, height, width])
    top, left, h, w = windows.T
    inside_y = np.minimum(top + h, y1) - np.maximum(top, y0)
    inside_x = np.minimum(left + w, x1) - np.maximum(left, x0)
    return np.maximum(inside_y, 0) * np.maximum(inside_x, 0) / ((y1 - y0) * (x1 - x0))


def test_crops_cover_a_tenth_of_one_of_the_boxes():
    boxes = np.array([[0.0, 0.0, 0.3, 0.2], [0.6, 0.7, 0.9, 1.0]])
    spec = RECIPES["distributed"]

    def windows(boxes):
        def sample(position):
            key = tf.stack([tf.constant(5, tf.int64), position])
            return image.sample_window(
                tf.constant([300, 400, 3]), key, augmentation=spec, boxes=boxes
            )

        return next(iter(tf.data.Dataset.range(600).map(sample).batch(600))).numpy()

    found = windows(tf.constant(boxes, tf.float32))
    shares = np.stack([covered_share(found, box, 300, 400) for box in boxes])
    assert shares.max(axis=0).min() > 0.09  # whole pixels
    assert (shares < 0.09).any(axis=1).all()  # one of them is enough
    area = found[:, 2] * found[:, 3] / (300 * 400)
    assert area.min() < 0.07  # the whole image as the object allows none below 0.1
    without = windows(None)
    assert (np.stack([covered_share(without, b, 300, 400) for b in boxes]).max(0) < 0.09).any()
    # No boxes is the whole image.
    np.testing.assert_array_equal(windows(tf.zeros([0, 4])), without)


def test_boxes_count_only_where_the_recipe_uses_them():
    jpeg, boxes = jpeg_of(picture(40, 60)), np.array([[0.0, 0.0, 0.2, 0.2]])
    for name, spec in RECIPES.items():
        plain_images = decoded(jpeg, spec, count=40, size=(9, 9))
        is_equal = np.array_equal(decoded(jpeg, spec, count=40, boxes=boxes, size=(9, 9)),
                                  plain_images)  # fmt: skip
        assert is_equal == (name != "distributed")


# ------------------------------------------------------------------ flips, orders, magnitudes


@pytest.mark.parametrize("name", RECIPES)
def test_half_of_the_images_are_mirrored(name):
    ramp = np.tile(np.linspace(80, 180, 64)[None, :, None], [64, 1, 3]).astype(np.uint8)
    images = decoded(jpeg_of(ramp), RECIPES[name], count=1000, size=(4, 8))
    share = np.mean(images[:, :, 0].mean((1, 2)) > images[:, :, -1].mean((1, 2)))
    assert abs(share - 0.5) < 3.5 * np.sqrt(0.25 / 1000)


@pytest.mark.parametrize(("kind", "choose_by"), [("full", "draw"), ("distributed", "position")])
def test_orders_come_as_often_as_released(kind, choose_by, monkeypatch):
    count = len(color.ORDERINGS[kind])
    # Sequences that can be told apart: nothing, no saturation, no contrast, neither.
    marks = ((), ("saturation",), ("contrast",), ("saturation", "contrast"))[:count]
    monkeypatch.setitem(color.ORDERINGS, kind, marks)
    ranges = {"saturation_range": (0.0, 0.0), "contrast_range": (0.0, 0.0)}
    spec = plain(color=kind, choose_by=choose_by, **(ranges if count == 4 else
                 {"saturation_range": (0.0, 0.0)}))  # fmt: skip
    pixels = np.zeros([8, 8, 3], np.uint8) + np.array([200, 120, 60], np.uint8)
    pixels[:, 4:] = [60, 100, 160]
    images = decoded(jpeg_of(pixels), spec)
    is_gray = np.ptp(images, axis=3).max((1, 2)) < 1e-3
    is_flat = np.ptp(images, axis=(1, 2)).max(1) < 1e-3
    orders = is_gray + 2 * is_flat
    if choose_by == "position":
        np.testing.assert_array_equal(orders, np.arange(DRAWS) % count)
    else:
        expected = DRAWS / count
        chi_squared = ((np.bincount(orders, minlength=count) - expected) ** 2 / expected).sum()
        assert chi_squared < 21.1  # 3 degrees of freedom: once in ten thousand


def flat_images(levels, spec, *, other=None):
    """Distorted [DRAWS, 2, 2, 3] on [0, 1] of an image of one colour (two halves), and itself."""
    pixels = np.zeros([16, 16, 3], np.uint8) + np.array(levels, np.uint8)
    if other is not None:
        pixels[:, 8:] = other
    jpeg = jpeg_of(pixels)
    undistorted = decoded(jpeg, plain(color="none"), count=1)[0]
    return decoded(jpeg, spec) / 2 + 0.5, undistorted / 2 + 0.5


def only(kind, **magnitude):
    """Colours of which only one magnitude is left."""
    used = {color.MAGNITUDE_OF[name] for order in color.ORDERINGS[kind] for name in order}
    neutral = {name: value for name, value in NEUTRAL.items() if name in used}
    return plain(color=kind, **{**neutral, **magnitude})


@pytest.mark.parametrize("kind", ["full", "distributed", "fast", "tpu_fast"])
@pytest.mark.parametrize("delta", [32 / 255, 0.3])
def test_brightness_is_uniform(kind, delta):
    extra = {"chroma_delta": 0.0} if kind == "tpu_fast" else {}
    images, before = flat_images([128] * 3, only(kind, brightness_delta=delta, **extra))
    assert_uniform((images - before)[:, 0, 0, 1], -delta - 1e-5, delta + 1e-5)


@pytest.mark.parametrize("kind", ["full", "distributed", "fast"])
@pytest.mark.parametrize("bounds", [(0.5, 1.5), (0.9, 1.2)])
def test_saturation_is_uniform(kind, bounds):
    images, before = flat_images([150, 110, 100], only(kind, saturation_range=bounds))

    def saturation(x):
        return 1 - x.min(-1) / x.max(-1)

    factors = saturation(images[:, 0, 0]) / saturation(before[0, 0])
    assert_uniform(factors, bounds[0] - 1e-4, bounds[1] + 1e-4)


@pytest.mark.parametrize("kind", ["full", "distributed"])
@pytest.mark.parametrize("delta", [0.2, 0.05])
def test_hue_is_uniform(kind, delta):
    images, before = flat_images([100, 160, 140], only(kind, hue_delta=delta))
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in images[:, 0, 0]])
    turns = hues - colorsys.rgb_to_hsv(*before[0, 0])[0]
    assert_uniform((turns + 0.5) % 1.0 - 0.5, -delta - 1e-4, delta + 1e-4)


@pytest.mark.parametrize("kind", ["full", "distributed"])
@pytest.mark.parametrize("bounds", [(0.5, 1.5), (0.2, 0.8)])
def test_contrast_is_uniform(kind, bounds):
    spec = only(kind, contrast_range=bounds)
    images, before = flat_images([100] * 3, spec, other=[150] * 3)
    spread, spread_before = (x[..., 0, 1, 0] - x[..., 0, 0, 0] for x in (images, before))
    assert_uniform(spread / spread_before, bounds[0] - 1e-4, bounds[1] + 1e-4)


@pytest.mark.parametrize("delta", [0.1, 0.2])
def test_chroma_offsets_are_uniform_and_independent(delta):
    spec = only("tpu_fast", brightness_delta=0.05, chroma_delta=delta)
    images, before = flat_images([128] * 3, spec)
    red, green, blue = (images - before)[:, 0, 0].T.astype(float)
    # The inverse of the released matrix: RGB offsets back to brightness, Cb and Cr.
    matrix = [[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]]
    brightness, cb, cr = np.linalg.solve(matrix, [red, green, blue])
    assert_uniform(cb, -delta - 1e-5, delta + 1e-5)
    assert_uniform(cr, -delta - 1e-5, delta + 1e-5)
    assert np.abs(np.corrcoef([brightness, cb, cr]) - np.eye(3)).max() < 4 / np.sqrt(DRAWS)


# ------------------------------------------------------------------ any topology


class Reader:
    """Images in memory with their boxes; label = record id."""

    def __init__(self, jpegs, boxes):
        self.jpegs, self.boxes = jpegs, boxes

    def read(self, record_ids):
        jpegs = np.array([self.jpegs[i] for i in record_ids], dtype=object)
        return jpegs, record_ids.astype(np.int32)

    def read_with_boxes(self, record_ids):
        boxes = np.array([self.boxes[i].tobytes() for i in record_ids], dtype=object)
        return *self.read(record_ids), boxes


@functools.cache
def small_reader():
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 0.5, [10, 2, 2]).astype(np.float32)
    boxes = np.concatenate([corners, corners + 0.3], axis=2)
    counts = [0, 1, 2, 2, 1, 0, 2, 1, 1, 2]
    jpegs = [jpeg_of(picture(30, 40, seed=i)) for i in range(10)]
    return Reader(jpegs, [boxes[i, : counts[i]] for i in range(10)])


def train_images(
    spec, *, num_replicas, replica_batch, num_physical=1, calls=2, num_steps=2, size_px=8
):
    """Images of all positions in their order, [num_steps * global batch, size, size, 3]."""
    assignment = Assignment(
        num_replicas=num_replicas,
        replica_batch=replica_batch,
        num_physical=num_physical,
        num_local=num_physical,
    )
    dataset = pipeline.train_dataset(
        small_reader(),
        assignment=assignment,
        num_examples=10,
        start_step=0,
        seed=4,
        augmentation=spec,
        height_px=size_px,
        width_px=size_px,
        spec=pipeline.DataSpec(num_parallel_calls=calls),
    )
    elements = iter(dataset)
    shape = [size_px, size_px, 3]
    images = np.empty([num_steps, num_replicas, replica_batch, *shape], np.float32)
    for step in range(num_steps):
        for physical in range(num_physical):
            element = next(elements)["images"].numpy()
            declared = list(assignment.declared_of(physical))
            images[step, declared] = element[: len(declared)]
    return images.reshape(-1, *shape)


@pytest.mark.parametrize(
    "name",
    [
        # The one with boxes and both colour orders is the fast one.
        pytest.param(name, marks=[pytest.mark.slow] if name != "distributed" else [])
        for name in RECIPES
    ],
)
def test_a_position_has_the_same_pixels_on_any_topology(name):
    spec = RECIPES[name]
    expected = train_images(spec, num_replicas=4, replica_batch=3)
    for shape in (
        {"num_replicas": 4, "replica_batch": 3, "num_physical": 2, "calls": 1},
        {"num_replicas": 3, "replica_batch": 4, "num_physical": 3, "calls": 5},
        {"num_replicas": 1, "replica_batch": 8, "num_steps": 3, "calls": 3},
    ):
        np.testing.assert_array_equal(train_images(spec, **shape), expected)


THREADS = """
import sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
tf.config.threading.set_inter_op_parallelism_threads(int(sys.argv[2]))
sys.path[:0] = [sys.argv[3]]
import hashlib
import test_recipes
for name, spec in test_recipes.RECIPES.items():
    images = test_recipes.train_images(
        spec, num_replicas=4, replica_batch=3, size_px=299  # for threads to share
    )
    print(name, hashlib.sha256(images.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_position_has_the_same_pixels_with_any_number_of_threads():
    here = pathlib.Path(__file__).resolve().parent
    said = [
        subprocess.run(
            [sys.executable, "-c", THREADS, intra, inter, str(here)],
            cwd=here.parents[1], capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for intra, inter in (("1", "1"), ("2", "3"))
    ]
    assert said[0] == said[1] and len(said[0].splitlines()) == len(RECIPES)


def test_the_boxes_reach_the_images():
    spec = RECIPES["distributed"]
    with_boxes = train_images(spec, num_replicas=4, replica_batch=3)
    without = train_images(
        dataclasses.replace(spec, use_bounding_boxes=False),
        num_replicas=4,
        replica_batch=3,
    )
    assert not np.array_equal(with_boxes, without)


# ------------------------------------------------------------------ checks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"brightness_delta": -0.1}, "brightness_delta must lie in \\[0, 1\\]"),
        ({"brightness_delta": float("nan")}, "brightness_delta"),
        ({"hue_delta": 0.6}, "hue_delta must lie in \\[0, 0.5\\]"),
        ({"saturation_range": (1.5, 0.5)}, "saturation_range"),
        ({"saturation_range": (-0.5, 0.5)}, "saturation_range"),
        ({"contrast_range": (0.5, float("inf"))}, "contrast_range"),
        ({"contrast_range": (0.5,)}, "contrast_range"),
        ({"color": "tpu_fast", "chroma_delta": 2.0}, "chroma_delta"),
        ({"chroma_delta": 0.2}, "chroma_delta changes nothing with augmentation.color = 'full'"),
        ({"color": "fast", "hue_delta": 0.1}, "hue_delta changes nothing"),
        ({"color": "none", "brightness_delta": 0.1}, "brightness_delta changes nothing"),
        ({"choose_by": "thread"}, "choose_by knows no such name"),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        image.Augmentation(**changes)
