"""A small language in which the tables of the networks are written.

A table is a tuple of stages that reads like a figure of the paper, from the input upwards:

    Conv("3x3", 64, tag="2b")           a convolution with batch norm and ReLU
    MaxPool(tag="3a")                   3x3, stride 2, VALID
    Mixed("Mixed_6a", (branch, ...))    branches side by side, concatenated in this order
    Residual("block17", (branch, ...))  branches, a linear 1x1 back to the input's width, the sum

A branch is a tuple of boxes, each a `Conv`, `MaxPool`, `AveragePool` or, at its end, `Siblings`.
SAME padding and stride 1 unless a box says otherwise, as in the figures, where 'V' marks VALID.
What turns tables into layers is models/stage_builder.py.

Layer names are computed and follow slim's scopes with '_' for '/': `Conv2d_2b_3x3`,
`Mixed_5b_Branch_1_Conv2d_0b_5x5`, `block35_1_Branch_0_Conv2d_1x1`, `block35_1_Conv2d_1x1` (the
linear 1x1). The layer named like a stage (`Mixed_5b`, `block35_1`, `Conv2d_7b_1x1`) has the
stage's output.
"""

import dataclasses
import itertools
import string

from inception_tf.models.layers import SAME, VALID, output_size


@dataclasses.dataclass(frozen=True)
class Conv:
    """A box `height x width, filters` of a figure.

    Attributes:
      kernel: 'HEIGHTxWIDTH', as the figures print it.
      filters: at width multiplier 1.
      stride, padding: as in the figure.
      tag: what stands in the name before the kernel. None computes it: in a branch '0a', '0b' ...
        by position and '1a' for VALID; '' gives `Conv2d_1x1`.
      released_scope: the whole name, where the released code has an irregular one.
      is_inner: inside what replaces one larger convolution, not its end; where arXiv 1512.00567
        figure 2 compares ReLU with a linear activation.
    """

    kernel: str
    filters: int
    stride: int = 1
    padding: str = SAME
    tag: str | None = None
    released_scope: str | None = None
    is_inner: bool = False

    @property
    def kernel_size(self):
        """(height, width)."""
        height, width = self.kernel.split("x")
        return int(height), int(width)

    def scope(self, position=0):
        """Slim's scope of this box at a position of its branch."""
        if self.released_scope is not None:
            return self.released_scope
        tag = self.tag
        if tag is None:
            tag = "1a" if self.padding == VALID else f"0{string.ascii_lowercase[position]}"
        return "_".join(filter(None, ("Conv2d", tag, self.kernel)))


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """A box `3x3 max pool, stride 2, V`; another stride where a stem keeps the resolution."""

    tag: str = "1a"
    stride: int = 2

    def scope(self, position=0):
        """Slim's scope of this box."""
        return f"MaxPool_{self.tag}_3x3"


@dataclasses.dataclass(frozen=True)
class AveragePool:
    """A box `3x3 average pool`; padded zeros are not counted in the average."""

    def scope(self, position=0):
        """Slim's scope of this box."""
        return f"AvgPool_0{string.ascii_lowercase[position]}_3x3"


@dataclasses.dataclass(frozen=True)
class Siblings:
    """Convolutions on the same input, concatenated: the fork at the end of a branch."""

    convs: tuple[Conv, ...]


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Branches on the same input, concatenated on channels in this order."""

    name: str
    branches: tuple


@dataclasses.dataclass(frozen=True)
class Residual:
    """Branches, a linear 1x1 with bias to the input's width, and the scaled sum.

    With `has_norm` batch norm stands on top of the sum, before its ReLU.

    The linear 1x1's width is that of the block's input, whatever a figure prints: nothing
    else can be added. It has a bias and no batch norm, as in the released code; the paper does
    not say.
    """

    name: str
    branches: tuple
    scale: float = 1.0
    use_relu: bool = True
    has_norm: bool = False


def repeat(block, count, scale):
    """`count` copies of a residual block, named `<block>_1` ... `<block>_<count>`."""
    return tuple(
        dataclasses.replace(block, name=f"{block.name}_{i + 1}", scale=scale) for i in range(count)
    )


def stage_name(stage):
    """Name of the layer that has a stage's output."""
    return stage.scope() if isinstance(stage, (Conv, MaxPool)) else stage.name


def stage_sizes(stages, size, *, axis):
    """Rows (axis 0) or columns (axis 1) after every stage for an input of `size`; [(name, size)].

    A size below 1 says that nothing is left.
    """
    sizes = []
    for stage in stages:
        if isinstance(stage, Mixed):
            size = min(_size_after(branch, size, axis) for branch in stage.branches)
        elif not isinstance(stage, Residual):
            size = _size_after((stage,), size, axis)
        sizes.append((stage_name(stage), size))
    return sizes


def smallest_input_px(stages):
    """The least input height and width that leaves something of every stage's grid."""
    for size in itertools.count(1):
        if all(left >= 1 for axis in (0, 1) for _, left in stage_sizes(stages, size, axis=axis)):
            return size


def named_convs(stages):
    """Yields (layer name, Conv) of every convolution with batch norm, in branch order.

    Branch order is that of the released code: stage by stage, `Branch_0` first, from a
    branch's input to its output.
    """
    for stage in stages:
        if isinstance(stage, Conv):
            yield stage.scope(), stage
        for index, branch in enumerate(getattr(stage, "branches", ())):
            for name, box in named_boxes(f"{stage.name}_Branch_{index}", branch):
                if isinstance(box, Conv):
                    yield name, box


def named_boxes(prefix, branch):
    """(layer name, box) along a branch, the siblings at its end one by one."""
    boxes = []
    for box in branch:
        boxes.extend(box.convs if isinstance(box, Siblings) else (box,))
    return [(f"{prefix}_{box.scope(position)}", box) for position, box in enumerate(boxes)]


def _size_after(branch, size, axis):
    """What a branch, its siblings apart, leaves of a size."""
    for box in branch:
        if isinstance(box, MaxPool):
            size = output_size(size, 3, box.stride, VALID)
        elif isinstance(box, Conv):
            size = output_size(size, box.kernel_size[axis], box.stride, box.padding)
    return size
