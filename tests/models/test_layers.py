"""ConvUnit, SumNorm, ResidualSum and Dropout against stock Keras layers and NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.models.initializers import xavier_uniform
from inception_tf.models.layers import ConvUnit, Dropout, ResidualSum, SumNorm, has_batch_norm

SHAPE = (3, 9, 7, 4)


def conv_unit(**kwargs):
    return ConvUnit(6, (3, 2), strides=2, padding="valid", momentum=0.9, **kwargs)


def stock_twin(unit, *, use_scale=False):
    """The same layer from stock parts, with the same weights."""
    conv = keras.layers.Conv2D(6, (3, 2), strides=2, padding="valid", use_bias=False)
    norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=0.001, scale=use_scale)
    twin = keras.Sequential([keras.Input(SHAPE[1:]), conv, norm, keras.layers.ReLU()])
    conv.kernel.assign(unit.kernel)
    for name in ("beta", "moving_mean", "moving_variance") + (("gamma",) if use_scale else ()):
        getattr(norm, name).assign(getattr(unit, name))
    return twin, conv, norm


def filled_unit(rng, **kwargs):
    unit = conv_unit(**kwargs)
    unit.build(SHAPE)
    unit.beta.assign(rng.normal(size=6))
    unit.moving_mean.assign(rng.normal(size=6))
    unit.moving_variance.assign(rng.uniform(0.5, 2.0, size=6))
    if unit.use_scale:
        unit.gamma.assign(rng.uniform(0.5, 2.0, size=6))
    return unit


@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_equal_stock_layers(training, use_scale):
    rng = np.random.default_rng(0)
    unit = filled_unit(rng, use_scale=use_scale)
    twin, conv, norm = stock_twin(unit, use_scale=use_scale)
    x = tf.constant(rng.normal(size=SHAPE), tf.float32)
    weights = tf.constant(rng.normal(size=(3, 4, 3, 6)), tf.float32)
    results = []
    for layer, variables in (
        (unit, [unit.kernel, unit.beta] + ([unit.gamma] if use_scale else [])),
        (twin, [conv.kernel, norm.beta] + ([norm.gamma] if use_scale else [])),
    ):
        variables = [variable.value for variable in variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y * weights)
        results.append([y, *tape.gradient(loss, [x, *variables])])
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


def test_moving_statistics_equal_stock_layers_with_the_unbiased_variance():
    rng = np.random.default_rng(1)
    unit = filled_unit(rng)
    twin, _, norm = stock_twin(unit)
    old_variance = unit.moving_variance.numpy()
    x = tf.constant(rng.normal(size=SHAPE), tf.float32)
    unit(x, training=True)
    twin(x, training=True)
    np.testing.assert_allclose(unit.moving_mean, norm.moving_mean, rtol=1e-5, atol=1e-6)
    count = 3 * 4 * 3  # values per channel: images * height * width of the output
    biased = (norm.moving_variance.numpy() - 0.9 * old_variance) / 0.1
    expected = 0.9 * old_variance + 0.1 * biased * count / (count - 1)
    np.testing.assert_allclose(unit.moving_variance, expected, rtol=1e-4)
    assert np.abs(unit.moving_variance.numpy() - norm.moving_variance.numpy()).max() > 1e-4


def test_stateless_call_returns_the_statistics_and_assigns_nothing():
    unit = conv_unit()
    unit.build(SHAPE)
    model = keras.Sequential([keras.Input(SHAPE[1:]), unit])
    x = tf.random.stateless_normal(SHAPE, [0, 1])
    _, returned = model.stateless_call(
        [v.value for v in model.trainable_variables],
        [v.value for v in model.non_trainable_variables],
        x,
        training=True,
    )
    assert not unit.moving_mean.numpy().any()
    unit(x, training=True)
    np.testing.assert_array_equal(returned[0], unit.moving_mean.numpy())
    np.testing.assert_array_equal(returned[1], unit.moving_variance.numpy())


def test_frozen_unit_uses_and_keeps_its_moving_statistics():
    unit = filled_unit(np.random.default_rng(2))
    unit.trainable = False
    x = tf.random.stateless_normal(SHAPE, [0, 1])
    before = [weight.numpy() for weight in unit.weights]
    np.testing.assert_array_equal(unit(x, training=True), unit(x, training=False))
    for old, weight in zip(before, unit.weights):
        np.testing.assert_array_equal(old, weight.numpy())
    assert not unit.trainable_variables


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "policy, dtype", [("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")]
)
def test_mixed_precision_computes_in_16_bit_with_float32_variables(policy, dtype, training):
    rng = np.random.default_rng(3)
    unit = filled_unit(rng, dtype=policy)
    exact = conv_unit()
    exact.build(SHAPE)
    exact.set_weights(unit.get_weights())
    x = tf.constant(rng.normal(size=SHAPE), tf.float32)
    with tf.GradientTape() as tape:
        y = unit(x, training=training)
        loss = tf.reduce_sum(tf.cast(y, tf.float32))
    gradients = tape.gradient(loss, [unit.kernel.value, unit.beta.value])
    assert y.dtype == dtype
    assert {gradient.dtype for gradient in gradients} == {tf.float32}
    assert {weight.dtype for weight in unit.weights} == {"float32"}
    np.testing.assert_allclose(
        tf.cast(y, tf.float32), exact(x, training=training), rtol=0.05, atol=0.05
    )
    np.testing.assert_allclose(unit.moving_variance, exact.moving_variance, rtol=0.01)
    stored = unit.moving_mean.numpy()
    assert not np.array_equal(stored, tf.cast(tf.cast(stored, dtype), tf.float32)), "kept 8 bits"


def test_output_shapes_with_free_sizes_equal_what_is_computed():
    for padding, strides in (("same", 1), ("same", 2), ("valid", 1), ("valid", 2)):
        unit = ConvUnit(5, (1, 7), strides=strides, padding=padding)
        unit.build((None, None, None, 3))
        assert unit.compute_output_shape((None, None, None, 3)) == (None, None, None, 5)
        for size in ((9, 11), (8, 8)):
            shape = unit.compute_output_shape((2, *size, 3))
            assert tuple(unit(tf.zeros((2, *size, 3))).shape) == shape


def test_unit_without_relu_is_linear_below_zero():
    unit = ConvUnit(2, 1, use_relu=False)
    unit.build((None, None, None, 3))
    unit.kernel.assign(tf.ones_like(unit.kernel.value))
    assert unit(-tf.ones((1, 2, 2, 3))).numpy().max() < 0


def test_config_rebuilds_the_same_unit():
    unit = ConvUnit(
        4, (1, 3), strides=2, padding="valid", use_scale=True, use_relu=False, momentum=0.5,
        epsilon=0.01, kernel_initializer=xavier_uniform(7, "a"), dtype="mixed_bfloat16", name="a",
    )
    config = unit.get_config()
    twin = ConvUnit.from_config(config)
    assert twin.get_config() == config
    unit.build((None, 8, 8, 3))
    twin.build((None, 8, 8, 3))
    np.testing.assert_array_equal(unit.kernel.numpy(), twin.kernel.numpy())


@pytest.mark.parametrize(
    "arguments",
    [{"filters": 0}, {"padding": "full"}, {"momentum": 1.5}, {"epsilon": 0.0}],
)
def test_unit_refuses_values_out_of_range(arguments):
    with pytest.raises(ConfigError):
        ConvUnit(**{"filters": 2, "kernel_size": 3, **arguments})


def sum_norm(rng, **kwargs):
    """A SumNorm of 4 channels with random statistics, and those as arrays by name."""
    norm = SumNorm(momentum=0.9, epsilon=0.01, **kwargs)
    norm.build(SHAPE)
    for weight in norm.weights:
        weight.assign(rng.uniform(0.5, 2.0, size=4))
    return norm, {weight.name: weight.numpy() for weight in norm.weights}


@pytest.mark.parametrize("use_relu", [False, True])
@pytest.mark.parametrize("use_scale", [False, True])
def test_sum_norm_equals_batch_norm_then_relu_in_numpy(use_scale, use_relu):
    rng = np.random.default_rng(4)
    x = rng.normal(1.0, 2.0, size=SHAPE).astype("float32")
    for training in (False, True):
        norm, old = sum_norm(rng, use_scale=use_scale, use_relu=use_relu)
        assert list(old) == (["gamma"] if use_scale else []) + [
            "beta", "moving_mean", "moving_variance"
        ]  # fmt: skip
        mean, variance = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if training else (
            old["moving_mean"], old["moving_variance"]
        )  # fmt: skip
        wanted = (x - mean) / np.sqrt(variance + 0.01) * old.get("gamma", 1.0) + old["beta"]
        wanted = np.maximum(wanted, 0) if use_relu else wanted
        np.testing.assert_allclose(norm(x, training=training), wanted, rtol=1e-4, atol=1e-5)
        share = 0.1 if training else 0.0
        unbiased = variance * (189 / 188 if training else 1.0)  # 3 * 9 * 7 values per channel
        for name, batch in (("moving_mean", mean), ("moving_variance", unbiased)):
            np.testing.assert_allclose(
                getattr(norm, name), old[name] + share * (batch - old[name]), rtol=1e-5
            )
        assert (wanted.min() < 0) is not use_relu


def test_sum_norm_is_rebuilt_from_its_config_and_file(tmp_path):
    norm, _ = sum_norm(
        np.random.default_rng(5), use_scale=True, use_relu=False, dtype="mixed_bfloat16", name="a"
    )
    assert SumNorm.from_config(norm.get_config()).get_config() == norm.get_config()
    model = keras.Sequential([keras.Input(SHAPE[1:]), norm])
    model.save(tmp_path / "norm.keras")
    x = tf.random.stateless_normal(SHAPE, [0, 1])
    loaded = keras.models.load_model(tmp_path / "norm.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert norm.compute_output_shape((None, None, 7, 4)) == (None, None, 7, 4)
    assert norm(x).dtype == "bfloat16"


def test_frozen_sum_norm_keeps_its_statistics():
    norm, old = sum_norm(np.random.default_rng(6))
    norm.trainable = False
    x = tf.random.stateless_normal(SHAPE, [0, 1])
    np.testing.assert_array_equal(norm(x, training=True), norm(x, training=False))
    assert {weight.name: weight.numpy().tolist() for weight in norm.weights} == {
        name: array.tolist() for name, array in old.items()
    }


def test_batch_norms_are_known_by_what_they_hold():
    for layer in (ConvUnit(2, 1), SumNorm(), keras.layers.BatchNormalization()):
        assert has_batch_norm(layer)
    for layer in (keras.layers.Conv2D(2, 1), ResidualSum(1.0), Dropout(0.5)):
        assert not has_batch_norm(layer)


def test_residual_sum_scales_adds_and_rectifies():
    x, up = tf.constant([[[[1.0, -1.0]]]]), tf.constant([[[[-20.0, 20.0]]]])
    np.testing.assert_allclose(ResidualSum(0.1)([x, up]), [[[[0.0, 1.0]]]])
    np.testing.assert_allclose(ResidualSum(0.1, use_relu=False)([x, up]), [[[[-1.0, 1.0]]]])
    with pytest.raises(ConfigError, match="shape"):
        ResidualSum(0.1)([x, tf.zeros((1, 1, 1, 3))])


def test_dropout_state_is_named_after_the_layer():
    keras.random.SeedGenerator(0)  # would shift an automatic number
    layer = Dropout(0.5, seed=3, name="Dropout_1b")
    paths = [variable.path for variable in layer.non_trainable_variables]
    assert paths == ["Dropout_1b/seed_generator_state"]
    x = tf.ones((1, 1000))
    first, second = layer(x, training=True), layer(x, training=True)
    assert set(np.unique(first)) == {0.0, 2.0}
    assert 400 < np.count_nonzero(first) < 600
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(layer(x, training=False), x)
