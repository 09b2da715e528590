"""What a run tells while it runs: progress line, metrics file, TensorBoard."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from inception_tf import durable
from inception_tf.errors import ConfigError
from inception_tf.reporting.curves import Curves
from inception_tf.reporting.metrics_file import METRICS_FILE
from inception_tf.reporting.metrics_file import read_rows
from inception_tf.reporting.metrics_file import row_line
from inception_tf.reporting.metrics_file import supersede_after
from inception_tf.reporting.progress import ProgressLine
from inception_tf.reporting.progress import evaluation_text

TENSORBOARD_DIR = "tensorboard"
_NEWLINE = b"\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoggingSpec:
    """How often and where (gin section `logging`).

    Attributes:
      every_steps: steps from one row of metrics.jsonl to the next.
      tensorboard: write the curves for TensorBoard too.
    """

    every_steps: int = 100
    tensorboard: bool = True

    def __post_init__(self):
        if self.every_steps < 1:
            raise ConfigError(
                "logging.every_steps must be at least 1.", received=self.every_steps
            )


class EventWriter:
    """Rows, curves and the progress line of one run, all of it by the chief alone.

    Rows go to <run_dir>/metrics.jsonl (see metrics_file) and as curves to <run_dir>/tensorboard.
    At the start rows after `start_step` move to metrics.superseded.jsonl, and the curves are
    rewritten from the rows that stay, so that a resumed run has one row and one point per step. A
    (step, kind) that already has its row keeps it: a run killed between a row and what follows it
    may tell the same step again.

    Each row reaches the file system when it is written, and outlives SIGKILL. To outlive a power
    cut as well, call `flush` before the checkpoint of the same step is made. Rows that a full disk
    refuses are kept and written, in order, once it takes them; curves are drawn again from the
    rows.

    Values are Python or NumPy numbers, finite or not. Times and rates come from the caller
    (`perf/secs_per_step`, `perf/images_per_sec`, `perf/data_wait_share`). A row may carry
    `perf/unix_secs`, its wall time: no curve, but the time axis of all others; without it a row
    has the time at which the file was last written.

    Args:
      run_dir: created when absent.
      spec: how often (the caller keeps to it) and where.
      total_steps: of the whole run.
      start_step: step of the restored checkpoint, 0 for a new run.
      is_chief: everyone else's writer writes nothing and touches no file.
      stream: of the progress line; standard output when None.
      steps_per_epoch: global, not rounded; None leaves epochs out of the progress line.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike,
        *,
        spec: LoggingSpec,
        total_steps: int,
        start_step: int,
        is_chief: bool,
        stream: TextIO | None = None,
        steps_per_epoch: float | None = None,
    ):
        self._is_chief = is_chief
        self._is_open = is_chief
        self._curves = None
        self._unwritten = b""  # the end of metrics.jsonl that the disk has not taken yet
        if not is_chief:
            return
        self._run_dir = run_dir = Path(run_dir)
        self._has_curves = spec.tensorboard
        run_dir.mkdir(parents=True, exist_ok=True)
        supersede_after(run_dir, start_step)
        rows = read_rows(run_dir)
        self._told = {(row["step"], row["kind"]) for row in rows}
        self._file = open(run_dir / METRICS_FILE, "ab", buffering=0)
        durable.flush_to_disk(run_dir)
        if self._has_curves:
            self._curves = self._draw(rows)
        self._line = ProgressLine(
            stream or sys.stdout,
            total_steps=total_steps,
            start_step=start_step,
            steps_per_epoch=steps_per_epoch,
        )

    def train_row(self, step: int, values: Mapping[str, float]) -> None:
        """Records a logged step of training and tells it."""
        if self._is_chief:
            self._add_row(step, "train", values)
            self._line.show(step, values, is_logged=True)

    def eval_row(self, step: int, values: Mapping[str, float]) -> None:
        """Records an evaluation of the weights of a step and tells it."""
        if self._is_chief:
            self._add_row(step, "eval", values)
            self._line.note(evaluation_text(step, values))

    def progress(self, step: int, values: Mapping[str, float]) -> None:
        """Moves the live line of a terminal; nothing is recorded, other streams get nothing."""
        if self._is_chief:
            self._line.show(step, values, is_logged=False)

    def note(self, text: str) -> None:
        """Writes text on its own lines without breaking the live line."""
        if self._is_chief:
            self._line.note(text)

    def flush(self) -> None:
        """Returns when every row is on the disk; to be called before a checkpoint is made.

        Raises:
          OSError: the disk does not take them.
        """
        if not self._is_open:
            return
        self._write()
        os.fsync(self._file.fileno())
        if self._has_curves and self._curves is None:
            with self._told_where_curves_fail():
                self._curves = self._draw(read_rows(self._run_dir))
        elif self._has_curves:
            with self._told_where_curves_fail():
                self._curves.flush()

    def close(self) -> None:
        """Flushes and closes all; a second call does nothing."""
        if not self._is_open:
            return
        try:
            self.flush()
        except OSError as error:
            self._line.note(
                f"{self._unwritten.count(_NEWLINE)} rows of metrics were not written ({error}): "
                "the run goes on from an earlier checkpoint and makes them again"
            )
        self._is_open = False
        self._file.close()
        if self._curves is not None:
            with contextlib.suppress(OSError):  # whatever it was, `flush` has told it
                self._curves.close()
        self._line.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _add_row(self, step, kind, values):
        if (step, kind) in self._told:
            return
        is_first_refused = not self._unwritten
        self._unwritten += row_line(step, kind, values).encode()
        self._told.add((step, kind))
        try:
            self._write()  # from here on a kill of this process does not lose it
        except OSError as error:
            if is_first_refused:
                self._line.note(f"rows of metrics wait until the disk takes them: {error}")
        if self._curves is not None:
            row = {**values, "step": step, "kind": kind}
            with self._told_where_curves_fail():
                self._curves.add(row, written_secs=self._written_secs())

    def _write(self):
        """Hands the rows over to the file system, as far as it takes them; OSError if not all."""
        while self._unwritten:
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def _draw(self, rows):
        return Curves(
            self._run_dir / TENSORBOARD_DIR, rows=rows, written_secs=self._written_secs()
        )

    @contextlib.contextmanager
    def _told_where_curves_fail(self):
        try:
            yield
        except OSError as error:
            if self._curves is not None:
                self._line.note(f"the curves wait until the disk takes them: {error}")
            self._curves = None  # the next flush draws all of them again

    def _written_secs(self):
        """Unix time of the last row, by the file system: nothing here reads the clock."""
        return os.fstat(self._file.fileno()).st_mtime
