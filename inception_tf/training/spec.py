"""What a config says of a training run as a whole."""

import dataclasses

from inception_tf.errors import ConfigError
from inception_tf.training.optimizer import Momentum, RmsProp
from inception_tf.training.reduction import REDUCTIONS
from inception_tf.training.schedule import ExponentialDecay, TwoPhase


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """Length, seed, update rule and reduction (gin section `training`).

    Attributes:
      num_replicas, replica_batch: the DECLARED replicas and the images of each per step; 20 in
        arXiv 1602.07261 section 4, of 32 images in the released trainer.
      num_epochs, num_steps: length of the run; exactly one of them is not None.
      seed: of weights, record order, augmentation and dropout.
      optimizer: `@rmsprop()` or `@momentum()`.
      schedule: `@exponential_decay()` or `@two_phase()`.
      clip_global_norm: of the reduced gradient, L2 included; None does not clip.
      warmup_epochs: linear warm-up from 0; off in the papers.
      learning_rate_per_256_images: multiply every rate by global batch / 256; off in the papers.
      reduction: 'exact', 'float32' or 'bfloat16', see training/reduction.py.
      steps_per_loop: steps on the device between two looks of the host.
      jit_compile: compile the declared replica's forward and backward pass with XLA; other
        kernels, so other roundings and other dropout masks.
      recompute: keep only the inputs of each module or residual block for the backward pass, which
        computes the block again: less memory for more time, the same numbers to rounding.
      init_from: weights that the run begins with: a run directory of this project (the averaged
        weights of its newest good checkpoint), or what `models/weights/` reads: a file, or
        'keras:inception_resnet_v2' for a published one. None draws them. Read once: whatever
        goes on from a checkpoint, evaluates or exports does not need it any more.
      new_head: begin with a drawn classifier on the imported trunk, for other classes.
    """

    num_replicas: int = 20
    replica_batch: int = 32
    num_epochs: float | None = None
    num_steps: int | None = None
    seed: int = 0
    optimizer: RmsProp | Momentum = RmsProp()
    schedule: ExponentialDecay | TwoPhase = ExponentialDecay()
    clip_global_norm: float | None = 2.0
    warmup_epochs: float = 0.0
    learning_rate_per_256_images: bool = False
    reduction: str = "exact"
    steps_per_loop: int = 1
    jit_compile: bool = False
    recompute: bool = False
    init_from: str | None = None
    new_head: bool = False

    def __post_init__(self):
        for name in ("num_replicas", "replica_batch", "steps_per_loop"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1.", received=getattr(self, name))
        if (self.num_epochs is None) is (self.num_steps is None):
            raise ConfigError(
                "A run has a length in epochs or in steps.",
                received=f"num_epochs = {self.num_epochs}, num_steps = {self.num_steps}",
                remedy="Give one of them and None for the other.",
            )
        for name in ("num_epochs", "num_steps", "clip_global_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be above 0.", received=value)
        if not 0 <= self.seed < 2**31:
            raise ConfigError("seed must be at least 0 and below 2^31.", received=self.seed)
        if self.warmup_epochs < 0:
            raise ConfigError("warmup_epochs must not be negative.", received=self.warmup_epochs)
        if self.recompute and self.jit_compile:
            raise ConfigError(
                "XLA would find that a block has been computed already, and keep its values.",
                received="recompute = True, jit_compile = True",
                remedy="Leave one of them out.",
            )
        if self.new_head and self.init_from is None:
            raise ConfigError(
                "new_head is for a run that begins with imported weights; here every layer is new.",
                received="new_head = True, init_from = None",
                remedy="Give training.init_from, or leave training.new_head out.",
            )
        if self.reduction not in REDUCTIONS:
            raise ConfigError(
                f"reduction must be one of {', '.join(REDUCTIONS)}.", received=repr(self.reduction)
            )
