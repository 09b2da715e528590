"""Variable groups: which rule holds, and what a frozen layer no longer does."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_run import PlainRun, SmallRun, conv_model, random_batches

from inception_tf.errors import ConfigError
from inception_tf.models.inception_resnet_v2 import inception_resnet_v2
from inception_tf.models.layers import ConvUnit
from inception_tf.training.groups import VariableGroups, apply_groups, updated_statistics


def groups(*rules):
    return VariableGroups(groups=rules)


def small_model():
    """A unit, two units in a nested model, and a dense layer."""
    inner_inputs = keras.Input([4, 4, 2])
    inner = keras.Model(
        inner_inputs, ConvUnit(2, 1, name="inner_b")(ConvUnit(2, 1, name="inner_a")(inner_inputs))
    )
    inputs = keras.Input([4, 4, 3])
    x = inner(ConvUnit(2, 1, name="stem")(inputs))
    x = keras.layers.Dense(3, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def table(trained):
    return {item.path: (item.learning_rate_factor, item.l2) for item in trained}


# -- the rules -------------------------------------------------------------------------------------


def test_default_puts_l2_on_weights_and_biases_but_not_on_batch_norm():
    assert table(apply_groups(small_model(), VariableGroups())) == {
        "stem/kernel": (1.0, 4e-5),
        "stem/beta": (1.0, 0.0),
        "inner_a/kernel": (1.0, 4e-5),
        "inner_a/beta": (1.0, 0.0),
        "inner_b/kernel": (1.0, 4e-5),
        "inner_b/beta": (1.0, 0.0),
        "logits/kernel": (1.0, 4e-5),
        "logits/bias": (1.0, 4e-5),
    }


def test_first_rule_that_matches_holds():
    trained = apply_groups(
        small_model(),
        groups(
            {"pattern": "stem/kernel", "learning_rate_factor": 2},
            {"pattern": "(stem|logits)/.*", "l2": 0.5},
            {"pattern": ".*", "l2": 0.25, "learning_rate_factor": 3.0},
        ),
    )
    found = table(trained)
    assert found["stem/kernel"] == (2.0, 0.0)
    assert found["stem/beta"] == found["logits/kernel"] == (1.0, 0.5)
    assert found["inner_b/beta"] == (3.0, 0.25)


def test_a_pattern_matches_the_whole_path():
    with pytest.raises(ConfigError, match="must match a variable group.*stem/kernel"):
        apply_groups(small_model(), groups({"pattern": "stem"}, {"pattern": "kernel"}))


def test_order_of_the_trained_variables_is_the_models():
    model = small_model()
    trained = apply_groups(model, groups({"pattern": "inner_a/.*", "trained": False},
                                         {"pattern": ".*"}))  # fmt: skip
    assert [item.variable for item in trained] == model.trainable_variables
    assert all(item.path == item.variable.path for item in trained)


def test_a_frozen_layer_neither_trains_nor_gives_statistics():
    model = small_model()
    trained = apply_groups(
        model, groups({"pattern": "(stem|inner_a)/.*", "trained": False}, {"pattern": ".*"})
    )
    assert {item.path.split("/")[0] for item in trained} == {"inner_b", "logits"}
    statistics = [variable.path for variable in updated_statistics(model)]
    assert statistics == ["inner_b/moving_mean", "inner_b/moving_variance"]
    assert not model.get_layer("stem").trainable


def test_a_layer_cannot_be_frozen_in_part():
    rule = {"pattern": "stem/kernel", "trained": False}
    with pytest.raises(ConfigError, match=r"layer stem with frozen.*'stem/\.\*'"):
        apply_groups(small_model(), groups(rule, {"pattern": ".*"}))


def test_a_variable_without_a_rule_is_refused():
    with pytest.raises(ConfigError, match=r"Received: inner_a/kernel.*'pattern': '\.\*'"):
        apply_groups(small_model(), groups({"pattern": "(stem|logits)/.*"}))


def test_a_rule_that_takes_nothing_is_refused():
    with pytest.raises(ConfigError, match="no earlier group took.*Mixed_7a"):
        apply_groups(small_model(), groups({"pattern": "Mixed_7a/.*"}, {"pattern": ".*"}))
    with pytest.raises(ConfigError, match="no earlier group took.*stem"):
        apply_groups(small_model(), groups({"pattern": ".*"}, {"pattern": "stem/.*"}))


def test_a_closing_rule_for_the_rest_may_find_nothing_left():
    trained = apply_groups(small_model(), groups({"pattern": ".+", "l2": 0.5}, {"pattern": ".*"}))
    assert {item.l2 for item in trained} == {0.5}


def test_something_must_be_trained():
    with pytest.raises(ConfigError, match="every group is frozen"):
        apply_groups(small_model(), groups({"pattern": ".*", "trained": False}))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"l2": 0.1}, "has 'pattern'"),
        ({"pattern": ".*", "l3": 0.1}, "has 'pattern' and any of"),
        ({"pattern": 7}, "'pattern'.*must be a str"),
        ({"pattern": ".*", "trained": 1}, "'trained'.*must be a bool"),
        ({"pattern": ".*", "trained": "no"}, "'trained'.*must be a bool"),
        ({"pattern": ".*", "l2": True}, "'l2'.*must be a float"),
        ({"pattern": ".*", "l2": "4e-5"}, "'l2'.*must be a float"),
        ({"pattern": ".*", "learning_rate_factor": None}, "'learning_rate_factor'.*a float"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": ".*", "l2": -0.1}, "must not be negative"),
        ({"pattern": ".*", "learning_rate_factor": -1.0}, "must not be negative"),
    ],
)
def test_a_rule_that_cannot_mean_what_it_says_is_refused(rule, message):
    with pytest.raises(ConfigError, match=message):
        groups(rule)


# -- frozen up to a stage --------------------------------------------------------------------------

BELOW_MIXED_6A = {
    "Conv2d_1a", "Conv2d_2a", "Conv2d_2b", "Conv2d_3b", "Conv2d_4a", "Mixed_5b", "block35_1",
    "Mixed_6a",
}  # fmt: skip
HEAD = {"pattern": "(Aux)?Logits.*", "learning_rate_factor": 10.0, "l2": 4e-5}


def narrow_network():
    return inception_resnet_v2(
        width_multiplier=0.1, block_counts=(1, 1, 1), input_shape=(75, 75, 3), num_classes=3,
        aux_head=True,
    )  # fmt: skip


def frozen_up_to(stage, *rules):
    """The network, and what `apply_groups` says of it."""
    model = narrow_network()
    rules = rules or (HEAD, *VariableGroups().groups)
    return model, apply_groups(model, VariableGroups(groups=rules, freeze_up_to=stage))


def stage_of(path):
    """'Mixed_6a' for the path of one of its variables, as the table of the network has it."""
    parts = path.split("_")
    return "_".join(parts[:2])


def test_freezing_up_to_a_stage_takes_it_and_every_layer_below_it_and_no_other():
    model, trained = frozen_up_to("Mixed_6a")
    own = {layer.name for layer in model.layers if layer.weights and not layer.trainable}
    assert {stage_of(name) for name in own} == BELOW_MIXED_6A
    expected = {v.path for v in model.variables if stage_of(v.path) not in BELOW_MIXED_6A}
    names = {item.path for item in trained} | {v.path for v in updated_statistics(model)}
    assert names == {path for path in expected if "seed_generator" not in path}
    # The auxiliary head branches off above Mixed_6a; nothing of it is below.
    assert any(path.startswith("AuxLogits") for path in names)


def test_freezing_up_to_a_residual_block_leaves_the_next_one():
    _, trained = frozen_up_to("block17_1")
    paths = {item.path for item in trained}
    assert any(path.startswith("Mixed_7a") for path in paths)
    assert not any(path.startswith(("Mixed_6a", "block17_1", "Conv2d_4a")) for path in paths)


def test_the_last_stage_can_be_frozen_with_the_same_groups_and_leaves_the_heads():
    _, trained = frozen_up_to("Conv2d_7b_1x1")
    assert {stage_of(item.path).split("/")[0] for item in trained} == {
        "AuxLogits_Conv2d", "AuxLogits_Logits", "Logits"
    }  # fmt: skip
    assert {item.learning_rate_factor for item in trained} == {10.0}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mixed_6A", r"Received: 'Mixed_6A'\. Did you mean Mixed_6a"),
        ("block35_10", r"Did you mean block35_1"),
        ("Mixed_6a/kernel", "Did you mean Mixed_6a"),
        ("Logits", r"Its stages: Conv2d_1a_3x3, .*, Conv2d_7b_1x1\."),
    ],
)
def test_an_unknown_stage_names_the_nearest(name, message):
    with pytest.raises(ConfigError, match=message):
        frozen_up_to(name)


def test_a_rule_for_a_frozen_layer_and_one_for_no_layer_are_refused():
    rule = {"pattern": "Mixed_5b.*", "learning_rate_factor": 0.1}
    with pytest.raises(ConfigError, match=r"Mixed_5b.*freeze_up_to = 'Mixed_6a' freezes"):
        frozen_up_to("Mixed_6a", rule, {"pattern": ".*"})
    with pytest.raises(ConfigError, match=r"no earlier group took.*kernl"):
        frozen_up_to("Mixed_6a", {"pattern": ".*/kernl"}, {"pattern": ".*"})


def stem_and_logits(*, num_replicas):
    """Two stages of the names that networks give theirs, and a dense layer."""
    inputs = keras.Input([4, 4, 3])
    x = inputs
    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3"):
        x = ConvUnit(5, 3, momentum=0.9**num_replicas, name=name)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


def run_of_stem(stage):
    return SmallRun(
        functools.partial(stem_and_logits, num_replicas=2),
        num_replicas=2,
        replica_batch=2,
        groups=VariableGroups(groups=({"pattern": ".*", "l2": 0.1},), freeze_up_to=stage),
    )


def test_steps_leave_every_bit_of_a_frozen_stage_and_keep_no_slot_or_average_of_it():
    run = run_of_stem("Conv2d_1a_3x3")
    for images, labels in zip(*random_batches(3, 2, 2)):
        run.take(images, labels)
    frozen = {name for name in run.initial if "Conv2d_1a" in name}
    assert frozen == {
        f"model/Conv2d_1a_3x3/{name}"
        for name in ("kernel", "beta", "moving_mean", "moving_variance")
    }
    for name, value in run.state.values().items():
        if "/" in name:
            is_same = value.tobytes() == run.initial[name].tobytes()
            assert is_same is (name in frozen), name


def operations(graph):
    """Every operation of a traced graph and of the functions that it calls."""
    yield from graph.as_graph_def().node
    for function in graph.as_graph_def().library.function:
        yield from function.node_def


@pytest.mark.parametrize(
    ("stage", "num_convs"), [(None, 2), ("Conv2d_1a_3x3", 1), ("Conv2d_2a_3x3", 0)]
)
def test_the_backward_pass_ends_above_the_frozen_stage(stage, num_convs):
    run = run_of_stem(stage)
    images, labels = random_batches(1, 2, 2)
    batch = {"images": tf.constant(images[0]), "labels": tf.constant(labels[0])}
    traced = run.step._run_one.get_concrete_function(batch, tf.zeros([2], tf.int64))
    found = [node.op for node in operations(traced.graph)]
    assert found.count("Conv2D") == 2
    for name in ("Conv2DBackpropFilter", "Conv2DBackpropInput", "FusedBatchNormGradV3", "ReluGrad"):
        assert found.count(name) == num_convs, name


# -- their steps -----------------------------------------------------------------------------------


def with_other_statistics(model):
    """Moving statistics that no batch has."""
    layer = model.get_layer("first")
    layer.moving_mean.assign(np.linspace(-0.3, 0.4, 5))
    layer.moving_variance.assign(np.linspace(0.5, 2.0, 5))
    layer.beta.assign(np.linspace(-0.2, 0.6, 5))


def test_a_frozen_stage_keeps_every_bit_and_normalizes_with_its_moving_statistics():
    run = SmallRun(
        functools.partial(conv_model, num_replicas=3),
        num_replicas=3,
        replica_batch=2,
        groups=groups({"pattern": "first/.*", "trained": False}, {"pattern": ".*", "l2": 0.0}),
        prepare=with_other_statistics,
        clip_global_norm=0.5,
    )
    frozen = {name for name in run.initial if "first/" in name}
    assert frozen == {
        f"model/first/{name}" for name in ("kernel", "beta", "moving_mean", "moving_variance")
    }
    plain = PlainRun(run.initial, num_replicas=3, rate=0.1, l2=0.0, clip=0.5, frozen=("first",))
    for images, labels in zip(*random_batches(4, 3, 2)):
        outputs, expected = run.take(images, labels), plain.take(images, labels)
        # The loss tells which statistics the frozen stage used.
        np.testing.assert_allclose(outputs["data_loss_nats"], expected["data_loss_nats"], 2e-5)
    values = run.state.values()
    for name, value in values.items():
        if name in frozen:
            assert value.tobytes() == run.initial[name].tobytes(), name
        elif "/" in name:
            assert not np.array_equal(value, run.initial[name]), name
        np.testing.assert_allclose(value, plain.values[name], rtol=1e-3, atol=1e-6, err_msg=name)


def test_learning_rate_factor_multiplies_the_update_exactly():
    images, labels = random_batches(1, 2, 2)
    runs = {
        factor: SmallRun(
            functools.partial(conv_model, num_replicas=2),
            num_replicas=2,
            replica_batch=2,
            groups=groups(
                {"pattern": "second/.*", "learning_rate_factor": factor}, {"pattern": ".*"}
            ),
        )
        for factor in (1.0, 0.25)
    }
    whole, quarter = (run.state for run in runs.values())
    norms = [run.take(images[0], labels[0])["gradient_norm"] for run in runs.values()]
    assert norms[0] == norms[1]
    whole, quarter = whole.values(), quarter.values()
    for name in whole:
        if name.startswith("momentum/second"):
            assert np.any(whole[name])
            np.testing.assert_array_equal(quarter[name], whole[name] * np.float32(0.25))
        elif "second" not in name:
            assert whole[name].tobytes() == quarter[name].tobytes(), name
