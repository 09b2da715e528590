"""The host's side of training: which step comes next, and what happens between two loops.

The device runs up to `steps_per_loop` steps at a time. A loop ends early where something is due:
a log row, a checkpoint, an evaluation, an end of profiling. The first two loops of a process are
one step each: the first traces, the second tells what a step takes. Whether to stop, and whether
the chief's clock asks for a checkpoint, reaches every worker with the step's all-reduce, so that
all of them do the same thing after the same step.
"""

import dataclasses
import fractions
import functools
import math
import typing

import tensorflow as tf

from inception_tf.errors import ConfigError, NonFiniteError
from inception_tf.training import watchdog

# Positions of the flags that a host passes to its steps; their sums come back.
SAVE_FLAG, STOP_FLAG = 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cadence:
    """After which steps something is due; pure arithmetic on the step number.

    Attributes:
      total_steps: length of the run.
      num_examples, global_batch: an epoch is num_examples / global_batch steps, not rounded.
      log_every_steps: a row of metrics.
      save_every_steps: a checkpoint, or None.
      evaluate_every_epochs: an evaluation after the first step at or past each multiple; None
        evaluates only at the end.
      profile_steps: (first, last) steps to trace, or None.
    """

    total_steps: int
    num_examples: int
    global_batch: int
    log_every_steps: int
    save_every_steps: int | None = None
    evaluate_every_epochs: float | None = None
    profile_steps: tuple[int, int] | None = None

    def __post_init__(self):
        if self.log_every_steps < 1:
            raise ConfigError(
                "logging.every_steps must be at least 1.", received=self.log_every_steps
            )
        if self.save_every_steps is not None and self.save_every_steps < 1:
            raise ConfigError(
                "checkpoints.every_steps must be at least 1.", received=self.save_every_steps
            )
        if self.evaluate_every_epochs is not None and self.evaluate_every_epochs <= 0:
            raise ConfigError(
                "evaluation.every_epochs must be above 0.", received=self.evaluate_every_epochs
            )

    def _evaluations(self, step):
        """Multiples of `evaluate_every_epochs` that `step` steps have completed."""
        if self.evaluate_every_epochs is None:
            return 0
        epochs = fractions.Fraction(step * self.global_batch, self.num_examples)
        return math.floor(epochs / fractions.Fraction(str(self.evaluate_every_epochs)))

    def logs(self, step):
        """Whether a row of metrics is due after `step` steps."""
        return step % self.log_every_steps == 0 or step == self.total_steps

    def saves(self, step):
        """Whether a checkpoint is due after `step` steps, whatever the clock says."""
        if step == self.total_steps or self.evaluates(step):
            return True
        return self.save_every_steps is not None and step % self.save_every_steps == 0

    def evaluates(self, step):
        """Whether an evaluation is due after `step` steps."""
        return step == self.total_steps or self._evaluations(step) > self._evaluations(step - 1)

    def traces(self, step):
        """Whether the step after `step` steps is traced."""
        return self.profile_steps is not None and (
            self.profile_steps[0] <= step < self.profile_steps[1]
        )

    def next_stop(self, step):
        """The first step after `step` at which a loop has to end."""
        stops = [self.total_steps, (step // self.log_every_steps + 1) * self.log_every_steps]
        if self.save_every_steps is not None:
            stops.append((step // self.save_every_steps + 1) * self.save_every_steps)
        if self.evaluate_every_epochs is not None:
            epochs = (self._evaluations(step) + 1) * fractions.Fraction(
                str(self.evaluate_every_epochs)
            )
            stops.append(math.ceil(epochs * self.num_examples / self.global_batch))
        if self.profile_steps is not None:
            stops += [edge for edge in self.profile_steps if edge > step]
        return min(stops)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """Times since the last row of metrics, on this host.

    The first step of a process counts only until there is a second: what tracing takes is no rate.
    """

    num_steps: int
    secs: float
    data_wait_secs: float

    def plus(self, times):
        """The two together."""
        return Interval(
            num_steps=self.num_steps + times.num_steps,
            secs=self.secs + times.secs,
            data_wait_secs=self.data_wait_secs + times.data_wait_secs,
        )


_NO_TIME = Interval(num_steps=0, secs=0.0, data_wait_secs=0.0)


class Hooks(typing.Protocol):
    """What the loop calls between two device loops, in this order."""

    def enter(self, phase: str, step: int, num_steps: int) -> None:
        """Where a phase of `watchdog` begins, with the step it is about and its length."""

    def profile(self, is_start: bool) -> None:
        """At the edges of the traced steps, before the first of them and after the last."""

    def save_is_due(self) -> bool:
        """Whether the chief's clock asks for a checkpoint; False on other workers."""

    def stop_is_due(self) -> bool:
        """Whether this process was asked to stop."""

    def clock(self) -> float:
        """Seconds."""

    def keep_failed_step(self, step: int, outputs: dict, batch: dict | None) -> tuple[str, str]:
        """Keeps what a failed step is looked at with: what was found, and what to do about it.

        The variables are those before the step. Batch: this worker's of the step, None where the
        device alone had it.
        """

    def started(self, step: int, secs_per_step: float) -> None:
        """Once, after the second step of this process, with what that step took."""

    def progress(self, step: int, outputs: dict, interval: Interval) -> None:
        """After every loop, with the outputs of its last step."""

    def log(self, step: int, outputs: dict, interval: Interval) -> None:
        """Where a row of metrics is due."""

    def evaluate(self, step: int, is_stopping: bool) -> bool:
        """Where an evaluation is due; whether a stop left it for the next start.

        Args:
          step: whose weights are evaluated.
          is_stopping: the run ends with this step, whatever it is: nothing is evaluated.
        """

    def save(self, step: int, is_last: bool) -> None:
        """Where a checkpoint is due, for any reason; the last one before this process ends."""


def train(train_step, iterator, *, start_step, steps_per_loop, cadence, hooks: Hooks):
    """Runs the steps from `start_step` to the end of the run or until asked to stop.

    Args:
      train_step: a TrainStep.
      iterator: distributed iterator whose next batch is that of `start_step`.
      start_step: batches consumed so far.
      steps_per_loop: most steps on the device between two looks of the host.
      cadence: a Cadence.
      hooks: see Hooks.

    Returns:
      The step after which training ended: cadence.total_steps, or less after a stop.

    Raises:
      NonFiniteError: the reduced loss, gradients or statistics were not finite or too large.
    """
    if steps_per_loop < 1:
        raise ConfigError("training.steps_per_loop must be at least 1.", received=steps_per_loop)
    step, loops, is_traced = start_step, 0, False
    interval = _NO_TIME
    try:
        while step < cadence.total_steps:
            if cadence.traces(step) is not is_traced:
                hooks.profile(not is_traced)
                is_traced = not is_traced
            most = steps_per_loop if loops >= 2 else 1
            size = min(most, cadence.next_stop(step) - step)
            enter = functools.partial(_enter, hooks, step, size, is_first=not loops)
            outputs, times, batch = _run_loop(
                train_step, iterator, size, steps_per_loop, hooks, enter
            )
            step, loops = step + size, loops + 1
            _check_finite(outputs, batch, hooks)
            del batch  # not kept beside the next one
            if loops == 2:
                hooks.started(step, times.secs)
                interval = _NO_TIME
            interval = interval.plus(times)
            hooks.progress(step, outputs, interval)
            if cadence.logs(step):
                hooks.log(step, outputs, interval)
                interval = _NO_TIME
            flags = outputs["host_flags"].numpy() > 0
            is_stopping = bool(flags[STOP_FLAG])
            if cadence.evaluates(step):
                is_stopping |= bool(hooks.evaluate(step, is_stopping))
            if flags[SAVE_FLAG] or is_stopping or cadence.saves(step):
                hooks.save(step, is_stopping or step == cadence.total_steps)
            if is_stopping:
                break
    finally:
        if is_traced:
            hooks.profile(False)
    return step


def _enter(hooks, step, size, phase, *, is_first):
    hooks.enter(watchdog.FIRST_STEP if is_first else phase, step, size)


def _run_loop(train_step, iterator, size, steps_per_loop, hooks, enter):
    """One device loop: its outputs, its times and, where the host has it, its batch."""
    # Before anything else: whatever sticks from here on is no longer in the save before it.
    enter(watchdog.STEP if steps_per_loop > 1 else watchdog.WAITING)
    flags, batch = [0, 0], None
    flags[SAVE_FLAG], flags[STOP_FLAG] = int(hooks.save_is_due()), int(hooks.stop_is_due())
    flags = tf.constant(flags, tf.int64)
    began = hooks.clock()
    if steps_per_loop > 1:
        outputs = train_step.run(iterator, tf.constant(size, tf.int64), flags)
        waited = float(outputs["data_wait_secs"])
    else:
        batch = next(iterator)
        enter(watchdog.STEP)
        waited = hooks.clock() - began
        outputs = train_step.run_one(batch, flags)
    outputs["host_flags"].numpy()  # the loop has ended before its time is taken
    times = Interval(num_steps=size, secs=hooks.clock() - began, data_wait_secs=waited)
    return outputs, times, batch


def _check_finite(outputs, batch, hooks):
    failed_step = int(outputs["failed_step"])
    if failed_step < 0:
        return
    what = "not finite" if int(outputs["non_finite"]) or not int(outputs["too_large"]) else (
        "too large for exact sums"
    )
    found, remedy = hooks.keep_failed_step(failed_step, outputs, batch)
    raise NonFiniteError(
        f"The loss, gradients and statistics of every step must be finite; at step {failed_step:,} "
        f"they were {what}. No update was applied from that step on.",
        received=f"loss {float(outputs['data_loss_nats'])}, "
        f"gradient norm {float(outputs['gradient_norm'])}; {found}",
        remedy=remedy,
    )
