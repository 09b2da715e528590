"""What Inception-ResNet-v1 and v2 do with their residuals: sums, scales, last block, batch norm."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.models.catalog import CATALOG
from inception_tf.models.counting import count_multiply_adds, count_parameters
from inception_tf.models.inception_resnet_v1 import INCEPTION_RESNET_V1
from inception_tf.models.inception_resnet_v2 import INCEPTION_RESNET_V2
from inception_tf.models.layers import ResidualSum, SumNorm
from inception_tf.models.stage_builder import StageBuilder, endpoints

VARIANTS = [
    ("inception_resnet_v1", "paper", False),
    ("inception_resnet_v1", "facenet", True),
    ("inception_resnet_v2", "paper", False),
    ("inception_resnet_v2", "released", True),
]  # and whether the last block is linear
TABLES = {"inception_resnet_v1": INCEPTION_RESNET_V1, "inception_resnet_v2": INCEPTION_RESNET_V2}
NARROW = {
    "width_multiplier": 0.25, "block_counts": (1, 1, 2), "num_classes": 10,
    "input_shape": (75, 75, 3),
}  # fmt: skip


def narrow(name, variant, **options):
    return CATALOG[name][variant].builder(variant=variant, **{**NARROW, **options})


@pytest.mark.parametrize("name, variant, _", VARIANTS)
def test_block_with_a_zero_linear_1x1_is_the_identity_on_what_is_not_negative(name, variant, _):
    table = TABLES[name][variant]
    x = keras.Input((5, 6, 24))
    blocks = [table.block_a, table.block_b, table.block_c]
    model = keras.Model(x, StageBuilder(width_multiplier=0.25).build(x, blocks))
    values = tf.random.stateless_uniform((2, 5, 6, 24), [0, 1])
    assert np.abs(model(values, training=True) - values).max() > 0.1  # not yet
    for block in blocks:
        kernel = model.get_layer(f"{block.name}_Conv2d_1x1").kernel
        kernel.assign(tf.zeros(kernel.shape))
    np.testing.assert_array_equal(model(values, training=True), values)
    np.testing.assert_array_equal(model(-values, training=True), tf.zeros_like(values))


@pytest.mark.parametrize("name, variant, is_linear", VARIANTS)
def test_last_released_block_is_the_input_plus_the_unscaled_residual(name, variant, is_linear):
    model = narrow(name, variant)
    block = model.get_layer("block8_2")
    parts = [model.get_layer("block8_1").output, model.get_layer("block8_2_Conv2d_1x1").output]
    images = tf.random.stateless_uniform((2, 75, 75, 3), [0, 1], -1.0, 1.0)
    x, up, y = (
        value.numpy() for value in keras.Model(model.input, [*parts, block.output])(images)
    )
    wanted = x + up if is_linear else np.maximum(x + 0.2 * up, 0)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)
    assert (y.min() < 0) == is_linear


@pytest.mark.parametrize("name, variant, is_linear", VARIANTS)
def test_scales_are_the_released_ones_or_those_given(name, variant, is_linear):
    for options, scales in (
        ({}, [0.17, 0.10, 0.20]),
        ({"residual_scales": (0.3, 0.25, 0.15)}, [0.3, 0.25, 0.15]),
    ):
        model = narrow(name, variant, **options)
        blocks = [
            model.get_layer(block) for block in ("block35_1", "block17_1", "block8_1", "block8_2")
        ]
        assert [block.scale for block in blocks] == [*scales, 1.0 if is_linear else scales[-1]]
        assert [block.use_relu for block in blocks] == [True, True, True, not is_linear]


@pytest.mark.parametrize("name, variant, is_linear", VARIANTS)
def test_batch_norm_on_sums_stands_between_the_sum_and_its_relu(name, variant, is_linear):
    plain = narrow(name, variant)
    model = narrow(name, variant, batch_norm_on_sums=True)
    blocks = ["block35_1", "block17_1", "block8_1", "block8_2"]
    for block in blocks:
        norm, total = model.get_layer(block), model.get_layer(f"{block}_Sum")
        linear = is_linear and block == "block8_2"
        assert isinstance(norm, SumNorm) and isinstance(total, ResidualSum)
        assert norm.input is total.output
        assert norm.use_relu is not linear and total.use_relu is False
        assert total.scale == plain.get_layer(block).scale
        assert [weight.path for weight in norm.weights] == [
            f"{block}/beta", f"{block}/moving_mean", f"{block}/moving_variance"
        ]  # fmt: skip
    assert list(endpoints(model)) == list(endpoints(plain))
    channels = sum(model.get_layer(block).output.shape[-1] for block in blocks)
    assert count_parameters(model) == count_parameters(plain) + 3 * channels
    assert len(model.trainable_weights) == len(plain.trainable_weights) + 4
    assert count_multiply_adds(model) == count_multiply_adds(plain)
    assert not [layer for layer in plain.layers if isinstance(layer, SumNorm)]


def test_batch_norm_on_sums_normalises_the_sum_of_its_batch():
    model = narrow("inception_resnet_v1", "paper", batch_norm_on_sums=True)
    images = tf.random.stateless_uniform((4, 75, 75, 3), [0, 1], -1.0, 1.0)
    both = keras.Model(
        model.input, [model.get_layer(name).output for name in ("block35_1_Sum", "block35_1")]
    )
    before = model.get_layer("block35_1").moving_mean.numpy()
    total, found = (value.numpy() for value in both(images, training=True))
    mean, variance = total.mean((0, 1, 2)), total.var((0, 1, 2))
    wanted = np.maximum((total - mean) / np.sqrt(variance + 0.001), 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        model.get_layer("block35_1").moving_mean, before + 0.0003 * (mean - before), rtol=1e-3
    )


@pytest.mark.parametrize("name, variant, _", VARIANTS)
def test_block_counts_may_be_zero_and_no_block_is_then_linear(name, variant, _):
    model = narrow(name, variant, block_counts=(0, 0, 0))
    assert not [layer for layer in model.layers if layer.name.startswith("block")]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    "options, message",
    [
        ({"block_counts": (1, 2)}, "block_counts"),
        ({"block_counts": (1, 2, -1)}, "block_counts"),
        ({"block_counts": (1, 2, 1.0)}, "block_counts"),
        ({"residual_scales": (0.1, 0.1)}, "residual_scales"),
        ({"residual_scales": (0.1, 0.1, True)}, "residual_scales"),
        ({"residual_scales": (0.1, -0.1, 0.1)}, "residual_scales"),
    ],
)
def test_unusable_arguments_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        narrow(name, "paper", **options)


@pytest.mark.parametrize("name, variant, _", VARIANTS)
def test_batch_norm_on_the_last_sum_leaves_the_others_alone(name, variant, _):
    model = narrow(name, variant, batch_norm_on_last_sum=True)
    norms = [layer.name for layer in model.layers if isinstance(layer, SumNorm)]
    assert norms == ["block8_2"]
    both = narrow(name, variant, batch_norm_on_sums=True)
    last, same = model.get_layer("block8_2"), both.get_layer("block8_2")
    assert last.use_relu is same.use_relu
    assert last.input is model.get_layer("block8_2_Sum").output
    assert [w.path for w in last.weights] == [w.path for w in same.weights]
    assert count_parameters(model) == count_parameters(narrow(name, variant)) + 3 * (
        last.output.shape[-1]
    )
