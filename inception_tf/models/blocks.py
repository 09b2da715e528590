"""A small language in which the tables of the networks are written, and what builds them.

A table is a tuple of stages that reads like a figure of the paper, from the input upwards:

    Conv("3x3", 64, tag="2b")           a convolution with batch norm and ReLU
    MaxPool(tag="3a")                   3x3, stride 2, VALID
    Mixed("Mixed_6a", (branch, ...))    branches side by side, concatenated in this order
    Residual("block17", (branch, ...))  branches, a linear 1x1 back to the input's width, the sum

A branch is a tuple of boxes, each a `Conv`, `MaxPool`, `AveragePool` or, at its end, `Siblings`.
SAME padding and stride 1 unless a box says otherwise, as in the figures, where 'V' marks VALID.

Layer names are computed and follow slim's scopes with '_' for '/': `Conv2d_2b_3x3`,
`Mixed_5b_Branch_1_Conv2d_0b_5x5`, `block35_1_Branch_0_Conv2d_1x1`, `block35_1_Conv2d_1x1` (the
linear 1x1). The layer named like a stage (`Mixed_5b`, `block35_1`, `Conv2d_7b_1x1`) has the
stage's output.
"""

import dataclasses
import string

import keras

from inception_tf.errors import ConfigError
from inception_tf.models.layers import SAME, VALID, ConvUnit, ResidualSum, xavier_uniform

# Fewer filters than this would make a narrow network's thinnest branch useless.
MIN_FILTERS = 8


@dataclasses.dataclass(frozen=True)
class Conv:
    """A box `height x width, filters` of a figure.

    Attributes:
      kernel: 'HEIGHTxWIDTH', as the figures print it.
      filters: at width multiplier 1.
      stride, padding: as in the figure.
      tag: what stands in the name before the kernel. None computes it: in a branch '0a', '0b' ...
        by position and '1a' for VALID; '' gives `Conv2d_1x1`.
    """

    kernel: str
    filters: int
    stride: int = 1
    padding: str = SAME
    tag: str | None = None

    @property
    def kernel_size(self):
        """(height, width)."""
        height, width = self.kernel.split("x")
        return int(height), int(width)

    def scope(self, position=0):
        """Slim's scope of this box at a position of its branch."""
        tag = self.tag
        if tag is None:
            tag = "1a" if self.padding == VALID else f"0{string.ascii_lowercase[position]}"
        return "_".join(filter(None, ("Conv2d", tag, self.kernel)))


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """A box `3x3 max pool, stride 2, V`."""

    tag: str = "1a"

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

    The linear 1x1's width is that of the block's input, whatever a figure prints: nothing
    else can be added. It has a bias and no batch norm, as in the released code; the paper does
    not say.
    """

    name: str
    branches: tuple
    scale: float = 1.0
    use_relu: bool = True


def repeat(block, count, scale):
    """`count` copies of a residual block, named `<block>_1` ... `<block>_<count>`."""
    return tuple(
        dataclasses.replace(block, name=f"{block.name}_{i + 1}", scale=scale) for i in range(count)
    )


def named_convs(stages):
    """Yields (layer name, Conv) of every convolution with batch norm, in branch order.

    Branch order is that of the released code: stage by stage, `Branch_0` first, from a
    branch's input to its output.
    """
    for stage in stages:
        if isinstance(stage, Conv):
            yield stage.scope(), stage
        for index, branch in enumerate(getattr(stage, "branches", ())):
            for name, box in _named_boxes(f"{stage.name}_Branch_{index}", branch):
                if isinstance(box, Conv):
                    yield name, box


def endpoints(model):
    """The outputs of a model's stages: name -> KerasTensor, from the input upwards.

    `keras.Model(model.input, endpoints(model)["Mixed_6a"])` gives features. The names are slim's
    endpoints, `block35_10` being the last residual block of its kind.
    """
    return {
        layer.name: layer.output
        for layer in model.layers
        if layer.name.startswith(("Conv2d_", "MaxPool_", "Mixed_", "block"))
        and "Branch" not in layer.name
        and (not layer.name.startswith("block") or isinstance(layer, ResidualSum))
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageBuilder:
    """Turns tables into Keras layers.

    Attributes:
      width_multiplier: every box gets max(8, filters * multiplier rounded half up) filters; 1.0
        gives the table's numbers exactly. Linear 1x1s follow their block's input.
      batch_norm_momentum, batch_norm_epsilon: of every batch norm.
      seed: of the model; see `layer_seed`.
      dtype: policy of the layers, or None for Keras' global one.
    """

    width_multiplier: float = 1.0
    batch_norm_momentum: float = 0.9997
    batch_norm_epsilon: float = 0.001
    seed: int = 0
    dtype: str | None = None

    def __post_init__(self):
        if self.width_multiplier <= 0:
            raise ConfigError("width_multiplier must be positive.", received=self.width_multiplier)

    def build(self, x, stages):
        """Applies the stages one after the other to [N, H, W, C]."""
        for stage in stages:
            if isinstance(stage, Mixed):
                x = self._concat(self._branch_outputs(x, stage), stage.name)
            elif isinstance(stage, Residual):
                x = self._residual(x, stage)
            else:
                x = self.box(x, stage, stage.scope())
        return x

    def box(self, x, box, name):
        """Applies one `Conv`, `MaxPool` or `AveragePool` under a layer name."""
        if isinstance(box, Conv):
            return ConvUnit(
                self._scaled(box.filters),
                box.kernel_size,
                strides=box.stride,
                padding=box.padding,
                momentum=self.batch_norm_momentum,
                epsilon=self.batch_norm_epsilon,
                kernel_initializer=xavier_uniform(self.seed, name),
                dtype=self.dtype,
                name=name,
            )(x)
        pool, stride, padding = keras.layers.AveragePooling2D, 1, SAME
        if isinstance(box, MaxPool):
            pool, stride, padding = keras.layers.MaxPooling2D, 2, VALID
        return pool(
            3,
            strides=stride,
            padding=padding,
            data_format="channels_last",
            dtype=self.dtype,
            name=name,
        )(x)

    def _branch_outputs(self, x, stage):
        outputs = []
        for index, branch in enumerate(stage.branches):
            y, forks = x, []
            prefix = f"{stage.name}_Branch_{index}"
            chain = [box for box in branch if not isinstance(box, Siblings)]
            for position, (name, box) in enumerate(_named_boxes(prefix, branch)):
                if position < len(chain):
                    y = self.box(y, box, name)
                else:
                    forks.append(self.box(y, box, name))
            outputs.extend(forks or [y])
        return outputs

    def _residual(self, x, block):
        branches = self._concat(self._branch_outputs(x, block), f"{block.name}_Concat")
        name = f"{block.name}_Conv2d_1x1"
        up = keras.layers.Conv2D(
            x.shape[-1],
            1,
            data_format="channels_last",
            kernel_initializer=xavier_uniform(self.seed, name),
            dtype=self.dtype,
            name=name,
        )(branches)
        return ResidualSum(
            block.scale, use_relu=block.use_relu, dtype=self.dtype, name=block.name
        )([x, up])

    def _concat(self, outputs, name):
        return keras.layers.Concatenate(axis=-1, dtype=self.dtype, name=name)(outputs)

    def _scaled(self, filters):
        if self.width_multiplier == 1.0:
            return filters
        return max(MIN_FILTERS, int(filters * self.width_multiplier + 0.5))


def _named_boxes(prefix, branch):
    """(layer name, box) along a branch, the siblings at its end one by one."""
    boxes = []
    for box in branch:
        boxes.extend(box.convs if isinstance(box, Siblings) else (box,))
    return [(f"{prefix}_{box.scope(position)}", box) for position, box in enumerate(boxes)]
