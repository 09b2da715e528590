"""The table language: names, sizes and what its boxes become."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.models.blocks import (
    AveragePool,
    Conv,
    MaxPool,
    Mixed,
    Residual,
    Siblings,
    named_convs,
    repeat,
    smallest_input_px,
    stage_sizes,
)
from inception_tf.models.inception_v3 import STEM
from inception_tf.models.stage_builder import StageBuilder

SIBLINGS = Mixed(
    "Mixed_7b",
    (
        (Conv("1x1", 8),),
        (Conv("1x1", 8), Siblings((Conv("1x3", 9), Conv("3x1", 10)))),
        (AveragePool(), Conv("1x1", 11)),
    ),
)
NAMES = [
    "Mixed_7b_Branch_0_Conv2d_0a_1x1",
    "Mixed_7b_Branch_1_Conv2d_0a_1x1",
    "Mixed_7b_Branch_1_Conv2d_0b_1x3",
    "Mixed_7b_Branch_1_Conv2d_0c_3x1",
    "Mixed_7b_Branch_2_Conv2d_0b_1x1",
]


def built(stages, shape=(4, 4, 3)):
    x = keras.Input(shape)
    return keras.Model(x, StageBuilder().build(x, stages))


def test_names_are_computed_from_position_padding_and_tag():
    branch = (
        Conv("1x1", 8),
        Conv("3x3", 12, padding="valid"),
        Conv("5x5", 12, tag="0b"),
        Conv("3x3", 1, tag=""),
        Conv("5x5", 2, tag="9z", released_scope="Conv_1_0c_5x5"),
    )
    assert [name for name, _ in named_convs([Conv("7x7", 4, tag="1a"), SIBLINGS])] == [
        "Conv2d_1a_7x7",
        *NAMES,
    ]
    assert [name for name, _ in named_convs([Mixed("M", (branch,))])] == [
        "M_Branch_0_Conv2d_0a_1x1",
        "M_Branch_0_Conv2d_1a_3x3",
        "M_Branch_0_Conv2d_0b_5x5",
        "M_Branch_0_Conv2d_3x3",
        "M_Branch_0_Conv_1_0c_5x5",
    ]


def test_branches_are_concatenated_in_order_and_siblings_share_their_input():
    model = built([SIBLINGS])
    assert model.output.shape == (None, 4, 4, 8 + 9 + 10 + 11)
    for sibling in NAMES[2:4]:
        assert model.get_layer(sibling).input is model.get_layer(NAMES[1]).output
    x = tf.random.stateless_normal((1, 4, 4, 3), [0, 1])
    parts = [model.get_layer(name).output for name in (NAMES[0], *NAMES[2:])]
    np.testing.assert_array_equal(
        model(x), tf.concat(keras.Model(model.input, parts)(x), axis=-1)
    )


def test_average_pool_does_not_count_the_padding_and_max_pool_halves():
    model = built([AveragePool(), MaxPool("5a")], (7, 8, 1))
    average = model.get_layer("AvgPool_0a_3x3")
    np.testing.assert_array_equal(average(tf.ones((1, 7, 8, 1))), tf.ones((1, 7, 8, 1)))
    x = np.arange(56, dtype="float32").reshape(1, 7, 8, 1)
    assert average(x)[0, 0, 0, 0] == np.mean([0, 1, 8, 9])
    np.testing.assert_array_equal(
        model.get_layer("MaxPool_5a_3x3")(x)[0, ..., 0],
        [[x[0, i : i + 3, j : j + 3, 0].max() for j in (0, 2, 4)] for i in (0, 2, 4)],
    )


def test_repeat_numbers_copies_and_gives_them_their_scale():
    block = Residual("block35", ((Conv("1x1", 4),),))
    copies = repeat(block, 2, 0.25)
    assert [(copy.name, copy.scale, copy.branches) for copy in copies] == [
        ("block35_1", 0.25, block.branches),
        ("block35_2", 0.25, block.branches),
    ]
    assert repeat(block, 0, 0.25) == ()


def test_stage_sizes_of_the_stem_of_inception_v3():
    names = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_3a_3x3",
             "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_5a_3x3"]  # fmt: skip
    sizes = [149, 147, 147, 73, 73, 71, 35]
    for axis in (0, 1):
        assert stage_sizes(STEM, 299, axis=axis) == list(zip(names, sizes))


def test_stage_sizes_follow_the_smaller_branch_and_the_kernels_own_axis():
    stages = [
        Mixed("Mixed_6a", ((Conv("3x3", 8, 2, "valid"),), (Conv("1x5", 8, 2, "valid"),))),
        Residual("block17_1", ((Conv("1x7", 8),),)),
        Conv("7x1", 8, padding="valid", tag="9a"),
    ]
    rows = [("Mixed_6a", 9), ("block17_1", 9), ("Conv2d_9a_7x1", 3)]
    columns = [("Mixed_6a", 8), ("block17_1", 8), ("Conv2d_9a_7x1", 8)]
    assert stage_sizes(stages, 19, axis=0) == rows
    assert stage_sizes(stages, 19, axis=1) == columns
    assert smallest_input_px(stages) == 15  # 15 -> 7 rows -> 1
    for kernel in ("1x7", "7x1"):
        assert smallest_input_px([Conv(kernel, 8, padding="valid", tag="1a")]) == 7


@pytest.mark.parametrize("size", [(11, 11), (19, 12), (40, 23)])
def test_stage_sizes_are_those_of_the_built_layers(size):
    stages = [
        Conv("3x3", 8, 2, "valid", tag="1a"),
        MaxPool("3a"),
        Mixed("Mixed_3a", ((Conv("1x7", 8), Conv("3x1", 8, 2)), (Conv("5x5", 8, 2),))),
    ]
    model = built(stages, (*size, 3))
    computed = zip(*(stage_sizes(stages, size[axis], axis=axis) for axis in (0, 1)))
    for (name, rows), (same_name, columns) in computed:
        assert name == same_name
        assert model.get_layer(name).output.shape[1:3] == (rows, columns)
