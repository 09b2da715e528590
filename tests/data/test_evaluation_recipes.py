"""The evaluation's crops against NumPy, Pillow and torchvision's arithmetic, and as exported."""

import functools
import io
import math
import tarfile
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from inception_tf import exports
from inception_tf.data import evaluation_pipeline, image, image_files, pipeline
from inception_tf.data.photo import PhotoEdits
from inception_tf.errors import ConfigError
from inception_tf.serving.content import Content
from inception_tf.serving.fold import fold
from inception_tf.serving.signatures import answers_of, write_saved_model
from inception_tf.serving.spec import ExportSpec

CROPS = {
    "slim_tf1": image.EvaluationCrop(),
    "slim_tf2": image.EvaluationCrop(recipe="slim_tf2"),
    "keras_timm": image.EvaluationCrop(recipe="keras_timm"),
    "keras_timm 0.8975": image.EvaluationCrop(recipe="keras_timm", central_fraction=0.8975),
}


@functools.cache
def evaluation_graph(crop, height_px, width_px):
    return tf.function(
        functools.partial(
            image.decode_evaluation, crop=crop, height_px=height_px, width_px=width_px
        ),
        input_signature=[tf.TensorSpec([], tf.string)],
    )


def levels_of(data, crop, height_px, width_px):
    """The evaluated image on 0..255, float64."""
    return (evaluation_graph(crop, height_px, width_px)(data).numpy() / 2.0 + 0.5) * 255


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, [1, 1 + height // 9, 1 + width // 9, 3]).astype(np.float32)
    return tf.cast(tf.image.resize(coarse, [height, width]), tf.uint8)[0].numpy()


def grainy(height, width, seed=0):
    """A picture with grain: bicubic sampling meets few exact halves, which rounding may put up or
    down, as it does on smooth ramps."""
    grain = np.random.default_rng(seed + 1).integers(-20, 21, [height, width, 3])
    return np.clip(picture(height, width, seed) + grain, 0, 255).astype(np.uint8)


def png_of(pixels):
    return tf.io.encode_png(pixels).numpy()


@pytest.fixture(scope="module")
def natural_jpegs(shared_images):
    """24 ImageNet images at natural size."""
    with tarfile.open(shared_images / "imagenet_natural.tar") as tar:
        members = [m for m in tar if m.name.endswith(".JPEG")][::12][:24]
        return [tar.extractfile(member).read() for member in members]


# ------------------------------------------------------------------ slim


def numpy_bilinear_axis(levels, count, axis, *, half_pixel):
    size = levels.shape[axis]
    at = np.arange(count) * size / count
    if half_pixel:
        at = (np.arange(count) + 0.5) * size / count - 0.5
    low = np.floor(at)
    weight = (at - low).reshape([-1] + [1] * (levels.ndim - 1 - axis))
    before, after = (
        levels.take(np.clip(low + i, 0, size - 1).astype(int), axis) for i in (0, 1)
    )
    return before * (1 - weight) + after * weight


@pytest.mark.parametrize("recipe", ["slim_tf1", "slim_tf2"])
@pytest.mark.parametrize(("height", "width"), [(60, 91), (31, 30), (300, 17), (1, 1)])
def test_slim_equals_numpy(recipe, height, width):
    pixels = picture(height, width)
    top, left = height // 16, width // 16
    expected = pixels[top : height - top, left : width - left].astype(float)
    for axis, count in enumerate((37, 45)):
        expected = numpy_bilinear_axis(expected, count, axis, half_pixel=recipe == "slim_tf2")
    found = levels_of(png_of(pixels), CROPS[recipe], 37, 45)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("recipe", "row"),
    [
        ("slim_tf1", [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]),
        ("slim_tf2", [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]),
    ],
)
def test_the_two_samplings_of_a_row_are_those_of_tf1_and_tf2(recipe, row):
    pixels = np.repeat(np.array([0, 1, 2, 3], np.uint8)[None, :, None], 3, axis=2)
    crop = image.EvaluationCrop(recipe=recipe, central_fraction=1.0)
    found = levels_of(png_of(pixels), crop, 1, 8)
    np.testing.assert_allclose(found[0, :, 0], row, atol=1e-4)


# ------------------------------------------------------------------ keras_timm


def timm_with_pillow(pixels, crop_pct, side):
    """Resize(floor(side / crop_pct)) and CenterCrop(side), as torchvision has them, by Pillow."""
    short = math.floor(side / crop_pct)
    height, width = pixels.shape[:2]
    long = int(short * max(height, width) / min(height, width))
    new_height, new_width = (short, long) if height <= width else (long, short)
    resized = Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BICUBIC)
    top = int(round((new_height - side) / 2.0))
    left = int(round((new_width - side) / 2.0))
    return np.asarray(resized, float)[top : top + side, left : left + side]


def assert_as_pillow(found, expected):
    """Whole levels; those that Pillow's own rounding puts elsewhere are rare and next to them."""
    np.testing.assert_allclose(found, np.rint(found), atol=1e-3)
    difference = np.abs(np.rint(found) - expected)
    assert difference.max() <= 2
    assert np.mean(difference > 0) < 0.003


@pytest.mark.parametrize("crop_pct", [0.875, 0.8975, 1.0])
def test_keras_timm_equals_pillow_on_photographs(natural_jpegs, crop_pct):
    crop = image.EvaluationCrop(recipe="keras_timm", central_fraction=crop_pct)
    for jpeg in natural_jpegs:
        pixels = tf.io.decode_jpeg(jpeg, channels=3).numpy()
        found = levels_of(jpeg, crop, 299, 299)
        assert_as_pillow(found, timm_with_pillow(pixels, crop_pct, 299))


# Landscape, portrait, square, one pixel; halves above and below of either parity in the crop.
@pytest.mark.parametrize(
    ("height", "width"), [(40, 61), (61, 40), (50, 50), (1, 1), (30, 200), (97, 64), (33, 32)]
)
@pytest.mark.parametrize("side", [32, 75])
def test_keras_timm_equals_pillow_on_any_shape(height, width, side):
    pixels = grainy(height, width, seed=height)
    found = levels_of(png_of(pixels), CROPS["keras_timm"], side, side)
    assert_as_pillow(found, timm_with_pillow(pixels, 0.875, side))


def test_keras_timm_keeps_the_aspect_ratio_and_slim_squashes():
    pixels = np.zeros([100, 300, 3], np.uint8)
    pixels[25:75, 125:175] = 255  # a square in the middle
    for name, is_square in (("keras_timm", True), ("slim_tf1", False)):
        mask = levels_of(png_of(pixels), CROPS[name], 70, 70)[..., 0] > 127
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert (abs(rows - columns) <= 1) == is_square


def timm_keep_ratio_size(sides, least):
    """Height and width that timm's ResizeKeepRatio (longest=0) resizes to, in Python's floats."""
    ratio = min(side / fewest for side, fewest in zip(sides, least))
    return [round(side / ratio) for side in sides]


@pytest.mark.parametrize(
    ("height", "width"), [(90, 60), (60, 90), (61, 89), (93, 61), (40, 93), (500, 375), (7, 300)]
)
@pytest.mark.parametrize("target", [(35, 70), (70, 35)])
def test_an_input_that_is_not_square_is_covered_without_distortion(height, width, target):
    """Of the two sides the one that leaves the other long enough is resized to fit; the other is
    rounded, where torchvision's Resize, which timm takes for square inputs, floors."""
    pixels = grainy(height, width)
    found = levels_of(png_of(pixels), CROPS["keras_timm"], *target)
    size = timm_keep_ratio_size((height, width), [math.floor(side / 0.875) for side in target])
    resized = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC)
    top, left = (round((whole - side) / 2.0) for whole, side in zip(size, target))
    expected = np.asarray(resized, float)[top : top + target[0], left : left + target[1]]
    assert_as_pillow(found, expected)


def test_the_other_side_of_a_not_square_input_is_rounded_up_where_it_is_nearer():
    # 93 x 61 covers 40 x 80 px as 80 wide: 93 * 80 / 61 = 121.97 rows.
    assert timm_keep_ratio_size((93, 61), (40, 80)) == [122, 80]


# ------------------------------------------------------------------ one decoder for all


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images of several shapes: paths and bytes."""
    folder = tmp_path_factory.mktemp("images")
    paths, contents = [], []
    for number, (height, width) in enumerate([(40, 60), (64, 33), (50, 50)]):
        stream = io.BytesIO()
        Image.fromarray(picture(height, width, seed=number)).save(stream, "JPEG", quality=95)
        paths.append(str(folder / f"{number}.jpg"))
        contents.append(stream.getvalue())
        (folder / f"{number}.jpg").write_bytes(stream.getvalue())
    return paths, contents


@pytest.mark.parametrize("name", CROPS)
def test_evaluation_features_and_export_see_the_same_pixels(name, files, tmp_path):
    paths, jpegs = files
    crop = CROPS[name]
    expected = np.stack([evaluation_graph(crop, 20, 24)(jpeg).numpy() for jpeg in jpegs])

    class Reader:
        def read(self, record_ids):
            return np.array([jpegs[i] for i in record_ids], object), record_ids.astype(np.int32)

    batches = evaluation_pipeline.eval_dataset(
        Reader(),
        num_examples=3,
        replica_batch=3,
        num_physical=1,
        first_local=0,
        num_local=1,
        crop=crop,
        height_px=20,
        width_px=24,
        spec=pipeline.DataSpec(),
    )
    np.testing.assert_array_equal(next(iter(batches))["images"], expected)

    # The road's own decoder, which is what an export gets.
    experiment = types.SimpleNamespace(
        evaluation_crop=crop, model=types.SimpleNamespace(input_height_px=20, input_width_px=24)
    )
    preprocessing = exports._preprocessing(experiment, PhotoEdits())
    _, of_features = next(
        image_files.image_batches(paths, decode=preprocessing.of_file, batch=3)
    )
    np.testing.assert_array_equal(of_features, expected)

    keras.utils.set_random_seed(1)
    inputs = keras.Input([20, 24, 3])
    whole = keras.layers.Conv2D(5, (20, 24), activation="relu")(inputs)  # each pixel on its own
    outputs = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(whole))
    model = keras.Model(inputs, outputs)
    content = Content(
        class_names=("a", "b", "c", "d"), background_class=False, preprocessing=preprocessing,
        metadata={},
    )  # fmt: skip
    write_saved_model(tmp_path, fold(model), content, spec=ExportSpec())
    expected = tf.nn.softmax(model(expected)).numpy()
    answers = answers_of(tmp_path, "all_probabilities", jpegs)["probabilities"]
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-5)
    # Decoded images of any size, one size in a request.
    signature = tf.saved_model.load(str(tmp_path)).signatures["pixels"]
    for jpeg, own in zip(jpegs, expected):
        pixels = tf.io.decode_jpeg(jpeg).numpy()
        ranked = signature(images=tf.constant(np.stack([pixels, pixels])))
        order = np.argsort(-own)
        assert ranked["classes"].numpy().tolist() == [order.tolist()] * 2
        np.testing.assert_allclose(ranked["probabilities"][1], own[order], rtol=0, atol=1e-5)


def test_the_recipes_differ(files):
    images = [evaluation_graph(crop, 40, 44)(files[1][0]).numpy() for crop in CROPS.values()]
    for one in range(len(images)):
        for other in range(one):
            assert np.abs(images[one] - images[other]).max() > 0.02


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'keras_timm'"):
        image.EvaluationCrop(recipe="keras_tim")
