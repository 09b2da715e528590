"""The ladder of arXiv 1512.00567: table 3's steps, figure 2, and section 9's receptive fields."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from filled_weights import zero_initial_weights

from inception_tf.errors import ConfigError
from inception_tf.models.counting import count_multiply_adds, count_parameters
from inception_tf.models.inception_v3 import inception_v3
from inception_tf.models.layers import ConvUnit

NARROW = {"width_multiplier": 0.1, "num_classes": 10, "input_shape": (75, 75, 3)}
IMAGES = tf.random.stateless_uniform((2, 75, 75, 3), [0, 1], -1.0, 1.0)


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def kernel(model, name):
    return tuple(model.get_layer(name).kernel.shape)


@pytest.mark.parametrize(
    "size, options, multiply_adds",
    [
        (151, {"first_stride": 1}, 5_713_216_096),
        (79, {"first_stride": 1, "first_pool": False}, 5_361_703_520),
    ],
)
def test_receptive_fields_of_section_9_cost_about_the_same(size, options, multiply_adds):
    """299 px with stride 2 and pool costs 5,713,216,096: the layer tables hold it."""
    with zero_initial_weights():
        model = inception_v3(input_shape=(size, size, 3), **options)
    assert count_multiply_adds(model) == multiply_adds
    assert count_parameters(model) == 23_851_784
    grids = [model.get_layer(name).output.shape[1] for name in ("Mixed_5d", "Mixed_6e", "Mixed_7c")]
    # 79 px without the pool: 77, 75, 75 -> 73 -> 36, a row more than the others have.
    assert grids == ([35, 17, 8] if size == 151 else [36, 17, 8])
    assert ("MaxPool_3a_3x3" in [layer.name for layer in model.layers]) == (size == 151)


@pytest.mark.parametrize(
    "options, smallest_px",
    [
        ({}, 75),
        ({"stem": "7x7"}, 75),
        ({"stem": "table_1"}, 75),
        ({"first_stride": 1}, 39),
        ({"first_stride": 1, "first_pool": False}, 21),
    ],
)
def test_smallest_input_is_computed_from_the_stem(options, smallest_px):
    arguments = {**NARROW, **options}
    model = inception_v3(**{**arguments, "input_shape": (smallest_px, smallest_px, 3)})
    assert model.get_layer("Mixed_7c").output.shape[1:3] == (1, 1)
    for size in ((smallest_px - 1, 299), (299, smallest_px - 1)):
        with pytest.raises(ConfigError, match=f"at least {smallest_px} px"):
            inception_v3(**{**arguments, "input_shape": (*size, 3)})


def test_stem_of_table_1_to_the_letter():
    with zero_initial_weights():
        model = inception_v3(stem="table_1")
    assert count_parameters(model) == 24_411_240
    assert trainable(model) == 24_376_232
    assert count_multiply_adds(model) == 6_024_796_256
    units = [layer for layer in model.layers if isinstance(layer, ConvUnit)]
    assert len(units) == 95
    printed = {
        "Conv2d_1a_3x3": (149, 149, 32),
        "Conv2d_2a_3x3": (147, 147, 32),
        "Conv2d_2b_3x3": (147, 147, 64),
        "MaxPool_3a_3x3": (73, 73, 64),
        "Conv2d_3b_3x3": (71, 71, 80),
        "Conv2d_4a_3x3": (35, 35, 192),
        "Conv2d_4b_3x3": (35, 35, 288),
        "Mixed_6e": (17, 17, 768),
        "Mixed_7a": (8, 8, 1280),
        "Mixed_7c": (8, 8, 2048),
    }
    assert {name: model.get_layer(name).output.shape[1:] for name in printed} == printed


def test_7x7_stem_leaves_what_the_three_3x3_leave():
    with zero_initial_weights():
        model = inception_v3(stem="7x7", include_top=False)
    first = model.get_layer("Conv2d_1a_7x7")
    assert kernel(model, first.name) == (7, 7, 3, 64)
    assert (first.strides, first.padding) == ((2, 2), "valid")
    assert model.get_layer("MaxPool_3a_3x3").input is first.output
    assert first.output.shape == (None, 147, 147, 64)
    assert model.output.shape == (None, 8, 8, 2048)
    names = {layer.name for layer in model.layers}
    assert not names & {"Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"}
    # The rest of the network is the released one's.
    released_stem = 3 * 3 * (3 * 32 + 32 * 32 + 32 * 64) + 3 * (32 + 32 + 64)
    stem = 7 * 7 * 3 * 64 + 3 * 64
    assert count_parameters(model) == 21_802_784 - released_stem + stem


def test_two_3x3_stand_in_for_the_5x5():
    with zero_initial_weights():
        model = inception_v3(branch_5x5="3x3_3x3", include_top=False)
    for module, channels in (("Mixed_5b", 192), ("Mixed_5c", 256), ("Mixed_5d", 288)):
        found = {
            layer.name: (tuple(layer.kernel.shape), layer.padding)
            for layer in model.layers
            if layer.name.startswith(f"{module}_Branch_1_")
        }
        assert found == {
            f"{module}_Branch_1_Conv2d_0a_1x1": ((1, 1, channels, 48), "same"),
            f"{module}_Branch_1_Conv2d_0b_3x3": ((3, 3, 48, 64), "same"),
            f"{module}_Branch_1_Conv2d_0c_3x3": ((3, 3, 64, 64), "same"),
        }
    assert model.get_layer("Mixed_5d").output.shape == (None, 35, 35, 288)


@pytest.mark.parametrize("branch_5x5", ["5x5", "3x3_3x3"])
def test_linear_factorisation_has_no_relu_inside_factorisations_and_only_there(branch_5x5):
    """Inside: all but the last convolution of what replaces one 5x5 or 7x7 (figures 5 and 6)."""
    inside = {f"Mixed_5{module}_Branch_2_Conv2d_0b_3x3" for module in "bcd"}
    inside |= {"Mixed_6a_Branch_1_Conv2d_0b_3x3", "Mixed_7a_Branch_1_Conv2d_0b_1x7"}
    for module in "bcde":
        inside |= {
            f"Mixed_6{module}_Branch_1_Conv2d_0b_1x7",
            f"Mixed_6{module}_Branch_2_Conv2d_0b_7x1",
            f"Mixed_6{module}_Branch_2_Conv2d_0d_7x1",
        }
    if branch_5x5 == "3x3_3x3":
        inside |= {f"Mixed_5{module}_Branch_1_Conv2d_0b_3x3" for module in "bcd"}
    linear, rectified = (
        inception_v3(factorisation=inner, branch_5x5=branch_5x5, aux_head=True, **NARROW)
        for inner in ("linear", "relu")
    )
    for model, without_relu in ((linear, inside), (rectified, set())):
        units = [layer for layer in model.layers if isinstance(layer, ConvUnit)]
        assert {unit.name for unit in units if not unit.use_relu} == without_relu
    assert [w.shape for w in linear.weights] == [w.shape for w in rectified.weights]
    outputs = [model(IMAGES)["logits"].numpy() for model in (linear, rectified)]
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01 * np.abs(outputs[1]).max()


def test_auxiliary_head_with_batch_norm_on_its_convolutions_alone():
    """Table 3's last step, "BN-auxiliary": section 10 has the dense layer normalised as well."""
    norm, bias = (
        inception_v3(aux_head=True, aux_norm=aux_norm, num_classes=10, width_multiplier=0.1)
        for aux_norm in ("all", "convolutions")
    )
    dense = "AuxLogits_Conv2d_2a_5x5"
    names = {
        model: [weight.path.split("/")[1] for weight in model.get_layer(dense).weights]
        for model in (norm, bias)
    }
    assert names[norm] == ["kernel", "beta", "moving_mean", "moving_variance"]
    assert names[bias] == ["kernel", "bias"]
    assert kernel(bias, dense) == kernel(norm, dense) == (5, 5, 13, 77)
    layer = bias.get_layer(dense)
    assert layer.activation is keras.activations.relu
    assert layer.padding == "valid" and layer.output.shape[1:] == (1, 1, 77)
    for model in (norm, bias):
        assert isinstance(model.get_layer("AuxLogits_Conv2d_1b_1x1"), ConvUnit)
        assert model.output["aux_logits"].shape == (None, 10)
    np.testing.assert_array_equal(norm.get_layer(dense).kernel, layer.kernel)
    assert len(norm.weights) == len(bias.weights) + 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"variant": "paper"}, "variant"),
        ({"stem": "factorized"}, "Did you mean 'factorised'"),
        ({"branch_5x5": "3x3"}, "branch_5x5"),
        ({"factorisation": "none"}, "factorisation"),
        ({"aux_norm": "al"}, "aux_norm"),
        ({"first_stride": 3}, "section 9"),
        ({"first_stride": 2, "first_pool": False}, "section 9"),
    ],
)
def test_unusable_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        inception_v3(**NARROW, **options)
