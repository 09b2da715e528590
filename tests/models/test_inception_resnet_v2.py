"""Inception-ResNet-v2 against published counts, layer tables and shapes."""

import csv
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.models.blocks import AveragePool, Conv, MaxPool, Mixed, Siblings, named_convs
from inception_tf.models.catalog import CATALOG
from inception_tf.models.counting import count_multiply_adds, count_parameters
from inception_tf.models.inception_resnet_v2 import INCEPTION_RESNET_V2, inception_resnet_v2
from inception_tf.models.layers import ConvUnit
from inception_tf.models.stage_builder import StageBuilder, endpoints

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLES = ROOT.parent / "shared" / "facts" / "layers"
NARROW = {"width_multiplier": 0.25, "block_counts": (1, 1, 2), "num_classes": 10}
CHANNELS = {
    "paper": {"Mixed_5a": 384, "block35_5": 384, "Mixed_6a": 1152, "block17_10": 1152,
              "Mixed_7a": 2144, "block8_5": 2144},
    "released": {"Mixed_5b": 320, "block35_10": 320, "Mixed_6a": 1088, "block17_20": 1088,
                 "Mixed_7a": 2080, "block8_10": 2080, "Conv2d_7b_1x1": 1536},
}  # fmt: skip
GRID_AFTER = {"Mixed_5a": 0, "Mixed_5b": 0, "block35": 0, "Mixed_6a": 1, "block17": 1}


def num_trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def without_aux(model):
    return keras.Model(model.input, model.output["logits"])


def trunk(model):
    return keras.Model(model.input, model.get_layer("AvgPool_1a").input)


@pytest.mark.parametrize(
    "variant, with_aux, plain, without_top",
    [
        ("paper", (35_827_104, 35_792_448), (32_450_360, 32_417_496), (30_305_360, 30_272_496)),
        ("released", (59_242_288, 59_179_952), (55_873_736, 55_813_192), (54_336_736, 54_276_192)),
    ],
)
def test_parameter_totals_equal_the_published_ones(
    full_models, variant, with_aux, plain, without_top
):
    model, entry = full_models[variant], CATALOG["inception_resnet_v2"][variant]
    parts = {
        with_aux: (model, entry.num_parameters_with_aux, entry.num_trainable_with_aux),
        plain: (without_aux(model), entry.num_parameters, entry.num_trainable),
        without_top: (
            trunk(model),
            entry.num_parameters_without_top,
            entry.num_trainable_without_top,
        ),
    }
    for published, (part, *catalogued) in parts.items():
        assert (count_parameters(part), num_trainable(part)) == published
        assert tuple(catalogued) == published


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_multiply_adds_equal_the_published_ones(full_models, variant):
    published = {"paper": 9_257_953_632, "released": 13_155_794_016}[variant]
    assert count_multiply_adds(without_aux(full_models[variant])) == published
    assert CATALOG["inception_resnet_v2"][variant].num_multiply_adds == published


def test_released_checkpoint_has_as_many_variables_as_slims():
    model = inception_resnet_v2(aux_head=True, num_classes=1001, width_multiplier=0.1)
    assert (len(model.weights), len(model.trainable_weights)) == (908, 496)


def layer_name(slim_scope):
    """Our name of a layer of slim's scope; its own scope `Block8` is the tenth of its kind."""
    parts = [part for part in slim_scope.split("/") if part != "InceptionResnetV2"]
    parts = [part for part in parts if not part.startswith("Repeat")]
    name = "_".join(parts).replace("Block8", "block8_10")
    return "Logits" if name == "Logits_Logits" else name


@pytest.mark.parametrize("variant, file", [("paper", "paper_1000"), ("released", "slim_1001")])
def test_every_layer_equals_its_row_of_the_layer_table(full_models, variant, file):
    path = TABLES / f"inception_resnet_v2_{file}.csv"
    if not path.exists():
        pytest.skip(f"no layer table at {path}")
    model = full_models[variant] if variant == "paper" else None
    model = model or inception_resnet_v2(aux_head=True, num_classes=1001)
    rows = {layer_name(row["name"]): row for row in csv.DictReader(path.open())}
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    if variant == "paper":  # its table has no auxiliary head
        layers = {name: layer for name, layer in layers.items() if "Aux" not in name}
    assert set(layers) == set(rows)
    for name, row in rows.items():
        layer = layers[name]
        wanted = [int(row[key]) for key in ("kh", "kw", "cin", "cout")]
        if isinstance(layer, keras.layers.Dense):
            assert [1, 1, *layer.kernel.shape] == wanted
            continue
        is_unit = isinstance(layer, ConvUnit)
        assert list(layer.kernel.shape) == wanted, name
        assert layer.output.shape[1:3] == (int(row["oh"]), int(row["ow"])), name
        assert layer.strides == (int(row["stride"]),) * 2, name
        assert is_unit == (row["norm"] == "bn") and (is_unit and layer.use_relu) == (
            row["relu"] == "1"
        )
        if wanted[:2] != [1, 1]:  # a 1x1 pads nothing either way
            assert layer.padding == row["pad"].lower(), name
        assert num_trainable(layer) == int(row["trainable_params_no_gamma"]), name


@pytest.mark.parametrize(
    "size, grids",
    [
        ((299, 299), [(35, 35), (17, 17), (8, 8)]),
        ((150, 150), [(16, 16), (7, 7), (3, 3)]),
        ((75, 75), [(7, 7), (3, 3), (1, 1)]),
        ((400, 600), [(47, 72), (23, 35), (11, 17)]),
    ],
)
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_endpoints_have_the_published_shapes(free_trunks, variant, size, grids):
    model = free_trunks[variant]
    found = keras.Model(model.input, endpoints(model)).compute_output_shape((None, *size, 3))
    for name, channels in CHANNELS[variant].items():
        grid = grids[GRID_AFTER.get(name.split("_")[0], GRID_AFTER.get(name, 2))]
        assert tuple(found[name]) == (None, *grid, channels)
    assert not [name for name in found if "Branch" in name or "Concat" in name]


@pytest.mark.parametrize("size", [(74, 299), (299, 74)])
def test_inputs_under_75_px_are_refused_with_the_rule(size):
    with pytest.raises(ConfigError, match="at least 75 px"):
        inception_resnet_v2(input_shape=(*size, 3))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"variant": "relased"}, "Did you mean 'released'"),
        ({"block_counts": (1, 2)}, "block_counts"),
        ({"block_counts": (1, 2, -1)}, "block_counts"),
        ({"residual_scales": (0.1, 0.1, True)}, "residual_scales"),
        ({"dropout_rate": 1.0}, "dropout_rate"),
        ({"width_multiplier": 0.0}, "width_multiplier"),
        ({"num_classes": 0}, "num_classes"),
        ({"pooling": "avg"}, "pooling"),
        ({"include_top": False, "pooling": "mean"}, "pooling"),
        ({"include_top": False, "aux_head": True}, "auxiliary"),
        ({"aux_head": True, "input_shape": (None, None, 3)}, "auxiliary"),
    ],
)
def test_unusable_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        inception_resnet_v2(**arguments)


@pytest.mark.parametrize("size", [(75, 75), (107, 130), (450, 450)])
def test_auxiliary_head_fits_any_allowed_size(size):
    model = inception_resnet_v2(aux_head=True, input_shape=(*size, 3), **NARROW)
    assert {name: output.shape for name, output in model.output.items()} == {
        "logits": (None, 10),
        "aux_logits": (None, 10),
    }


def test_free_input_size_gives_the_logits_of_a_fixed_one():
    free = inception_resnet_v2(input_shape=(None, None, 3), **NARROW)
    fixed = inception_resnet_v2(input_shape=(80, 96, 3), **NARROW)
    images = tf.random.stateless_uniform((2, 80, 96, 3), [0, 1], -1.0, 1.0)
    np.testing.assert_array_equal(free(images), fixed(images))


def test_without_top_the_grid_or_its_pool_is_returned():
    for pooling, shape in ((None, (None, 1, 1, 384)), ("avg", (None, 384)), ("max", (None, 384))):
        model = inception_resnet_v2(
            include_top=False, pooling=pooling, input_shape=(75, 75, 3), **NARROW
        )
        assert model.output.shape == shape


def test_width_multiplier_rounds_half_up_and_keeps_at_least_eight():
    model = inception_resnet_v2(input_shape=(75, 75, 3), **{**NARROW, "width_multiplier": 0.203125})
    assert model.get_layer("Conv2d_1a_3x3").filters == 8  # 6.5 -> 7 -> 8
    assert model.get_layer("Conv2d_2b_3x3").filters == 13  # 13.0
    assert model.get_layer("block35_1_Branch_2_Conv2d_0b_3x3").filters == 10  # 9.75
    assert model.get_layer("block17_1_Branch_1_Conv2d_0b_1x7").filters == 33  # 32.5
    for kind, stage in (("block35", "Mixed_5b"), ("block17", "Mixed_6a"), ("block8", "Mixed_7a")):
        width = model.get_layer(stage).output.shape[-1]
        assert model.get_layer(f"{kind}_1_Conv2d_1x1").filters == width


def test_default_scales_and_the_linear_last_block():
    released = inception_resnet_v2(input_shape=(75, 75, 3), **NARROW)
    paper = inception_resnet_v2(
        variant="paper", input_shape=(75, 75, 3), residual_scales=(0.3, 0.2, 0.1), **NARROW
    )
    for model, scales, is_linear in (
        (released, (0.17, 0.10, 0.20, 1.0), True),
        (paper, (0.3, 0.2, 0.1, 0.1), False),
    ):
        blocks = [
            model.get_layer(name) for name in ("block35_1", "block17_1", "block8_1", "block8_2")
        ]
        assert tuple(block.scale for block in blocks) == scales
        assert [block.use_relu for block in blocks] == [True, True, True, not is_linear]


def test_residual_block_with_a_zero_linear_1x1_is_the_identity_on_what_is_not_negative():
    table = INCEPTION_RESNET_V2["paper"]
    x = keras.Input((5, 6, 24))
    blocks = [table.block_a, table.block_b, table.block_c]
    model = keras.Model(x, StageBuilder(width_multiplier=0.25).build(x, blocks))
    for block in blocks:
        kernel = model.get_layer(f"{block.name}_Conv2d_1x1").kernel
        kernel.assign(tf.zeros(kernel.shape))
    values = tf.random.stateless_uniform((2, 5, 6, 24), [0, 1])
    np.testing.assert_array_equal(model(values, training=True), values)
    np.testing.assert_array_equal(model(-values, training=True), tf.zeros_like(values))


def test_initial_weights_depend_on_seed_and_layer_name_alone():
    shape = {"input_shape": (75, 75, 3)}
    first = inception_resnet_v2(seed=1, **shape, **NARROW)
    deeper = inception_resnet_v2(
        seed=1, aux_head=True, **shape, **{**NARROW, "block_counts": (2, 1, 2)}
    )
    other = inception_resnet_v2(seed=2, **shape, **NARROW)
    values = {weight.path: weight.value.numpy() for weight in deeper.weights}
    for ours, changed in zip(first.weights, other.weights):
        np.testing.assert_array_equal(ours.value, values[ours.path])
        is_drawn = ours.name == "kernel"
        assert np.array_equal(ours.value, changed.value) is not is_drawn


def test_kernels_start_xavier_uniform():
    model = inception_resnet_v2(input_shape=(75, 75, 3), **NARROW)
    kernel = model.get_layer("Mixed_6a_Branch_1_Conv2d_0b_3x3").kernel.numpy()
    limit = np.sqrt(6 / (9 * 64 + 9 * 64))
    assert 0.999 * limit < np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)


def test_branch_names_are_computed_from_position_padding_and_siblings():
    stage = Mixed(
        "Mixed_7b",
        (
            (Conv("1x1", 8),),
            (Conv("1x1", 8), Siblings((Conv("1x3", 9), Conv("3x1", 10)))),
            (AveragePool(), Conv("1x1", 11)),
            (Conv("1x1", 8), Conv("3x3", 12, padding="valid", tag="0b")),
        ),
    )
    names = [
        "Mixed_7b_Branch_0_Conv2d_0a_1x1",
        "Mixed_7b_Branch_1_Conv2d_0a_1x1",
        "Mixed_7b_Branch_1_Conv2d_0b_1x3",
        "Mixed_7b_Branch_1_Conv2d_0c_3x1",
        "Mixed_7b_Branch_2_Conv2d_0b_1x1",
        "Mixed_7b_Branch_3_Conv2d_0a_1x1",
        "Mixed_7b_Branch_3_Conv2d_0b_3x3",
    ]
    assert [name for name, _ in named_convs([stage])] == names
    x = keras.Input((4, 4, 3))
    same = Mixed(stage.name, stage.branches[:3])
    model = keras.Model(x, StageBuilder().build(x, [same]))
    assert model.output.shape == (None, 4, 4, 8 + 9 + 10 + 11)
    for sibling in names[2:4]:
        assert model.get_layer(sibling).input is model.get_layer(names[1]).output


def test_average_pool_does_not_count_the_padding():
    x = keras.Input((4, 4, 3))
    model = keras.Model(x, StageBuilder().build(x, [AveragePool(), MaxPool("5a")]))
    ones = tf.ones((1, 4, 4, 3))
    np.testing.assert_array_equal(model.get_layer("AvgPool_0a_3x3")(ones), ones)


@pytest.mark.parametrize(
    "policy, dtype", [("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")]
)
def test_mixed_precision_network_ends_in_float32(policy, dtype):
    model = inception_resnet_v2(dtype=policy, aux_head=True, input_shape=(75, 75, 3), **NARROW)
    outputs = model(tf.zeros((1, 75, 75, 3)), training=True)
    assert {output.dtype for output in outputs.values()} == {tf.float32}
    assert {tensor.dtype for tensor in endpoints(model).values()} == {dtype}
    assert {weight.dtype for weight in model.weights} == {"float32"}


def test_compile_and_fit_update_statistics_and_drop_other_units_each_step():
    model = inception_resnet_v2(input_shape=(75, 75, 3), batch_norm_momentum=0.9, **NARROW)
    images = np.random.default_rng(0).uniform(-1, 1, (8, 75, 75, 3)).astype("float32")
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
        images, np.arange(8), batch_size=4, epochs=3, verbose=0, callbacks=[on_step]
    )
    assert np.isfinite(history.history["loss"]).all()
    assert np.abs(model.get_layer("Conv2d_1a_3x3").moving_mean.numpy() - before).max() > 1e-3
    assert len(set(keys)) == len(keys) == 6


_RELOAD = """
import sys, keras, numpy as np
import inception_tf.models.layers
folder = sys.argv[1]
model = keras.models.load_model(folder + "/model.keras")
np.save(folder + "/logits.npy", model(np.load(folder + "/images.npy")).numpy())
"""


def test_keras_file_gives_the_same_logits_in_a_fresh_process(tmp_path):
    model = inception_resnet_v2(input_shape=(75, 75, 3), **NARROW)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 75, 75, 3)).astype("float32")
    model(images, training=True)  # statistics away from their start
    logits = model(images).numpy()
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", _RELOAD, str(tmp_path)], check=True, cwd=ROOT)
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), logits)


def test_clone_model_and_summary_work(capsys):
    model = inception_resnet_v2(input_shape=(75, 75, 3), **NARROW)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    images = tf.random.stateless_uniform((1, 75, 75, 3), [0, 1], -1.0, 1.0)
    np.testing.assert_array_equal(clone(images), model(images))
    model.summary()
    assert "Conv2d_1a_3x3" in capsys.readouterr().out
