"""arXiv 1602.07261 section 3.3: why wide residual networks scale their residuals.

Above about 1000 filters the paper's networks died unless the residuals were scaled by 0.1 to 0.3.
Here stand 20 of its widest blocks one behind the other as they start: fresh weights, batch norm
with the statistics of its batch. Batch norm gives every block's residual about the same size, so
at scale 1 each block adds as much again, and the activations grow without an end in sight. With
the paper's scales they keep their size. Narrow stacks grow as well, as the last test
says: that only wide networks die of it shows after tens of thousands of steps, not at the start.
"""

import keras
import pytest
import tensorflow as tf

from inception_tf.models.blocks import repeat
from inception_tf.models.inception_resnet_v2 import BLOCK_B, BLOCK_C
from inception_tf.models.stage_builder import StageBuilder

NUM_BLOCKS = 20
# The block and the width of the grid it stands on in the paper's network.
WIDE = {"block17": (BLOCK_B, 1152), "block8": (BLOCK_C, 2144)}


def growth(kind, scale, seed, width=None):
    """Standard deviation of the activations after each block, that of the input being 1."""
    block, own_width = WIDE[kind]
    width = width or own_width
    blocks = repeat(block, NUM_BLOCKS, scale)
    x = keras.Input((5, 5, width))
    model = keras.Model(x, StageBuilder(seed=seed).build(x, blocks))
    model = keras.Model(x, [model.get_layer(stage.name).output for stage in blocks])
    # What a ReLU before the first block leaves of a batch-normalised grid.
    inputs = tf.nn.relu(tf.random.stateless_normal((2, 5, 5, width), [seed, 1]))
    outputs = model(inputs, training=True)
    return [float(tf.math.reduce_std(y) / tf.math.reduce_std(inputs)) for y in outputs]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", WIDE)
def test_unscaled_residuals_make_activations_grow_block_by_block(kind, seed):
    sizes = growth(kind, 1.0, seed)
    assert all(after > before for before, after in zip([1.0, *sizes], sizes))
    assert sizes[-1] > 2.0
    # No saturation: the second ten blocks still add more than half of what the first ten did.
    assert sizes[-1] - sizes[9] > 0.5 * (sizes[9] - 1.0)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("scale", [0.1, 0.3])
@pytest.mark.parametrize("kind", WIDE)
def test_residuals_scaled_as_in_the_paper_keep_the_activations_size(kind, scale, seed):
    sizes = growth(kind, scale, seed)
    assert 0.9 < min(sizes) and max(sizes) < 1.2


def test_unscaled_residuals_grow_in_narrow_ones_too():
    assert growth("block17", 1.0, seed=0, width=128)[-1] > 2.0
