"""What stands on a trunk: the classifier, and the auxiliary classifier of the released code."""

import collections.abc
import dataclasses

import keras

from inception_tf.errors import ConfigError
from inception_tf.models.blocks import Conv
from inception_tf.models.initializers import layer_seed, xavier_uniform
from inception_tf.models.layers import VALID, Dropout

AUX_WINDOW = 5  # the released code pools 5x5 with stride 3 and ends with a 5x5 convolution
_POOLS = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadStyle:
    """How a network's heads differ from those of the other networks.

    Attributes:
      logits_initializer: of the classifier; see models/initializers.py.
      aux_dense_initializer: of the auxiliary head's 5x5 convolution; None takes the trunk's.
      aux_logits_initializer: of the auxiliary classifier.
      has_aux_dense_norm: batch norm on the auxiliary head's fully connected layer (the 5x5
        convolution over its whole grid); without it, a bias. arXiv 1512.00567 table 3,
        "BN-auxiliary", tells the two apart.
    """

    logits_initializer: collections.abc.Callable = xavier_uniform
    aux_dense_initializer: collections.abc.Callable | None = None
    aux_logits_initializer: collections.abc.Callable = xavier_uniform
    has_aux_dense_norm: bool = True


@dataclasses.dataclass(frozen=True)
class Head:
    """What a builder was asked to put on its trunk.

    Attributes:
      num_classes: logits K.
      include_top: end with dropout and logits.
      pooling: without top: None, 'avg' or 'max'.
      dropout_rate: share of the pooled features dropped while training, in [0, 1).
      aux_head: add the auxiliary classifier.
      style: of the network.
    """

    num_classes: int
    include_top: bool = True
    pooling: str | None = None
    dropout_rate: float = 0.2
    aux_head: bool = False
    style: HeadStyle = HeadStyle()

    def __post_init__(self):
        if self.include_top and (type(self.num_classes) is not int or self.num_classes < 1):
            raise ConfigError(
                "num_classes must be an integer of at least 1.", received=repr(self.num_classes)
            )
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ConfigError("dropout_rate must lie in [0, 1).", received=self.dropout_rate)
        if self.pooling not in (None, *_POOLS):
            raise ConfigError(
                "pooling must be None, 'avg' or 'max'.", received=repr(self.pooling)
            )
        if self.include_top and self.pooling is not None:
            raise ConfigError(
                "pooling is for a network without its top.",
                received=f"include_top=True, pooling={self.pooling!r}",
                remedy="Leave one of them out.",
            )
        if self.aux_head and not self.include_top:
            raise ConfigError(
                "The auxiliary head is trained beside the logits.",
                received="aux_head=True, include_top=False",
                remedy="Leave one of them out.",
            )

    def build(self, x, pre_aux, builder):
        """The model's outputs: of the last grid `x` and of the grid before the auxiliary head.

        Args:
          x, pre_aux: [N, H, W, C] of their own sizes.
          builder: StageBuilder.

        Returns:
          Features, logits float32 [N, K], or {'logits', 'aux_logits'}.

        Raises:
          ConfigError: an auxiliary head on a grid of free size.
        """
        if not self.include_top:
            return x if self.pooling is None else _global_pool(x, self.pooling, name="GlobalPool")
        logits = self._classifier(x, builder.seed)
        if not self.aux_head:
            return logits
        return {"logits": logits, "aux_logits": self._auxiliary_classifier(pre_aux, builder)}

    def _classifier(self, x, seed):
        # Float32 under every policy: a mean over the grid and a softmax's input want more than
        # bfloat16's 8 bits.
        x = _global_pool(x, "avg", name="AvgPool_1a")
        name = "Dropout_1b"
        x = Dropout(self.dropout_rate, seed=layer_seed(seed, name), dtype="float32", name=name)(x)
        return self._dense(x, seed, self.style.logits_initializer, name="Logits")

    def _auxiliary_classifier(self, x, builder):
        """Released: average pool 5x5/3 VALID, 1x1 128, 5x5 768 VALID, dense.

        On a grid smaller than 5 the window is the whole grid. Where the last convolution leaves
        more than 1x1 (inputs well above 299 px) its output is averaged, so that the weights'
        shapes do not depend on the input's size.
        """
        if None in x.shape[1:3]:
            raise ConfigError(
                "The auxiliary head's last convolution is as large as its grid, up to 5x5.",
                received="a free input height or width",
                remedy="Give input_shape a height and a width.",
            )
        x = keras.layers.AveragePooling2D(
            _window(x),
            strides=3,
            padding=VALID,
            data_format="channels_last",
            dtype=builder.dtype,
            name="AuxLogits_AvgPool_1a",
        )(x)
        x = builder.box(x, Conv("1x1", 128, tag="1b"), "AuxLogits_Conv2d_1b_1x1")
        x = self._auxiliary_dense(x, builder)
        x = _global_pool(x, "avg", name="AuxLogits_AvgPool_3a")
        initializer = self.style.aux_logits_initializer
        return self._dense(x, builder.seed, initializer, name="AuxLogits_Logits")

    def _auxiliary_dense(self, x, builder):
        kernel = "{}x{}".format(*_window(x))
        box = Conv(kernel, 768, 1, VALID, tag="2a")
        name = f"AuxLogits_{box.scope()}"
        initializer = self.style.aux_dense_initializer or builder.conv_initializer
        if self.style.has_aux_dense_norm:
            return builder.box(x, box, name, initializer=initializer)
        return keras.layers.Conv2D(
            builder.scaled(box.filters),
            box.kernel_size,
            padding=box.padding,
            activation="relu",
            data_format="channels_last",
            kernel_initializer=initializer(builder.seed, name),
            dtype=builder.dtype,
            name=name,
        )(x)

    def _dense(self, x, seed, initializer, *, name):
        return keras.layers.Dense(
            self.num_classes,
            kernel_initializer=initializer(seed, name),
            dtype="float32",
            name=name,
        )(x)


def _window(x):
    return tuple(min(AUX_WINDOW, size) for size in x.shape[1:3])


def _global_pool(x, pool, *, name):
    return _POOLS[pool](data_format="channels_last", dtype="float32", name=name)(x)
