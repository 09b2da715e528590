"""metrics.jsonl: exactly one row per logged step, however often the run was stopped.

One JSON object per line: `step` (int), `kind` ('train' or 'eval') and the metrics by name, keys
sorted. Floats carry all their digits, so equal values are equal text. JSON has no word for what
is not finite: those are the strings "NaN", "Infinity" and "-Infinity" (as in protocol buffers'
JSON; a null would hide which of the three it was), and `read_rows` gives them back as floats.
"""

import json
import math
import numbers
import os
from collections.abc import Mapping
from pathlib import Path

from inception_tf import durable

METRICS_FILE = "metrics.jsonl"
SUPERSEDED_FILE = "metrics.superseded.jsonl"
UNIX_SECS = "perf/unix_secs"  # wall time of a row of training; as all of perf/ it does not repeat

_RESERVED = ("step", "kind")
_NON_FINITE = ("NaN", "Infinity", "-Infinity")


def row_line(step: int, kind: str, values: Mapping[str, float]) -> str:
    """One row as a line of JSON, newline included.

    Raises:
      ValueError: a metric is called 'step' or 'kind'.
    """
    row = {"step": int(step), "kind": kind}
    for name, value in values.items():
        if name in _RESERVED:
            raise ValueError(f"A metric cannot be named {_RESERVED}. Received: {name!r}.")
        row[name] = json_value(value)
    return json.dumps(row, sort_keys=True, allow_nan=False) + "\n"


def json_value(value: float) -> int | float | str:
    """A Python int or float, or the name of what is not finite."""
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def read_rows(run_dir: str | os.PathLike) -> list[dict]:
    """The rows of a run in the order they were written, [] for a run without any.

    A line that a kill or a power cut left unfinished is not a row.
    """
    path = Path(run_dir) / METRICS_FILE
    if not path.exists():
        return []
    parsed = (_parsed_row(line) for line in path.read_bytes().split(b"\n"))
    return [row for row in parsed if row is not None]


def supersede_after(run_dir: str | os.PathLike, step: int) -> int:
    """Moves the rows of later steps to metrics.superseded.jsonl: they will be written again.

    Rows AT the step stay: the checkpoint of that step holds the state that they describe. A line
    torn by a kill moves too, as {"kind": "torn", "text": ...}, so that both files stay JSON lines.
    Both files are replaced whole, the superseded one first: a kill at any moment loses no row, and
    moving again after it moves nothing twice.

    Args:
      run_dir: where metrics.jsonl lies, or does not yet.
      step: the step that the run goes on from.

    Returns:
      How many lines were moved.
    """
    path = Path(run_dir) / METRICS_FILE
    if not path.exists():
        return 0
    before = path.read_bytes()
    kept, moved = [], []
    for line in before.split(b"\n"):
        row = _parsed_row(line)
        if row is not None:
            (moved if row["step"] > step else kept).append(line)
        elif line:
            torn = {"kind": "torn", "text": line.decode("utf-8", "backslashreplace")}
            moved.append(json.dumps(torn, sort_keys=True).encode())
    if moved:
        superseded = Path(run_dir) / SUPERSEDED_FILE
        earlier = superseded.read_bytes() if superseded.exists() else b""
        # Equal lines at the end are those of this very move, cut short between the two files.
        if not earlier.endswith(_joined(moved)):
            durable.save_bytes(superseded, earlier + _joined(moved))
    if _joined(kept) != before:
        durable.save_bytes(path, _joined(kept))
    return len(moved)


def _parsed_row(line):
    """A row as a dict, its non-finite values as floats; None where the line is not a row."""
    try:
        row = json.loads(line)
    except ValueError:  # undecodable bytes included
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int) or "kind" not in row:
        return None
    return {
        name: float(value) if value in _NON_FINITE and name not in _RESERVED else value
        for name, value in row.items()
    }


def _joined(lines):
    return b"".join(line + b"\n" for line in lines)
