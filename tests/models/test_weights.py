"""Weights of keras.applications' Inception-ResNet-v2 in the released variant."""

import re

import h5py
import numpy as np
import pytest

from inception_tf import weights as door
from inception_tf.errors import DataError
from inception_tf.models.inception_resnet_v2 import inception_resnet_v2
from inception_tf.models.weights import (
    import_keras_h5,
    keras_model_weights,
    load_keras_weights,
    read_keras_h5,
)


@pytest.fixture(scope="module")
def released():
    return inception_resnet_v2(input_shape=(None, None, 3))


@pytest.fixture(scope="module")
def published_file(keras_twin, tmp_path_factory):
    """The twin's weights in the published layout: numbered from 1, names ending in ':0'."""
    path = tmp_path_factory.mktemp("published") / "inception_resnet_v2.h5"
    source = keras_model_weights(keras_twin)
    numbers = {
        prefix: min(
            int(name.removeprefix(prefix).strip("_") or 0)
            for name in source
            if re.fullmatch(rf"{prefix}(_\d+)?", name)
        )
        for prefix in ("conv2d", "batch_normalization")
    }
    with h5py.File(path, "w") as file:
        names = []
        for layer in keras_twin.layers:
            match = re.fullmatch(r"(conv2d|batch_normalization)(?:_(\d+))?", layer.name)
            name = layer.name
            if match:
                name = f"{match[1]}_{int(match[2] or 0) - numbers[match[1]] + 1}"
            names.append(name.encode())
            group = file.create_group(name)
            arrays = source.get(layer.name, {})
            group.attrs["weight_names"] = [f"{name}/{key}:0".encode() for key in arrays]
            for key, array in arrays.items():
                group[f"{name}/{key}:0"] = array
        file.attrs["layer_names"] = names
    return path


def test_logits_equal_keras_applications_with_the_same_weights(keras_twin, released):
    load_keras_weights(released, keras_model_weights(keras_twin))
    images = np.random.default_rng(1).uniform(-1, 1, (2, 139, 139, 3)).astype("float32")
    theirs = keras_twin(images).numpy()
    ours = released(images).numpy()
    assert theirs.std() > 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_door_imports_the_published_file(keras_twin, published_file, tmp_path, capsys):
    out = tmp_path / "released.weights.h5"
    assert door.main(["import", str(published_file), "--out", str(out)]) == 0
    assert "55,873,736" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    model = inception_resnet_v2(input_shape=(None, None, 3), seed=5)
    model.load_weights(out)
    twin = keras_model_weights(keras_twin)
    for ours, theirs in (("Conv2d_7b_1x1", "conv_7b"), ("block8_10_Conv2d_1x1", "block8_10_conv")):
        np.testing.assert_array_equal(model.get_layer(ours).kernel, twin[theirs]["kernel"])
    np.testing.assert_array_equal(model.get_layer("Logits").bias, twin["predictions"]["bias"])


def test_file_read_equals_the_live_model(keras_twin, published_file):
    read, live = read_keras_h5(published_file), keras_model_weights(keras_twin)
    assert sum(len(arrays) for arrays in read.values()) == 898
    np.testing.assert_array_equal(read["conv_7b"]["kernel"], live["conv_7b"]["kernel"])


def test_weights_without_top_fill_a_model_without_top(keras_twin, free_trunks):
    source = keras_model_weights(keras_twin)
    del source["predictions"]
    model = free_trunks["released"]
    load_keras_weights(model, source)
    np.testing.assert_array_equal(
        model.get_layer("Conv2d_7b_1x1").beta, source["conv_7b_bn"]["beta"]
    )


def test_wrong_shape_is_an_error_that_names_both_and_assigns_nothing(keras_twin):
    narrow = inception_resnet_v2(input_shape=(75, 75, 3), width_multiplier=0.1)
    before = narrow.get_layer("Conv2d_1a_3x3").kernel.numpy()
    with pytest.raises(DataError, match=r"\(3, 3, 3, 32\).*\(3, 3, 3, 8\)"):
        load_keras_weights(narrow, keras_model_weights(keras_twin))
    np.testing.assert_array_equal(narrow.get_layer("Conv2d_1a_3x3").kernel, before)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda source: source.pop("conv_7b_bn"), "absent.*conv_7b_bn"),
        (lambda source: source.pop("block17_20_conv"), "block17_20_Conv2d_1x1"),
        (lambda source: source["predictions"].pop("bias"), "Logits/bias"),
        (lambda source: source.pop(next(n for n in source if n.startswith("conv2d"))), "202 named"),
        (lambda source: source.update(extra={"kernel": np.zeros(1)}), "unknown.*extra"),
    ],
)
def test_missing_and_unknown_weights_are_named(keras_twin, released, damage, message):
    source = keras_model_weights(keras_twin)
    damage(source)
    with pytest.raises(DataError, match=message):
        load_keras_weights(released, source)


def test_unreadable_sources_are_one_message_and_leave_no_file(tmp_path, capsys):
    text = tmp_path / "text.h5"
    text.write_text("no weights")
    other = tmp_path / "other.h5"
    h5py.File(other, "w").close()
    for source in (text, other, tmp_path / "missing.h5"):
        out = tmp_path / "out.weights.h5"
        assert door.main(["import", str(source), "--out", str(out)]) == 2
        assert source.name in capsys.readouterr().err
        assert not out.exists()
    with pytest.raises(DataError, match="weights.h5"):
        import_keras_h5(text, tmp_path / "out.h5")
