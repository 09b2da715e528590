"""The learning rate as a function of the step alone."""

import dataclasses

import tensorflow as tf

from inception_tf.errors import ConfigError


# A quotient in float64 may fall a little short of a whole number that it should be, and the change
# would come a step late. Quotients that are not whole stay further away: by 1 / (2 x 1,281,167)
# for decays every 2 epochs of ImageNet.
_SHORT_OF_WHOLE = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExponentialDecay:
    """0.045 x 0.94 every 2 epochs, arXiv 1602.07261 section 4 (gin section `exponential_decay`).

    Attributes:
      learning_rate: rate of the first step.
      factor: what the rate is multiplied by at each decay.
      epochs_per_decay: epochs from one decay to the next; epoch = step * global batch / examples,
        not rounded. None where `decay_steps` counts steps.
      decay_steps: steps from one decay to the next instead, as the released trainers count
        (int(1281167 / 32 * 2 / 20) = 4003 at 20 workers); exactly one of the two is None.
      staircase: decay at once rather than a little at each step.
    """

    learning_rate: float = 0.045
    factor: float = 0.94
    epochs_per_decay: float | None = 2.0
    decay_steps: int | None = None
    staircase: bool = True

    def __post_init__(self):
        for name in ("learning_rate", "factor"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0.", received=getattr(self, name))
        if (self.epochs_per_decay is None) is (self.decay_steps is None):
            raise ConfigError(
                "A decay comes every so many epochs or every so many steps.",
                received=f"epochs_per_decay = {self.epochs_per_decay}, "
                f"decay_steps = {self.decay_steps}",
                remedy="Give one of them and None for the other, such as "
                "exponential_decay.epochs_per_decay = None.",
            )
        if self.epochs_per_decay is not None and self.epochs_per_decay <= 0:
            raise ConfigError("epochs_per_decay must be above 0.", received=self.epochs_per_decay)
        if self.decay_steps is not None and self.decay_steps < 1:
            raise ConfigError("decay_steps must be at least 1.", received=self.decay_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoPhase:
    """A low rate first, then a full schedule from its start (gin section `two_phase`).

    The warm-up that arXiv 1602.07261 section 3.3 tried against dying residual blocks, after
    He et al. 2015, and found wanting.

    Attributes:
      first_learning_rate: constant rate of the first phase.
      first_epochs: length of the first phase.
      then: the schedule that follows; its epochs count from the end of the first phase.
    """

    first_learning_rate: float = 0.00001
    first_epochs: float = 1.0
    then: ExponentialDecay = ExponentialDecay()

    def __post_init__(self):
        if self.first_learning_rate <= 0:
            raise ConfigError(
                "first_learning_rate must be above 0.", received=self.first_learning_rate
            )
        if self.first_epochs < 0:
            raise ConfigError("first_epochs must not be negative.", received=self.first_epochs)


def _exponential_decay(schedule, step, steps_per_epoch):
    """Rate of an ExponentialDecay at a float64 step >= 0."""
    if schedule.decay_steps is not None:
        decays = step / schedule.decay_steps
    else:
        decays = step / (schedule.epochs_per_decay * steps_per_epoch)
    if schedule.staircase:
        decays = tf.floor(decays + _SHORT_OF_WHOLE)
    return schedule.learning_rate * tf.pow(tf.constant(schedule.factor, tf.float64), decays)


def learning_rate_at(step, schedule, *, steps_per_epoch, warmup_epochs=0.0, scale=1.0):
    """Learning rate of the update that consumes batch `step` (global).

    Args:
      step: int64 scalar, batches consumed before this one.
      schedule: ExponentialDecay or TwoPhase.
      steps_per_epoch: examples / global batch, a float that is not rounded: epochs do not end
        between two steps, and neither do decays.
      warmup_epochs: the rate grows linearly from scheduled / (steps of the warm-up) to scheduled.
      scale: multiplies every rate; global batch / 256 where rates are given per 256 images.

    Returns:
      float32 scalar.
    """
    now = tf.cast(step, tf.float64)
    if isinstance(schedule, TwoPhase):
        first_steps = schedule.first_epochs * steps_per_epoch
        later = _exponential_decay(
            schedule.then, tf.maximum(now - first_steps, 0.0), steps_per_epoch
        )
        first = tf.constant(schedule.first_learning_rate, tf.float64)
        rate = tf.where(now < first_steps - _SHORT_OF_WHOLE, first, later)
    else:
        rate = _exponential_decay(schedule, now, steps_per_epoch)
    if warmup_epochs > 0:
        rate *= tf.minimum((now + 1.0) / (warmup_epochs * steps_per_epoch), 1.0)
    return tf.cast(rate * scale, tf.float32)
