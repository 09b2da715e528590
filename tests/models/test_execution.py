"""The network as the training step runs it, against the plain Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.models.catalog import ModelSpec, build_model
from inception_tf.models.execution import Execution, num_kept_values
from inception_tf.models.layers import ConvUnit

CLASSES = 5
SMALL = {"width_multiplier": 0.05, "input_height_px": 139, "input_width_px": 107, "aux_head": True}
NETWORKS = {
    "inception_v3": {},
    "inception_v4": {"block_counts": (2, 2, 2)},
    "inception_resnet_v1": {"variant": "paper", "block_counts": (2, 2, 2)},
    "inception_resnet_v2": {"block_counts": (2, 2, 2)},
}


def build(name, **options):
    spec = ModelSpec(name=name, **SMALL, **NETWORKS[name], **options)
    return build_model(spec, num_classes=CLASSES)


def values_of(model):
    """(trainable, other values): random where they are the same for every channel at first."""
    rng = np.random.default_rng(0)

    def value(variable):
        if variable.path.endswith(("beta", "bias", "moving_mean")):
            return tf.constant(rng.normal(scale=0.1, size=variable.shape), tf.float32)
        if variable.path.endswith(("gamma", "moving_variance")):
            return tf.constant(rng.uniform(0.5, 2.0, size=variable.shape), tf.float32)
        return tf.convert_to_tensor(variable.value)

    return (
        [value(variable) for variable in model.trainable_variables],
        [value(variable) for variable in model.non_trainable_variables],
    )


def results_of(model, call):
    """Name -> array of outputs, new values and gradients, and the graph that gave them."""

    @tf.function(autograph=False)
    def run(trainable, fixed, images):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trainable)
            outputs, new_fixed = call(trainable, fixed, images)
            # Weights that differ, or batch norm would leave next to no gradient.
            loss = tf.add_n([
                tf.reduce_sum(tf.cast(output, tf.float32) ** 2 * tf.range(1.0, CLASSES + 1))
                for output in tf.nest.flatten(outputs)
            ])
        return outputs, new_fixed, tape.gradient(loss, trainable)

    trainable, fixed = values_of(model)
    images = tf.random.stateless_uniform([4, 139, 107, 3], [1, 2], minval=-1.0)
    graph = run.get_concrete_function(trainable, fixed, images).graph.as_graph_def()
    outputs, new_fixed, gradients = run(trainable, fixed, images)
    found = {f"output {name}": value for name, value in outputs.items()}
    for variable, value in zip(model.non_trainable_variables, new_fixed):
        found[f"new {variable.path}"] = value
    for variable, value in zip(model.trainable_variables, gradients):
        found[f"gradient {variable.path}"] = value
    return {name: np.asarray(value) for name, value in found.items()}, graph


def plain(model):
    return lambda trainable, fixed, images: model.stateless_call(
        trainable, fixed, images, training=True
    )


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    difference = {
        name: np.linalg.norm(np.float64(found[name]) - np.float64(value))
        for name, value in expected.items()
    }
    size = {name: np.linalg.norm(np.float64(value)) for name, value in expected.items()}
    gradients = [name for name in expected if name.startswith("gradient")]
    whole = np.linalg.norm([size[name] for name in gradients])
    assert np.linalg.norm([difference[name] for name in gradients]) < 1e-2 * whole
    for name in expected:
        # Rounding moves some ReLUs, and of a bias before batch norm there is nothing but rounding.
        slack = 5e-2 * size[name] + 1e-6 * whole if name in gradients else 1e-4 * size[name]
        assert difference[name] <= slack, name


def nodes(graph):
    """All operations of a graph and of the functions that it calls."""
    inside = [node for function in graph.library.function for node in function.node_def]
    return [*graph.node, *inside]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("inception_v3", marks=pytest.mark.slow),
        pytest.param("inception_v4", marks=pytest.mark.slow),
        pytest.param("inception_resnet_v1", marks=pytest.mark.slow),
        "inception_resnet_v2",
    ],
)
def test_outputs_statistics_and_gradients_are_those_of_the_plain_model(name):
    model = build(name)
    expected, _ = results_of(model, plain(model))
    for recompute in (False, True):
        found, _ = results_of(model, Execution(model, recompute=recompute))
        assert_close(found, expected)
    moved = [name for name in expected if "moving" in name]
    assert len(moved) > 20


def test_gamma_batch_norm_on_sums_and_frozen_blocks_are_those_of_the_plain_model():
    model = build("inception_resnet_v2", batch_norm_scale=True, batch_norm_on_sums=True)
    for layer in model.layers:
        if layer.name.startswith(("Conv2d", "Mixed_5b", "block35_1", "block17_2_Branch_0")):
            layer.trainable = False
    expected, _ = results_of(model, plain(model))
    for recompute in (False, True):
        found, _ = results_of(model, Execution(model, recompute=recompute))
        assert_close(found, expected)
    kept = expected["new block35_1_Branch_0_Conv2d_1x1/moving_mean"]
    moved = expected["new block35_2_Branch_0_Conv2d_1x1/moving_mean"]
    before = {v.path: value for v, value in zip(model.non_trainable_variables, values_of(model)[1])}
    np.testing.assert_array_equal(kept, before["block35_1_Branch_0_Conv2d_1x1/moving_mean"])
    assert np.abs(moved - before["block35_2_Branch_0_Conv2d_1x1/moving_mean"]).max() > 0


@pytest.mark.parametrize("use_scale, on_gpu", [(False, False), (True, False), (True, True)])
def test_siblings_are_three_convolutions_to_rounding(use_scale, on_gpu, monkeypatch):
    if on_gpu:
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    images = keras.Input([9, 7, 6])
    units = [
        ConvUnit(filters, 1, use_scale=use_scale, name=f"unit_{filters}") for filters in (3, 5, 2)
    ]
    outputs = {unit.name: keras.layers.GlobalAveragePooling2D()(unit(images)) for unit in units}
    model = keras.Model(images, {"logits": keras.layers.Concatenate()(list(outputs.values()))})
    trainable, fixed = values_of(model)
    x = tf.random.stateless_normal([4, 9, 7, 6], [3, 4])
    results = []
    for call in (plain(model), Execution(model)):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*trainable, x])
            outputs, new_fixed = call(trainable, fixed, x)
            loss = tf.reduce_sum(outputs["logits"] ** 2 * tf.range(1.0, 11.0))
        results.append([outputs["logits"], *new_fixed, *tape.gradient(loss, [*trainable, x])])
    for found, expected in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6)
    run = tf.function(Execution(model), autograph=False)
    kinds = [op.type for op in run.get_concrete_function(trainable, fixed, x).graph.get_operations()]
    assert (kinds.count("MatMul"), kinds.count("Conv2D")) == ((0, 1) if on_gpu else (1, 0))


@pytest.mark.slow
def test_bfloat16_is_that_of_the_plain_model():
    model = build("inception_resnet_v2", precision="mixed_bfloat16")
    expected, _ = results_of(model, plain(model))
    found, _ = results_of(model, Execution(model))
    for name in ("output logits", "output aux_logits"):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], rtol=0.1, atol=0.1)


def test_siblings_are_one_product_and_alike_blocks_are_traced_once():
    model = build("inception_resnet_v2")
    _, graph = results_of(model, Execution(model))
    kinds = {"Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput", "MatMul"}
    found = sum(node.op in kinds for node in nodes(graph))
    _, whole = results_of(model, plain(model))
    assert found < sum(node.op in kinds for node in nodes(whole))
    calls = [node.attr["f"].func.name for node in graph.node if node.op == "PartitionedCall"]
    # Two block35, two block17: forward and backward of each kind are one function.
    forward = [name for name in calls if "forward" in name]
    assert len(forward) == 4 and len(set(forward)) == 2


def test_recomputing_keeps_the_inputs_of_a_block_alone():
    model = build("inception_resnet_v2")
    _, graph = results_of(model, Execution(model, recompute=True))
    functions = {function.signature.name: function.signature for function in graph.library.function}
    calls = [node for node in graph.node if node.op == "PartitionedCall"]
    forward = [node for node in calls if not any("Grad" in n.op for n in _body(graph, node))]
    backward = [node for node in calls if node not in forward]
    blocks = len(forward)
    assert blocks == len(backward) >= 10
    # An output each, and new statistics: no value inside is handed on.
    outputs = sum(len(functions[node.attr["f"].func.name].output_arg) for node in forward)
    assert outputs <= blocks + len(model.non_trainable_variables)


def test_values_kept_when_blocks_are_recomputed_are_counted():
    model = build_model(ModelSpec(name="inception_resnet_v2"), num_classes=10)
    everything, few = num_kept_values(model), num_kept_values(model, recompute=True)
    # What blocks hand on (the stem's 35x35x192, Mixed_5b and 10 block35 of
    # 35x35x320, Mixed_6a and 20 block17 of 17x17x1088, Mixed_7a and 10 block8 of 8x8x2080, the last
    # 8x8x1536) ...
    handed_on = 35 * 35 * (192 + 11 * 320) + 17 * 17 * 21 * 1088 + 8 * 8 * (11 * 2080 + 1536)
    # ... and the largest block, the stem: results and outputs of five convolutions, the inputs
    # and outputs of two pools among them, and the images.
    stem = 2 * (149 * 149 * 32 + 147 * 147 * (32 + 64) + 73 * 73 * 80 + 71 * 71 * 192)
    stem += 73 * 73 * 64 + 35 * 35 * 192
    head = few - handed_on - stem
    assert 0 <= head < 20_000
    assert few < 0.5 * everything


def _body(graph, node):
    name = node.attr["f"].func.name
    return next(f.node_def for f in graph.library.function if f.signature.name == name)
