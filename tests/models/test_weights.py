"""Weights from elsewhere: what fills what, what is left unused and why, and what is refused.

The names and shapes are those of tests/golden/layers and of Keras' own files. That slim's and
timm's weights give their logits is shown in test_import_logits.py.
"""

import dataclasses
import re

import h5py
import keras
import numpy as np
import pytest
from reference.layer_rows import read_rows
from reference.slim_files import random_slim_arrays, write_slim_checkpoint
from reference.timm_files import random_timm_arrays, timm_paths, write_safetensors

from inception_tf import weights as door
from inception_tf.errors import ConfigError, DataError
from inception_tf.models.catalog import CATALOG
from inception_tf.models.weights.conversion import convert_weights, network_to_build
from inception_tf.models.weights.identity import NetworkIdentity
from inception_tf.models.inception_resnet_v1 import inception_resnet_v1
from inception_tf.models.inception_resnet_v2 import inception_resnet_v2
from inception_tf.models.inception_v3 import inception_v3
from inception_tf.models.inception_v4 import inception_v4
from inception_tf.models.weights.own_format import save_own_weights
from inception_tf.models.weights.source import WeightSource
from inception_tf.models.weights.assignment import assign_weights, read_weights

V3, V4, RESNET = "inception_v3", "inception_v4", "inception_resnet_v2"
AVERAGE = "/ExponentialMovingAverage"


@pytest.fixture(scope="module")
def v3():
    """Full width, 1000 classes, without auxiliary head; tests that read it fill it themselves."""
    return inception_v3(input_shape=(None, None, 3))


@pytest.fixture(scope="module")
def v3_with_aux():
    """Full width, 1001 outputs, with auxiliary head."""
    return inception_v3(num_classes=1001, aux_head=True)


@pytest.fixture(scope="module")
def slim_v3():
    """Variables of slim's Inception-v3, 1001 classes; not to be changed."""
    return random_slim_arrays(V3, seed=0)


def slim_source(arrays, network=V3):
    return WeightSource(path="model.ckpt", format="slim", network=network, arrays=arrays)


def timm_source(arrays, network=V3):
    return WeightSource(path="model.safetensors", format="timm", network=network, arrays=arrays)


def zeros_of_slim(network):
    """Variables of slim's released checkpoint by name, all zero."""
    arrays = {}
    for row in read_rows(network).values():
        shape = (*row.kernel, row.num_inputs, row.num_outputs)
        arrays[f"{row.name}/weights"] = np.zeros(shape[2:] if row.padding == "-" else shape)
        for name in (
            ["biases"]
            if row.norm == "bias"
            else [f"BatchNorm/{name}" for name in ("beta", "moving_mean", "moving_variance")]
        ):
            arrays[f"{row.name}/{name}"] = np.zeros(row.num_outputs)
    return arrays


def values_of(model):
    return {weight.path: weight.numpy() for weight in model.weights}


def assert_complete(report, source, model, *, left=()):
    """Every source tensor is used or unused, none both; every target is filled once."""
    used = [name for _, name in report.used]
    unused = [name for name, _ in report.unused]
    assert sorted(used + unused) == sorted(source.arrays)
    assert all(reason for _, reason in report.unused)
    targets = [target for target, _ in report.used]
    assert sorted(targets) == sorted(p for p in values_of(model) if p not in left)


# keras.applications


@pytest.fixture(scope="module")
def files_of_v3(tmp_path_factory, keras_twin_v3):
    """Keras' three layouts of one network: weights alone, legacy weights, a whole model."""
    directory = tmp_path_factory.mktemp("v3")
    keras_twin_v3.save_weights(directory / "v3.weights.h5")
    keras_twin_v3.save(directory / "whole.h5")
    write_published_layout(keras_twin_v3, directory / "published.h5")
    yield directory
    for path in directory.iterdir():
        path.unlink()


def write_published_layout(twin, path, *, without=()):
    """Weights as keras.applications publishes them: numbered from 1, names ending in ':0'."""
    first = {
        prefix: min(
            int(match[1] or 0)
            for layer in twin.layers
            if (match := re.fullmatch(rf"{prefix}(?:_(\d+))?", layer.name))
        )
        for prefix in ("conv2d", "batch_normalization")
    }
    with h5py.File(path, "w") as file:
        names = []
        for layer in twin.layers:
            match = re.fullmatch(r"(conv2d|batch_normalization)(?:_(\d+))?", layer.name)
            number = match and int(match[2] or 0) - first[match[1]] + 1
            name = f"{match[1]}_{number}" if match else layer.name
            if name in without:
                continue
            names.append(name)
            group = file.create_group(name)
            variables = [f"{name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [variable.encode() for variable in variables]
            for variable, weight in zip(variables, layer.weights):
                group[variable] = weight.numpy()
        file.attrs["layer_names"] = [name.encode() for name in names]


def assert_same_logits(ours, twin):
    images = np.random.default_rng(1).uniform(-1, 1, (2, 139, 107, 3)).astype("float32")
    expected = twin(images).numpy()
    assert expected.std() > 0
    np.testing.assert_allclose(
        ours(images).numpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize("name", ["v3.weights.h5", "whole.h5", "published.h5"])
def test_every_layout_of_keras_gives_the_logits_of_keras(files_of_v3, keras_twin_v3, v3, name):
    fill_with_zeros(v3)
    source = read_weights(files_of_v3 / name)
    assert (source.format, source.network, len(source.arrays)) == ("keras", V3, 378)
    report = assign_weights(v3, source, identity=NetworkIdentity(network=V3))
    assert_complete(report, source, v3)
    assert report.unused == ()
    assert_same_logits(v3, keras_twin_v3)


def fill_with_zeros(model):
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))


@pytest.mark.slow
def test_inception_resnet_v2_of_keras_gives_its_logits(keras_twin, tmp_path):
    path = tmp_path / "published.h5"
    write_published_layout(keras_twin, path)
    source = read_weights(path)
    assert (source.network, len(source.arrays)) == (RESNET, 898)
    model = inception_resnet_v2(input_shape=(None, None, 3))
    report = assign_weights(model, source, identity=NetworkIdentity(network=RESNET))
    assert_complete(report, source, model)
    assert_same_logits(model, keras_twin)


def test_without_top_a_trunk_is_filled_and_a_classifier_is_not(keras_twin_v3, tmp_path):
    path = tmp_path / "notop.h5"
    write_published_layout(keras_twin_v3, path, without=("predictions",))
    source = read_weights(path)
    trunk = inception_v3(include_top=False, input_shape=(None, None, 3))
    report = assign_weights(trunk, source, identity=NetworkIdentity(network=V3))
    assert_complete(report, source, trunk)
    model = inception_v3(num_classes=7, input_shape=(None, None, 3))
    with pytest.raises(DataError, match="Logits/kernel.*new_head"):
        assign_weights(model, source, identity=NetworkIdentity(network=V3))
    before = values_of(model)
    report = assign_weights(model, source, identity=NetworkIdentity(network=V3), new_head=True)
    assert_complete(report, source, model, left=("Logits/kernel", "Logits/bias"))
    after = values_of(model)
    np.testing.assert_array_equal(after["Logits/kernel"], before["Logits/kernel"])
    np.testing.assert_array_equal(
        after["Mixed_7c_Branch_0_Conv2d_0a_1x1/kernel"],
        trunk.get_layer("Mixed_7c_Branch_0_Conv2d_0a_1x1").kernel.numpy(),
    )


def test_the_state_of_an_optimizer_is_named_unused(files_of_v3, v3, tmp_path):
    path = tmp_path / "trained.h5"
    path.write_bytes((files_of_v3 / "published.h5").read_bytes())
    with h5py.File(path, "a") as file:
        file["optimizer_weights/iterations:0"] = np.int64(3)
    source = read_weights(path)
    report = assign_weights(v3, source, identity=NetworkIdentity(network=V3))
    assert report.unused == (
        ("/optimizer_weights/iterations:0", "the optimizer's state is no weight of the network"),
    )


def test_weights_of_keras_without_layer_names_are_refused(files_of_v3, tmp_path):
    # Keras before 3.6 numbers the groups in the order of model.layers, which is not that of names.
    path = tmp_path / "old.weights.h5"
    path.write_bytes((files_of_v3 / "v3.weights.h5").read_bytes())
    with h5py.File(path, "a") as file:
        for group in file["layers"].values():
            if "name" in group["vars"].attrs:
                del group["vars"].attrs["name"]
    with pytest.raises(DataError, match="save it with a newer one"):
        read_weights(path)


def test_another_network_of_keras_is_not_known(tmp_path):
    images = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(images))
    keras.Model(images, x).save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(DataError, match=r"known network.*4\+? ?.*conv2d|known network.*conv2d"):
        read_weights(tmp_path / "other.weights.h5")


@pytest.mark.parametrize("end", [0, -1])
def test_as_many_convolutions_of_another_shape_are_another_network(files_of_v3, tmp_path, end):
    path = tmp_path / "other.h5"
    path.write_bytes((files_of_v3 / "published.h5").read_bytes())
    numbers = range(1, 95)
    with h5py.File(path, "a") as file:
        name = f"conv2d_{numbers[end]}/conv2d_{numbers[end]}/kernel:0"
        shape = file[name].shape
        del file[name]
        file[name] = np.zeros((*shape[:3], shape[3] + 1), np.float32)
    with pytest.raises(DataError, match="known network"):
        read_weights(path)


def drop(prefix):
    def damage(arrays):
        for name in [name for name in arrays if name.startswith(prefix)]:
            del arrays[name]

    return damage


@pytest.mark.parametrize(
    "damage, message",
    [
        (drop("predictions/bias"), "1 variables without a source .Logits/bias.; 0 source tensors"),
        (drop("conv2d_3/"), "94 layers named conv2d.*93"),
        (drop("batch_normalization_90/moving_mean"), "/moving_mean.; 0"),
        (lambda arrays: arrays.update({"extra/kernel": np.zeros(1)}), "left over .extra/kernel"),
    ],
)
def test_missing_and_left_over_tensors_of_keras_are_named(files_of_v3, v3, damage, message):
    read = read_weights(files_of_v3 / "published.h5")
    arrays = dict.fromkeys(read.arrays, np.zeros(1))
    damage(arrays)
    source = WeightSource(path="file.h5", format="keras", network=V3, arrays=arrays)
    with pytest.raises(DataError, match=message):
        assign_weights(v3, source, identity=NetworkIdentity(network=V3))


# slim


def test_a_released_checkpoint_fills_every_variable_of_the_model(slim_v3, v3_with_aux, tmp_path):
    write_slim_checkpoint(tmp_path / "model.ckpt", slim_v3)
    source = read_weights(tmp_path / "model.ckpt")
    assert (source.format, source.network, len(source.arrays)) == ("slim", V3, 389)
    report = assign_weights(v3_with_aux, source, identity=NetworkIdentity(network=V3))
    assert_complete(report, source, v3_with_aux)
    assert len(report.used) == 388
    assert report.unused == (("global_step", "a counter of the training, no weight"),)
    for theirs, ours in (
        ("Mixed_5c/Branch_1/Conv_1_0c_5x5/weights", "Mixed_5c_Branch_1_Conv_1_0c_5x5/kernel"),
        ("Mixed_6a/Branch_1/Conv2d_1a_1x1/BatchNorm/beta", "Mixed_6a_Branch_1_Conv2d_1a_1x1/beta"),
        ("AuxLogits/Conv2d_2b_1x1/biases", "AuxLogits_Logits/bias"),
    ):
        np.testing.assert_array_equal(
            values_of(v3_with_aux)[ours], slim_v3[f"InceptionV3/{theirs}"]
        )
    np.testing.assert_array_equal(
        v3_with_aux.get_layer("Logits").kernel.numpy(),
        slim_v3["InceptionV3/Logits/Conv2d_1c_1x1/weights"][0, 0],
    )


@pytest.mark.parametrize(
    "network, builder, count",
    [
        pytest.param(V4, inception_v4, 608, marks=pytest.mark.slow),
        (RESNET, inception_resnet_v2, 908),
    ],
)
def test_the_other_networks_of_slim_fill_every_variable(network, builder, count):
    arrays = zeros_of_slim(network)
    model = builder(num_classes=1001, aux_head=True)
    source = slim_source(arrays, network)
    report = assign_weights(model, source, identity=NetworkIdentity(network=network))
    assert_complete(report, source, model)
    assert (len(report.used), len(report.unused)) == (count, 0)


def test_averages_are_used_where_there_are_any(slim_v3, v3_with_aux):
    arrays = dict(slim_v3)
    trained = [name for name in slim_v3 if "/moving_" not in name]
    for name in trained:
        arrays[name + AVERAGE] = slim_v3[name] + 1
        arrays[f"{name}/RMSProp"] = arrays[f"{name}/RMSProp_1"] = slim_v3[name]
    arrays["global_step"] = np.int64(7)
    source = slim_source(arrays)
    report = assign_weights(v3_with_aux, source, identity=NetworkIdentity(network=V3))
    assert_complete(report, source, v3_with_aux)
    values = values_of(v3_with_aux)
    scope = "InceptionV3/Conv2d_1a_3x3"
    np.testing.assert_array_equal(
        values["Conv2d_1a_3x3/kernel"], arrays[f"{scope}/weights{AVERAGE}"]
    )
    np.testing.assert_array_equal(
        values["Conv2d_1a_3x3/moving_mean"], arrays[f"{scope}/BatchNorm/moving_mean"]
    )
    reasons = [reason for _, reason in report.unused]
    assert reasons.count("its ExponentialMovingAverage is used") == len(trained)
    assert reasons.count("a slot of the optimizer, no weight") == 2 * len(trained)
    assert "196 variables have an ExponentialMovingAverage" in report.notes[0]
    text = report.text()
    assert "388 variables filled, 589 source tensors unused" in text
    assert "a slot of the optimizer, no weight: 392 (" in text
    assert len(text.splitlines()) == 6


@pytest.mark.parametrize("suffix", ["Momentum", "Adam", "Adam_1", "Adagrad", "Ftrl_1"])
def test_slots_of_every_optimizer_are_unused(slim_v3, v3_with_aux, suffix):
    slot = f"InceptionV3/Conv2d_1a_3x3/weights/{suffix}"
    source = slim_source({**slim_v3, slot: np.zeros(1)})
    report = assign_weights(v3_with_aux, source, identity=NetworkIdentity(network=V3))
    assert report.unused == ((slot, "a slot of the optimizer, no weight"),)


def test_the_background_class_is_dropped_for_a_model_without(slim_v3, v3):
    report = assign_weights(v3, slim_source(slim_v3), identity=NetworkIdentity(network=V3))
    logits = "InceptionV3/Logits/Conv2d_1c_1x1"
    np.testing.assert_array_equal(
        v3.get_layer("Logits").kernel.numpy(), slim_v3[f"{logits}/weights"][0, 0, :, 1:]
    )
    np.testing.assert_array_equal(
        v3.get_layer("Logits").bias.numpy(), slim_v3[f"{logits}/biases"][1:]
    )
    assert report.notes == ("Logits: output 0 of 1,001, the background class, is left out.",)
    aux = [reason for name, reason in report.unused if "/AuxLogits/" in name]
    assert aux == ["the model has no auxiliary head"] * 10
    assert len(report.unused) == 10


def test_a_new_head_keeps_its_initial_weights(slim_v3):
    model = inception_v3(num_classes=5, aux_head=True)
    before = values_of(model)
    source = slim_source(slim_v3)
    report = assign_weights(model, source, identity=NetworkIdentity(network=V3), new_head=True)
    head = [path for path in before if path.startswith(("Logits/", "AuxLogits_"))]
    assert len(head) == 12
    assert_complete(report, source, model, left=head)
    assert {reason for _, reason in report.unused} == {"the model has a new head"}
    after = values_of(model)
    for path in head:
        np.testing.assert_array_equal(after[path], before[path])


@pytest.mark.parametrize(
    "damage, message",
    [
        (drop("InceptionV3/Mixed_6c/Branch_2/Conv2d_0d_7x1/weights"),
         r"1 variables without.*Mixed_6c_Branch_2_Conv2d_0d_7x1/kernel"),
        (lambda a: a.update({"InceptionV3/Mixed_6c/Branch_9/Conv2d_0a_1x1/weights": np.ones(1)}),
         r"0 variables.*1 source tensors left over .*Branch_9"),
        (lambda a: a.update({"InceptionV3/Conv2d_1a_3x3/weights": np.ones((3, 3, 3, 31))}),
         r"Conv2d_1a_3x3/weights \(3, 3, 3, 31\).*Conv2d_1a_3x3/kernel \(3, 3, 3, 32\)"),
        (lambda a: a.update({"InceptionV3/Logits/Conv2d_1c_1x1/biases": np.ones(999)}),
         r"biases \(999,\) of model.ckpt for Logits/bias \(1001,\)"),
        (lambda a: a.update({"InceptionV3/Logits/Conv2d_1c_1x1/weights":
                             np.ones((1, 2, 2048, 1001))}),
         r"\(1, 2, 2048, 1001\).*Logits/kernel \(2048, 1001\)"),
        (lambda a: a.update({"InceptionV3/Conv2d_1a_3x3/BatchNorm/beta": np.full(32, np.nan)}),
         "finite.*Conv2d_1a_3x3/BatchNorm/beta"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_is_assigned(slim_v3, v3_with_aux, damage, message):
    arrays = dict(slim_v3)
    damage(arrays)
    fill_with_zeros(v3_with_aux)
    with pytest.raises(DataError, match=message):
        assign_weights(v3_with_aux, slim_source(arrays), identity=NetworkIdentity(network=V3))
    assert not any(np.any(value) for value in values_of(v3_with_aux).values())


def test_weights_of_another_network_name_both(slim_v3, v3):
    with pytest.raises(DataError, match="model.ckpt of inception_v3 for a model inception_v4"):
        assign_weights(v3, slim_source(slim_v3), identity=NetworkIdentity(network=V4))


def test_weights_of_another_variant_are_refused():
    model = inception_v4(variant="paper", width_multiplier=0.1, input_shape=(None, None, 3))
    with pytest.raises(DataError, match="Mixed_4a_Branch_1_Conv2d_0b_7x1.*left over.*0b_1x7"):
        assign_weights(
            model, slim_source(zeros_of_slim(V4), V4), identity=NetworkIdentity(network=V4)
        )


@pytest.mark.parametrize(
    "names, message",
    [
        (["conv0/weights", "mixed_35x35x256a/branch1x1/Conv/weights"], "older inception/ package"),
        (["InceptionV3/Conv2d_1a_3x3/weights", "InceptionV4/x/weights"], "one network"),
        (["resnet_v1_50/conv1/weights"], "known network.*resnet_v1_50/conv1/weights"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path, names, message):
    write_slim_checkpoint(tmp_path / "m.ckpt", {name: np.zeros(2, "float32") for name in names})
    with pytest.raises(DataError, match=message):
        read_weights(tmp_path / "m.ckpt")


def test_the_trunk_of_facenet_is_filled_and_its_embedding_unused():
    model = inception_resnet_v1(variant="facenet", include_top=False, input_shape=(None, None, 3))
    arrays = {}
    for weight in model.weights:
        layer, variable = weight.path.split("/")
        scope = re.sub(r"_(Branch_\d)_", r"/\1/", layer).replace("block8_6", "Block8")
        scope = re.sub(r"^((?:Mixed|block|Block)\w*?)_(Conv2d)", r"\1/\2", scope)
        for kind, repeat in (("block35", ""), ("block17", "_1"), ("block8", "_2")):
            scope = re.sub(rf"^{kind}_", f"Repeat{repeat}/{kind}_", scope)
        theirs = {"kernel": "weights", "bias": "biases"}.get(variable, f"BatchNorm/{variable}")
        arrays[f"InceptionResnetV1/{scope}/{theirs}"] = np.ones(weight.shape, "float32")
    assert "InceptionResnetV1/Block8/Branch_1/Conv2d_0b_1x3/weights" in arrays
    assert "InceptionResnetV1/Repeat_1/block17_10/Conv2d_1x1/biases" in arrays
    arrays["InceptionResnetV1/Bottleneck/weights"] = np.ones((1792, 128), "float32")
    source = slim_source(arrays, "inception_resnet_v1")
    report = assign_weights(model, source, identity=NetworkIdentity(network="inception_resnet_v1"))
    assert_complete(report, source, model)
    [(name, reason)] = report.unused
    assert name.endswith("Bottleneck/weights") and "embedding" in reason


# timm


@pytest.fixture(scope="module")
def timm_v3():
    """Tensors of timm's Inception-v3 with gammas of ones, as those ported from TensorFlow have."""
    arrays = random_timm_arrays(V3, seed=0)
    for name in arrays:
        if name.endswith("bn.weight"):
            arrays[name] = np.ones_like(arrays[name])
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize("network", [V3, V4, RESNET])
def test_timm_fills_every_variable_of_its_networks(network, tmp_path):
    arrays = random_timm_arrays(network, seed=0, aux_head=network == V3)
    write_safetensors(tmp_path / "model.safetensors", arrays)
    source = read_weights(tmp_path / "model.safetensors")
    assert (source.format, source.network) == ("timm", network)
    model = CATALOG[network]["released"].builder(batch_norm_scale=True, aux_head=network == V3)
    report = assign_weights(model, source, identity=NetworkIdentity(network=network))
    assert_complete(report, source, model)
    assert {reason for _, reason in report.unused} == {"PyTorch's count of batches, no weight"}
    paths = timm_paths(network)
    convolution = paths[next(name for name in paths if "Branch_1" in name)]
    values = values_of(model)
    [target] = [t for t, name in report.used if name == f"{convolution}.conv.weight"]
    np.testing.assert_array_equal(
        values[target], np.transpose(arrays[f"{convolution}.conv.weight"], (2, 3, 1, 0))
    )
    assert any("padded zeros" in note for note in report.notes) == (network == V3)
    assert any("gluon" in note for note in report.notes)


def test_a_gamma_of_ones_is_named_unused_and_padding_is_told(timm_v3, v3):
    source = timm_source(timm_v3)
    report = assign_weights(v3, source, identity=NetworkIdentity(network=V3))
    assert_complete(report, source, v3)
    gammas = [reason for name, reason in report.unused if name.endswith("bn.weight")]
    assert len(gammas) == 94
    assert set(gammas) == {"a gamma of ones, which changes nothing; the model has none"}
    [note] = report.notes
    assert "counts the padded zeros" in note
    assert "note: timm's inception_v3" in report.text()


def test_a_trained_gamma_needs_a_model_with_gamma(timm_v3, v3):
    arrays = dict(timm_v3)
    arrays["Mixed_6c.branch_pool.bn.weight"] = arrays["Mixed_6c.branch_pool.bn.weight"] * 1.01
    with pytest.raises(DataError, match="Mixed_6c.branch_pool.*model.batch_norm_scale = True"):
        assign_weights(v3, timm_source(arrays), identity=NetworkIdentity(network=V3))


def test_a_model_with_gamma_needs_one_in_the_weights(slim_v3):
    model = inception_v3(num_classes=1001, batch_norm_scale=True)
    with pytest.raises(DataError, match="/gamma.*model.batch_norm_scale = False"):
        assign_weights(model, slim_source(slim_v3), identity=NetworkIdentity(network=V3))


# This project's own files, and the door


@pytest.fixture(scope="module")
def narrow():
    """A small network with every kind of option, and the identity of its file."""
    options = {
        "width_multiplier": 0.1,
        "block_counts": (1, 1, 1),
        "batch_norm_on_sums": True,
        "batch_norm_scale": True,
    }
    model = inception_resnet_v2(num_classes=5, input_shape=(75, 75, 3), seed=3, **options)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if not weight.path.endswith("seed_generator_state"):
            weight.assign(rng.uniform(0.1, 1, weight.shape))
    identity = NetworkIdentity(
        network=RESNET,
        variant="released",
        num_outputs=5,
        background_class=True,
        batch_norm_epsilon=0.001,
        input_height_px=75,
        input_width_px=80,
        evaluation_crop={"central_fraction": 0.8},
        options=options,
    )
    return model, identity


def test_own_files_come_back_with_their_identity(narrow, tmp_path):
    model, identity = narrow
    path = tmp_path / "own.weights.h5"
    save_own_weights(model, path, identity=identity)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    source = read_weights(path)
    assert (source.format, source.network, source.identity) == ("own", RESNET, identity)
    again = inception_resnet_v2(
        num_classes=5, input_shape=(75, 75, 3), seed=4, **identity.options
    )
    report = assign_weights(again, source, identity=NetworkIdentity(network=RESNET))
    for path_, value in values_of(again).items():
        if not path_.endswith("seed_generator_state"):
            np.testing.assert_array_equal(value, values_of(model)[path_])
    assert {"no weight" in reason for _, reason in report.unused} <= {True}
    fill_with_zeros(again)
    again.load_weights(path)  # Keras itself reads it too
    np.testing.assert_array_equal(values_of(again)["Logits/bias"], values_of(model)["Logits/bias"])


def test_own_weights_lose_their_background_class_too(narrow, tmp_path):
    model, identity = narrow
    save_own_weights(model, tmp_path / "own.weights.h5", identity=identity)
    source = read_weights(tmp_path / "own.weights.h5")
    smaller = inception_resnet_v2(num_classes=4, input_shape=(75, 75, 3), **identity.options)
    assign_weights(smaller, source, identity=NetworkIdentity(network=RESNET))
    np.testing.assert_array_equal(
        smaller.get_layer("Logits").bias.numpy(), model.get_layer("Logits").bias.numpy()[1:]
    )
    without = dataclasses.replace(identity, background_class=False)
    save_own_weights(model, tmp_path / "own.weights.h5", identity=without)
    source = read_weights(tmp_path / "own.weights.h5")
    with pytest.raises(DataError, match=r"Logits/kernel .* for Logits/kernel"):
        assign_weights(smaller, source, identity=NetworkIdentity(network=RESNET))


@pytest.mark.parametrize("network", sorted(CATALOG))
@pytest.mark.parametrize("include_top", [True, False])
def test_own_files_without_identity_are_known_by_their_layers(network, include_top, tmp_path):
    options = {} if network == V3 else {"block_counts": (1, 1, 1)}
    for variant, entry in CATALOG[network].items():
        model = entry.builder(
            variant=variant, include_top=include_top, width_multiplier=0.1, **options
        )
        arrays = values_of(model)
        model.save_weights(tmp_path / "plain.weights.h5")
        source = read_weights(tmp_path / "plain.weights.h5")
        assert (source.format, source.network) == ("own", network)
        wanted = {path for path in arrays if not path.endswith("seed_generator_state")}
        assert {name for name in source.arrays if not name.startswith("/")} == wanted


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"variant": "released"}', '{"network": "inception_v3", "options": 1}']
)
def test_an_identity_that_is_none_is_refused(narrow, tmp_path, text):
    model, identity = narrow
    path = tmp_path / "own.weights.h5"
    save_own_weights(model, path, identity=identity)
    with h5py.File(path, "a") as file:
        file.attrs["inception_tf"] = text
    with pytest.raises(DataError, match="JSON"):
        read_weights(path)


def test_the_door_writes_published_weights_as_own(files_of_v3, keras_twin_v3, tmp_path, capsys):
    out = tmp_path / "v3.weights.h5"
    source = str(files_of_v3 / "published.h5")
    assert door.main(["import", source, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "378 variables filled, 0 source tensors unused" in printed
    assert "23,851,784 parameters of inception_v3" in printed
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    read = read_weights(out)
    assert read.identity == NetworkIdentity(
        network=V3,
        variant="released",
        num_outputs=1000,
        background_class=False,
        batch_norm_epsilon=0.001,
        options={"batch_norm_scale": False, "aux_head": False},
    )
    np.testing.assert_array_equal(
        read.arrays["Logits/bias"], keras_twin_v3.get_layer("predictions").bias.numpy()
    )


@pytest.mark.parametrize(
    "flags, num_outputs, num_aux",
    [
        (["--drop_background", "--network=inception_v3"], 1000, 0),
        pytest.param(["--aux_head"], 1001, 10, marks=pytest.mark.slow),
    ],
)
def test_the_door_keeps_or_drops_background_and_auxiliary_head(
    slim_v3, tmp_path, flags, num_outputs, num_aux
):
    write_slim_checkpoint(tmp_path / "model.ckpt", slim_v3)
    out = tmp_path / "out.weights.h5"
    assert door.main(["import", str(tmp_path / "model.ckpt"), "--out", str(out), *flags]) == 0
    read = read_weights(out)
    assert read.arrays["Logits/bias"].shape == (num_outputs,)
    assert read.identity.num_outputs == num_outputs
    assert read.identity.background_class == (num_outputs == 1001)
    assert sum(name.startswith("AuxLogits_") for name in read.arrays) == num_aux


def test_the_door_prints_one_message_and_leaves_no_file(tmp_path, files_of_v3, capsys):
    (tmp_path / "text.h5").write_text("no weights")
    published = str(files_of_v3 / "published.h5")
    for source, out, flags, message in (
        (tmp_path / "text.h5", "o.weights.h5", [], "text.h5"),
        (tmp_path / "absent.h5", "o.weights.h5", [], "absent.h5"),
        (published, "o.h5", [], "must end in '.weights.h5'"),
        (published, "none/o.weights.h5", [], "directory"),
        (published, "o.weights.h5", ["--network=inception_v4"], "inception_v3 for a model"),
        (published, "o.weights.h5", ["--network=inception_v5"], "Did you mean"),
        (published, "o.weights.h5", ["--variant=paper"], "variant"),
        (published, "o.weights.h5", ["--drop_background"], "background"),
        ("keras:inception_v2", "o.weights.h5", [], "Did you mean keras:inception_v3"),
    ):
        arguments = ["import", str(source), "--out", str(tmp_path / out), *flags]
        assert door.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["text.h5"]


def test_the_source_is_never_written_over(tmp_path, capsys):
    path = tmp_path / "k.weights.h5"
    path.write_bytes(b"somebody's weights")
    (tmp_path / "link.weights.h5").symlink_to(path)
    for out in (path, tmp_path / "link.weights.h5"):
        assert door.main(["import", str(path), "--out", str(out)]) == 2
        assert "another file" in capsys.readouterr().err
    assert path.read_bytes() == b"somebody's weights"


def test_a_write_that_fails_leaves_nothing(narrow, tmp_path, monkeypatch):
    model, identity = narrow
    path = tmp_path / "own.weights.h5"
    path.write_bytes(b"what was there before")

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("inception_tf.durable.flush_to_disk", fail)
    with pytest.raises(DataError, match="no space left"):
        save_own_weights(model, path, identity=identity)
    assert path.read_bytes() == b"what was there before"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_gamma_is_built_where_it_was_trained(timm_v3):
    assert not network_to_build(timm_source(timm_v3)).options["batch_norm_scale"]
    arrays = {**timm_v3, "Mixed_5b.branch1x1.bn.weight": np.full(64, 1.01)}
    assert network_to_build(timm_source(arrays)).options["batch_norm_scale"]


def test_a_file_that_does_not_tell_its_network_needs_a_name(tmp_path, narrow):
    with h5py.File(tmp_path / "head.h5", "w") as file:
        file["Logits/kernel"], file["Logits/bias"] = np.ones((4, 2)), np.ones(2)
    with pytest.raises(ConfigError, match="--network"):
        convert_weights(tmp_path / "head.h5", tmp_path / "o.weights.h5")
