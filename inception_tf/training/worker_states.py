"""What each worker of a job is doing, as a file that the others read.

Each keeps <run_dir>/workers/<index>.json up to date, so that whoever ends first can name what the
others did. Nothing here raises for a disk that is full or away: that must not end a run.
"""

import contextlib
import json
import os
import pathlib
import time

from inception_tf import durable

WORKERS_DIR = "workers"
SILENT_SECS = 15.0  # a state file this old has no living writer
_PARTING_SECS, _PARTING_POLL_SECS = 2.0, 0.05  # at the end, until the others have come to theirs


class WorkerStates:
    """The state files of one job.

    Args:
      run_dir: on a file system that all workers share.
      worker_index, num_workers: of this process.
    """

    def __init__(self, run_dir, *, worker_index, num_workers):
        self._directory = pathlib.Path(run_dir) / WORKERS_DIR
        self._index = worker_index
        self.others = [index for index in range(num_workers) if index != worker_index]
        self._began_at = None  # when this process first wrote its state, by the file system
        self._made = []  # directories

    @property
    def stacks(self) -> pathlib.Path:
        """Where the stacks of this worker are kept."""
        return self._path(self._index).with_suffix(".stacks")

    def write(self, state):
        """Writes this worker's state.

        Args:
          state: dict of phase, step, idle_secs; at its end also status and message.
        """
        path = self._path(self._index)
        unfinished = path.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            self._made = durable.make_directory(path.parent) or self._made
            unfinished.write_text(json.dumps(state), encoding="utf-8")
            os.replace(unfinished, path)  # read by others; it need not survive a power cut
            if self._began_at is None:
                self._began_at = path.stat().st_mtime

    def read(self, index):
        """A worker's state and its age in seconds, {} and None where this start has none."""
        try:
            # Both by the file system's clock: those of two machines may differ.
            written_at = self._path(index).stat().st_mtime
            own_at = self._path(self._index).stat().st_mtime
            state = json.loads(self._path(index).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}, None
        is_of_now = self._began_at is not None and written_at > self._began_at - SILENT_SECS
        if not is_of_now or not isinstance(state, dict):
            return {}, None
        return state, max(own_at - written_at, 0.0)

    def described(self, index):
        """What another worker was doing, in words."""
        state, age_secs = self.read(index)
        if age_secs is None:
            return "has not been heard of since this start"
        if "status" in state:
            return f"has ended with status {state['status']}: {state.get('message', '')}"
        was = (
            f"in phase {in_words(state.get('phase'), state.get('step'))}, unmoved for "
            f"{state.get('idle_secs', 0.0):.0f} s"
        )
        if age_secs > SILENT_SECS:
            return f"has been silent for {age_secs:.0f} s; before that {was}"
        return was

    def forget(self):
        """Has no state any more; gives the others a moment to read their last sum from here.

        The directories go too that were made for it, as far as nothing else is in them.
        """
        with contextlib.suppress(OSError):
            self._path(self._index).unlink(missing_ok=True)
            for _ in range(round(_PARTING_SECS / _PARTING_POLL_SECS)):
                if not any(self._path(index).exists() for index in self.others):
                    break
                time.sleep(_PARTING_POLL_SECS)
        durable.remove_empty(self._made or [self._directory])

    def _path(self, index):
        return self._directory / f"{index}.json"


def in_words(phase, step):
    """A phase, with the step that it is about."""
    return f"'{phase}'" if step is None else f"'{phase}' at step {step:,}"
