"""Checkpoints of a run on a disk that may be full: what is tried again, and when it gives up."""

import math
import shutil
import time

from inception_tf.errors import NoRoomError, first_line
from inception_tf.training import watchdog
from inception_tf.training.checkpoint import CheckpointNotWritten

_RETRY_SECS = 60.0  # while training goes on
_LAST_TRIES = 3  # of the last save of a process, which cannot wait for long
_LAST_RETRY_SECS = 5.0


class Saving:
    """Saves a run; every worker learns how it went.

    Args:
      session: the Session.
      spec: a CheckpointSpec.
    """

    def __init__(self, session, spec):
        self._session = session
        self._spec = spec
        self._tried_at_secs = session.clock()
        self._num_failed = 0  # in a row, the same on every worker

    def is_due(self):
        """Whether the chief's clock asks for a checkpoint; False on other workers."""
        if not self._session.cluster.is_chief:
            return False
        minutes = self._spec.every_minutes
        wait_secs = math.inf if minutes is None else 60.0 * minutes
        if self._num_failed:
            wait_secs = min(wait_secs, _RETRY_SECS)
        return self._session.clock() - self._tried_at_secs >= wait_secs

    def save(self, step, *, is_last):
        """Writes a checkpoint, or says why not; every worker calls it and waits for the chief.

        Args:
          is_last: the process ends after it: it is tried several times.

        Raises:
          NoRoomError: the last one, or too many in a row, could not be written.
        """
        for tries_left in reversed(range(_LAST_TRIES if is_last else 1)):
            self._session.watch.enter(watchdog.SAVING, step=step)
            failure = self._try(step)
            if not any(self._session.cluster.gather(int(bool(failure)))):
                self._num_failed = 0
                return
            self._num_failed += 1
            is_over = self._num_failed >= self._spec.max_failed_saves
            if not tries_left and (is_last or is_over):
                raise NoRoomError(
                    "A run must be able to save itself.",
                    received=failure or "worker 0, which saves, could not; its output says why",
                    remedy="Make room, then start all workers again: the run goes on from its "
                    "last checkpoint, which is intact.",
                )
            if failure:
                self._session.writer.note(
                    f"step {step:,} was not saved ({self._num_failed} in a row, gives up after "
                    f"{self._spec.max_failed_saves}): {failure}"
                )
            if tries_left:
                time.sleep(_LAST_RETRY_SECS)

    def _try(self, step):
        """Why this worker could not write what it writes; '' where it could."""
        session = self._session
        self._tried_at_secs = session.clock()
        try:
            for line in session.bad_records.exchange():
                session.writer.note(line)
            if session.cluster.is_chief and not session.inputs.is_synthetic:
                session.write_checkpoint(step)
        except (CheckpointNotWritten, OSError) as error:
            return (
                f"worker {session.cluster.worker_index}, {session.run_dir}"
                f"{_free_at(session.run_dir)}: {first_line(error)}"
            )
        return ""


def _free_at(directory):
    try:
        return f", {shutil.disk_usage(directory).free:,} bytes free"
    except OSError:  # a file system that is away answers nothing
        return ""
