"""What all four builders have in common: from tables and arguments to a `keras.Model`."""

import keras

from inception_tf.models.arguments import check_input_shape
from inception_tf.models.blocks import smallest_input_px
from inception_tf.models.heads import Head, HeadStyle
from inception_tf.models.initializers import xavier_uniform
from inception_tf.models.stage_builder import StageBuilder


def build_network(
    stages, *, num_classes, input_shape, include_top, pooling,
    width_multiplier, dropout_rate, aux_head, batch_norm_momentum, batch_norm_epsilon,
    batch_norm_scale, seed, dtype, name, batch_norm_on_sums=False, is_linear_inside=False,
    conv_initializer=xavier_uniform, head_style=HeadStyle(),
):  # fmt: skip
    """The model of a network's stages; the arguments of a builder are described there.

    Args:
      stages: (stages up to the grid on which an auxiliary head stands, the stages after it).
      is_linear_inside, conv_initializer: see `StageBuilder`.
      head_style: see `HeadStyle`.

    Raises:
      ConfigError: an argument out of range.
    """
    to_aux_head, from_aux_head = stages
    smallest_px = smallest_input_px((*to_aux_head, *from_aux_head))
    input_shape = check_input_shape(input_shape, smallest_px=smallest_px)
    builder = StageBuilder(
        width_multiplier=width_multiplier,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        batch_norm_scale=batch_norm_scale,
        batch_norm_on_sums=batch_norm_on_sums,
        is_linear_inside=is_linear_inside,
        conv_initializer=conv_initializer,
        seed=seed,
        dtype=dtype,
    )
    head = Head(num_classes, include_top, pooling, dropout_rate, aux_head, head_style)
    images = keras.Input(input_shape, dtype="float32", name="images")
    pre_aux = builder.build(images, to_aux_head)
    x = builder.build(pre_aux, from_aux_head)
    return keras.Model(images, head.build(x, pre_aux, builder), name=name)
