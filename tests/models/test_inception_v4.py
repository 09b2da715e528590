"""What Inception-v4's builder has of its own; its layers are held in test_layer_tables.py."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.models.blocks import Mixed
from inception_tf.models.inception_v4 import inception_v4, inception_v4_stages

NARROW = {"width_multiplier": 0.1, "num_classes": 10, "input_shape": (75, 75, 3)}


def mixed_names(block_counts):
    stages = itertools.chain(*inception_v4_stages(block_counts=block_counts))
    return [stage.name for stage in stages if isinstance(stage, Mixed)]


def test_block_counts_name_the_modules_by_letters():
    assert mixed_names((1, 25, 2)) == [
        "Mixed_3a", "Mixed_4a", "Mixed_5a", "Mixed_5b",
        *(f"Mixed_6{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
        "Mixed_7a", "Mixed_7b", "Mixed_7c",
    ]  # fmt: skip
    without = ["Mixed_3a", "Mixed_4a", "Mixed_5a", "Mixed_6a", "Mixed_7a"]
    assert mixed_names((0, 0, 0)) == without


def test_variants_with_the_same_weights_where_shapes_agree_differ():
    """The orders of 1xn and nx1 are different networks, not two names of one."""
    paper, released = (
        inception_v4(variant=variant, block_counts=(1, 1, 1), **NARROW)
        for variant in ("paper", "released")
    )
    images = tf.random.stateless_uniform((2, 75, 75, 3), [0, 1], -1.0, 1.0)
    differing = {weight.path for weight in paper.weights} ^ {w.path for w in released.weights}
    assert {path.rsplit("_", 1)[0] for path in differing if path.endswith("kernel")} == {
        *(f"Mixed_4a_Branch_1_Conv2d_0{letter}" for letter in "bc"),
        *(f"Mixed_6b_Branch_2_Conv2d_0{letter}" for letter in "bcde"),
        *(f"Mixed_7b_Branch_2_Conv2d_0{letter}" for letter in "bcde"),
    }
    assert np.abs(paper(images) - released(images)).max() > 1e-4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"variant": "papers"}, "Did you mean 'paper'"),
        ({"block_counts": (4, 26, 3)}, "from 0 to 25"),
        ({"block_counts": (4, 7)}, "block_counts"),
    ],
)
def test_unusable_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        inception_v4(**NARROW, **options)
