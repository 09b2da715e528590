"""What every builder promises of the Keras model that it returns."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.models.catalog import CATALOG
from inception_tf.models.inception_resnet_v2 import inception_resnet_v2
from inception_tf.models.layers import ConvUnit, SumNorm
from inception_tf.models.stage_builder import endpoints

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = {"width_multiplier": 0.1, "num_classes": 10, "input_shape": (75, 75, 3)}
SHALLOW = {**SMALL, "block_counts": (1, 1, 2)}
# Every network once, with the options that it alone has.
OPTIONS = {
    "inception_v3": {
        **SMALL, "stem": "table_1", "branch_5x5": "3x3_3x3", "factorisation": "linear",
        "aux_head": True, "aux_norm": "convolutions",
    },
    "inception_v4": {**SHALLOW, "variant": "paper", "batch_norm_scale": True},
    "inception_resnet_v1": {**SHALLOW, "variant": "facenet", "batch_norm_on_sums": True},
    "inception_resnet_v2": {**SHALLOW, "variant": "released", "aux_head": True},
}  # fmt: skip


def build(name, **changes):
    arguments = {**OPTIONS[name], **changes}
    return next(iter(CATALOG[name].values())).builder(**arguments)


def random_images(count=2):
    return np.random.default_rng(0).uniform(-1, 1, (count, 75, 75, 3)).astype("float32")


@pytest.fixture(scope="module", params=CATALOG)
def model(request):
    """A network with arguments of its own and batch-norm statistics away from their start."""
    built = build(
        request.param, batch_norm_momentum=0.5, batch_norm_epsilon=0.01, dropout_rate=0.4
    )
    built(random_images(), training=True)
    return built


def test_arguments_reach_every_layer(model):
    norms = [layer for layer in model.layers if isinstance(layer, (ConvUnit, SumNorm))]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.5, 0.01)}
    assert {norm.use_scale for norm in norms} == {model.name == "inception_v4"}
    assert model.get_layer("Dropout_1b").rate == 0.4
    assert model.name in CATALOG


def test_keras_file_and_clone_give_the_same_logits(model, tmp_path):
    logits = model(random_images())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for twin in (loaded, clone):
        found = twin(random_images())
        for ours, theirs in zip(tf.nest.flatten(logits), tf.nest.flatten(found)):
            np.testing.assert_array_equal(ours, theirs)
        assert [weight.path for weight in twin.weights] == [w.path for w in model.weights]


def test_summary_names_the_layers(model, capsys):
    model.summary()
    assert "Conv2d_1a_3x3" in capsys.readouterr().out



_RELOAD = """
import sys, keras, numpy as np
import inception_tf.models.layers
folder = sys.argv[1]
model = keras.models.load_model(folder + "/model.keras")
np.save(folder + "/logits.npy", model(np.load(folder + "/images.npy")).numpy())
"""


@pytest.mark.slow
def test_keras_file_gives_the_same_logits_in_a_fresh_process(tmp_path):
    model = build("inception_resnet_v1")
    images = random_images()
    model(images, training=True)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", _RELOAD, str(tmp_path)], check=True, cwd=ROOT)
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), model(images))


def test_initial_weights_depend_on_seed_and_layer_name_alone():
    first, other = (inception_resnet_v2(seed=seed, **SHALLOW) for seed in (1, 2))
    deeper = inception_resnet_v2(
        seed=1, aux_head=True, **{**SHALLOW, "block_counts": (2, 1, 2)}
    )
    values = {weight.path: weight.value.numpy() for weight in deeper.weights}
    for ours, changed in zip(first.weights, other.weights):
        np.testing.assert_array_equal(ours.value, values[ours.path])
        is_drawn = ours.name == "kernel"
        assert np.array_equal(ours.value, changed.value) is not is_drawn


@pytest.mark.parametrize(
    "name, policy, dtype",
    [
        ("inception_v3", "mixed_bfloat16", "bfloat16"),
        ("inception_resnet_v1", "mixed_bfloat16", "bfloat16"),
        ("inception_resnet_v2", "mixed_float16", "float16"),
    ],
)
def test_mixed_precision_network_ends_in_float32(name, policy, dtype):
    model = build(name, dtype=policy)
    outputs = tf.nest.flatten(model(random_images(1), training=True))
    assert {output.dtype for output in outputs} == {tf.float32}
    assert {tensor.dtype for tensor in endpoints(model).values()} == {dtype}
    assert {weight.dtype for weight in model.weights} == {"float32"}



def test_width_multiplier_rounds_half_up_and_keeps_at_least_eight():
    model = inception_resnet_v2(**{**SHALLOW, "width_multiplier": 0.203125})
    assert model.get_layer("Conv2d_1a_3x3").filters == 8  # 6.5 -> 7 -> 8
    assert model.get_layer("Conv2d_2b_3x3").filters == 13  # 13.0
    assert model.get_layer("block35_1_Branch_2_Conv2d_0b_3x3").filters == 10  # 9.75
    assert model.get_layer("block17_1_Branch_1_Conv2d_0b_1x7").filters == 33  # 32.5
    for kind, stage in (("block35", "Mixed_5b"), ("block17", "Mixed_6a"), ("block8", "Mixed_7a")):
        width = model.get_layer(stage).output.shape[-1]
        assert model.get_layer(f"{kind}_1_Conv2d_1x1").filters == width


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"dropout_rate": 1.0}, "dropout_rate"),
        ({"width_multiplier": 0.0}, "width_multiplier"),
        ({"width_multiplier": float("nan")}, "width_multiplier"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 10.5}, "num_classes"),
        ({"batch_norm_epsilon": float("nan")}, "epsilon"),
        ({"input_shape": (299, 299)}, "input_shape"),
        ({"input_shape": 299}, "input_shape"),
        ({"input_shape": (75.5, 75, 3)}, "input_shape"),
        ({"input_shape": (75, 75, -1)}, "input_shape"),
        ({"variant": ["paper"]}, "variant"),
        ({"pooling": "avg"}, "pooling"),
        ({"include_top": False, "aux_head": False, "pooling": "mean"}, "pooling"),
        ({"include_top": False, "aux_head": True}, "auxiliary"),
    ],
)
def test_unusable_arguments_are_refused(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build(name, **arguments)


@pytest.mark.parametrize("name", CATALOG)
def test_no_input_shape_leaves_height_and_width_free(name):
    model = build(name, input_shape=None, aux_head=False)
    assert model.input.shape == (None, None, None, 3)
    assert model.compute_output_shape((2, 90, 101, 3))[0] == 2


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "inception_v3"])
@pytest.mark.parametrize("counts", [(), (1, 2), (1, 2, -1), (1, 2, 1.0), 5])
def test_block_counts_are_three_integers(name, counts):
    with pytest.raises(ConfigError, match="block_counts must be three integers"):
        build(name, block_counts=counts)


@pytest.mark.parametrize(
    "options",
    [
        {"first_stride": 1.0},
        {"first_stride": True},
        {"first_stride": 2, "first_pool": False},
        {"first_stride": 1, "first_pool": "False"},
    ],
)
def test_receptive_fields_are_those_of_the_paper(options):
    with pytest.raises(ConfigError, match="section 9"):
        build("inception_v3", **options)


def test_auxiliary_head_needs_a_fixed_input_size():
    with pytest.raises(ConfigError, match="auxiliary"):
        inception_resnet_v2(**{**SHALLOW, "aux_head": True, "input_shape": (None, None, 3)})


def test_compile_and_fit_update_statistics_and_drop_other_units_each_step():
    model = inception_resnet_v2(batch_norm_momentum=0.9, **SHALLOW)
    before = model.get_layer("Conv2d_1a_3x3").moving_mean.numpy()
    keys = []
    dropout = model.get_layer("Dropout_1b")
    on_step = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: keys.append(
            tuple(dropout.seed_generator.state.numpy())
        )
    )
    model.compile(
        optimizer=keras.optimizers.SGD(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = model.fit(
        random_images(8), np.arange(8), batch_size=4, epochs=3, verbose=0, callbacks=[on_step]
    )
    assert np.isfinite(history.history["loss"]).all()
    assert np.abs(model.get_layer("Conv2d_1a_3x3").moving_mean.numpy() - before).max() > 1e-3
    assert len(set(keys)) == len(keys) == 6
