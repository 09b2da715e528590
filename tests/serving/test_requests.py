"""A bad image spoils its request with a clear error, or itself alone; never the server."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.serving.spec import ExportSpec
from tests.serving.test_signatures import (
    SIDE_PX, build_model, decode, drawn_jpegs, evaluated, export, values_of,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return build_model()


@pytest.fixture(scope="module")
def files(model):
    """(whole image files, one of them a PNG; the evaluator's probabilities)."""
    jpegs = drawn_jpegs(4)
    jpegs[1] = tf.io.encode_png(tf.io.decode_jpeg(jpegs[1])).numpy()
    return jpegs, evaluated(model, values_of(model), jpegs)


def signatures_of(model, out_dir, on_bad_image):
    path = export(
        model, values_of(model), out_dir, spec=ExportSpec(top_k=2, on_bad_image=on_bad_image)
    )
    return tf.saved_model.load(str(path)).signatures


@pytest.fixture(scope="module")
def strict(model, tmp_path_factory):
    return signatures_of(model, tmp_path_factory.mktemp("strict"), "error")


@pytest.fixture(scope="module")
def flagging(model, tmp_path_factory):
    return signatures_of(model, tmp_path_factory.mktemp("flagging"), "flag")


def with_bad(jpegs):
    """Six files of which 1, 4 and 5 are bad: no image, nothing at all, and half a file."""
    return [jpegs[0], b"no image", jpegs[1], jpegs[2], b"", jpegs[3][: len(jpegs[3]) // 2]]


@pytest.mark.parametrize("name", ["serving_default", "all_probabilities", "features"])
def test_a_request_with_bad_images_is_refused_with_their_numbers(strict, files, name):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)no whole image.*\[1 4 5\]"):
        strict[name](image_bytes=tf.constant(with_bad(files[0])))
    # The next request is answered: nothing of the last one is left.
    answer = strict[name](image_bytes=tf.constant(files[0][:1]))
    assert np.isfinite(answer["features" if name == "features" else "probabilities"]).all()


def test_flagged_images_are_empty_and_the_others_are_answered(flagging, files):
    jpegs, expected = files
    found = flagging["all_probabilities"](image_bytes=tf.constant(with_bad(jpegs)))
    assert found["ok"].numpy().tolist() == [True, False, True, True, False, False]
    np.testing.assert_allclose(found["probabilities"].numpy()[[0, 2, 3]], expected[:3], atol=1e-5)
    assert not found["probabilities"].numpy()[[1, 4, 5]].any()
    ranked = flagging["serving_default"](image_bytes=tf.constant(with_bad(jpegs)))
    assert ranked["classes"].numpy()[[1, 4, 5]].tolist() == [[-1, -1]] * 3
    assert ranked["names"].numpy()[[1, 4, 5]].tolist() == [[b"", b""]] * 3
    assert ranked["classes"].numpy()[[0, 2, 3], 0].tolist() == expected[:3].argmax(1).tolist()
    features = flagging["features"](image_bytes=tf.constant(with_bad(jpegs)))
    assert features["features"].shape == (6, 8) and not features["features"].numpy()[1].any()


def test_a_request_of_nothing_but_a_bad_image(flagging):
    found = flagging["all_probabilities"](image_bytes=tf.constant([b"x"]))
    assert not found["ok"].numpy().any() and not found["probabilities"].numpy().any()


def test_features_are_the_classifiers_input(model, strict, files):
    pooled = keras.Model(model.input, model.get_layer("pool").output)
    images = tf.stack([decode(file) for file in files[0]])
    found = strict["features"](image_bytes=tf.constant(files[0]))["features"]
    np.testing.assert_allclose(found, pooled(images, training=False), rtol=1e-4, atol=1e-5)


def test_pixels_of_any_size_are_cropped_as_files_are(strict, files):
    for file in files[0]:
        pixels = tf.io.decode_image(file, expand_animations=False)
        assert tuple(pixels.shape[:2]) != (SIDE_PX, SIDE_PX)
        found = strict["pixels"](images=tf.stack([pixels, pixels]))
        expected = strict["serving_default"](image_bytes=tf.constant([file, file]))
        assert found["names"].numpy().tolist() == expected["names"].numpy().tolist()
        np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-6)
