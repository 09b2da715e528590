"""Inception-ResNet-v1 (Szegedy et al. 2016, arXiv 1602.07261), as the paper and as facenet have it.

    paper: figure 15     facenet           stages
    figure 14            same              Conv2d_1a_3x3 ... Conv2d_4b_3x3     35x35x256
    5 x figure 10        same              block35_1 ...
    figure 7             same              Mixed_6a                            17x17x896
    10 x figure 11       same              block17_1 ...
    figure 12            same              Mixed_7a                            8x8x1792
    5 x figure 13        6 x               block8_1 ...

The authors released no code of it. `facenet` is the trunk that David Sandberg's facenet made
popular, with this project's classifier in place of its embedding.

Grids in the comments are height x width x channels for a 299x299 input.
"""

import dataclasses

from inception_tf.models.blocks import Conv, MaxPool, Mixed, Residual
from inception_tf.models.inception_v3 import STEM as STEM_V3
from inception_tf.models.layers import VALID as V
from inception_tf.models.network import build_network
from inception_tf.models.residual_table import LONE, ResidualTable, residual_stages

# Figure 14: that of Inception-v3 with a convolution of stride 2 in place of the second pool.
STEM = (
    *STEM_V3[:-1],  # 71x71x192
    Conv("3x3", 256, 2, V, tag="4b"),  # 35x35x256
)

# Figure 10, Inception-ResNet-A; linear 1x1 256.
BLOCK_A = Residual(
    "block35",
    (
        (Conv("1x1", 32, tag=LONE),),
        (Conv("1x1", 32), Conv("3x3", 32)),
        (Conv("1x1", 32), Conv("3x3", 32), Conv("3x3", 32)),
    ),
)

# Figure 7, Reduction-A, with k, l, m, n = 192, 192, 256, 384 (table 1).
REDUCTION_A = (
    Mixed(
        "Mixed_6a",
        (
            (Conv("3x3", 384, 2, V),),
            (Conv("1x1", 192), Conv("3x3", 192), Conv("3x3", 256, 2, V)),
            (MaxPool(),),
        ),
    ),  # 17x17x896
)

# Figure 11, Inception-ResNet-B; linear 1x1 896.
BLOCK_B = Residual(
    "block17",
    (
        (Conv("1x1", 128, tag=LONE),),
        (Conv("1x1", 128), Conv("1x7", 128), Conv("7x1", 128)),
    ),
)

# Figure 12, Reduction-B.
REDUCTION_B = (
    Mixed(
        "Mixed_7a",
        (
            (Conv("1x1", 256), Conv("3x3", 384, 2, V)),
            (Conv("1x1", 256), Conv("3x3", 256, 2, V)),
            (Conv("1x1", 256), Conv("3x3", 256), Conv("3x3", 256, 2, V)),
            (MaxPool(),),
        ),
    ),  # 8x8x1792
)

# Figure 13, Inception-ResNet-C; linear 1x1 1792.
BLOCK_C = Residual(
    "block8",
    (
        (Conv("1x1", 192, tag=LONE),),
        (Conv("1x1", 192), Conv("1x3", 192), Conv("3x1", 192)),
    ),
)

PAPER = ResidualTable(
    stem=STEM,
    block_a=BLOCK_A,
    reduction_a=REDUCTION_A,
    block_b=BLOCK_B,
    reduction_b=REDUCTION_B,
    block_c=BLOCK_C,
    block_counts=(5, 10, 5),
    # The text gives "between 0.1 and 0.3" (section 3.3) and no value per block: facenet's.
    residual_scales=(0.17, 0.10, 0.20),
    has_linear_last_block=False,
)
INCEPTION_RESNET_V1 = {
    "paper": PAPER,
    "facenet": dataclasses.replace(PAPER, block_counts=(5, 10, 6), has_linear_last_block=True),
}


def inception_resnet_v1_stages(
    *, variant="paper", block_counts=None, residual_scales=None,
    batch_norm_on_last_sum=False, first_stride=2, first_pool=True,
):  # fmt: skip
    """(stages up to the auxiliary head's grid, stages after it); see `inception_resnet_v1`."""
    return residual_stages(
        INCEPTION_RESNET_V1, variant, block_counts=block_counts, residual_scales=residual_scales,
        batch_norm_on_last_sum=batch_norm_on_last_sum, first_stride=first_stride,
        first_pool=first_pool,
    )  # fmt: skip


def inception_resnet_v1(
    *, variant="paper", num_classes=1000, input_shape=(299, 299, 3), include_top=True,
    pooling=None, width_multiplier=1.0, block_counts=None, residual_scales=None,
    batch_norm_on_sums=False, batch_norm_on_last_sum=False, first_stride=2, first_pool=True,
    dropout_rate=0.2, aux_head=False, batch_norm_momentum=0.9997, batch_norm_epsilon=0.001,
    batch_norm_scale=False, seed=0, dtype=None,
    name="inception_resnet_v1",
):  # fmt: skip
    """Inception-ResNet-v1 as a functional `keras.Model` that returns logits.

    Args:
      variant: 'paper' (the figures) or 'facenet' (one block C more).
      num_classes: K, a background class included where there is one.
      input_shape: (H, W, C) with H and W large enough to leave something of the last grid (75 px
        with the defaults), either of them None where it is free; None for RGB images of any size.
        The input is float [N, H, W, C], scaled to [-1, 1].
      include_top: end with dropout and logits; else with the last grid.
      pooling: without top: None for the grid [N, h, w, C'], 'avg' or 'max' for float32 [N, C'].
      width_multiplier: ratio applied to every filter count, see `StageBuilder`.
      block_counts: blocks of type A, B and C, each at least 0; None takes the variant's.
        `facenet` counts its linear last block among type C.
      residual_scales: of type A, B and C; None takes 0.17, 0.10, 0.20. The linear last block of
        `facenet` keeps 1.0.
      batch_norm_on_sums: batch norm on top of every residual sum, before its ReLU; the paper left
        it out to save memory (section 3.2).
      batch_norm_on_last_sum: the same on the last block's sum alone, which section 3.3 tried
        against networks that die.
      first_stride, first_pool: of the stem, for smaller images; see `stem_for_resolution`.
      dropout_rate: share of the pooled features dropped while training, in [0, 1).
      aux_head: add Inception-ResNet-v2's auxiliary head on the last block B; needs a fixed input
        size.
      batch_norm_momentum: share of the old moving statistics kept at an update.
      batch_norm_epsilon: added to the variance.
      batch_norm_scale: learn batch norm's gamma; the papers' networks have none.
      seed: initial weights are a pure function of (seed, layer name).
      dtype: policy such as 'mixed_bfloat16', or None for Keras' global one; logits stay float32.
      name: of the model.

    Returns:
      `keras.Model` with output float32 [N, K], or {'logits', 'aux_logits'} with `aux_head`.

    Raises:
      ConfigError: an argument out of range.
    """
    return build_network(
        inception_resnet_v1_stages(
            variant=variant, block_counts=block_counts, residual_scales=residual_scales,
            batch_norm_on_last_sum=batch_norm_on_last_sum, first_stride=first_stride,
            first_pool=first_pool,
        ),
        num_classes=num_classes, input_shape=input_shape, include_top=include_top, pooling=pooling,
        width_multiplier=width_multiplier, dropout_rate=dropout_rate, aux_head=aux_head,
        batch_norm_momentum=batch_norm_momentum, batch_norm_epsilon=batch_norm_epsilon,
        batch_norm_scale=batch_norm_scale, seed=seed, dtype=dtype, name=name,
        batch_norm_on_sums=batch_norm_on_sums,
    )  # fmt: skip
