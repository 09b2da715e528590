"""Plain values that the start-up summary tells, and the guess of memory among them."""

import dataclasses
from collections.abc import Mapping, Sequence

_FLOAT32_BYTES = 4
# What one value of the all-reduce occupies on a device: fixed point, or a float32 sum (bfloat16
# is only what travels).
_ACCUMULATOR_BYTES = {"exact": 8, "float32": 4, "bfloat16": 4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What was found to train on.

    Attributes:
      data_dir: directory of the records, None for generated batches.
      where_from: which of the places looked at it was ('--data_dir', '$TFDS_DATA_DIR' ...).
      split_examples: split name -> examples.
      num_train_examples: of the split that is trained on: an epoch.
      num_classes: without background.
      label_base: label of the first class in the records, 0 or 1; None for generated batches.
      origin: whose records they are ('research/inception'), '' of our own and of none.
    """

    data_dir: str | None
    where_from: str | None = None
    split_examples: Mapping[str, int]
    num_train_examples: int
    num_classes: int
    label_base: int | None
    origin: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """Who computes what of a step, global.

    Attributes:
      num_replicas, replica_batch: declared replicas, and the images of each.
      num_physical: physical replicas (devices) over all workers, at most num_replicas.
      num_workers: processes.
    """

    num_replicas: int
    replica_batch: int
    num_physical: int
    num_workers: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleFacts:
    """How long, and how fast.

    Attributes:
      total_steps: of the whole run.
      steps_per_epoch: training examples / global batch, not rounded.
      words: the schedule as a sentence ('0.045 x 0.94 every 2 epochs, staircase').
      first_rates: (step, learning rate) where the first rates begin.
    """

    total_steps: int
    steps_per_epoch: float
    words: str
    first_rates: Sequence[tuple[int, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The network as built.

    Attributes:
      name, variant: as in the catalog.
      num_parameters: all weights, moving statistics included.
      num_trained: those that the optimizer changes.
      input_height_px, input_width_px: of the images that it takes.
      precision: of the computation.
      batch_norm_momentum: share of the old moving statistics that a step keeps.
    """

    name: str
    variant: str
    num_parameters: int
    num_trained: int
    input_height_px: int
    input_width_px: int
    precision: str
    batch_norm_momentum: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """What computes, and how its sums are made.

    Attributes:
      devices: description of each local device ('CPU', 'NVIDIA H200').
      intra_op_threads: per process.
      is_deterministic: deterministic kernels.
      reduction: 'exact', 'float32' or 'bfloat16'.
      workers_from: who named the workers, or why there is one ('TF_CONFIG', 'Slurm' ...).
    """

    devices: Sequence[str]
    intra_op_threads: int
    is_deterministic: bool
    reduction: str
    workers_from: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryGuess:
    """Bytes on one device while it trains, by what they hold (see `memory_guess`)."""

    weights_bytes: int
    slots_bytes: int
    averages_bytes: int
    gradients_bytes: int
    accumulators_bytes: int
    activations_bytes: int
    images_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it; the kernels' work space and fragmentation come on top."""
        return sum(dataclasses.astuple(self))


def memory_guess(
    *,
    num_parameters: int,
    num_trained: int,
    num_slots: int,
    has_averages: bool,
    reduction: str,
    replica_batch: int,
    num_rounds: int,
    values_per_image: int,
    activation_values_per_image: int,
    activation_bytes: int,
) -> MemoryGuess:
    """A guess of what one device needs, per physical replica.

      weights       4 bytes x parameters (moving statistics included)
      slots         4 bytes x trained parameters x slots of the optimizer (RMSProp: 2)
      averages      4 bytes x parameters
      gradients     4 bytes x trained parameters
      accumulators  8 bytes ('exact', int64; else 4) x parameters: gradients and statistics summed
                    over the declared replicas of this device
      activations   activation bytes x values that the backward pass needs of one image x images of
                    ONE declared replica: declared replicas take turns
      images        4 bytes x values of one image x images of ALL declared replicas of this device:
                    a step gets them at once. As many again wait in the host's memory for each
                    of data.prefetch_steps, and for the step that is being put together.

    Args:
      num_parameters, num_trained: see ModelFacts.
      num_slots: optimizer slots per trained parameter.
      has_averages: whether weight averages are kept.
      reduction: 'exact', 'float32' or 'bfloat16'.
      replica_batch: images of one declared replica.
      num_rounds: declared replicas that one device works through.
      values_per_image: height x width x 3.
      activation_values_per_image: that a training step keeps for its backward pass.
      activation_bytes: 4 in float32, 2 in the mixed precisions.
    """
    return MemoryGuess(
        weights_bytes=_FLOAT32_BYTES * num_parameters,
        slots_bytes=_FLOAT32_BYTES * num_trained * num_slots,
        averages_bytes=_FLOAT32_BYTES * num_parameters if has_averages else 0,
        gradients_bytes=_FLOAT32_BYTES * num_trained,
        accumulators_bytes=_ACCUMULATOR_BYTES[reduction] * num_parameters,
        activations_bytes=activation_bytes * activation_values_per_image * replica_batch,
        images_bytes=_FLOAT32_BYTES * values_per_image * replica_batch * num_rounds,
    )
