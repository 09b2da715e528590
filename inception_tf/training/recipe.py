"""The recipe of one optimizer step, resolved to plain values."""

import dataclasses
import math

from inception_tf.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossScale:
    """Dynamic loss scale of mixed_float16 (gin section `loss_scale`).

    Attributes:
      initial: first scale; a power of two, so that scaling rounds nothing.
      growth_steps: steps with finite reduced gradients after which the scale doubles.
    """

    initial: float = 32768.0
    growth_steps: int = 2000

    def __post_init__(self):
        if self.initial < 1 or math.frexp(self.initial)[0] != 0.5:
            raise ConfigError("initial must be a power of two, at least 1.", received=self.initial)
        if self.growth_steps < 1:
            raise ConfigError("growth_steps must be at least 1.", received=self.growth_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepRecipe:
    """All that one step needs to know, resolved to plain values.

    Attributes:
      assignment: which declared replicas run where (cluster.Assignment).
      optimizer: RmsProp or Momentum.
      learning_rate: function int64 step -> float32 rate.
      output_weights: output name -> weight in the loss.
      label_smoothing: in [0, 1).
      smoothing_prior: float32 [K].
      averages: Averages.
      clip_global_norm: of the reduced gradient with L2, or None.
      reduction: 'exact', 'float32' or 'bfloat16'.
      bytes_per_pack: of the all-reduce, 0 for one pack (cluster.ClusterSpec).
      seed: of dropout.
      loss_scale: LossScale in mixed_float16, else None.
      jit_compile: compile a declared replica's forward and backward pass with XLA, which rounds in
        other places and draws other dropout masks.
      recompute: keep only the inputs of a block for the backward pass (models/execution.py).
    """

    assignment: object
    optimizer: object
    learning_rate: object
    output_weights: dict
    label_smoothing: float
    smoothing_prior: object
    averages: object
    clip_global_norm: float | None
    reduction: str
    seed: int
    bytes_per_pack: int = 0
    loss_scale: LossScale | None = None
    jit_compile: bool = False
    recompute: bool = False
