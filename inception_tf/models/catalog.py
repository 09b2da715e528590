"""Which networks there are: name -> builder and exact counts, with what a config may say of one."""

import collections.abc
import dataclasses
import math

import keras

from inception_tf.errors import ConfigError
from inception_tf.models.arguments import check_choice
from inception_tf.models.inception_resnet import inception_resnet_v2
from inception_tf.models.layers import ConvUnit

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A network as a config declares it (gin section `model`).

    Attributes:
      name: a key of the catalog.
      variant: 'released' (the authors' code) or 'paper' (the figures).
      num_classes: classes without background; None takes the manifest's.
      background_class: one more output, index 0, as the released checkpoints have.
      input_height_px, input_width_px: at least 75 each.
      width_multiplier: ratio applied to every filter count.
      block_counts: residual blocks of type A, B and C; None takes the variant's.
      residual_scales: scales of type A, B and C blocks; None takes the variant's.
      dropout_rate: share of the pooled features dropped while training, in [0, 1).
      aux_head: add the released auxiliary head (training only).
      batch_norm_decay: of the moving statistics, per declared replica's update.
      batch_norm_epsilon: added to the variance.
      precision: 'float32', 'mixed_bfloat16' or 'mixed_float16'.
    """

    name: str = "inception_resnet_v2"
    variant: str = "released"
    num_classes: int | None = None
    background_class: bool = False
    input_height_px: int = 299
    input_width_px: int = 299
    width_multiplier: float = 1.0
    block_counts: tuple[int, ...] | None = None
    residual_scales: tuple[float, ...] | None = None
    dropout_rate: float = 0.2
    aux_head: bool = False
    batch_norm_decay: float = 0.9997
    batch_norm_epsilon: float = 0.001
    precision: str = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One variant of a network, with its counts at full width and depth, 299x299 and 1000 classes.

    Parameters are convolution, dense and batch-norm values: kernels, biases, beta, moving mean and
    moving variance. Multiply-adds are those of convolutions and dense layers for one image.

    Attributes:
      builder: function of keyword arguments that returns a keras.Model.
      num_parameters, num_trainable: with the classifier, without auxiliary head.
      num_parameters_without_top, num_trainable_without_top: the trunk alone.
      num_parameters_with_aux, num_trainable_with_aux: with classifier and auxiliary head.
      num_multiply_adds: with the classifier, without auxiliary head.
    """

    builder: collections.abc.Callable
    num_parameters: int
    num_trainable: int
    num_parameters_without_top: int
    num_trainable_without_top: int
    num_parameters_with_aux: int
    num_trainable_with_aux: int
    num_multiply_adds: int


CATALOG = {
    "inception_resnet_v2": {
        "paper": Entry(
            builder=inception_resnet_v2,
            num_parameters=32_450_360,
            num_trainable=32_417_496,
            num_parameters_without_top=30_305_360,
            num_trainable_without_top=30_272_496,
            num_parameters_with_aux=35_827_104,
            num_trainable_with_aux=35_792_448,
            num_multiply_adds=9_257_953_632,
        ),
        "released": Entry(
            builder=inception_resnet_v2,
            num_parameters=55_873_736,
            num_trainable=55_813_192,
            num_parameters_without_top=54_336_736,
            num_trainable_without_top=54_276_192,
            num_parameters_with_aux=59_242_288,
            num_trainable_with_aux=59_179_952,
            num_multiply_adds=13_155_794_016,
        ),
    },
}


def find_entry(name, variant):
    """The catalog's entry of a network and variant.

    Raises:
      ConfigError: an unknown name or variant; names the nearest one.
    """
    check_choice(name, CATALOG, what="The network's name")
    check_choice(variant, CATALOG[name], what=f"The variant of {name}")
    return CATALOG[name][variant]


def num_outputs(spec, num_classes):
    """Logits of a network for `num_classes` classes: one more with a background class."""
    return num_classes + int(spec.background_class)


def build_model(spec, *, num_classes, num_replicas=1, seed=0):
    """The network that a spec declares, as a functional `keras.Model`.

    Input float32 [N, H, W, 3] in [-1, 1]; output logits float32 [N, K'], K' = `num_classes` and
    one more with a background class, or {'logits', 'aux_logits'} with an auxiliary head.

    Args:
      spec: ModelSpec.
      num_classes: classes without background.
      num_replicas: declared replicas N. A step's one update, by the mean over the replicas, stands
        for N updates, so batch norm gets momentum decay ** N (0.9997 ** 20 = 0.99402).
      seed: initial weights are a pure function of (seed, layer name).

    Raises:
      ConfigError: an unknown name, variant or precision, or a value out of range.
    """
    entry = find_entry(spec.name, spec.variant)
    check_choice(spec.precision, PRECISIONS, what="precision")
    if spec.num_classes is not None and spec.num_classes != num_classes:
        raise ConfigError(
            "The model must have as many classes as the data.",
            received=f"{spec.num_classes} in the model's config, {num_classes} in the data",
            remedy="Leave model.num_classes out to take the data's.",
        )
    if num_replicas < 1:
        raise ConfigError("num_replicas must be at least 1.", received=num_replicas)
    if not 0.0 <= spec.batch_norm_decay <= 1.0:
        raise ConfigError("batch_norm_decay must lie in [0, 1].", received=spec.batch_norm_decay)
    return entry.builder(
        variant=spec.variant,
        num_classes=num_outputs(spec, num_classes),
        input_shape=(spec.input_height_px, spec.input_width_px, 3),
        width_multiplier=spec.width_multiplier,
        block_counts=spec.block_counts,
        residual_scales=spec.residual_scales,
        dropout_rate=spec.dropout_rate,
        aux_head=spec.aux_head,
        batch_norm_momentum=spec.batch_norm_decay**num_replicas,
        batch_norm_epsilon=spec.batch_norm_epsilon,
        seed=seed,
        dtype=spec.precision,
        name=spec.name,
    )


def count_parameters(model):
    """Values of a model's weights, moving statistics included; no state of random generators."""
    return sum(math.prod(weight.shape) for weight in model.weights)


def count_multiply_adds(model):
    """Multiply-adds per image of a model's convolutions and dense layers at its input size.

    Raises:
      ConfigError: the model's input height or width is free.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, (ConvUnit, keras.layers.Conv2D)):
            total += math.prod(layer.kernel.shape) * _grid_size(layer)
        elif isinstance(layer, keras.layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total


def smallest_batch_norm_counts(model):
    """Values per image that each trained batch norm's statistics rest on, the fewest first.

    A declared replica of n images gives n times as many per channel; from fewer than 2 no variance
    can be estimated.

    Returns:
      list of (layer name, height * width of its output at the model's input size).

    Raises:
      ConfigError: the model's input height or width is free.
    """
    layers = [
        layer
        for layer in model.layers
        if isinstance(layer, (ConvUnit, keras.layers.BatchNormalization)) and layer.trainable
    ]
    counts = [(layer.name, _grid_size(layer)) for layer in layers]
    return sorted(counts, key=lambda named: named[1])


def _grid_size(layer):
    sizes = layer.output.shape[1:-1]
    if None in sizes:
        raise ConfigError(
            "Counting needs a model whose input height and width are fixed.",
            received=f"layer {layer.name} with output {tuple(layer.output.shape)}",
            remedy="Build it with an input_shape.",
        )
    return math.prod(sizes)
