"""A folded network gives the network's own logits, from plain convolutions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.models.catalog import ModelSpec, build_model
from inception_tf.models.layers import ConvUnit, ResidualSum
from inception_tf.serving.fold import fold
from inception_tf.serving.graph import FoldedGraph

SMALL = {"width_multiplier": 0.25, "input_height_px": 75, "input_width_px": 91}
RESIDUAL = {"name": "inception_resnet_v2", "block_counts": (1, 2, 1)}
V1 = {"name": "inception_resnet_v1", "block_counts": (1, 1, 1)}
FAST = {
    "a residual network": {**RESIDUAL},
    "batch norm on the sums": {**RESIDUAL, "batch_norm_on_sums": True, "batch_norm_scale": True},
}
SLOW = {
    "v3": {"name": "inception_v3", "aux_head": True},
    "v3, linear factorisations": {"name": "inception_v3", "factorisation": "linear"},
    "v3, batch norm's gamma": {"name": "inception_v3", "batch_norm_scale": True},
    "v4 as drawn": {"name": "inception_v4", "variant": "paper", "block_counts": (1, 1, 1)},
    "v4": {"name": "inception_v4", "variant": "released", "block_counts": (1, 1, 1)},
    "v1 as drawn": {**V1, "variant": "paper"},
    "facenet": {**V1, "variant": "facenet"},
    "v2 as drawn": {**RESIDUAL, "variant": "paper"},
    "scales": {**RESIDUAL, "residual_scales": (1.0, 0.0, 0.3), "aux_head": True},
}
CASES = [pytest.param(fields, id=name) for name, fields in FAST.items()]
CASES += [pytest.param(f, id=name, marks=pytest.mark.slow) for name, f in SLOW.items()]


def network_of(fields, *, seed=4):
    """A small network whose every weight is drawn, so that images differ at the end."""
    model = build_model(ModelSpec(**SMALL, **fields), num_classes=7, seed=seed)
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith("moving_variance"):
            weight.assign(generator.uniform(0.15, 0.6, weight.shape))
        elif weight.path.endswith(("beta", "moving_mean", "bias")):
            weight.assign(generator.normal(scale=0.1, size=weight.shape))
        elif weight.path.endswith("gamma"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    # Logits of a few units: larger ones would leave every probability 0 or 1.
    classifier = model.get_layer("Logits")
    largest = np.abs(logits_of(model, images_of(model))).max()
    classifier.kernel.assign(classifier.kernel * (3 / largest))
    classifier.bias.assign(classifier.bias * (3 / largest))
    return model


def images_of(model, count=3):
    """Coarse patterns: what noise differs in is averaged away on the last grid."""
    coarse = np.random.default_rng(8).uniform(-1, 1, (count, 3, 3, 3)).astype(np.float32)
    return tf.image.resize(coarse, model.input_shape[1:3], method="nearest").numpy()


def logits_of(model, images):
    outputs = model(images, training=False)
    return (outputs["logits"] if isinstance(outputs, dict) else outputs).numpy()


def kinds(network):
    return [operation.kind for operation in network.operations]


@pytest.mark.parametrize("fields", CASES)
def test_logits_are_the_networks_own(fields):
    model = network_of(fields)
    images, network = images_of(model), fold(model)
    expected = logits_of(model, images)
    _, found = FoldedGraph(network)(images)
    assert np.ptp(expected, axis=0).max() > 1e-2, "the images must make a difference"
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    # Nothing but batch norm on a sum, whose first summand is no convolution, is left unfolded.
    num_sum_norms = sum(type(layer).__name__ == "SumNorm" for layer in model.layers)
    assert kinds(network).count("affine") == num_sum_norms
    assert not any("Aux" in operation.name for operation in network.operations)


@pytest.mark.parametrize("fields", CASES[:1])
def test_features_are_the_last_grid_averaged(fields):
    model = network_of(fields)
    pooled = keras.Model(model.input, model.get_layer("AvgPool_1a").output)
    images = images_of(model)
    features, _ = FoldedGraph(fold(model))(images)
    np.testing.assert_allclose(features, pooled(images, training=False), rtol=1e-4, atol=1e-5)


def test_bfloat16_rounds_to_8_bits_and_no_more():
    model = network_of(FAST["batch norm on the sums"])
    images, network = images_of(model), fold(model)
    graph = FoldedGraph(network, precision="bfloat16")
    expected = logits_of(model, images)
    _, found = graph(images)
    assert found.dtype == tf.float32
    dtypes = {kernel.dtype for kernel, _ in graph.weights.values()}
    assert dtypes == {tf.bfloat16, tf.float32}
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < difference < 0.1


def test_other_values_than_the_models_are_taken_and_nothing_changes():
    model = network_of(FAST["a residual network"])
    before = [weight.numpy().tobytes() for weight in model.weights]
    values = (
        [value.numpy() * np.float32(0.9) for value in model.trainable_variables],
        [value.numpy() for value in model.non_trainable_variables],
    )
    _, found = FoldedGraph(fold(model, values))(images_of(model))
    assert before == [weight.numpy().tobytes() for weight in model.weights]
    for weight, value in zip(model.trainable_variables, values[0], strict=True):
        weight.assign(value)
    expected = logits_of(model, images_of(model))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_the_numbers_are_those_of_the_formula():
    """By hand, on one 1x1 convolution and one scaled residual of one pixel and one channel."""
    x = keras.Input((1, 1, 1))
    unit = ConvUnit(1, 1, use_scale=True, epsilon=0.25, name="unit")
    up = keras.layers.Conv2D(1, 1, name="up")
    total = ResidualSum(0.5, name="sum")([unit(x), up(unit.output)])
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(total)
    model = keras.Model(x, keras.layers.Dense(1, name="logits")(pooled))
    values = {"kernel": 3, "gamma": 4, "beta": 5, "moving_mean": 6, "moving_variance": 3.75}
    for name, value in values.items():
        getattr(unit, name).assign(tf.fill(getattr(unit, name).shape, float(value)))
    up.kernel.assign([[[[7.0]]]])
    up.bias.assign([9.0])
    found = {operation.name: operation for operation in fold(model).operations}
    assert list(found) == ["unit", "up", "sum", "pool", "logits"]
    assert found["unit"].kernel.item() == 3 * 4 / 2  # the root of 3.75 + 0.25 is 2
    assert found["unit"].bias.item() == 5 - 6 * 4 / 2
    assert (found["up"].kernel.item(), found["up"].bias.item()) == (3.5, 4.5)
    assert found["unit"].has_relu and found["sum"].has_relu and not found["up"].has_relu
    assert found["unit"].kernel.dtype == np.float32


def test_a_convolution_that_others_take_keeps_its_numbers():
    x = keras.Input((5, 5, 2))
    linear = keras.layers.Conv2D(2, 3, padding="same", name="linear")(x)
    total = ResidualSum(0.5, name="sum")([linear, linear])
    normal = keras.layers.BatchNormalization(name="norm")(total)
    pooled = keras.layers.GlobalAveragePooling2D()(normal)
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.Dropout(0.5)(pooled)))
    model.get_layer("norm").moving_mean.assign([1.0, -2.0])
    network = fold(model)
    assert kinds(network) == ["conv", "affine", "add", "affine", "global_mean", "dense"]
    images = np.random.default_rng(1).normal(size=(4, 5, 5, 2)).astype(np.float32)
    _, found = FoldedGraph(network)(images)
    np.testing.assert_allclose(found, logits_of(model, images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (keras.layers.Conv2D(2, 3, activation="gelu", name="c"), "ReLU alone.*gelu.*'c'"),
        (keras.layers.Conv2D(2, 3, dilation_rate=2, name="c"), "without dilation.*c"),
        (keras.layers.LayerNormalization(name="own"), "plain ones of Keras.*LayerNormalization"),
    ],
    ids=["activation", "dilation", "layer"],
)
def test_what_cannot_be_folded_is_refused(layer, message):
    x = keras.Input((9, 9, 2))
    pooled = keras.layers.GlobalAveragePooling2D()(layer(x))
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        fold(keras.Model(x, keras.layers.Dense(2)(pooled)))


def test_a_network_without_a_classifier_is_refused():
    x = keras.Input((9, 9, 2))
    with pytest.raises(ConfigError, match="ends with a dense layer"):
        fold(keras.Model(x, keras.layers.GlobalAveragePooling2D()(x)))
