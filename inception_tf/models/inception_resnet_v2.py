"""Inception-ResNet-v2 (Szegedy et al. 2016, arXiv 1602.07261), from the figures and as released.

    paper: figure 15     released          stages
    figure 3             stem of v3        Conv2d_1a_3x3 ... Mixed_5a / Mixed_5b
    5 x figure 16        10 x              block35_1 ...
    figure 7             same              Mixed_6a
    10 x figure 17       20 x              block17_1 ...
    figure 18            same              Mixed_7a
    5 x figure 19        10 x              block8_1 ...
    -                    1x1 1536          Conv2d_7b_1x1

The text says that Inception-ResNet-v2 matches Inception-v4's cost (12.3 G multiply-adds); the
figures' depth costs 9.3 G, the released network 13.2 G.

Grids in the comments are height x width x channels for a 299x299 input.
"""

from inception_tf.models.blocks import AveragePool, Conv, MaxPool, Mixed, Residual
from inception_tf.models.inception_v3 import STEM as STEM_V3
from inception_tf.models.inception_v4 import STEM_PAPER
from inception_tf.models.layers import VALID as V
from inception_tf.models.network import build_network
from inception_tf.models.residual_table import LONE, ResidualTable, residual_stages

# The released network starts like Inception-v3 and adds one Inception module.
STEM_RELEASED = (
    *STEM_V3,  # 35x35x192
    Mixed(
        "Mixed_5b",
        (
            (Conv("1x1", 96, tag=LONE),),
            (Conv("1x1", 48), Conv("5x5", 64)),
            (Conv("1x1", 64), Conv("3x3", 96), Conv("3x3", 96)),
            (AveragePool(), Conv("1x1", 64)),
        ),
    ),  # 35x35x320
)

# Figure 16, Inception-ResNet-A; linear 1x1 384 (released: 320).
BLOCK_A = Residual(
    "block35",
    (
        (Conv("1x1", 32, tag=LONE),),
        (Conv("1x1", 32), Conv("3x3", 32)),
        (Conv("1x1", 32), Conv("3x3", 48), Conv("3x3", 64)),
    ),
)

# Figure 7, Reduction-A, with k, l, m, n = 256, 256, 384, 384 (table 1).
REDUCTION_A = (
    Mixed(
        "Mixed_6a",
        (
            (Conv("3x3", 384, 2, V),),
            (Conv("1x1", 256), Conv("3x3", 256), Conv("3x3", 384, 2, V)),
            (MaxPool(),),
        ),
    ),  # 17x17x1152 (released: 1088)
)

# Figure 17, Inception-ResNet-B. It prints 1154 for the linear 1x1; the grid it is added to has
# 384 + 384 + 384 = 1152 (released: 1088).
BLOCK_B = Residual(
    "block17",
    (
        (Conv("1x1", 192, tag=LONE),),
        (Conv("1x1", 128), Conv("1x7", 160), Conv("7x1", 192)),
    ),
)

# Figure 18, Reduction-B. Its caption names Inception-ResNet-v1; figure 15's caption assigns it to
# v2, and 288 and 320 fit only there.
REDUCTION_B = (
    Mixed(
        "Mixed_7a",
        (
            (Conv("1x1", 256), Conv("3x3", 384, 2, V)),
            (Conv("1x1", 256), Conv("3x3", 288, 2, V)),
            (Conv("1x1", 256), Conv("3x3", 288), Conv("3x3", 320, 2, V)),
            (MaxPool(),),
        ),
    ),  # 8x8x2144 (released: 2080)
)

# Figure 19, Inception-ResNet-C. It prints 2048 for the linear 1x1; the grid it is added to has
# 1152 + 384 + 288 + 320 = 2144 (released: 2080).
BLOCK_C = Residual(
    "block8",
    (
        (Conv("1x1", 192, tag=LONE),),
        (Conv("1x1", 192), Conv("1x3", 224), Conv("3x1", 256)),
    ),
)

# The text gives "between 0.1 and 0.3" (section 3.3) and no value per block, so `paper` takes the
# released ones. Figure 15 prints its counts "for both" networks and v1's sizes (256, 896, 1792).
_COMMON = {
    "block_a": BLOCK_A,
    "reduction_a": REDUCTION_A,
    "block_b": BLOCK_B,
    "reduction_b": REDUCTION_B,
    "block_c": BLOCK_C,
    "residual_scales": (0.17, 0.10, 0.20),
}
INCEPTION_RESNET_V2 = {
    "paper": ResidualTable(
        stem=STEM_PAPER,
        block_counts=(5, 10, 5),
        has_linear_last_block=False,
        **_COMMON,
    ),
    "released": ResidualTable(
        stem=STEM_RELEASED,
        tail=(Conv("1x1", 1536, tag="7b"),),  # 8x8x1536
        block_counts=(10, 20, 10),
        has_linear_last_block=True,
        **_COMMON,
    ),
}


def inception_resnet_v2_stages(
    *, variant="released", block_counts=None, residual_scales=None,
    batch_norm_on_last_sum=False, first_stride=2, first_pool=True,
):  # fmt: skip
    """(stages up to the auxiliary head's grid, stages after it); see `inception_resnet_v2`."""
    return residual_stages(
        INCEPTION_RESNET_V2, variant, block_counts=block_counts, residual_scales=residual_scales,
        batch_norm_on_last_sum=batch_norm_on_last_sum, first_stride=first_stride,
        first_pool=first_pool,
    )  # fmt: skip


def inception_resnet_v2(
    *, variant="released", num_classes=1000, input_shape=(299, 299, 3), include_top=True,
    pooling=None, width_multiplier=1.0, block_counts=None, residual_scales=None,
    batch_norm_on_sums=False, batch_norm_on_last_sum=False, first_stride=2, first_pool=True,
    dropout_rate=0.2, aux_head=False, batch_norm_momentum=0.9997, batch_norm_epsilon=0.001,
    batch_norm_scale=False, seed=0, dtype=None,
    name="inception_resnet_v2",
):  # fmt: skip
    """Inception-ResNet-v2 as a functional `keras.Model` that returns logits.

    Args:
      variant: 'released' (the authors' code) or 'paper' (the figures).
      num_classes: K, a background class included where there is one.
      input_shape: (H, W, C) with H and W large enough to leave something of the last grid (75 px
        with the defaults), either of them None where it is free; None for RGB images of any size.
        The input is float [N, H, W, C], scaled to [-1, 1].
      include_top: end with dropout and logits; else with the last grid.
      pooling: without top: None for the grid [N, h, w, C'], 'avg' or 'max' for float32 [N, C'].
      width_multiplier: ratio applied to every filter count, see `StageBuilder`.
      block_counts: blocks of type A, B and C, each at least 0; None takes the variant's.
        `released` counts its linear last block among type C.
      residual_scales: of type A, B and C; None takes 0.17, 0.10, 0.20. The linear last block of
        `released` keeps 1.0.
      batch_norm_on_sums: batch norm on top of every residual sum, before its ReLU; the paper left
        it out to save memory (section 3.2).
      batch_norm_on_last_sum: the same on the last block's sum alone, which section 3.3 tried
        against networks that die.
      first_stride, first_pool: of the stem, for smaller images; see `stem_for_resolution`.
      dropout_rate: share of the pooled features dropped while training, in [0, 1).
      aux_head: add the released auxiliary head on the last block B; needs a fixed input size.
      batch_norm_momentum: share of the old moving statistics kept at an update.
      batch_norm_epsilon: added to the variance.
      batch_norm_scale: learn batch norm's gamma; the released network has none.
      seed: initial weights are a pure function of (seed, layer name).
      dtype: policy such as 'mixed_bfloat16', or None for Keras' global one; logits stay float32.
      name: of the model.

    Returns:
      `keras.Model` with output float32 [N, K], or {'logits', 'aux_logits'} with `aux_head`.

    Raises:
      ConfigError: an argument out of range.
    """
    return build_network(
        inception_resnet_v2_stages(
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
