"""Running averages of the weights, which the papers evaluate in place of the weights."""

import dataclasses

import tensorflow as tf

from inception_tf.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Averages:
    """Averages over weights AND batch-norm statistics (gin section `averages`).

    TF1's ExponentialMovingAverage as the released trainers call it: the average starts at the
    variable's initial value, and `num_updates` is the step.

    Attributes:
      decay: the largest decay, 0.9999 in the released trainers.
      warm_start: use min(decay, (1 + n) / (10 + n)) at step n, so that the first steps are
        forgotten quickly.
    """

    decay: float = 0.9999
    warm_start: bool = True

    def __post_init__(self):
        if not 0.0 <= self.decay < 1.0:
            raise ConfigError("decay must be at least 0 and below 1.", received=self.decay)


def decay_at(step, averages):
    """Decay of the average at an update (float32 scalar).

    Args:
      step: int64 scalar, batches consumed before this update: 0 at the first.
      averages: an Averages.
    """
    limit = tf.constant(averages.decay, tf.float32)
    if not averages.warm_start:
        return limit
    count = tf.cast(step, tf.float32)
    return tf.minimum(limit, (1.0 + count) / (10.0 + count))


def apply_averages(averages, decay):
    """average = average - (1 - decay) * (average - value), in place on the handles' devices.

    Args:
      averages: list of (resource of the average, float32 value).
      decay: float32 scalar.
    """
    share = 1.0 - decay
    for handle, value in averages:
        average = tf.raw_ops.ReadVariableOp(resource=handle, dtype=value.dtype)
        # Gradient descent is this update, in one pass over the memory.
        tf.raw_ops.ResourceApplyGradientDescent(var=handle, alpha=share, delta=average - value)
