"""Whether a job that failed is started again, when, and what makes a restart worth it."""

import dataclasses
import pathlib
import re
import signal

from inception_tf import errors

FIRST_DELAY_SECS = 1.0
LONGEST_DELAY_SECS = 60.0
# A start with the same command ends so again.
NEVER_AGAIN = {
    errors.EXIT_USER_ERROR: "configuration or data to be mended",
    errors.EXIT_NON_FINITE: "values that are not finite, and a run repeats its bits",
    errors.EXIT_NO_ROOM: "no room to save",
    126: "a command that cannot be executed",
    127: "a command that was not found",
}
_OTHERS = {
    errors.EXIT_FAULT: "a fault",
    errors.EXIT_STUCK: "stuck, or other workers lost",
    errors.EXIT_PREEMPTED: "stopped as asked",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What follows a failed start.

    Attributes:
      delay_secs: until the next start; None where there is none.
      words: what is done and why, on one line.
    """

    delay_secs: float | None
    words: str


class RestartPolicy:
    """Counts the restarts that brought no newer checkpoint.

    A run of weeks outlives any number of lost machines, since each start goes on from a newer
    checkpoint than the one before; a fault that comes back at the same step ends it.

    Args:
      max_restarts: without a newer checkpoint; 0 never starts again.
      command: program and arguments of a worker. Only of one that trains it is known where the
        checkpoints lie: of any other every restart counts.
    """

    def __init__(self, *, max_restarts, command):
        self._max_restarts = max_restarts
        self._command = command
        self._num_restarts = 0
        self._start_step = None

    def note_start(self):
        """Remembers the checkpoint that the start goes on from."""
        self._start_step = newest_step_of(self._command)

    def decide(self, status) -> Decision:
        """What follows a start that ended with this status of the guilty worker."""
        ended = f"status {status} ({meaning_of(status)})"
        if status in NEVER_AGAIN:
            return Decision(delay_secs=None, words=f"{ended}: not started again")
        if self._max_restarts == 0:
            return Decision(delay_secs=None, words=f"{ended}: not started again (--max_restarts 0)")
        newest = newest_step_of(self._command)
        if newest is not None and (self._start_step is None or newest > self._start_step):
            self._num_restarts = 0
        if self._num_restarts >= self._max_restarts:
            return Decision(
                delay_secs=None,
                words=f"{ended}: not started again after {self._num_restarts} restarts without a "
                "newer checkpoint",
            )
        self._num_restarts += 1
        delay_secs = min(FIRST_DELAY_SECS * 2 ** (self._num_restarts - 1), LONGEST_DELAY_SECS)
        start = "" if newest is None else f" from the checkpoint of step {newest:,}"
        return Decision(
            delay_secs=delay_secs,
            words=f"{ended}: all start again in {delay_secs:g} s{start} (restart "
            f"{self._num_restarts} of at most {self._max_restarts} without a newer checkpoint)",
        )


def meaning_of(status):
    """A worker's exit status in words: 'a fault', 'SIGKILL' ..."""
    words = NEVER_AGAIN.get(status) or _OTHERS.get(status)
    if words is None and status > 128:
        try:
            words = signal.Signals(status - 128).name
        except ValueError:
            pass  # no signal of this machine
    return words or "a status of its own"


def run_dir_of(command):
    """The run directory of a command that trains; None of any other.

    Args:
      command: program and arguments of a worker, such as ['python', '-m', 'inception_tf.train',
        '--gin_file=configs/irv2.gin'].
    """
    if "inception_tf.train" not in command:
        return None
    given = _value_of("run_dir", command)
    if given:
        return pathlib.Path(given)
    config = _value_of("gin_file", command)
    return pathlib.Path("runs", pathlib.Path(config).stem) if config else None


def _value_of(flag, words):
    """Value of the last `--flag=value` or `--flag value`; None where it is not given."""
    value = None
    for word, following in zip(words, [*words[1:], None], strict=True):
        match = re.fullmatch(rf"--?{flag}(?:=(.*))?", word, re.DOTALL)
        if match:
            value = following if match[1] is None else match[1]
    return value


def newest_step_of(command):
    """Step of the newest checkpoint that a command would go on from; None where there is none.

    By its name alone, as training/checkpoint.py gives it once all is written: to verify it is the
    run's own business.
    """
    run_dir = run_dir_of(command)
    if run_dir is None:
        return None
    names = (path.name for path in (run_dir / "checkpoints").glob("step-*"))
    steps = [int(name[5:]) for name in names if re.fullmatch(r"step-\d{9}", name, re.ASCII)]
    return max(steps, default=None)
