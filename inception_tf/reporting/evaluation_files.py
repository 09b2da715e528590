"""The figures of an evaluation as files: JSON with all of them, CSV for spreadsheets.

The JSON file holds one object, made by `evaluation_json`. Shares and errors are ratios
in [0, 1] with all their digits, an interval is [low, high], and what is not finite is "NaN",
"Infinity" or "-Infinity", as in metrics.jsonl. `version` grows when a field changes its meaning
or goes; new ones may come without.
"""

import csv
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

from inception_tf import durable
from inception_tf.reporting.evaluation_tables import (
    Contrast,
    Evaluated,
    error_difference,
    error_of,
)
from inception_tf.reporting.metrics_file import json_value

FORMAT = "inception_tf.evaluation"
VERSION = 1


def save_evaluation(
    directory: str | os.PathLike,
    stem: str,
    evaluated: Sequence[Evaluated],
    comparisons: Sequence[Contrast] = (),
    *,
    data: Mapping[str, object],
) -> list[pathlib.Path]:
    """Writes STEM.json, STEM.csv (a line for each network and subset) and STEM_classes.csv.

    Each file is there whole or not at all; earlier ones of that stem are replaced.

    Args:
      directory: made where it is absent.
      stem: of the names.
      evaluated, comparisons: see `evaluation_tables.evaluation_table`.
      data: what was evaluated on, as JSON takes it: data_dir, split, num_examples ...

    Returns:
      The files.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        f"{stem}_classes.csv": _classes_csv(evaluated),
        f"{stem}.csv": _subsets_csv(evaluated),
        f"{stem}.json": evaluation_json(evaluated, comparisons, data=data),
    }
    for name, text in files.items():
        durable.save_text(directory / name, text)
    return [directory / name for name in reversed(files)]


def evaluation_json(
    evaluated: Sequence[Evaluated],
    comparisons: Sequence[Contrast] = (),
    *,
    data: Mapping[str, object],
) -> str:
    """The text of the JSON file; arguments as for `save_evaluation`."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "data": dict(data),
        "models": [_model(one) for one in evaluated],
        "comparisons": [_contrast(one) for one in comparisons],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _model(one):
    return {
        "title": one.title,
        "is_ensemble": len(one.networks) > 1,
        "crops": one.crops,
        "num_crops": one.num_crops,
        "average": one.average,
        "networks": [
            {
                "source": network.source,
                "what": network.what,
                "weights": network.weights,
                "step": network.step,
                "crops": network.crops,
                "num_crops": network.num_crops,
                "details": dict(network.details),
            }
            for network in one.networks
        ],
        "subsets": [_subset(subset) for subset in one.subsets],
        "differences": [_contrast(contrast) for contrast in one.contrasts],
    }


def _subset(subset):
    scores = subset.scores
    about = {
        "subset": subset.name,
        "path": subset.path,
        "labels": "real" if subset.is_real else "original",
        "num_examples": scores.num_examples,
        "num_nan": scores.num_nan,
        "top1": _share(scores.top1),
    }
    if subset.is_real:
        return {**about, "num_left_out": scores.num_left_out}
    calibration = scores.calibration
    return {
        **about,
        "top5": _share(scores.top5),
        "loss_nats": json_value(scores.loss_nats),
        "loss_interval": _ends(scores.loss_interval),
        "num_floored": scores.num_floored,
        "calibration_error": json_value(calibration.value),
        "calibration_error_interval": _ends(calibration.interval),
        "calibration_error_by_chance": json_value(calibration.by_chance),
        "classes": [
            {
                "index": one.index,
                "name": one.name,
                "num_examples": one.num_examples,
                "top1_count": one.top1_count,
                "top5_count": one.top5_count,
            }
            for one in scores.classes
        ],
        "confusions": [
            {
                "label": one.label,
                "label_name": one.label_name,
                "predicted": one.predicted,
                "predicted_name": one.predicted_name,
                "count": one.count,
                "label_examples": one.label_examples,
            }
            for one in scores.confusions
        ],
    }


def _share(share):
    error, ends = error_of(share)
    return {"count": share.count, "error": error, "error_interval": list(ends)}


def _ends(interval):
    return [json_value(interval.low), json_value(interval.high)]


def _contrast(contrast):
    found = {"first": contrast.first, "second": contrast.second, "subset": contrast.subset}
    for name in ("top1", "top5"):
        difference = getattr(contrast, name)
        value, ends = error_difference(difference)
        found[name] = {
            "error_difference": value + 0.0,  # not -0.0
            "interval": [json_value(end + 0.0) for end in ends],
            "p_value": difference.p_value,
        }
    return found


def _subsets_csv(evaluated):
    """A line for each network and subset: the single numbers of the JSON file."""
    rows = []
    for one in evaluated:
        for subset in one.subsets:
            row = {
                "title": one.title,
                "crops": one.crops,
                "average": one.average,
                "steps": "+".join(str(network.step or "") for network in one.networks),
            }
            for name, value in _subset(subset).items():
                row |= _flat(name, value)
            rows.append(row)
    return _csv_of(rows)


def _flat(name, value):
    """Columns of a field: an interval's ends and a share's fields apart; lists of dicts none."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in _flat(f"{name}_{key}", value[key]).items()}
    if name in ("classes", "confusions"):
        return {}
    if isinstance(value, list):
        return {f"{name}_low": value[0], f"{name}_high": value[1]}
    return {name: value}


def _classes_csv(evaluated):
    """A line for each network, subset and class."""
    return _csv_of(
        [
            {"title": one.title, "crops": one.crops, "subset": subset.name, **found}
            for one in evaluated
            for subset in one.subsets
            if not subset.is_real
            for found in _subset(subset)["classes"]
        ]
    )


def _csv_of(rows):
    """CSV as spreadsheets and Python's csv read it; a field that a row lacks is empty."""
    stream = io.StringIO(newline="")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
