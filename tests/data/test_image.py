"""Crops, resizing and colours against TF1's own ops, NumPy and full decoding."""

import colorsys
import csv
import functools
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import color
from inception_tf.data import image
from inception_tf.errors import ConfigError

PLAIN = image.Augmentation(color="none", horizontal_flip=False, resize_methods=("nearest",))


def key_of(position, seed=0):
    return tf.constant([seed, position], tf.int64)


def picture(height=60, width=80, seed=0):
    """Smooth colourful uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, [1, 5, 6, 3]).astype(np.float32)
    return tf.cast(tf.image.resize(coarse, [height, width]), tf.uint8)[0].numpy()


def jpeg_of(pixels):
    return tf.io.encode_jpeg(pixels, quality=95, chroma_downsampling=True).numpy()


@pytest.fixture(scope="module")
def natural_jpegs(shared_images):
    """120 ImageNet images at natural size, gray ones among them."""
    with tarfile.open(shared_images / "imagenet_natural.tar") as tar:
        members = [m for m in tar if m.name.endswith(".JPEG")][:120]
        return [tar.extractfile(member).read() for member in members]


@functools.cache
def training_graph(augmentation, height_px=48, width_px=64):
    return tf.function(
        functools.partial(
            image.decode_training, augmentation=augmentation, height_px=height_px, width_px=width_px
        ),
        input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int64)],
    )


# ------------------------------------------------------------------ decoding


def assert_windows_equal_slices(jpeg, rng, decode, num_windows):
    full = tf.io.decode_jpeg(jpeg, channels=3).numpy()
    height, width = full.shape[:2]
    for i in range(num_windows):
        h, w = rng.integers(1, height + 1), rng.integers(1, width + 1)
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        if i % 2:
            left -= left % 16  # where even the left column differs without the margin
        window = decode(tf.constant(jpeg), tf.constant([top, left, h, w], tf.int32)).numpy()
        np.testing.assert_array_equal(window, full[top : top + h, left : left + w])


def test_partial_decode_equals_full_decode_on_natural_images(natural_jpegs):
    rng = np.random.default_rng(5)
    decode = tf.function(image.decode_window)
    for jpeg in natural_jpegs:
        assert_windows_equal_slices(jpeg, rng, decode, num_windows=3)


def test_partial_decode_equals_full_decode_on_odd_jpegs(shared_images):
    rng = np.random.default_rng(6)
    decode = tf.function(image.decode_window)
    folder = shared_images / "odd_images"
    tried = 0
    with open(folder / "expected.csv", newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            if row["format"] != "JPEG" or row["decode_with_pillow"] != "ok":
                continue
            assert_windows_equal_slices(
                (folder / next(iter(row.values()))).read_bytes(), rng, decode, num_windows=8
            )
            tried += 1
    assert tried >= 15  # progressive, CMYK, gray, 4:4:4, arithmetic, one pixel ...


def test_windows_at_the_borders_equal_slices():
    pixels = picture(33, 47)
    jpeg = jpeg_of(pixels)
    full = tf.io.decode_jpeg(jpeg, channels=3).numpy()
    for top, left, h, w in [(0, 0, 33, 47), (0, 46, 33, 1), (32, 0, 1, 47), (5, 1, 9, 45)]:
        window = image.decode_window(jpeg, tf.constant([top, left, h, w])).numpy()
        np.testing.assert_array_equal(window, full[top : top + h, left : left + w])


@pytest.mark.parametrize("data", [b"", b"no image", tf.io.encode_png(picture()).numpy()[:60]])
def test_training_refuses_what_is_no_image(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        training_graph(PLAIN)(data, key_of(0))


# ------------------------------------------------------------------ the random crop


def test_crops_keep_to_their_ranges_and_differ():
    augmentation = image.Augmentation(area_range=(0.2, 0.8), min_object_covered=0.0)
    sample = tf.function(
        lambda position: image.sample_window(
            tf.constant([400, 500, 3]),
            tf.stack([tf.constant(3, tf.int64), position]),
            augmentation=augmentation,
        )
    )
    windows = np.stack([sample(tf.constant(p, tf.int64)).numpy() for p in range(1000)])
    top, left, height, width = windows.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 400).all() and (left + width <= 500).all()
    area = height * width / (400 * 500)
    aspect = width / height
    # The sides are whole pixels: half a pixel of 155 px, the shortest side, is 0.4%.
    assert area.min() > 0.2 * 0.99 and area.max() < 0.8 * 1.01
    assert aspect.min() > 0.75 * 0.99 and aspect.max() < 1.33 * 1.01
    assert np.ptp(area) > 0.5 and np.ptp(aspect) > 0.5
    assert len(np.unique(windows, axis=0)) > 990


def test_released_crop_covers_a_tenth_of_the_image_at_least():
    windows = np.stack(
        [
            image.sample_window(
                tf.constant([300, 300, 3]), key_of(p), augmentation=image.Augmentation()
            )
            for p in range(300)
        ]
    )
    assert (windows[:, 2] * windows[:, 3]).min() >= 0.1 * 300 * 300 * 0.99


def test_impossible_crop_takes_the_whole_image():
    # No crop of a 400 x 40 image with width / height of 0.75 or more covers 90% of it.
    augmentation = image.Augmentation(area_range=(0.9, 1.0))
    window = image.sample_window(tf.constant([400, 40, 3]), key_of(1), augmentation=augmentation)
    np.testing.assert_array_equal(window, [0, 0, 400, 40])


# ------------------------------------------------------------------ resizing


def test_bilinear_has_no_half_pixel_centres():
    row = np.repeat(np.array([0, 1, 2, 3], np.uint8)[None, :, None], 3, axis=2)
    png = tf.io.encode_png(row).numpy()
    result = image.decode_evaluation(
        png, crop=image.EvaluationCrop(central_fraction=1.0), height_px=1, width_px=8
    )
    levels = (result.numpy()[0, :, 0] / 2 + 0.5) * 255
    np.testing.assert_allclose(levels, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3], atol=1e-4)


@pytest.mark.parametrize("method", ["bilinear", "nearest", "bicubic", "area"])
def test_resize_equals_tf1(method):
    pixels = picture(50, 70)
    jpeg = jpeg_of(pixels)
    augmentation = image.Augmentation(
        area_range=(1.0, 1.0),
        aspect_ratio_range=(70 / 50 - 1e-3, 70 / 50 + 1e-3),
        resize_methods=(method,),
        color="none",
        horizontal_flip=False,
        max_attempts=1,
    )
    result = training_graph(augmentation, 31, 99)(jpeg, key_of(0))
    full = tf.cast(tf.io.decode_jpeg(jpeg, channels=3), tf.float32)[tf.newaxis] / 255
    tf1 = {
        "bilinear": tf.compat.v1.image.resize_bilinear,
        "nearest": tf.compat.v1.image.resize_nearest_neighbor,
        "bicubic": tf.compat.v1.image.resize_bicubic,
        "area": tf.compat.v1.image.resize_area,
    }[method](full, [31, 99])[0]
    expected = (np.clip(tf1, 0, 1) - 0.5) * 2
    np.testing.assert_allclose(result, expected, atol=2e-6)


# ------------------------------------------------------------------ colour


def uniform_for(amount, low, high):
    return (amount - low) / (high - low)


def numpy_operation(name, x, amount):
    """One colour operation by its definition; HSV through the standard library."""
    if name == "brightness":
        return x + amount
    if name == "contrast":
        mean = x.mean(axis=(0, 1), keepdims=True)
        return (x - mean) * amount + mean
    result = np.empty_like(x)
    for at in np.ndindex(*x.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*x[at])
        if name == "hue":
            h = (h + amount) % 1.0
        else:
            s = min(1.0, s * amount)
        result[at] = colorsys.hsv_to_rgb(h, s, v)
    return result


@pytest.mark.parametrize("ordering", range(4))
def test_colour_orderings_equal_numpy(ordering):
    x = picture(12, 16, seed=ordering) / 255.0 * 0.6 + 0.2  # far enough from 0 for colorsys
    amounts = {"brightness": 0.05, "saturation": 1.1, "hue": -0.13, "contrast": 0.9}
    order_of_release = [
        ["brightness", "saturation", "hue", "contrast"],
        ["saturation", "brightness", "contrast", "hue"],
        ["contrast", "hue", "brightness", "saturation"],
        ["hue", "saturation", "contrast", "brightness"],
    ][ordering]
    uniforms = [
        uniform_for(amounts["brightness"], -32 / 255, 32 / 255),
        uniform_for(amounts["saturation"], 0.5, 1.5),
        uniform_for(amounts["hue"], -0.2, 0.2),
        uniform_for(amounts["contrast"], 0.5, 1.5),
    ]
    result = color.distort(
        tf.constant(x, tf.float32),
        operations=color.ORDERINGS["full"][ordering],
        amounts=[tf.constant(u, tf.float32) for u in uniforms],
        magnitudes=image.Augmentation(),
    )
    expected = x
    for name in order_of_release:
        expected = numpy_operation(name, expected, amounts[name])
    np.testing.assert_allclose(result, expected, atol=5e-6)


def planes_of(x):
    return tf.transpose(tf.constant(x, tf.float32), [2, 0, 1])


@pytest.mark.parametrize(
    "ours, theirs, values",
    [
        (color.scale_saturation, tf.image.adjust_saturation, (0.5, 0.9, 1.0, 1.3, 1.5)),
        (color.turn_hue, tf.image.adjust_hue, (-0.2, -0.07, 0.0, 0.11, 0.2)),
        (color.scale_contrast, tf.image.adjust_contrast, (0.5, 1.0, 1.5)),
    ],
)
def test_colour_operations_equal_tensorflow_beyond_0_and_1(ours, theirs, values):
    rng = np.random.default_rng(1)
    x = rng.uniform(-0.3, 1.3, [40, 50, 3]).astype(np.float32)
    x[0] = x[0, :, :1]  # gray
    x[1] = 0.0
    x[2] = np.round(x[2])  # ties between channels
    x[3] = -np.abs(x[3])  # V below 0
    for value in values:
        result = tf.transpose(ours(planes_of(x), tf.constant(value)), [1, 2, 0])
        np.testing.assert_allclose(result, theirs(x, value), atol=3e-6)


def test_hue_wraps_saturation_caps_and_brightness_does_not_clip():
    x = planes_of(picture(9, 9) / 255.0)
    np.testing.assert_allclose(color.turn_hue(x, 0.2), color.turn_hue(x, -0.8), atol=2e-6)
    saturated = color.scale_saturation(x, 100.0)
    np.testing.assert_allclose(saturated, color.scale_saturation(saturated, 1.5), atol=2e-6)
    white = color.distort(
        tf.ones([2, 2, 3]),
        operations=color.ORDERINGS["fast"][0],
        amounts=[tf.constant(0.999)] * 4,
        magnitudes=image.Augmentation(color="fast"),
    )
    assert white.numpy().min() > 1.12


# ------------------------------------------------------------------ the whole training image


def test_an_image_is_a_function_of_seed_and_position():
    jpeg = jpeg_of(picture(120, 150))
    decode = training_graph(image.Augmentation())
    first = decode(jpeg, key_of(5, seed=1)).numpy()
    np.testing.assert_array_equal(decode(jpeg, key_of(5, seed=1)), first)
    eager = image.decode_training(
        jpeg, key_of(5, seed=1), augmentation=image.Augmentation(), height_px=48, width_px=64
    )
    np.testing.assert_allclose(eager, first, atol=1e-6)
    for position, seed in [(6, 1), (5, 2), (1, 5), (5 + 2**32, 1), (5, 1 + 2**32)]:
        assert np.abs(decode(jpeg, key_of(position, seed)).numpy() - first).mean() > 0.01


def test_images_stay_in_range_and_half_of_them_are_mirrored():
    ramp = np.tile(np.linspace(0, 255, 90)[None, :, None], [60, 1, 3]).astype(np.uint8)
    jpeg = jpeg_of(ramp)
    decode = training_graph(image.Augmentation())
    images = np.stack([decode(jpeg, key_of(p)).numpy() for p in range(300)])
    assert images.dtype == np.float32 and images.shape == (300, 48, 64, 3)
    assert images.min() == -1.0 and images.max() == 1.0
    mirrored = np.mean(images[:, :, 0].mean((1, 2)) > images[:, :, -1].mean((1, 2)))
    assert 0.4 < mirrored < 0.6  # 0.5 +- 3.5 standard deviations


def test_all_four_resize_methods_are_drawn():
    jpeg = jpeg_of(picture(40, 40))
    counts = dict.fromkeys(["bilinear", "nearest", "bicubic", "area"], 0)
    for position in range(120):
        mixed = training_graph(image.Augmentation(color="none"))(jpeg, key_of(position)).numpy()
        matches = [
            name
            for name in counts
            if np.array_equal(
                mixed,
                training_graph(image.Augmentation(color="none", resize_methods=(name,)))(
                    jpeg, key_of(position)
                ),
            )
        ]
        assert matches
        counts[matches[0]] += len(matches) == 1
    assert min(counts.values()) > 10, counts  # 30 each, less where two methods agree


# ------------------------------------------------------------------ evaluation


@pytest.mark.parametrize(
    "side, size", [(299, 263), (300, 264), (333, 293), (375, 329), (500, 438), (501, 439), (1, 1)]
)
def test_central_crop_has_the_released_sizes(side, size):
    offset = int(image.central_offset_px(tf.constant(side), 0.875))
    assert side - 2 * offset == size


def test_evaluation_equals_tf1s_ops(natural_jpegs):
    for jpeg in natural_jpegs[:10]:
        result = image.decode_evaluation(
            jpeg, crop=image.EvaluationCrop(), height_px=149, width_px=151
        )
        full = tf.image.convert_image_dtype(tf.io.decode_jpeg(jpeg, channels=3), tf.float32)
        crop = tf.image.central_crop(full, 0.875)[tf.newaxis]
        expected = (tf.compat.v1.image.resize_bilinear(crop, [149, 151])[0] - 0.5) * 2
        np.testing.assert_allclose(result, expected, atol=2e-6)
        assert np.abs(result).max() <= 1.0


def test_evaluation_takes_png_gray_and_bmp():
    gray = picture()[..., :1]
    evaluate = functools.partial(
        image.decode_evaluation, crop=image.EvaluationCrop(), height_px=20, width_px=20
    )
    from_gray = evaluate(tf.io.encode_png(gray).numpy())
    from_rgb = evaluate(tf.io.encode_png(np.repeat(gray, 3, axis=2)).numpy())
    np.testing.assert_array_equal(from_gray, from_rgb)
    assert evaluate(jpeg_of(picture())).shape == (20, 20, 3)


def test_evaluation_sees_truncation_below_the_crop():
    jpeg = jpeg_of(picture(200, 200, seed=3))
    cut = jpeg[: int(len(jpeg) * 0.95)]
    top_rows = tf.constant([0, 0, 20, 200])
    assert image.decode_window(cut, top_rows).shape == (20, 200, 3)  # a partial decode does not
    with pytest.raises(tf.errors.InvalidArgumentError):
        image.decode_evaluation(cut, crop=image.EvaluationCrop(), height_px=20, width_px=20)


# ------------------------------------------------------------------ checks


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"area_range": (0.0, 1.0)}, "area_range"),
        ({"area_range": (0.5, 0.1)}, "area_range"),
        ({"area_range": (0.5, 1.5)}, "area_range"),
        ({"area_range": (0.5,)}, "area_range"),
        ({"aspect_ratio_range": (-1.0, 1.0)}, "aspect_ratio_range"),
        ({"aspect_ratio_range": (float("nan"), 1.0)}, "aspect_ratio_range"),
        ({"min_object_covered": 1.5}, "min_object_covered"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"resize_methods": ()}, "resize_methods"),
        ({"resize_methods": "bilinear"}, "mind the comma"),
        ({"resize_methods": ("bilinar",)}, "Did you mean 'bilinear'"),
        ({"color": "ful"}, "Did you mean 'full'"),
    ],
)
def test_impossible_augmentation_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        image.Augmentation(**changes)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan")])
def test_impossible_central_fraction_is_refused(fraction):
    with pytest.raises(ConfigError, match="central_fraction"):
        image.EvaluationCrop(central_fraction=fraction)


@pytest.mark.slow
def test_pixels_do_not_depend_on_the_threads_of_an_op():
    script = pathlib.Path(__file__).with_name("hash_images.py")
    digests = {
        subprocess.run(
            [sys.executable, script, str(threads)], check=True, capture_output=True, text=True
        ).stdout
        for threads in (1, 2, 7)
    }
    assert len(digests) == 1 and len(digests.pop().strip()) == 64
