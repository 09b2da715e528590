"""TensorBoard's copy of metrics.jsonl."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import tensorflow as tf

from tensorboard.compat.proto import event_pb2
from tensorboard.compat.proto import summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from inception_tf.reporting.metrics_file import UNIX_SECS

# Tells this writer's files from those of the profiler and of users.
_SUFFIX = ".metrics"


class Curves:
    """Scalar curves in TensorBoard event files, each step once however often a run resumed.

    Event files can only grow, so a resumed run that went on writing would draw two curves that
    cross. Therefore the file of the previous process is removed and one new file is written from
    the rows of metrics.jsonl, a few thousand at most. The new file begins with a session start at
    step 0, at which a TensorBoard that is already open forgets what it has read.

    Args:
      directory: where event files go; created when absent.
      rows: what the curves begin with, as `read_rows` gives them.
      written_secs: wall time (Unix) for rows that carry no `perf/unix_secs`.

    Raises (every method): OSError, the disk does not take them.
    """

    def __init__(self, directory: Path, *, rows: Iterable[Mapping] = (), written_secs: float):
        with _os_errors():
            self._begin(directory, rows, written_secs)

    def _begin(self, directory, rows, written_secs):
        for stale in directory.glob(f"events.out.tfevents.*{_SUFFIX}"):
            stale.unlink()
        # TensorFlow's own tf.summary would stamp every rewritten row with the time of the resume.
        self._writer = EventFileWriter(str(directory), flush_secs=10, filename_suffix=_SUFFIX)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.add_event(event_pb2.Event(wall_time=written_secs, session_log=start))
        for row in rows:
            self.add(row, written_secs=written_secs)
        self._writer.flush()

    def add(self, row: Mapping, *, written_secs: float) -> None:
        """Adds the metrics of one row, each as a point of the curve of its name."""
        points = [
            summary_pb2.Summary.Value(tag=name, simple_value=float(value))
            for name, value in row.items()
            if name not in ("step", "kind", UNIX_SECS)
        ]
        event = event_pb2.Event(
            wall_time=float(row.get(UNIX_SECS, written_secs)),
            step=row["step"],
            summary=summary_pb2.Summary(value=points),
        )
        with _os_errors():
            self._writer.add_event(event)

    def flush(self) -> None:
        """Hands every point over to the file system."""
        with _os_errors():
            self._writer.flush()

    def close(self) -> None:
        """Flushes and ends the event file."""
        with _os_errors():
            self._writer.close()


@contextlib.contextmanager
def _os_errors():
    # TensorBoard writes through TensorFlow, which has errors of its own.
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(str(error)) from error
