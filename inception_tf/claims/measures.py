"""Numbers of one finished run, from the rows of its metrics.

Errors are shares in [0, 1], epochs are of the training split. A run that ended because its values
were no longer finite answers no image: from there on its error is that of guessing.
"""

import dataclasses
import statistics
from collections.abc import Sequence

CURVES = {
    "averaged_error": ("eval_averaged/top1", "error, averaged weights"),
    "raw_error": ("eval/top1", "error, raw weights"),
}
# name -> (label of its axis, of the axis below)
PROBED_CURVES = {
    "zeros": ("share of zeros before the pool", "epochs"),
    "distance": ("distance of the weights", "steps"),
    "crops": ("validation error", "crops"),
    "ensemble_crops": ("validation error", "crops"),
}
LABELS = {
    "final_error": "final error",
    "final_raw_error": "final error, raw",
    "mean_raw_excess": "raw less averaged error, mean",
    "share_averaged_better": "evaluations won by the average",
    "secs_per_step": "s a step",
    "peak_mib": "peak MiB of the process",
    "activation_mib": "activations an image, MiB",
    "zeros": "zeros before the pool",
    "largest_zeros": "zeros before the pool, most",
    "died": "died",
    "first_distance": "distance at the first look",
    "final_distance": "distance at the end",
    "largest_distance": "largest distance",
    "differing_variables": "variables that differ",
    "ensemble_gain": "gain of the ensemble",
    "best_member_error": "error of the best member",
    "ensemble_error": "error of the ensemble",
    "ensemble_error_at_144": "the same, 144 crops",
}  # fmt: skip
_TARGET = "epochs_to_"
_CROPS = (1, 10, 12, 144)
_ROUNDING = 1e-12  # of 1 - accuracy


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a finished run left behind.

    Attributes:
      train_rows, eval_rows: of its metrics, in the order of the steps.
      steps_per_epoch: of training.
      num_classes: without background.
      is_finite: False where it ended since values were no longer finite.
      peak_bytes: most memory that its process held at once; None where nobody measured it.
    """

    train_rows: Sequence[dict]
    eval_rows: Sequence[dict]
    steps_per_epoch: float
    num_classes: int
    is_finite: bool = True
    peak_bytes: int | None = None


def label_of(measure) -> str:
    """A measure in words."""
    if measure.startswith(_TARGET):
        return f"epochs to {measure.removeprefix(_TARGET)}% error"
    if measure.startswith(("error_at_", "gain_at_")):
        kind, _, crops = measure.partition("_at_")
        return f"{kind}, {crops} crop{'' if crops == '1' else 's'}"
    return LABELS[measure]


def known_measures(target_errors) -> list[str]:
    """What a claim with these target errors can speak of."""
    at = [f"{kind}_at_{crops}" for kind in ("error", "gain") for crops in _CROPS]
    return [*LABELS, *at, *map(target_measure, target_errors)]


def target_measure(target) -> str:
    """Name of the epochs to an error."""
    return f"{_TARGET}{round(100 * target)}"


def is_never(measure) -> bool:
    """Whether a measure that a run has not got is one that it never came to."""
    return measure.startswith(_TARGET)


def curve(record: RunRecord, name) -> list[tuple[float, float]]:
    """[(epoch, value)] of a curve over the evaluations of a run."""
    key, _ = CURVES[name]
    points = [
        (row["step"] / record.steps_per_epoch, 1.0 - row[key])
        for row in record.eval_rows
        if key in row
    ]
    if not record.is_finite and record.train_rows:
        last = record.train_rows[-1]["step"] / record.steps_per_epoch
        points.append((max(last, points[-1][0] if points else 0.0), _guessing(record)))
    return points


def measures_of(record: RunRecord, *, target_errors=()) -> dict[str, float | None]:
    """Name -> value of everything that the rows of a run tell; None for what never came."""
    averaged, raw = curve(record, "averaged_error"), curve(record, "raw_error")
    found = {
        "final_error": averaged[-1][1] if averaged else _guessing(record),
        "final_raw_error": raw[-1][1] if raw else _guessing(record),
        "secs_per_step": _median([row.get("perf/secs_per_step") for row in record.train_rows]),
    }
    if record.is_finite and raw:
        excess = [one[1] - other[1] for one, other in zip(raw, averaged, strict=True)]
        found["mean_raw_excess"] = statistics.fmean(excess)
        found["share_averaged_better"] = sum(one > 0 for one in excess) / len(excess)
    if record.peak_bytes is not None:
        found["peak_mib"] = record.peak_bytes / 2**20
    for target in target_errors:
        found[target_measure(target)] = epochs_to_error(averaged, target)
    return found


def epochs_to_error(points, target) -> float | None:
    """Epochs after which an error is first at most `target`; None where it never is.

    Between two evaluations the error is taken to fall on a straight line.
    """
    before = None
    for epoch, error in points:
        if error <= target + _ROUNDING:
            if before is None:
                return epoch
            share = (before[1] - target) / (before[1] - error)
            return before[0] + share * (epoch - before[0])
        before = (epoch, error)
    return None


def _guessing(record):
    return 1.0 - 1.0 / record.num_classes


def _median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None
