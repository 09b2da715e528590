"""Turns the tables of the networks (models/blocks.py) into Keras layers."""

import collections.abc
import dataclasses
import math
import re

import keras

from inception_tf.errors import ConfigError
from inception_tf.models.blocks import Conv, MaxPool, Mixed, Residual, Siblings, named_boxes
from inception_tf.models.initializers import xavier_uniform
from inception_tf.models.layers import SAME, VALID, ConvUnit, ResidualSum, SumNorm

# Fewer filters than this would make a narrow network's thinnest branch useless.
MIN_FILTERS = 8
_STAGE_NAME = re.compile(r"(Conv2d|MaxPool)_\d[a-z]_\dx\d|Mixed_\d[a-z]|block\d+_\d+")


def endpoints(model):
    """The outputs of a model's stages: name -> KerasTensor, from the input upwards.

    `keras.Model(model.input, endpoints(model)["Mixed_6a"])` gives features. The names are slim's
    endpoints, `block35_10` being the last residual block of its kind.
    """
    return {
        layer.name: layer.output for layer in model.layers if _STAGE_NAME.fullmatch(layer.name)
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageBuilder:
    """Turns tables into Keras layers.

    Attributes:
      width_multiplier: every box gets max(8, filters * multiplier rounded half up) filters; 1.0
        gives the table's numbers exactly. Linear 1x1s follow their block's input.
      batch_norm_momentum, batch_norm_epsilon: of every batch norm.
      batch_norm_scale: every batch norm learns gamma; the released networks have none.
      batch_norm_on_sums: batch norm on top of the residual sums, before their ReLU.
      is_linear_inside: no activation inside a factorisation (arXiv 1512.00567 figure 2).
      conv_initializer: of the convolutions with batch norm, see models/initializers.py.
      seed: of the model; see `layer_seed`.
      dtype: policy of the layers, or None for Keras' global one.
    """

    width_multiplier: float = 1.0
    batch_norm_momentum: float = 0.9997
    batch_norm_epsilon: float = 0.001
    batch_norm_scale: bool = False
    batch_norm_on_sums: bool = False
    is_linear_inside: bool = False
    conv_initializer: collections.abc.Callable = xavier_uniform
    seed: int = 0
    dtype: str | None = None

    def __post_init__(self):
        if not 0 < self.width_multiplier < math.inf:
            raise ConfigError(
                "width_multiplier must be positive and finite.", received=self.width_multiplier
            )

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

    def box(self, x, box, name, *, initializer=None):
        """Applies one `Conv`, `MaxPool` or `AveragePool` under a layer name.

        Args:
          initializer: of a convolution, in place of `conv_initializer`.
        """
        if isinstance(box, Conv):
            return ConvUnit(
                self.scaled(box.filters),
                box.kernel_size,
                strides=box.stride,
                padding=box.padding,
                use_relu=not (box.is_inner and self.is_linear_inside),
                kernel_initializer=(initializer or self.conv_initializer)(self.seed, name),
                name=name,
                **self._norm_arguments(),
            )(x)
        pool, stride, padding = keras.layers.AveragePooling2D, 1, SAME
        if isinstance(box, MaxPool):
            pool, stride, padding = keras.layers.MaxPooling2D, box.stride, VALID
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
            for position, (name, box) in enumerate(named_boxes(prefix, branch)):
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
            padding=SAME,
            data_format="channels_last",
            kernel_initializer=xavier_uniform(self.seed, name),
            dtype=self.dtype,
            name=name,
        )(branches)
        has_norm = self.batch_norm_on_sums or block.has_norm
        x = ResidualSum(
            block.scale,
            use_relu=block.use_relu and not has_norm,
            dtype=self.dtype,
            name=f"{block.name}_Sum" if has_norm else block.name,
        )([x, up])
        if not has_norm:
            return x
        return SumNorm(use_relu=block.use_relu, name=block.name, **self._norm_arguments())(x)

    def _norm_arguments(self):
        return {
            "use_scale": self.batch_norm_scale,
            "momentum": self.batch_norm_momentum,
            "epsilon": self.batch_norm_epsilon,
            "dtype": self.dtype,
        }

    def _concat(self, outputs, name):
        return keras.layers.Concatenate(axis=-1, dtype=self.dtype, name=name)(outputs)

    def scaled(self, filters):
        """Filters of a box of `filters` at this builder's width."""
        if self.width_multiplier == 1.0:
            return filters
        return max(MIN_FILTERS, int(filters * self.width_multiplier + 0.5))
