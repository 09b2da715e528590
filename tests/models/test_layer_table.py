"""The layer table against the tables written from the papers, and against the network itself."""

import collections
import csv
import dataclasses
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.models.catalog import CATALOG
from inception_tf.models.counting import count_activation_values
from inception_tf.models.layer_table import (
    differing_layers,
    last_grid_row,
    layer_rows,
    stages_of,
    totals_of,
)

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "layers"
# Araujo, Norris, Sim (2019), "Computing Receptive Fields of Convolutional Neural Networks".
PUBLISHED_FIELDS_PX = {
    "inception_v3": 1311, "inception_v4": 2071, "inception_resnet_v2": 3039
}  # fmt: skip


def build(name, variant="released", **arguments):
    return CATALOG[name][variant].builder(variant=variant, **arguments)


@pytest.fixture(scope="module")
def released():
    """Rows of the released networks with auxiliary head and background class, as their CSVs."""
    return {
        name: layer_rows(build(name, num_classes=1001, aux_head=True))
        for name in PUBLISHED_FIELDS_PX
    }


@pytest.fixture(scope="module")
def small():
    """A narrow Inception-ResNet-v2 of every kind of layer, on an input that is not square."""
    return build(
        "inception_resnet_v2", input_shape=(139, 171, 3), width_multiplier=0.1, num_classes=5,
        block_counts=(1, 1, 2), aux_head=True,
    )  # fmt: skip


def golden_rows(file):
    with open(GOLDEN / file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def our_name(slim_name):
    """Slim's scope as this project writes it; the heads' layers are told apart by their stage."""
    name = re.sub(r"^Inception(V3|V4|ResnetV2)/|Repeat(_\d)?/", "", slim_name).replace("/", "_")
    return re.sub("^Block8", "block8_10", name)


@pytest.mark.parametrize(
    "file, name",
    [
        ("inception_v3_slim_1001.csv", "inception_v3"),
        ("inception_v4_slim_1001.csv", "inception_v4"),
        ("inception_resnet_v2_slim_1001.csv", "inception_resnet_v2"),
    ],
)
def test_rows_are_those_of_the_published_networks(released, file, name):
    ours = [row for row in released[name] if row.num_multiply_adds]
    named = {row.name: row for row in ours}
    golden = golden_rows(file)
    assert len(ours) == len(named) == len(golden)
    for theirs in golden:
        if theirs["stage"].endswith("Logits"):
            continue  # renamed; their counts are compared by stage
        row = named[our_name(theirs["name"])]
        assert row.kernel == (int(theirs["kh"]), int(theirs["kw"])), row.name
        assert row.stride == int(theirs["stride"])
        assert row.padding.upper() == theirs["pad"]
        assert (*row.grid, row.channels) == tuple(int(theirs[k]) for k in ("oh", "ow", "cout"))
        assert row.num_trainable == int(theirs["trainable_params_no_gamma"])
        assert row.num_multiply_adds == int(theirs["multiply_adds"])
        assert row.kind.endswith("+relu") == (theirs["relu"] == "1")
    for stage in ("AuxLogits", "Logits"):
        own = totals_of(row for row in ours if row.stage == stage)
        theirs = [row for row in golden if row["stage"] == stage]
        assert own.num_trainable == sum(int(r["trainable_params_no_gamma"]) for r in theirs)
        assert own.num_multiply_adds == sum(int(r["multiply_adds"]) for r in theirs)


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2"])
def test_layers_stand_in_the_released_order(released, name):
    # tests/golden/README.md: the modules of these two grids run Branch_1, 2, 0, 3 in the file.
    golden = golden_rows(f"{name}_slim_1001.csv")
    expected = [our_name(theirs["name"]) for theirs in golden]
    found = [row.name for row in released[name] if row.num_multiply_adds]
    apart = re.compile("Logits|Mixed_7[b-d]")
    assert [n for n in found if not apart.search(n)] == [n for n in expected if not apart.search(n)]
    stages = [stage for stage, _ in stages_of(released[name])]
    assert len(stages) == len(set(stages))
    assert stages[0] == "images" and stages[-2:] == ["Logits", "AuxLogits"]


def test_stages_have_their_published_sums(released):
    sums = {
        stage: (total.num_trainable, total.num_multiply_adds)
        for stage, rows in stages_of(released["inception_v3"])
        for total in [totals_of(rows)]
    }
    assert sums["Mixed_5c"] == (276_976, 338_688_000)
    assert sums["Mixed_6a"] == (1_152_640, 401_937_408)
    assert sums["Mixed_7b"] == (5_041_344, 322_437_120)
    assert sums["AuxLogits"] == (3_326_569, 5_683_968)
    assert sums["Logits"] == (2_051_049, 2_050_048)
    blocks = [r for r in released["inception_resnet_v2"] if r.stage.startswith("block17_")]
    assert totals_of(blocks).num_trainable == 22_522_240
    assert totals_of(blocks).num_multiply_adds == 6_498_754_560


def test_receptive_fields_are_the_published_ones(released):
    fields = {name: last_grid_row(rows).receptive_field_px for name, rows in released.items()}
    assert fields == {name: (px, px) for name, px in PUBLISHED_FIELDS_PX.items()}


def test_receptive_fields_of_the_stem_by_hand(released):
    fields = {row.name: row.receptive_field_px[0] for row in released["inception_v3"]}
    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_3a_3x3", "Conv2d_3b_1x1",
            "Conv2d_4a_3x3", "MaxPool_5a_3x3"]  # fmt: skip
    assert [fields[name] for name in stem] == [3, 7, 11, 15, 15, 23, 31]


@pytest.mark.parametrize(
    "endpoint",
    ["Mixed_5b_Branch_2_Conv2d_0c_3x3", "Mixed_6a", "block17_1_Branch_1_Conv2d_0b_1x7",
     "block17_1"],
)
def test_an_output_depends_on_its_receptive_field_and_on_nothing_else(endpoint):
    # Positive weights and statistics, so that no ReLU and no cancellation hides a pixel.
    model = build(
        "inception_resnet_v2", include_top=False, input_shape=(555, 651, 3), width_multiplier=0.01,
        block_counts=(0, 1, 0),
    )  # fmt: skip
    for weight in model.trainable_weights:
        weight.assign(tf.fill(weight.shape, 0.05))
    field = {row.name: row for row in layer_rows(model)}[endpoint].receptive_field_px
    trunk = keras.Model(model.input, model.get_layer(endpoint).output)
    images = tf.random.stateless_uniform((1, 555, 651, 3), (1, 2), minval=0.5)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = _without_max(trunk, images)
        height, width = outputs.shape[1] // 2, outputs.shape[2] // 2
        one = tf.reduce_sum(outputs[:, height, width])
    seen = np.any(tape.gradient(one, images).numpy()[0] != 0.0, axis=-1)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    assert (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) == field


def _without_max(model, images):
    """The output with averages in place of max pools: their gradient reaches all that they see."""

    def replace(layer):
        if not isinstance(layer, keras.layers.MaxPooling2D):
            return layer
        return keras.layers.AveragePooling2D(
            layer.pool_size, layer.strides, layer.padding, name=layer.name
        )

    twin = keras.models.clone_model(model, clone_function=replace)
    for layer in twin.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return twin(images, training=False)


def test_kept_values_are_what_the_backward_pass_reads(small):
    _check_kept_values(small)


def test_kept_values_with_norms_on_sums_and_linear_factorisations():
    _check_kept_values(
        build("inception_v3", input_shape=(139, 139, 3), width_multiplier=0.05, num_classes=5,
              factorisation="linear", aux_head=True, aux_norm="convolutions")
    )  # fmt: skip
    _check_kept_values(
        build("inception_resnet_v2", input_shape=(139, 139, 3), width_multiplier=0.05,
              block_counts=(1, 1, 1), num_classes=5, batch_norm_on_sums=True)
    )  # fmt: skip


def _check_kept_values(model):
    """Compares with the tensors of a forward graph that its gradient graph reads."""
    values = [v.numpy() for v in model.non_trainable_variables]
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.float32, (1, *model.input.shape[1:]))
        state = [tf.constant(value) for value in values]
        shapes = [v.shape for v in model.trainable_variables]
        weights = [tf.compat.v1.placeholder(tf.float32, shape) for shape in shapes]
        outputs, _ = model.stateless_call(weights, state, images, training=True)
        loss = sum(tf.reduce_sum(x) for x in tf.nest.flatten(outputs))
        forward = set(graph.get_operations())
        gradients = tf.gradients(loss, weights)
    kept, seen, waiting = {}, set(), [g.op for g in gradients]
    while waiting:
        op = waiting.pop()
        if op in seen or op in forward:
            continue
        seen.add(op)
        for x in op.inputs:
            waiting.append(x.op)
            # Shapes, weights and statistics per channel are not activations.
            if x.op in forward and x.op not in {w.op for w in weights}:
                if x.shape.rank in (2, 4) and x.shape[0] == 1 and not x.dtype.is_integer:
                    kept[x.name] = x.shape.num_elements()
    assert sum(kept.values()) == totals_of(layer_rows(model)).num_kept_values


def test_activations_are_the_layers_outputs(small):
    sizes = {layer.name: int(np.prod(layer.output.shape[1:])) for layer in small.layers}
    rows = layer_rows(small)
    assert {row.name: row.num_activation_values for row in rows} == sizes
    assert totals_of(rows).num_activation_values == count_activation_values(small)
    assert totals_of(rows).activation_bytes == 4 * sum(sizes.values())


def test_half_precision_takes_half_the_bytes_but_in_the_classifiers():
    model = build(
        "inception_v4", variant="paper", input_shape=(75, 75, 3), width_multiplier=0.1,
        block_counts=(1, 1, 1), dtype="mixed_bfloat16",
    )  # fmt: skip
    sizes = collections.Counter()
    for row in layer_rows(model):
        sizes[row.value_bytes, row.stage in ("Logits", "images")] += row.num_activation_values
    assert set(sizes) == {(2, False), (4, True)}


@pytest.mark.parametrize(
    "arguments, last",
    [
        ({"include_top": False}, "Mixed_7b"),
        ({"include_top": False, "pooling": "max"}, "GlobalPool"),
        ({"aux_head": True}, "AuxLogits_Logits"),
    ],
)
def test_every_shape_of_network_has_all_its_layers(arguments, last):
    model = build(
        "inception_v4", input_shape=(75, 90, 3), width_multiplier=0.05, block_counts=(1, 1, 1),
        **arguments,
    )  # fmt: skip
    rows = layer_rows(model)
    assert sorted(row.name for row in rows) == sorted(layer.name for layer in model.layers)
    assert rows[-1].name == last
    assert last_grid_row(rows).name == "Mixed_7b"


def test_a_network_cut_at_an_endpoint_has_what_leads_to_it(small):
    rows = layer_rows(keras.Model(small.input, small.get_layer("Mixed_6a").output))
    assert rows[-1].name == "Mixed_6a"
    assert not [row for row in rows if row.stage.startswith(("block17", "AuxLogits", "Logits"))]


def test_a_free_input_size_has_no_table():
    model = build(
        "inception_v4", input_shape=(None, None, 3), width_multiplier=0.05, block_counts=(0, 0, 0)
    )
    with pytest.raises(ConfigError, match="fixed"):
        layer_rows(model)


def test_differences_are_paired_by_their_place():
    rows = layer_rows(
        build("inception_v4", input_shape=(75, 75, 3), width_multiplier=0.05,
              block_counts=(1, 1, 1))
    )  # fmt: skip
    upright, flat = (f"Mixed_7b_Branch_2_Conv2d_0b_{kernel}" for kernel in ("3x1", "1x3"))
    turned = [
        dataclasses.replace(row, name=flat, kernel=(1, 3)) if row.name == upright else row
        for row in rows
    ]
    ((mine, other),) = differing_layers(rows, turned)
    assert (mine.name[-3:], other.name[-3:]) == ("3x1", "1x3")
    assert differing_layers(rows, rows) == []
    shorter = [row for row in rows if row.stage != "Mixed_6b"]
    gone = [row.name for row in rows if row.stage == "Mixed_6b" and row.kernel]
    assert [(a.name, b) for a, b in differing_layers(rows, shorter)] == [(n, None) for n in gone]
    assert [(a, b.name) for a, b in differing_layers(shorter, rows)] == [(None, n) for n in gone]
    wider = [dataclasses.replace(r, channels=9) if r.name == "Conv2d_2a_3x3" else r for r in rows]
    assert [(a.channels, b.channels) for a, b in differing_layers(rows, wider)] == [(8, 9)]
