"""The variables of a step, block by block."""

import types

import numpy as np
import tensorflow as tf

from inception_tf.training.blocks import VariableBlocks, stacked


def named(*paths):
    return [types.SimpleNamespace(path=path) for path in paths]


def test_blocks_in_another_order_than_the_state_are_split_and_joined():
    state = types.SimpleNamespace(trained=named("a", "b", "c"), statistics=named("m", "n"))
    # 'frozen' belongs to nobody, and a block of nothing else is left out.
    blocks = VariableBlocks(
        state, [named("c", "n", "frozen"), named("frozen"), named("b", "a"), named("m")]
    )
    split = blocks.split([1.0, 2.0, 3.0], [10.0, 20.0])
    assert split == [([3.0], [20.0]), ([2.0, 1.0], []), ([], [10.0])]
    assert list(blocks) == [([2], [1]), ([1, 0], []), ([], [0])]
    trained = blocks.join_trained([stacked(list(map(tf.constant, own))) for own, _ in split])
    moving = blocks.join_statistics([stacked(list(map(tf.constant, own))) for _, own in split])
    np.testing.assert_array_equal(trained, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(moving, [10.0, 20.0])
