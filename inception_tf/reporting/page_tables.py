"""The tables of a report, as text cells: published beside measured, what differs, all figures."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence

from inception_tf.reporting import published, quantities
from inception_tf.reporting.page_contents import Measured, MeasuredNetwork, Run

_FULL_SIZE = {"model.width_multiplier": 1.0, "model.block_counts": None}
NOT_READ = "(not read)"
_AS_THE_PAPER = "Every recipe value is the paper's."
_MOST_NAMED = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageTable:
    """A table: header and rows of text, all as wide; `numeric` columns stand right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    numeric: frozenset[int] = frozenset()


# -- published beside measured -----------------------------------------------------------------


def published_tables(measured: Sequence[Measured]) -> list[PageTable]:
    """Tables 2 to 5 of both papers, each line with what was measured for it, or blanks."""
    newest = _newest(measured)
    return [_published_table(table, newest) for table in published.TABLES]


def measured_for(
    row: published.Row, table: published.Table, measured: Iterable[Measured]
) -> list[Measured]:
    """The measurements that a line of a table is about: same network, crops and images."""
    return [one for one in measured if row.networks and _fits(one, row, table)]


def _published_table(table, measured):
    errors = ("top-1 accuracy",) if table.is_accuracy else ("top-1 error", "top-5 error")
    header = [*table.columns, *(f"{name} %, published" for name in errors)]
    header += [*(f"{name} %, measured" for name in errors), "measured with"]
    rows = []
    for row in table.rows:
        printed = [row.name, *row.cells, row.top1] + ([] if table.is_accuracy else [row.top5])
        found = measured_for(row, table, measured)
        for one in found:
            rows.append((*printed, *_measured_cells(one, table), _measured_with(one)))
            printed = [""] * len(printed)
        if not found:
            rows.append((*printed, *[""] * (len(errors) + 1)))
    first = len(table.columns)
    images = f"{published.NUM_IMAGES[table.images]:,} images"
    images += ", without the blacklist" if table.images == published.BLACKLISTED else ", all"
    return PageTable(
        title=f"arXiv {table.paper}, table {table.number}: {table.title}",
        header=tuple(header),
        rows=tuple(rows),
        note=f"Measured values count {images}. {table.note}".strip(),
        numeric=frozenset(range(first, first + 2 * len(errors))),
    )


def _measured_cells(one, table):
    if table.is_accuracy:
        return [f"{100 * (1 - one.top1.error):.2f}"]
    return [_percent(one.top1.error), _percent(one.top5.error)]


def _measured_with(one):
    step = f", step {one.step:,}" if one.step is not None else ""
    return f"{_whose(one)}{step}, {one.crops}"


def _fits(one, row, table):
    return (
        one.num_classes == published.NUM_CLASSES
        and (one.subset, one.labels) == (table.images, "original")
        and one.num_examples == published.NUM_IMAGES[table.images]
        and one.num_crops == row.num_crops
        # Both papers average probabilities over crops and over members.
        and (one.average == "probabilities" or one.num_crops == 1 == len(one.networks))
        and _are_all(list(one.networks), row.networks)
    )


def _are_all(networks, wanted):
    """Whether the networks are the wanted ones, in any order."""
    if len(networks) != len(wanted):
        return False
    for one in wanted:
        found = next((network for network in networks if _is_network(network, one)), None)
        if found is None:
            return False
        networks.remove(found)
    return True


def _is_network(network: MeasuredNetwork, wanted):
    if network.name != wanted.name or network.weights == "raw":
        return False  # what the papers evaluate is the averaged weights
    if network.variant not in (None, *wanted.variants):
        return False
    if network.input_px not in (None, (wanted.input_px, wanted.input_px)):
        return False
    if network.recipe is None:
        return not wanted.needs_recipe
    needed = {**_FULL_SIZE, **dict(wanted.recipe)}
    return all(network.recipe.get(name) == value for name, value in needed.items())


def _newest(measured):
    """Of evaluations that differ in the step alone the last one, in the order of the first."""
    kept = {}
    for one in measured:
        sources = tuple((network.source, network.weights) for network in one.networks)
        key = (one.label, sources, one.crops, one.average, one.subset, one.labels)
        if key not in kept or (one.step or 0) >= (kept[key].step or 0):
            kept[key] = one
    return list(kept.values())


# -- everything that was measured --------------------------------------------------------------


def measured_table(measured: Sequence[Measured]) -> PageTable:
    """Every evaluation with its 95% intervals."""
    rows = tuple(
        (
            _whose(one),
            "" if one.step is None else f"{one.step:,}",
            one.crops,
            one.subset + (", ReaL labels" if one.labels == "real" else ""),
            f"{one.num_examples:,}",
            _with_interval(one.top1),
            _with_interval(one.top5),
        )
        for one in measured
    )
    header = ("network", "step", "crops", "images", "count", "top-1 error %", "top-5 error %")
    return PageTable(
        title="All evaluations", header=header, rows=rows, numeric=frozenset((1, 4, 5, 6)),
        note="In brackets: 95% intervals.",
    )  # fmt: skip


def _whose(one):
    if not one.label or len(one.networks) != 1:
        return one.title
    return f"{one.label} {one.networks[0].weights}".strip()


def _with_interval(share):
    if share is None:
        return ""
    return f"{_percent(share.error)} [{_percent(share.low)}, {_percent(share.high)}]"


def _percent(error):
    return f"{100 * error:.2f}"


# -- results and configs -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """How good a run is by its last evaluation.

    Attributes:
      label: of the run.
      network: with its variant.
      top1, top5: errors of the averaged weights as text, '' where nothing was evaluated.
      details: lines: which images, which step, which step was best.
      differs: what is not as in the paper, in a line.
      progress: how far the run is.
    """

    label: str
    network: str
    top1: str
    top5: str
    details: tuple[str, ...]
    differs: str
    progress: str


def result_of(run: Run) -> Result:
    """The averaged weights' newest errors, on the images without the blacklist where counted."""
    suffix = image_suffix(run)
    names = [f"eval_averaged/{metric}{suffix}" for metric in ("top1", "top5")]
    rows = [row for row in run.eval_rows if names[0] in row]
    top1 = top5 = ""
    details = ["nothing was evaluated yet"]
    if rows:
        last, best = rows[-1], max(rows, key=lambda row: _orderly(row[names[0]]))
        top1, top5 = (f"{_percent(1 - last.get(name, math.nan))}%" for name in names)
        details = [f"averaged weights, step {last['step']:,}, {images_text(suffix)}"]
        if best["step"] != last["step"]:
            error = _percent(1 - best[names[0]])
            details.append(f"best top-1 error: {error}% at step {best['step']:,}")
    return Result(
        label=run.label,
        network=f"{run.network}, {run.variant}",
        top1=top1,
        top5=top5,
        details=tuple(details),
        differs=difference_line(run),
        progress=_progress(run),
    )


def image_suffix(run: Run) -> str:
    """'_without_blacklist' where a run counts those images too, as the papers' figures do."""
    suffix = f"_{published.BLACKLISTED}"
    has_them = any(f"eval_averaged/top1{suffix}" in row for row in run.eval_rows)
    return suffix if has_them else ""


def images_text(suffix: str) -> str:
    """Which images the rows with a suffix count."""
    if suffix:
        return f"{published.NUM_IMAGES[published.BLACKLISTED]:,} images (without the blacklist)"
    return "all evaluation images"


def _orderly(value):
    return -1.0 if value != value else value  # NaN is the best of nothing


def _progress(run):
    done = quantities.count(run.last_step)
    if run.total_steps is None:
        return f"step {done}"
    text = f"step {done} of {quantities.count(run.total_steps)}"
    if run.steps_per_epoch:
        epochs = quantities.rounded(run.epoch(run.last_step))
        text += f", epoch {epochs} of {quantities.rounded(run.epoch(run.total_steps))}"
    return text


def paper_differences(runs: Sequence[Run]) -> list[PageTable]:
    """What recipes have otherwise than the paper's run of their network: a table for each network.

    Where one run of a table is as the paper and another is not, its cell is blank.
    """
    groups = {}
    for run in runs:
        groups.setdefault((run.network, run.variant), []).append(run)
    return [_paper_table(", ".join(network), own) for network, own in groups.items()]


def _paper_table(title, runs):
    paper = {name: value for run in runs for name, value, _ in run.differences}
    own = [{name: value for name, _, value in run.differences} for run in runs]
    rows = tuple(
        (name, _value(value), *(_value(values[name]) if name in values else "" for values in own))
        for name, value in paper.items()
    )
    labels = [run.label for run in runs] if len(runs) > 1 else ["this run"]
    return PageTable(
        title=title,
        header=("recipe value", "paper", *labels),
        rows=rows,
        note="" if rows else _AS_THE_PAPER,
    )


def difference_line(run: Run) -> str:
    """How many values of a run's recipe are not the paper's, and the first of them."""
    names = [name for name, _, _ in run.differences]
    if not names:
        return _AS_THE_PAPER
    told = ", ".join(names[:_MOST_NAMED]) + (" ..." if len(names) > _MOST_NAMED else "")
    differ = "value differs" if len(names) == 1 else "values differ"
    return f"{len(names)} recipe {differ} from the paper's: {told}"


def run_differences(runs: Sequence[Run]) -> PageTable:
    """Every value, of recipe or operation, that is not the same in all runs."""
    names = list(dict.fromkeys(name for run in runs for name in run.values))
    rows = []
    for name in names:
        cells = [_value(run.values.get(name, NOT_READ)) for run in runs]
        if len(collections.Counter(cells)) > 1:
            rows.append((name, *cells))
    return PageTable(
        title="What differs between the runs",
        header=("value", *(run.label for run in runs)),
        rows=tuple(rows),
        note="" if rows else "Every value is the same in all of them.",
    )


def _value(value):
    return value if value == NOT_READ else repr(value)
