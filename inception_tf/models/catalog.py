"""Which networks there are: name -> builder and exact counts, with what a config may say of one."""

import collections.abc
import dataclasses
import inspect

from inception_tf.errors import ConfigError
from inception_tf.models.arguments import check_choice, check_input_shape
from inception_tf.models.blocks import smallest_input_px
from inception_tf.models.inception_resnet_v1 import (
    inception_resnet_v1,
    inception_resnet_v1_stages,
)
from inception_tf.models.inception_resnet_v2 import (
    inception_resnet_v2,
    inception_resnet_v2_stages,
)
from inception_tf.models.inception_v3 import inception_v3, inception_v3_stages
from inception_tf.models.inception_v4 import inception_v4, inception_v4_stages

RELEASED_BATCH_NORM_DECAY = 0.9997  # of the released networks' argument scopes
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A network as a config declares it (gin section `model`).

    What a network does not have (residual scales in Inception-v4) is refused, not ignored.

    Attributes:
      name: a key of the catalog.
      variant: one that the network has; 'released' is the authors' code, 'paper' the figures.
      num_classes: classes without background; None takes the manifest's.
      background_class: one more output, index 0, as the released checkpoints have.
      input_height_px, input_width_px: at least what leaves something of the last grid (75 px with
        the released stem).
      width_multiplier: ratio applied to every filter count.
      block_counts: modules or residual blocks of type A, B and C; None takes the variant's.
      residual_scales: scales of type A, B and C blocks; None takes the variant's.
      batch_norm_on_sums, batch_norm_on_last_sum: batch norm on top of the residual sums, or of the
        last one alone; None takes False.
      first_stride, first_pool: of the stem, see `models.stems`; None takes 2 and True.
      stem, branch_5x5, factorisation, aux_norm: of Inception-v3, see `inception_v3`; None takes the
        released network's.
      dropout_rate: share of the pooled features dropped while training, in [0, 1).
      aux_head: add the auxiliary head (training only).
      batch_norm_decay: of the moving statistics, per declared replica's update; None takes one
        from the number of steps, see `batch_norm_momentum`.
      batch_norm_epsilon: added to the variance.
      batch_norm_scale: learn batch norm's gamma; the published networks have none.
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
    batch_norm_on_sums: bool | None = None
    batch_norm_on_last_sum: bool | None = None
    stem: str | None = None
    first_stride: int | None = None
    first_pool: bool | None = None
    branch_5x5: str | None = None
    factorisation: str | None = None
    aux_norm: str | None = None
    dropout_rate: float = 0.2
    aux_head: bool = False
    batch_norm_decay: float | None = RELEASED_BATCH_NORM_DECAY
    batch_norm_epsilon: float = 0.001
    batch_norm_scale: bool = False
    precision: str = "float32"

    def __post_init__(self):
        entry = find_entry(self.name, self.variant)
        check_choice(self.precision, PRECISIONS, what="precision")
        options = _network_options(self)
        structure = inspect.signature(entry.stages).parameters
        given = {"variant": self.variant, **options}
        stages = entry.stages(**{name: given[name] for name in given if name in structure})
        check_input_shape(
            (self.input_height_px, self.input_width_px, 3),
            smallest_px=smallest_input_px((*stages[0], *stages[1])),
        )


# Fields of a ModelSpec that only some networks have; None stands for a builder's default.
_NETWORK_OPTIONS = (
    "block_counts",
    "residual_scales",
    "batch_norm_on_sums",
    "batch_norm_on_last_sum",
    "stem",
    "first_stride",
    "first_pool",
    "branch_5x5",
    "factorisation",
    "aux_norm",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One variant of a network, with its counts at full width and depth, 299x299 and 1000 classes.

    Parameters are convolution, dense and batch-norm values: kernels, biases, beta, moving mean and
    moving variance. Multiply-adds are those of convolutions and dense layers for one image.

    Attributes:
      builder: function of keyword arguments that returns a keras.Model.
      stages: function of the builder's structural arguments that returns its tables, (stages up
        to the auxiliary head's grid, stages after it).
      num_parameters, num_trainable: with the classifier, without auxiliary head.
      num_parameters_without_top, num_trainable_without_top: the trunk alone.
      num_parameters_with_aux, num_trainable_with_aux: with classifier and auxiliary head.
      num_multiply_adds: with the classifier, without auxiliary head.
    """

    builder: collections.abc.Callable
    stages: collections.abc.Callable
    num_parameters: int
    num_trainable: int
    num_parameters_without_top: int
    num_trainable_without_top: int
    num_parameters_with_aux: int
    num_trainable_with_aux: int
    num_multiply_adds: int


CATALOG = {
    "inception_v3": {
        "released": Entry(
            builder=inception_v3,
            stages=inception_v3_stages,
            num_parameters=23_851_784,
            num_trainable=23_817_352,
            num_parameters_without_top=21_802_784,
            num_trainable_without_top=21_768_352,
            num_parameters_with_aux=27_179_376,
            num_trainable_with_aux=27_143_152,
            num_multiply_adds=5_713_216_096,
        ),
    },
    "inception_v4": {
        "paper": Entry(
            builder=inception_v4,
            stages=inception_v4_stages,
            num_parameters=42_711_400,
            num_trainable=42_648_232,
            num_parameters_without_top=41_174_400,
            num_trainable_without_top=41_111_232,
            num_parameters_with_aux=46_071_760,
            num_trainable_with_aux=46_006_800,
            num_multiply_adds=12_253_974_624,
        ),
        "released": Entry(
            builder=inception_v4,
            stages=inception_v4_stages,
            num_parameters=42_711_400,
            num_trainable=42_648_232,
            num_parameters_without_top=41_174_400,
            num_trainable_without_top=41_111_232,
            num_parameters_with_aux=46_071_760,
            num_trainable_with_aux=46_006_800,
            num_multiply_adds=12_253_974_624,
        ),
    },
    "inception_resnet_v1": {
        "paper": Entry(
            builder=inception_resnet_v1,
            stages=inception_resnet_v1_stages,
            num_parameters=22_769_848,
            num_trainable=22_742_808,
            num_parameters_without_top=20_976_848,
            num_trainable_without_top=20_949_808,
            num_parameters_with_aux=26_113_824,
            num_trainable_with_aux=26_084_992,
            num_multiply_adds=6_206_361_696,
        ),
        "facenet": Entry(
            builder=inception_resnet_v1,
            stages=inception_resnet_v1_stages,
            num_parameters=24_371_384,
            num_trainable=24_342_808,
            num_parameters_without_top=22_578_384,
            num_trainable_without_top=22_549_808,
            num_parameters_with_aux=27_715_360,
            num_trainable_with_aux=27_684_992,
            num_multiply_adds=6_308_597_856,
        ),
    },
    "inception_resnet_v2": {
        "paper": Entry(
            builder=inception_resnet_v2,
            stages=inception_resnet_v2_stages,
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
            stages=inception_resnet_v2_stages,
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


def batch_norm_momentum(spec, *, num_replicas, total_steps=None):
    """Share of the old moving statistics that one step keeps.

    A step's one update, by the mean over the N declared replicas, stands for N updates: decay ** N
    (0.9997 ** 20 = 0.99402). With `batch_norm_decay=None` it is what a warm-started average of the
    weights ends with, (1 + steps) / (10 + steps): weights and statistics that are evaluated
    together then remember the same last ninth of the run, and nothing of what a run began with is
    left at its end (0.02% of it after 100 steps; 0.9997 needs 28,000 updates for that). Long runs
    get the released 0.9997 ** N: more memory than that has no use.

    Args:
      spec: ModelSpec.
      num_replicas: declared replicas N.
      total_steps: of the run; None outside of training, where nothing is updated.

    Raises:
      ConfigError: a decay out of range.
    """
    released = RELEASED_BATCH_NORM_DECAY**num_replicas
    if spec.batch_norm_decay is None:
        if total_steps is None:
            return released
        return min((1.0 + total_steps) / (10.0 + total_steps), released)
    if not 0.0 <= spec.batch_norm_decay <= 1.0:
        raise ConfigError("batch_norm_decay must lie in [0, 1].", received=spec.batch_norm_decay)
    return spec.batch_norm_decay**num_replicas


def build_model(spec, *, num_classes, num_replicas=1, total_steps=None, seed=0):
    """The network that a spec declares, as a functional `keras.Model`.

    Input float32 [N, H, W, 3] in [-1, 1]; output logits float32 [N, K'], K' = `num_classes` and
    one more with a background class, or {'logits', 'aux_logits'} with an auxiliary head.

    Args:
      spec: ModelSpec.
      num_classes: classes without background.
      num_replicas, total_steps: declared replicas and length of the run that the network is
        trained in; they set what its batch norm keeps, see `batch_norm_momentum`.
      seed: initial weights are a pure function of (seed, layer name).

    Raises:
      ConfigError: an unknown name, variant or precision, or a value out of range.
    """
    entry = find_entry(spec.name, spec.variant)
    if spec.num_classes is not None and spec.num_classes != num_classes:
        raise ConfigError(
            "The model must have as many classes as the data.",
            received=f"{spec.num_classes} in the model's config, {num_classes} in the data",
            remedy="Leave model.num_classes out to take the data's.",
        )
    if num_replicas < 1:
        raise ConfigError("num_replicas must be at least 1.", received=num_replicas)
    momentum = batch_norm_momentum(spec, num_replicas=num_replicas, total_steps=total_steps)
    return entry.builder(
        variant=spec.variant,
        num_classes=num_outputs(spec, num_classes),
        input_shape=(spec.input_height_px, spec.input_width_px, 3),
        width_multiplier=spec.width_multiplier,
        dropout_rate=spec.dropout_rate,
        aux_head=spec.aux_head,
        batch_norm_momentum=momentum,
        batch_norm_epsilon=spec.batch_norm_epsilon,
        batch_norm_scale=spec.batch_norm_scale,
        seed=seed,
        dtype=spec.precision,
        name=spec.name,
        **_network_options(spec),
    )


def _network_options(spec):
    """The fields of a spec that are given and that only some networks have.

    Raises:
      ConfigError: this network does not have one of them.
    """
    given = {name: getattr(spec, name) for name in _NETWORK_OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        owners = [network for network in CATALOG if name in _arguments(network)]
        if spec.name not in owners:
            raise ConfigError(
                f"{spec.name} has no {name}.",
                received=f"model.{name} = {value!r}",
                remedy=f"Leave it out; it is for {' and '.join(owners)}.",
            )
    return given


def builder_default(network, argument):
    """What a network's builder takes where an argument is not given; None where it has no such."""
    arguments = _arguments(network)
    return arguments[argument].default if argument in arguments else None


def _arguments(network):
    builder = next(iter(CATALOG[network].values())).builder
    return inspect.signature(builder).parameters
