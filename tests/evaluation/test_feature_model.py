"""Features by endpoint, and the file of them that is whole or not there."""

import keras
import numpy as np
import pytest

from inception_tf.errors import ConfigError, DataError
from inception_tf.evaluation import features
from inception_tf.models.catalog import CATALOG
from inception_tf.models.stage_builder import endpoints

SIDE_PX = 75
NARROW = {"width_multiplier": 0.1, "input_shape": (SIDE_PX, SIDE_PX, 3)}
VARIANTS = [(name, variant) for name, variants in CATALOG.items() for variant in variants]


def build(name, variant, **options):
    return CATALOG[name][variant].builder(variant=variant, **NARROW, **options)


@pytest.fixture(scope="module")
def network():
    """A narrow Inception-v3 with classifier."""
    return build("inception_v3", "released", num_classes=10)


@pytest.fixture(scope="module")
def images():
    """Float32 [3, 75, 75, 3] in [-1, 1]."""
    return np.random.default_rng(0).uniform(-1, 1, [3, SIDE_PX, SIDE_PX, 3]).astype(np.float32)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_last_endpoint_is_what_the_classifier_pools(name, variant):
    model = build(name, variant, num_classes=10)
    last = list(endpoints(model).values())[-1]
    assert model.get_layer("AvgPool_1a").input is last


def test_the_default_features_are_the_network_without_its_top(network, images):
    headless = build("inception_v3", "released", include_top=False, pooling="avg")
    values = {variable.path: variable for variable in network.variables}
    for variable in headless.variables:
        variable.assign(values[variable.path])
    expected = headless(images).numpy()
    np.testing.assert_array_equal(features.feature_model(network)(images), expected)
    assert expected.std() > 0
    # ... and the classifier on them gives the logits.
    logits = network.get_layer("Logits")(expected)
    np.testing.assert_allclose(logits, network(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "pool"), [("avg", np.mean), ("max", np.max), ("none", lambda grid, axis: grid)]
)
def test_an_endpoint_is_pooled_over_its_grid(network, images, pooling, pool):
    grid = keras.Model(network.input, network.get_layer("Mixed_6a").output)(images).numpy()
    model = features.feature_model(network, endpoint="Mixed_6a", pooling=pooling)
    np.testing.assert_allclose(model(images), pool(grid, axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_pooled_features_are_float32_in_a_network_that_is_not(images):
    model = build("inception_v3", "released", num_classes=10, dtype="mixed_bfloat16")
    pooled = features.feature_model(model, endpoint="Mixed_6a")
    assert pooled(images).dtype == "float32"


def test_an_unknown_endpoint_is_refused_with_the_nearest_name(network):
    with pytest.raises(ConfigError, match=r"Did you mean Mixed_6a.*It has Conv2d_1a_3x3, "):
        features.feature_model(network, endpoint="mixed_6a")


@pytest.mark.parametrize("row_shape", [(4,), (2, 3, 4)])
def test_a_file_of_features_has_its_rows_and_names(tmp_path, row_shape):
    rows = np.random.default_rng(0).normal(size=(5, *row_shape)).astype(np.float32)
    names = [f"images/{number}.jpg" for number in range(4)] + ["ü \udcff.jpg"]
    path = tmp_path / "f.npy"
    # Far fewer rows than announced: the header keeps its length.
    names_path, num_rows = features.save_features(
        path, [(names[:3], rows[:3]), (names[3:], rows[3:])], most_rows=10**12, row_shape=row_shape
    )
    assert num_rows == 5 and names_path == tmp_path / "f.names.txt"
    stored = np.load(path)
    assert stored.dtype == np.float32 and np.array_equal(stored, rows)
    assert np.load(path, mmap_mode="r").shape == rows.shape
    lines = names_path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    assert lines == names
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.names.txt", "f.npy"]


def failing():
    yield ["a"], np.zeros([1, 4], np.float32)
    raise RuntimeError("power cut")


@pytest.mark.parametrize(("batches", "error"), [(failing, RuntimeError), (list, DataError)])
def test_nothing_is_written_where_the_work_fails(tmp_path, batches, error):
    path = tmp_path / "f.npy"
    with pytest.raises(error):
        features.save_features(path, batches(), most_rows=9, row_shape=(4,))
    assert list(tmp_path.iterdir()) == []
    # What an earlier call left stays whole.
    features.save_features(path, [(["x"], np.ones([1, 4]))], most_rows=9, row_shape=(4,))
    with pytest.raises(error):
        features.save_features(path, batches(), most_rows=9, row_shape=(4,))
    assert np.array_equal(np.load(path), np.ones([1, 4]))
    assert (tmp_path / "f.names.txt").read_text() == "x\n"


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features.durable.os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        features.save_features(
            tmp_path / "f.npy", [(["x"], np.ones([1, 4]))], most_rows=9, row_shape=(4,)
        )
    assert list(tmp_path.iterdir()) == []


def test_rows_never_stand_beside_the_names_of_an_earlier_call(tmp_path, monkeypatch):
    path = tmp_path / "f.npy"
    features.save_features(path, [(["old"], np.ones([1, 4]))], most_rows=1, row_shape=(4,))
    seen = []
    replace = features.durable.os.replace

    def spy(source, target):
        replace(source, target)
        seen.append(sorted(p.name for p in tmp_path.glob("f.*")))

    monkeypatch.setattr(features.durable.os, "replace", spy)
    features.save_features(path, [(["new"], np.zeros([1, 4]))], most_rows=1, row_shape=(4,))
    assert seen == [["f.npy"], ["f.names.txt", "f.npy"]]


@pytest.mark.parametrize("name", ["f.npz", "f", "nowhere/f.npy"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=".npy"):
        features.check_out(tmp_path / name)
