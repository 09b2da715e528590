"""Inception-v4 (Szegedy et al. 2016, arXiv 1602.07261), from the figures and as released.

    figure 9             stages
    figure 3             Conv2d_1a_3x3 ... Mixed_5a     35x35x384
    4 x figure 4         Mixed_5b ... 5e
    figure 7             Mixed_6a                       17x17x1024
    7 x figure 5         Mixed_6b ... 6h                with the released auxiliary head on the last
    figure 8             Mixed_7a                       8x8x1536
    3 x figure 6         Mixed_7b ... 7d

The two variants have the same widths and cost. They differ in the order of some 1xn and nx1
convolutions: the released code has height and width of the figures exchanged there.

Branches are listed, and concatenated, in the order of the released code.
Grids in the comments are height x width x channels for a 299x299 input.
"""

import dataclasses
import string

from inception_tf.models.arguments import check_choice, check_counts
from inception_tf.models.blocks import AveragePool, Conv, MaxPool, Mixed, Siblings
from inception_tf.models.initializers import slim_variance_scaling
from inception_tf.models.layers import VALID as V
from inception_tf.models.network import build_network
from inception_tf.models.stems import stem_for_resolution


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """One variant of the boxes of figure 9 that the variants order in their own way.

    Attributes:
      stem: figure 3.
      branches_17: the first three branches of the 17x17 module (figure 5).
      branches_8: the first three branches of the 8x8 module (figure 6).
    """

    stem: tuple
    branches_17: tuple
    branches_8: tuple


def _stem(asymmetric):
    """Figure 3 with its pair of asymmetric convolutions.

    The last 3x3 192 V is printed without a stride; only stride 2 gives the 35x35 of the stride-2
    pool that it is concatenated with.
    """
    return (
        Conv("3x3", 32, 2, V, tag="1a"),  # 149x149x32
        Conv("3x3", 32, 1, V, tag="2a"),  # 147x147x32
        Conv("3x3", 64, tag="2b"),  # 147x147x64
        Mixed("Mixed_3a", ((MaxPool(),), (Conv("3x3", 96, 2, V, tag="0a"),))),  # 73x73x160
        Mixed(
            "Mixed_4a",
            (
                (Conv("1x1", 64), Conv("3x3", 96, 1, V)),
                (Conv("1x1", 64), *asymmetric, Conv("3x3", 96, 1, V)),
            ),
        ),  # 71x71x192
        Mixed("Mixed_5a", ((Conv("3x3", 192, 2, V),), (MaxPool(),))),  # 35x35x384
    )


STEM_PAPER = _stem((Conv("7x1", 64), Conv("1x7", 64)))
STEM_RELEASED = _stem((Conv("1x7", 64), Conv("7x1", 64)))

TABLES = {
    "paper": Table(
        stem=STEM_PAPER,
        branches_17=(
            (Conv("1x1", 384),),
            # Figure 5 prints 1x7 twice here; the released code has the pair that sees 7x7.
            (Conv("1x1", 192), Conv("1x7", 224), Conv("7x1", 256)),
            (
                Conv("1x1", 192),
                Conv("1x7", 192),
                Conv("7x1", 224),
                Conv("1x7", 224),
                Conv("7x1", 256),
            ),
        ),
        branches_8=(
            (Conv("1x1", 256),),
            (Conv("1x1", 384), Siblings((Conv("1x3", 256), Conv("3x1", 256)))),
            (
                Conv("1x1", 384),
                Conv("1x3", 448),
                Conv("3x1", 512),
                Siblings((Conv("3x1", 256), Conv("1x3", 256))),
            ),
        ),
    ),
    "released": Table(
        stem=STEM_RELEASED,
        branches_17=(
            (Conv("1x1", 384),),
            (Conv("1x1", 192), Conv("1x7", 224), Conv("7x1", 256)),
            (
                Conv("1x1", 192),
                Conv("7x1", 192),
                Conv("1x7", 224),
                Conv("7x1", 224),
                Conv("1x7", 256),
            ),
        ),
        branches_8=(
            (Conv("1x1", 256),),
            (Conv("1x1", 384), Siblings((Conv("1x3", 256), Conv("3x1", 256)))),
            (
                Conv("1x1", 384),
                Conv("3x1", 448),
                Conv("1x3", 512),
                Siblings((Conv("1x3", 256), Conv("3x1", 256))),
            ),
        ),
    ),
}

# The last branches of figures 5 and 6.
POOL_17 = (AveragePool(), Conv("1x1", 128))
POOL_8 = (AveragePool(), Conv("1x1", 256))

BLOCK_COUNTS = (4, 7, 3)  # figure 9
MAX_MODULES = 25  # Mixed_6b to Mixed_6z

# Figure 4, the 35x35 module.
BRANCHES_35 = (
    (Conv("1x1", 96),),
    (Conv("1x1", 64), Conv("3x3", 96)),
    (Conv("1x1", 64), Conv("3x3", 96), Conv("3x3", 96)),
    (AveragePool(), Conv("1x1", 96)),
)  # 35x35x384

# Figure 7, Reduction-A, with k, l, m, n = 192, 224, 256, 384 (table 1).
REDUCTION_A = Mixed(
    "Mixed_6a",
    (
        (Conv("3x3", 384, 2, V),),
        (Conv("1x1", 192), Conv("3x3", 224), Conv("3x3", 256, 2, V)),
        (MaxPool(),),
    ),
)  # 17x17x1024

# Figure 8, Reduction-B; 1x7 before 7x1 in figure and code alike.
REDUCTION_B = Mixed(
    "Mixed_7a",
    (
        (Conv("1x1", 192), Conv("3x3", 192, 2, V)),
        (Conv("1x1", 256), Conv("1x7", 256), Conv("7x1", 320), Conv("3x3", 320, 2, V)),
        (MaxPool(),),
    ),
)  # 8x8x1536


def _modules(first_name, count, branches):
    """`count` modules with the same branches, named by the letters from b on."""
    letters = string.ascii_lowercase[1 : count + 1]
    return tuple(Mixed(f"{first_name}{letter}", branches) for letter in letters)


def inception_v4_stages(
    *, variant="released", block_counts=None, first_stride=2, first_pool=True
):
    """(stages up to the auxiliary head's grid, stages after it); see `inception_v4`."""
    check_choice(variant, TABLES, what="variant")
    table = TABLES[variant]
    counts = check_counts(
        BLOCK_COUNTS if block_counts is None else block_counts, most=MAX_MODULES
    )
    to_aux_head = (
        *stem_for_resolution(
            table.stem, first_stride=first_stride, first_pool=first_pool
        ),
        *_modules("Mixed_5", counts[0], BRANCHES_35),
        REDUCTION_A,
        *_modules("Mixed_6", counts[1], (*table.branches_17, POOL_17)),
    )
    return to_aux_head, (REDUCTION_B, *_modules("Mixed_7", counts[2], (*table.branches_8, POOL_8)))


def inception_v4(
    *, variant="released", num_classes=1000, input_shape=(299, 299, 3), include_top=True,
    pooling=None, width_multiplier=1.0, block_counts=None, first_stride=2, first_pool=True,
    dropout_rate=0.2, aux_head=False, batch_norm_momentum=0.9997, batch_norm_epsilon=0.001,
    batch_norm_scale=False, seed=0, dtype=None, name="inception_v4",
):  # fmt: skip
    """Inception-v4 as a functional `keras.Model` that returns logits.

    Args:
      variant: 'released' (the authors' code) or 'paper' (the order of 1xn and nx1 in the figures).
      num_classes: K, a background class included where there is one.
      input_shape: (H, W, C) with H and W large enough to leave something of the last grid (75 px
        with the defaults), either of them None where it is free; None for RGB images of any size.
        The input is float [N, H, W, C], scaled to [-1, 1].
      include_top: end with dropout and logits; else with the last grid.
      pooling: without top: None for the grid [N, h, w, C'], 'avg' or 'max' for float32 [N, C'].
      width_multiplier: ratio applied to every filter count, see `StageBuilder`.
      block_counts: modules on the 35, 17 and 8 grids, each from 0 to 25; None takes 4, 7, 3.
      first_stride, first_pool: of the stem, for smaller images; see `stem_for_resolution`.
      dropout_rate: share of the pooled features dropped while training, in [0, 1).
      aux_head: add the released auxiliary head on the last 17x17 module; needs a fixed input size.
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
        inception_v4_stages(
            variant=variant, block_counts=block_counts, first_stride=first_stride,
            first_pool=first_pool,
        ),
        num_classes=num_classes, input_shape=input_shape, include_top=include_top, pooling=pooling,
        width_multiplier=width_multiplier, dropout_rate=dropout_rate, aux_head=aux_head,
        batch_norm_momentum=batch_norm_momentum, batch_norm_epsilon=batch_norm_epsilon,
        batch_norm_scale=batch_norm_scale, seed=seed, dtype=dtype, name=name,
        conv_initializer=slim_variance_scaling,
    )  # fmt: skip
