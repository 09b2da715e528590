"""What a network computes beyond its tensors: told in files, and compared before they fill one."""

import inspect
import json
import warnings

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import DataError
from inception_tf.models.catalog import CATALOG, ModelSpec, build_model
from inception_tf.models.weights.assignment import assign_weights, known_identity
from inception_tf.models.weights.conversion import network_to_build
from inception_tf.models.weights.identity import (
    OPTIONS,
    NetworkIdentity,
    identity_of_spec,
    read_fields,
    read_json,
)
from inception_tf.models.weights.source import WeightSource

V3, V4, RESNET1, RESNET2 = (
    "inception_v3", "inception_v4", "inception_resnet_v1", "inception_resnet_v2",
)  # fmt: skip
BLOCKS = (1, 1, 2)


def spec_of(name, **changes):
    sizes = {"width_multiplier": 0.05, "input_height_px": 80, "input_width_px": 80}
    if name != V3:
        sizes["block_counts"] = BLOCKS
    return ModelSpec(name=name, **{**sizes, **changes})


def identity_of(spec, num_classes=5):
    return identity_of_spec(spec, num_classes=num_classes, evaluation_crop=None)


def source_of(spec, *, num_classes=5, identity="said", **changes):
    """(model of a spec with random weights, the same as a source)."""
    model = build_model(spec, num_classes=num_classes, seed=1)
    arrays = {w.path: w.numpy() for w in model.weights if "seed" not in w.path} | changes
    said = identity_of(spec, num_classes) if identity == "said" else identity
    return model, WeightSource(
        path="own.weights.h5", format="own", network=spec.name, arrays=arrays, identity=said
    )


def fill(source, spec, *, num_classes=5, new_head=False):
    model = build_model(spec, num_classes=num_classes, seed=2)
    identity = identity_of(spec, num_classes)
    return model, assign_weights(model, source, identity=identity, new_head=new_head)


# Each pair has the same tensors and computes something else with them.
OTHERS = {
    "residual_scales": (spec_of(RESNET2, residual_scales=(1.0, 1.0, 1.0)), spec_of(RESNET2)),
    "variant": (spec_of(RESNET1, variant="paper"), spec_of(RESNET1, variant="facenet")),
    "factorisation": (spec_of(V3, factorisation="linear"), spec_of(V3)),
    "batch_norm_epsilon": (spec_of(V3, batch_norm_epsilon=0.5), spec_of(V3)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_function_is_refused_with_both_sides_and_fills_nothing(name):
    theirs, ours = OTHERS[name]
    trained, source = source_of(theirs)
    images = tf.random.stateless_uniform((2, 80, 80, 3), [0, 1], -1.0, 1.0)
    model = build_model(ours, num_classes=5, seed=2)
    before = [weight.numpy() for weight in model.weights]
    for new_head in (False, True):
        with pytest.raises(DataError, match=f"{name} = .* for a model with .*{name} = "):
            assign_weights(model, source, identity=identity_of(ours), new_head=new_head)
    for weight, value in zip(model.weights, before):
        np.testing.assert_array_equal(weight.numpy(), value)
    # It would have been another function indeed.
    model.set_weights(trained.get_weights())
    assert np.abs(model(images) - trained(images)).max() > 1e-4
    # Without a word of the source it is told that nothing was compared.
    _, silent = source_of(theirs, identity=None)
    assert "do not say what their network computes" in fill(silent, ours)[1].notes[0]


def test_the_same_function_said_in_another_way_is_taken():
    said = spec_of(RESNET2, residual_scales=(0.17, 0.1, 0.2), batch_norm_on_sums=False)
    trained, source = source_of(said)
    model, report = fill(source, spec_of(RESNET2))
    assert report.notes == () and report.drawn == ()
    images = tf.random.stateless_uniform((2, 80, 80, 3), [0, 1], -1.0, 1.0)
    np.testing.assert_array_equal(model(images), trained(images))


def test_another_resolution_is_a_transfer_and_told():
    _, source = source_of(spec_of(V3))
    ours = spec_of(V3, first_stride=1, first_pool=False, input_width_px=96)
    notes = " ".join(fill(source, ours)[1].notes)
    for part in ("first_stride is 1", "trained with 2", "first_pool is False", "width px is 96"):
        assert part in notes
    assert "height" not in notes


def test_weights_of_others_are_of_their_published_function():
    arrays = {"InceptionV3/Logits/Conv2d_1c_1x1/biases": np.zeros(1001)}
    source = WeightSource(path="m.ckpt", format="slim", network=V3, arrays=arrays)
    model = build_model(spec_of(V3), num_classes=5)
    for change in ({"factorisation": "linear"}, {"stem": "7x7"}, {"batch_norm_epsilon": 0.01}):
        with pytest.raises(DataError, match=f"m.ckpt with .*{next(iter(change))} = "):
            assign_weights(model, source, identity=identity_of(spec_of(V3, **change)))


def test_every_argument_of_a_builder_is_compared_or_changes_no_trained_function():
    compared = {*OPTIONS, "variant", "num_classes", "batch_norm_epsilon", "input_shape"}
    # Of training, of what is left out at the end, and of numbers and names.
    others = {
        "include_top", "pooling", "dropout_rate", "batch_norm_momentum", "seed", "dtype", "name",
    }  # fmt: skip
    for variants in CATALOG.values():
        for entry in variants.values():
            assert set(inspect.signature(entry.builder).parameters) <= compared | others


# The background class


@pytest.mark.parametrize(
    "theirs, ours, classes, is_taken",
    [
        (True, True, 4, True),
        (False, False, 5, True),
        (True, False, 4, True),  # left out
        (True, False, 5, False),
        (True, True, 3, False),  # wanted, so not left out
        (False, True, 4, False),
        (None, False, 4, False),  # nobody says that the first output may be left out
        (None, False, 5, True),
    ],
)
def test_a_background_class_is_left_out_only_where_there_is_one(theirs, ours, classes, is_taken):
    fields = {"network": V3, "num_outputs": 5, "background_class": theirs}
    trained, source = source_of(spec_of(V3), identity=NetworkIdentity(**fields))
    spec = spec_of(V3, background_class=ours)
    if not is_taken:
        with pytest.raises(DataError, match="background_class = |Logits/kernel"):
            fill(source, spec, num_classes=classes)
        return
    model, report = fill(source, spec, num_classes=classes)
    kept = trained.get_layer("Logits").bias.numpy()[5 - classes - bool(ours) :]
    np.testing.assert_array_equal(model.get_layer("Logits").bias.numpy(), kept)
    assert ("left out" in report.text()) == (classes == 4 and not ours)


@pytest.mark.parametrize("theirs", [False, True])
def test_a_new_head_may_have_another_background(theirs):
    _, source = source_of(spec_of(V3, background_class=theirs), num_classes=5 - theirs)
    ours = spec_of(V3, background_class=not theirs)
    classes = 5 - (not theirs)  # as many outputs
    with pytest.raises(DataError, match="background_class = "):
        fill(source, ours, num_classes=classes)
    _, report = fill(source, ours, num_classes=classes, new_head=True)
    assert report.drawn == ("Logits/kernel", "Logits/bias")


@pytest.mark.parametrize(
    "outputs, format_, expected",
    [(1001, "slim", True), (1000, "slim", None), (5, "slim", None), (1001, "timm", False)],
)
def test_only_slims_1001_outputs_are_known_to_have_a_background(outputs, format_, expected):
    name = "fc.bias" if format_ == "timm" else "InceptionV3/Logits/Conv2d_1c_1x1/biases"
    source = WeightSource(
        path="m", format=format_, network=V3, arrays={name: np.zeros(outputs)}
    )
    assert known_identity(source).background_class is expected
    identity = network_to_build(source)
    assert (identity.background_class, identity.num_outputs) == (expected, outputs)


# What a report says, and values that cannot be


def test_a_report_names_what_stays_drawn():
    _, source = source_of(spec_of(V3))
    _, report = fill(source, spec_of(V3), num_classes=3, new_head=True)
    assert report.drawn == ("Logits/kernel", "Logits/bias")
    assert "new head, drawn: 2 (Logits/kernel, Logits/bias)" in report.text()
    assert "drawn" not in fill(source, spec_of(V3))[1].text()


@pytest.mark.parametrize(
    "variable, value, message",
    [
        ("kernel", np.ones((3, 3, 3, 8), np.int8), "floating-point.*kernel of .* is int8"),
        ("kernel", np.ones((3, 3, 3, 8), bool), "is bool"),
        ("kernel", np.full((3, 3, 3, 8), 1e300), "finite"),
        ("moving_variance", np.full(8, -1e-3, np.float32), "variance.*down to -0.001"),
    ],
)
def test_values_that_are_no_weights_are_refused(variable, value, message):
    _, source = source_of(spec_of(V3), **{f"Conv2d_1a_3x3/{variable}": value})
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(DataError, match=message):
            fill(source, spec_of(V3))


def test_half_and_double_precision_are_taken():
    means = {f"Conv2d_{tag}/moving_mean": np.full(count, 0.5, dtype) for tag, count, dtype in (
        ("1a_3x3", 8, np.float16), ("2a_3x3", 8, np.float64),
        ("2b_3x3", 8, tf.bfloat16.as_numpy_dtype),
    )}  # fmt: skip
    model, _ = fill(source_of(spec_of(V3), **means)[1], spec_of(V3))
    for path in means:
        assert set(model.get_layer(path.split("/")[0]).moving_mean.numpy()) == {0.5}


# The text in a file


def test_an_identity_comes_back_from_its_text():
    for name in CATALOG:
        variants = CATALOG[name]
        spec = spec_of(name, variant=next(iter(variants)), batch_norm_epsilon=0.01)
        identity = identity_of_spec(spec, num_classes=4, evaluation_crop={"central_fraction": 0.9})
        assert read_json(identity.as_json(), path="file") == identity
    assert read_json(None, path="file") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"variant": "paper"},
        {"variant": ["released"]},
        {"network": "inception_v5"},
        {"network": ["inception_v3"]},
        {"classes": 3},
        {"num_outputs": -1},
        {"num_outputs": 10**9},
        {"num_outputs": True},
        {"background_class": "yes"},
        {"batch_norm_epsilon": -0.1},
        {"batch_norm_epsilon": float("nan")},
        {"batch_norm_epsilon": "0.001"},
        {"input_height_px": 10**6},
        {"input_width_px": 75.5},
        {"evaluation_crop": [0.875]},
        {"options": []},
        {"options": {"name": "x"}},
        {"options": {"block_counts": [1, 1, 1]}},  # Inception-v3 has none
        {"options": {"width_multiplier": 100.0}},
        {"options": {"width_multiplier": 0}},
        {"options": {"width_multiplier": "a"}},
        {"options": {"width_multiplier": True}},
        {"options": {"stem": ["7x7"]}},
        {"options": {"first_stride": 2.0}},
        {"options": {"first_pool": 1}},
        {"network": RESNET2, "options": {"block_counts": [1, 1]}},
        {"network": RESNET2, "options": {"block_counts": [1, 1, 10**6]}},
        {"network": RESNET2, "options": {"residual_scales": [1, 1, float("inf")]}},
        {"network": RESNET2, "options": {"residual_scales": "abc"}},
    ],
)
def test_an_identity_that_cannot_be_is_an_error_of_its_file(fields):
    text = json.dumps({"network": V3, **fields})
    with pytest.raises(DataError, match="w.h5: .*(=|name)|w.h5"):
        read_json(text, path="w.h5")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"x"', "[" * 100_000, 5, b"\xff"])
def test_a_text_that_is_no_identity_is_an_error_of_its_file(text):
    with pytest.raises(DataError, match="JSON.*w.h5"):
        read_json(text, path="w.h5")


def test_what_an_older_file_does_not_say_is_not_compared():
    old = {"network": V3, "variant": "released", "num_outputs": 5, "background_class": False,
           "options": {"width_multiplier": 0.05}}  # fmt: skip
    _, source = source_of(spec_of(V3), identity=read_fields(old, path="old"))
    fill(source, spec_of(V3, batch_norm_epsilon=0.5))
    assert network_to_build(source).batch_norm_epsilon == 0.001
