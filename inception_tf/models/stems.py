"""Stems for images of lower resolution: the first steps to a coarser grid left out."""

import dataclasses

from inception_tf.errors import ConfigError
from inception_tf.models.blocks import MaxPool, Mixed

_POOL = MaxPool("3a")  # the first pool of the stems without branches
_POOL_AND_CONV = "Mixed_3a"  # of arXiv 1602.07261 figure 3: the pool, and a convolution beside it


def stem_for_resolution(stem, *, first_stride, first_pool):
    """A stem whose first convolution has another stride, with or without its first pool.

    Of arXiv 1512.00567 section 9, which does so with Inception-v3 for 151 px (stride 1) and 79 px
    (stride 1 and no pool). The weights and their shapes stay the same. Where the pool has a
    convolution beside it (figure 3 of arXiv 1602.07261) both stay, at stride 1.

    Args:
      stem: tuple of stages that begins with a convolution.
      first_stride: of that convolution, 2 or 1.
      first_pool: False, at stride 1 only, leaves out the step to half the grid that follows.

    Raises:
      ConfigError: another combination.
    """
    has_types = type(first_stride) is int and type(first_pool) is bool
    if not has_types or (first_stride, first_pool) not in ((2, True), (1, True), (1, False)):
        raise ConfigError(
            "The three networks of section 9 are stride 2 with pool, stride 1 with pool, and "
            "stride 1 without pool.",
            received=f"first_stride = {first_stride}, first_pool = {first_pool}",
        )
    first, *others = stem
    stem = (dataclasses.replace(first, stride=first_stride), *others)
    if first_pool:
        return stem
    return tuple(_unstrided(stage) for stage in stem if stage != _POOL)


def _unstrided(stage):
    """The stage that pools beside a convolution at stride 1, any other one as it is."""
    if not (isinstance(stage, Mixed) and stage.name == _POOL_AND_CONV):
        return stage
    branches = tuple(
        tuple(dataclasses.replace(box, stride=1) for box in branch) for branch in stage.branches
    )
    return dataclasses.replace(stage, branches=branches)
