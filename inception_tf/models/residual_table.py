"""What Inception-ResNet-v1 and v2 share: figure 15, filled in by each with its own boxes."""

import dataclasses

from inception_tf.models.arguments import check_choice, check_counts, check_scales
from inception_tf.models.blocks import Residual, repeat
from inception_tf.models.stems import stem_for_resolution

LONE = ""  # a branch of a single 1x1 has no position in its released name: Conv2d_1x1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualTable:
    """One variant, from the input upwards (arXiv 1602.07261 figure 15).

    Attributes:
      stem, reduction_a, reduction_b, tail: tuples of stages.
      block_a, block_b, block_c: the residual blocks on the 35, 17 and 8 grids.
      block_counts: how many of each.
      residual_scales: of each kind of block.
      has_linear_last_block: the last block C is added at scale 1 without ReLU.
      has_norm_on_last_sum: batch norm on top of the last block C's sum.
    """

    stem: tuple
    block_a: Residual
    reduction_a: tuple
    block_b: Residual
    reduction_b: tuple
    block_c: Residual
    tail: tuple = ()
    block_counts: tuple[int, int, int]
    residual_scales: tuple[float, float, float]
    has_linear_last_block: bool
    has_norm_on_last_sum: bool = False

    def with_options(
        self, *, block_counts, residual_scales, batch_norm_on_last_sum, first_stride, first_pool
    ):
        """The table as a builder was asked for it; None keeps the variant's counts or scales."""
        changes = {
            "stem": stem_for_resolution(
                self.stem, first_stride=first_stride, first_pool=first_pool
            ),
            "has_norm_on_last_sum": batch_norm_on_last_sum,
        }
        if block_counts is not None:
            changes["block_counts"] = check_counts(block_counts)
        if residual_scales is not None:
            changes["residual_scales"] = check_scales(residual_scales)
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
        if self.has_norm_on_last_sum and blocks:
            blocks = (*blocks[:-1], dataclasses.replace(blocks[-1], has_norm=True))
        return (*self.reduction_b, *blocks, *self.tail)


def residual_stages(tables, variant, **options):
    """(stages up to the auxiliary head's grid, stages after it) of a variant.

    Args:
      options: of `ResidualTable.with_options`.

    Raises:
      ConfigError: an argument out of range.
    """
    check_choice(variant, tables, what="variant")
    table = tables[variant].with_options(**options)
    return table.to_aux_head(), table.from_aux_head()
