"""What a config's model section builds."""

import dataclasses

import keras
import pytest

from inception_tf.errors import ConfigError
from inception_tf.models.catalog import (
    ModelSpec,
    build_model,
    num_outputs,
)
from inception_tf.models.counting import (
    count_multiply_adds,
    count_parameters,
    smallest_batch_norm_counts,
)
from inception_tf.models.inception_resnet_v2 import inception_resnet_v2

SPEC = ModelSpec(
    input_height_px=75, input_width_px=107, width_multiplier=0.25, block_counts=(1, 1, 1)
)


def test_spec_reaches_the_network():
    spec = dataclasses.replace(
        SPEC, aux_head=True, background_class=True, residual_scales=(0.3, 0.2, 0.1),
        dropout_rate=0.4, batch_norm_epsilon=0.01, precision="mixed_bfloat16", variant="paper",
    )
    model = build_model(spec, num_classes=10, num_replicas=20)
    unit = model.get_layer("Mixed_5a_Branch_0_Conv2d_1a_3x3")
    assert model.input.shape == (None, 75, 107, 3)
    assert model.output["logits"].shape == model.output["aux_logits"].shape == (None, 11)
    assert unit.momentum == pytest.approx(0.99402, abs=5e-6)
    assert unit.epsilon == 0.01
    assert unit.compute_dtype == "bfloat16"
    assert model.get_layer("block17_1").scale == 0.2
    assert model.get_layer("Dropout_1b").rate == 0.4
    assert model.input.dtype == "float32"


def test_options_of_one_network_reach_its_builder():
    small = {"input_height_px": 75, "input_width_px": 75, "width_multiplier": 0.1}
    for spec, layer, absent in (
        (
            ModelSpec(
                name="inception_v3", stem="table_1", first_stride=1, first_pool=False,
                branch_5x5="3x3_3x3", factorisation="linear", aux_head=True,
                aux_norm="convolutions", **small,
            ),
            "Conv2d_4b_3x3",
            "MaxPool_3a_3x3",
        ),
        (
            ModelSpec(name="inception_v4", variant="paper", block_counts=(0, 1, 0), **small),
            "Mixed_6b_Branch_2_Conv2d_0b_1x7",
            "Mixed_6c",
        ),
        (
            ModelSpec(
                name="inception_resnet_v1", variant="facenet", block_counts=(0, 1, 0),
                batch_norm_on_sums=True, **small,
            ),
            "block17_1_Sum",
            "block8_1",
        ),
    ):
        model = build_model(spec, num_classes=10)
        names = {layer.name for layer in model.layers}
        assert layer in names and absent not in names
        assert model.name == spec.name
        if spec.stem:
            assert model.get_layer("Conv2d_1a_3x3").strides == (1, 1)
            assert not model.get_layer("Mixed_5b_Branch_1_Conv2d_0b_3x3").use_relu
            assert model.get_layer("AuxLogits_Conv2d_2a_4x4").bias is not None


@pytest.mark.parametrize(
    "name, option, owners",
    [
        ("inception_v3", {"block_counts": (4, 7, 3)}, "inception_v4 and inception_resnet_v1"),
        ("inception_v3", {"residual_scales": (0.1, 0.1, 0.1)}, "inception_resnet_v1 and"),
        ("inception_v4", {"residual_scales": (0.1, 0.1, 0.1)}, "inception_resnet_v1 and"),
        ("inception_v4", {"batch_norm_on_sums": False}, "inception_resnet_v1 and"),
        ("inception_v4", {"stem": "factorised"}, "for inception_v3"),
        ("inception_resnet_v1", {"branch_5x5": "5x5"}, "for inception_v3"),
        ("inception_resnet_v2", {"aux_norm": "all"}, "for inception_v3"),
    ],
)
def test_options_of_other_networks_are_refused(name, option, owners):
    variant = "paper" if name == "inception_resnet_v1" else "released"
    with pytest.raises(ConfigError, match=f"(?s){name} has no {next(iter(option))}.*{owners}"):
        build_model(ModelSpec(name=name, variant=variant, **option), num_classes=10)


def test_background_class_adds_one_output():
    assert num_outputs(SPEC, 1000) == 1000
    assert num_outputs(dataclasses.replace(SPEC, background_class=True), 1000) == 1001


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "inception_resnet_v3"}, "Did you mean 'inception_resnet_v2'"),
        ({"variant": "papers"}, "Did you mean 'paper'"),
        ({"precision": "mixed_bfloat"}, "Did you mean 'mixed_bfloat16'"),
        ({"num_classes": 1000}, "as many classes"),
        ({"batch_norm_decay": 1.1}, "batch_norm_decay"),
        ({"input_width_px": 74}, "at least 75 px"),
    ],
)
def test_unusable_specs_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_model(dataclasses.replace(SPEC, **changes), num_classes=10)


def test_random_state_is_not_counted_as_a_parameter():
    with_dropout = build_model(SPEC, num_classes=10)
    without = build_model(dataclasses.replace(SPEC, dropout_rate=0.0), num_classes=10)
    assert len(with_dropout.variables) == len(without.variables) + 1
    assert count_parameters(with_dropout) == count_parameters(without)


def test_smallest_batch_norm_counts_come_first():
    model = build_model(dataclasses.replace(SPEC, aux_head=True), num_classes=10)
    counts = smallest_batch_norm_counts(model)
    named = dict(counts)
    assert counts[0][1] == named["AuxLogits_Conv2d_2a_1x1"] == 1
    assert named["Conv2d_7b_1x1"] == 1 * 2
    assert named["Conv2d_1a_3x3"] == 37 * 53 == counts[-1][1]
    assert [count for _, count in counts] == sorted(count for _, count in counts)
    assert not [name for name in named if name.endswith("block35_1_Conv2d_1x1")]


def test_counting_needs_a_fixed_input_size():
    free = inception_resnet_v2(
        input_shape=(None, None, 3), width_multiplier=0.25, block_counts=(0, 0, 0)
    )
    for count in (smallest_batch_norm_counts, count_multiply_adds):
        with pytest.raises(ConfigError, match="fixed"):
            count(free)


def test_multiply_adds_of_a_small_model_by_hand():
    x = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, (3, 2), strides=2, padding="same")(x)
    y = keras.layers.Dense(5)(keras.layers.Flatten()(y))
    assert count_multiply_adds(keras.Model(x, y)) == 3 * 2 * 3 * 4 * 16 + 64 * 5
