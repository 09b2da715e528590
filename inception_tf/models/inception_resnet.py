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

import dataclasses

import keras

from inception_tf.models.arguments import check_choice, check_input_shape, check_triple
from inception_tf.models.blocks import (
    AveragePool,
    Conv,
    MaxPool,
    Mixed,
    Residual,
    StageBuilder,
    repeat,
)
from inception_tf.models.heads import Head
from inception_tf.models.layers import VALID as V

LONE = ""  # a branch of a single 1x1 has no position in its released name: Conv2d_1x1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """One variant, from the input upwards (figure 15).

    Attributes:
      stem, reduction_a, reduction_b, tail: tuples of stages.
      block_a, block_b, block_c: the residual blocks on the 35, 17 and 8 grids.
      block_counts: how many of each.
      residual_scales: of each kind of block.
      has_linear_last_block: the last block C is added at scale 1 without ReLU.
    """

    stem: tuple
    block_a: Residual
    reduction_a: tuple
    block_b: Residual
    reduction_b: tuple
    block_c: Residual
    tail: tuple
    block_counts: tuple[int, int, int]
    residual_scales: tuple[float, float, float]
    has_linear_last_block: bool

    def with_blocks(self, block_counts=None, residual_scales=None):
        """The table with other counts or scales of its blocks; None keeps the variant's."""
        changes = {}
        if block_counts is not None:
            changes["block_counts"] = check_triple(block_counts, "block_counts", int)
        if residual_scales is not None:
            scales = check_triple(residual_scales, "residual_scales", (int, float))
            changes["residual_scales"] = scales
        return dataclasses.replace(self, **changes)

    def to_aux_head(self):
        """The stages up to the last block B, where the auxiliary head stands."""
        return (
            *self.stem,
            *repeat(self.block_a, self.block_counts[0], self.residual_scales[0]),
            *self.reduction_a,
            *repeat(self.block_b, self.block_counts[1], self.residual_scales[1]),
        )

    def from_aux_head(self):
        """The stages after the last block B."""
        blocks = repeat(self.block_c, self.block_counts[2], self.residual_scales[2])
        if self.has_linear_last_block and blocks:
            linear = dataclasses.replace(blocks[-1], scale=1.0, use_relu=False)
            blocks = (*blocks[:-1], linear)
        return (*self.reduction_b, *blocks, *self.tail)


# Figure 3. The last 3x3 192 V is printed without a stride; only stride 2 gives the 35x35 of the
# stride-2 pool that it is concatenated with.
STEM_PAPER = (
    Conv("3x3", 32, 2, V, tag="1a"),  # 149x149x32
    Conv("3x3", 32, 1, V, tag="2a"),  # 147x147x32
    Conv("3x3", 64, tag="2b"),  # 147x147x64
    Mixed("Mixed_3a", ((MaxPool(),), (Conv("3x3", 96, 2, V, tag="0a"),))),  # 73x73x160
    Mixed(
        "Mixed_4a",
        (
            (Conv("1x1", 64), Conv("3x3", 96, 1, V)),
            (Conv("1x1", 64), Conv("7x1", 64), Conv("1x7", 64), Conv("3x3", 96, 1, V)),
        ),
    ),  # 71x71x192
    Mixed("Mixed_5a", ((Conv("3x3", 192, 2, V),), (MaxPool(),))),  # 35x35x384
)

# The released network starts like Inception-v3 and adds one Inception module.
STEM_RELEASED = (
    Conv("3x3", 32, 2, V, tag="1a"),  # 149x149x32
    Conv("3x3", 32, 1, V, tag="2a"),  # 147x147x32
    Conv("3x3", 64, tag="2b"),  # 147x147x64
    MaxPool("3a"),  # 73x73x64
    Conv("1x1", 80, 1, V, tag="3b"),  # 73x73x80
    Conv("3x3", 192, 1, V, tag="4a"),  # 71x71x192
    MaxPool("5a"),  # 35x35x192
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
    "paper": Table(
        stem=STEM_PAPER,
        tail=(),
        block_counts=(5, 10, 5),
        has_linear_last_block=False,
        **_COMMON,
    ),
    "released": Table(
        stem=STEM_RELEASED,
        tail=(Conv("1x1", 1536, tag="7b"),),  # 8x8x1536
        block_counts=(10, 20, 10),
        has_linear_last_block=True,
        **_COMMON,
    ),
}


def inception_resnet_v2(
    *, variant="released", num_classes=1000, input_shape=(299, 299, 3), include_top=True,
    pooling=None, width_multiplier=1.0, block_counts=None, residual_scales=None,
    dropout_rate=0.2, aux_head=False, batch_norm_momentum=0.9997, batch_norm_epsilon=0.001,
    seed=0, dtype=None, name="inception_resnet_v2",
):  # fmt: skip
    """Inception-ResNet-v2 as a functional `keras.Model` that returns logits.

    Args:
      variant: 'released' (the authors' code) or 'paper' (the figures).
      num_classes: K, a background class included where there is one.
      input_shape: (H, W, C) with H and W at least 75 px, or None for free ones. The input is
        float [N, H, W, C], images scaled to [-1, 1].
      include_top: end with dropout and logits; else with the last grid.
      pooling: without top: None for the grid [N, h, w, C'], 'avg' or 'max' for float32 [N, C'].
      width_multiplier: ratio applied to every filter count, see `StageBuilder`.
      block_counts: blocks of type A, B and C, each at least 0; None takes the variant's.
        `released` counts its linear last block among type C.
      residual_scales: of type A, B and C; None takes 0.17, 0.10, 0.20. The linear last block of
        `released` keeps 1.0.
      dropout_rate: share of the pooled features dropped while training, in [0, 1).
      aux_head: add the released auxiliary head on the last block B; needs a fixed input size.
      batch_norm_momentum: share of the old moving statistics kept at an update.
      batch_norm_epsilon: added to the variance.
      seed: initial weights are a pure function of (seed, layer name).
      dtype: policy such as 'mixed_bfloat16', or None for Keras' global one; logits stay float32.
      name: of the model.

    Returns:
      `keras.Model` with output float32 [N, K], or {'logits', 'aux_logits'} with `aux_head`.

    Raises:
      ConfigError: an argument out of range.
    """
    check_choice(variant, INCEPTION_RESNET_V2, what="variant")
    table = INCEPTION_RESNET_V2[variant].with_blocks(block_counts, residual_scales)
    check_input_shape(input_shape)
    builder = StageBuilder(
        width_multiplier=width_multiplier,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        seed=seed,
        dtype=dtype,
    )
    head = Head(num_classes, include_top, pooling, dropout_rate, aux_head)
    images = keras.Input(tuple(input_shape), dtype="float32", name="images")
    pre_aux = builder.build(images, table.to_aux_head())
    x = builder.build(pre_aux, table.from_aux_head())
    return keras.Model(images, head.build(x, pre_aux, builder), name=name)
