"""What a job's workers write, as one stream: a prefix per line, one progress line on a terminal."""

import contextlib
import os
import re
import shutil
import threading

HOLD_SECS = 10.0  # that an error waits at most for the other workers to say the same

_PROGRESS = re.compile(r"step [\d,]+/[\d,]+ ")
_CLEAR_LINE = "\r\x1b[K"


def is_progress(line):
    """Whether a line is how far a run is, as reporting/progress.py writes it behind a pipe."""
    return _PROGRESS.match(f"{line} ") is not None


class JobOutput:
    """Takes the lines of all workers of one start.

    On a terminal the chief's progress stays on the last line and everything else scrolls above it.
    An error that ends all workers alike is written once.

    Args:
      stream: where to.
      num_workers: that write.
    """

    def __init__(self, stream, *, num_workers):
        self._stream = stream
        self._num_workers = num_workers
        self._is_live = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._progress = ""
        self._lock = threading.Lock()
        self._held = {}  # index -> its lines from the first 'error: ' on
        self._timer = None
        self.is_shared_error = False  # all workers ended with one error, and it is written

    def line(self, index, text):
        """Writes a line of worker `index`, the chief's being 0."""
        with self._lock:
            if index in self._held or self._begins_error(text):
                self._hold(index, text)
            elif self._is_live and index == 0 and is_progress(text):
                self._progress = text
                self._draw()
            else:
                self._write(f"[worker {index}] {text}")

    def close(self):
        """Writes what was held back, and leaves the progress line where it stands."""
        if self._timer is not None:
            self._timer.cancel()
        self._release()
        with self._lock:
            if self._progress:
                self._progress = ""
                self._print("")

    def _begins_error(self, text):
        # Once: a program that goes on after its errors is not held up again.
        is_first = self._timer is None or self._held
        return self._num_workers > 1 and is_first and text.startswith("error: ")

    def _hold(self, index, text):
        if self._timer is None:
            self._timer = threading.Timer(HOLD_SECS, self._release)
            self._timer.daemon = True
            self._timer.start()
        self._held.setdefault(index, []).append(text)

    def _release(self):
        with self._lock:
            held, self._held = self._held, {}
            if len(held) == self._num_workers and len({tuple(t) for t in held.values()}) == 1:
                self.is_shared_error = True
                for text in next(iter(held.values())):
                    self._write(f"(all {self._num_workers} workers) {text}")
                return
            for index, lines in held.items():
                for text in lines:
                    self._write(f"[worker {index}] {text}")

    def _write(self, line):
        self._print((_CLEAR_LINE if self._progress else "") + line)
        if self._progress:
            self._draw()

    def _draw(self):
        # One column less than there are: the last one wraps on some terminals.
        columns = shutil.get_terminal_size().columns - 1
        self._print(_CLEAR_LINE + self._progress[:columns], end="")

    def _print(self, text, *, end="\n"):
        write_line(text, self._stream, end=end)


def write_line(text, stream, *, end="\n"):
    """Writes a line, or loses it where the disk is full or nobody reads any more.

    The workers still have to be read, or they would wait, and to be started again.
    """
    with contextlib.suppress(OSError):
        print(text, end=end, file=stream, flush=True)
