"""The figures of a report as PNG: errors over epochs as the papers draw them, and what a run costs.

Runs are told apart by color, line style and marker at once; the colors are those of Okabe and Ito,
which stay apart for people who see fewer of them.
"""

import dataclasses
import io
import math
from collections.abc import Sequence

from inception_tf.reporting import published
from inception_tf.reporting.metrics_file import UNIX_SECS
from inception_tf.reporting.page_contents import Run
from inception_tf.reporting.page_tables import image_suffix, images_text

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_END_MARKERS = {"inception_v3": "o", "inception_resnet_v1": "s", "inception_v4": "^",
                "inception_resnet_v2": "D"}  # fmt: skip
# So small that its letters can be read on a telephone, so fine that it is sharp on a large screen.
_SIZE_INCHES, _DPI = (4.2, 3.9), 220
_MOST_MARKED = 40
_SECS = {"hours": 3600.0, "minutes": 60.0}
_METRICS = {"top1": "top-1 error, %", "top5": "top-5 error, %"}

TIMELINES = (
    ("learning_rate", "train/learning_rate", "learning rate", 1.0),
    ("loss", "train/loss_nats", "training loss with L2, nats", 1.0),
    ("throughput", "perf/images_per_sec", "images a second", 1.0),
    ("data_wait", "perf/data_wait_share", "time spent waiting for data, %", 100.0),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """A line of a figure: where it lies, and where its run went on after a stop.

    Attributes:
      label: of the run, for the legend.
      x, y: the points; y is NaN where there is nothing to draw.
      restarts: on the x axis.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    restarts: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture for the page: name of its file without ending, PNG bytes, and words."""

    name: str
    png: bytes
    title: str
    alt: str
    caption: str = ""


# -- what is drawn -----------------------------------------------------------------------------


def error_curve(run: Run, metric: str) -> Curve:
    """Error of the averaged weights in percent over epochs; the label says which images count."""
    suffix = image_suffix(run)
    name = f"eval_averaged/{metric}{suffix}"
    rows = [row for row in run.eval_rows if name in row]
    images = "48,238 images" if suffix else "all images"
    return Curve(
        label=f"{run.label} ({images})",
        x=tuple(run.epoch(row["step"]) for row in rows),
        y=tuple(_drawable(100 * (1 - row[name])) for row in rows),
        restarts=tuple(run.epoch(restart.step) for restart in run.restarts),
    )


def end_points(runs: Sequence[Run], networks: Sequence[str], metric: str):
    """(EndPoint, epoch, error in percent) of the published curves.

    A mark stands at the paper's epoch where a run has ImageNet's classes. Else they stand side by
    side at the end of the longest run: another data set's axis would be empty up to the epoch.
    """
    longest = max((run.epoch(run.total_steps or run.last_step) for run in runs), default=0.0)
    own = [point for point in published.END_POINTS if point.network in networks]
    if is_imagenet(runs) or not longest:
        epochs = [float(point.epoch) for point in own]
    else:
        epochs = [longest * (1 - 0.05 * place) for place in reversed(range(len(own)))]
    return [(point, epoch, getattr(point, metric)) for point, epoch in zip(own, epochs)]


def is_imagenet(runs: Sequence[Run]) -> bool:
    """Whether a run has ImageNet's 1,000 classes, so that published errors are of its task."""
    return any(run.num_classes == published.NUM_CLASSES for run in runs)


def error_limits(curves: Sequence[Curve], marks) -> tuple[float, float]:
    """Both ends of the error axis, in percent: the first quarter of a curve may leave it."""
    seen = [mark[2] for mark in marks]
    for curve in curves:
        later = curve.y[len(curve.y) // 4 :]
        seen += [value for value in later if not math.isnan(value)]
    return 0.8 * min(seen, default=0.0), min(101.0, 1.15 * max(seen, default=100.0))


def timeline_axis(runs: Sequence[Run]) -> str:
    """'hours' where every row of training carries its wall time, else 'epochs' or 'steps'.

    Of runs that are all shorter than two hours 'minutes'.
    """
    times = [[row.get(UNIX_SECS, math.nan) for row in run.train_rows] for run in runs]
    if any(times) and all(math.isfinite(secs) for own in times for secs in own):
        longest = max(max(own) - _begun_secs(run, own) for run, own in zip(runs, times) if own)
        return "hours" if longest >= 2 * _SECS["hours"] else "minutes"
    return "epochs" if all(run.steps_per_epoch for run in runs) else "steps"


def _begun_secs(run, times):
    return min([*times, *([] if run.begun_secs is None else [run.begun_secs])], default=0.0)


def timeline_curve(run: Run, name: str, *, axis: str, factor: float = 1.0) -> Curve:
    """A metric of the training over hours or minutes since the start, epochs or steps."""
    rows = [row for row in run.train_rows if name in row]

    def place(step, unix_secs):
        if axis in _SECS:
            return (unix_secs - begun) / _SECS[axis]
        return run.epoch(step) if axis == "epochs" else float(step)

    begun = _begun_secs(run, [row[UNIX_SECS] for row in rows] if axis in _SECS else [])
    return Curve(
        label=run.label,
        x=tuple(place(row["step"], row.get(UNIX_SECS)) for row in rows),
        y=tuple(_drawable(factor * row[name]) for row in rows),
        restarts=tuple(place(restart.step, restart.unix_secs) for restart in run.restarts),
    )


def _drawable(value):
    return value if math.isfinite(value) else math.nan


# -- pictures ----------------------------------------------------------------------------------


def main_figures(runs: Sequence[Run]) -> list[Figure]:
    """Figures 26 and 25 of arXiv 1602.07261: top-1 and top-5 of all runs."""
    return [_error_figure(number, runs) for number in (26, 25)]


def pair_figures(runs: Sequence[Run]) -> list[Figure]:
    """Those of figures 21 to 24 that a run belongs to."""
    return [
        _error_figure(number, own, styled_as=runs) for number, own in runs_of_pairs(runs).items()
    ]


def runs_of_pairs(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """Figure, from 21 to 24 -> the runs of its two networks; none without."""
    found = {
        number: [run for run in runs if run.network in published.FIGURES[number][1]]
        for number in (21, 22, 23, 24)
    }
    return {number: own for number, own in found.items() if own}


def timeline_figures(runs: Sequence[Run]) -> list[Figure]:
    """Learning rate, loss, throughput and the share of time spent waiting for data."""
    axis = timeline_axis(runs)
    found = []
    for stem, name, words, factor in TIMELINES:
        curves = [timeline_curve(run, name, axis=axis, factor=factor) for run in runs]
        figure, axes = _new_figure()
        _draw_curves(axes, curves, range(len(runs)))
        drawn = [value for curve in curves for value in curve.y if not math.isnan(value)]
        if stem == "learning_rate" and drawn and max(drawn) > 10 * min(drawn) > 0:
            axes.set_yscale("log")
        elif stem != "loss":
            axes.set_ylim(0, 1.1 * max(drawn, default=0.0) or 1.0)
        axes.set_xlim(left=0)
        x_words = f"{axis} since the first start" if axis in _SECS else axis
        axes.set(xlabel=x_words, ylabel=words)
        _add_legend(figure, axes)
        found.append(
            Figure(
                name=stem, png=_png_of(figure), title=words[0].upper() + words[1:],
                alt=f"{words} over {x_words} of {_names(runs)}",
            )
        )  # fmt: skip
    return found


def _error_figure(number, runs, *, styled_as=None):
    metric, networks = published.FIGURES[number]
    curves = [error_curve(run, metric) for run in runs]
    marks = end_points(runs, networks, metric)
    limits = error_limits(curves, marks)
    figure, axes = _new_figure()
    styles = [list(styled_as or runs).index(run) for run in runs]
    for point, epoch, error in marks:
        axes.axhline(error, color="0.8", linewidth=0.8, zorder=1)
        axes.plot(
            [epoch], [error], marker=_END_MARKERS[point.network], markersize=8, color="0.25",
            markerfacecolor="none", linestyle="none", clip_on=False, zorder=5,
            label=f"published: {point.name}, {error}",
        )  # fmt: skip
    _draw_curves(axes, curves, styles)
    ends = [epoch for _, epoch, _ in marks] + [1.02 * max(c.x, default=0.0) for c in curves]
    axes.set_xlim(0, max(ends))
    axes.set_ylim(*limits)
    axes.set(xlabel="epochs" if all(run.steps_per_epoch for run in runs) else "steps",
             ylabel=_METRICS[metric])  # fmt: skip
    _add_legend(figure, axes)
    what = f"{_METRICS[metric].removesuffix(', %')} of {_names(runs)} over epochs"
    return Figure(
        name=f"figure_{number}",
        png=_png_of(figure),
        title=f"{_METRICS[metric].removesuffix(', %').capitalize()} over epochs",
        alt=f"{what}, beside the published end points",
        caption=_error_caption(number, runs, curves, limits[1]),
    )


def _error_caption(number, runs, curves, limit):
    counted = dict.fromkeys(images_text(image_suffix(run)) for run in runs)
    text = (
        f"As figure {number} of arXiv 1602.07261: averaged weights, single crop, "
        f"{' or '.join(counted)}. Published: ImageNet, 48,238 images (without the blacklist)"
    )
    text += "." if is_imagenet(runs) else ", another task than that of these runs."
    if any(value > limit for curve in curves for value in curve.y):
        text += f" Above {limit:.0f}% nothing is drawn."
    return text


def _names(runs):
    return ", ".join(run.label for run in runs) or "no run"


def _new_figure():
    # Imported here: it takes half a second, for which no refusal should wait.
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_curves(axes, curves, styles):
    restarts = iter(["restart"])  # one entry of the legend, whosever it is
    for style, curve in zip(styles, curves, strict=True):
        color = COLORS[style % len(COLORS)]
        is_marked = len(curve.x) <= _MOST_MARKED
        axes.plot(
            curve.x, curve.y, color=color, label=_shown(curve.label), zorder=3, linewidth=1.6,
            linestyle=_LINES[style % len(_LINES)], markersize=4,
            marker=_MARKERS[style % len(_MARKERS)] if is_marked else None,
        )  # fmt: skip
        for place in curve.restarts:
            axes.axvline(place, color=color, linestyle=(0, (1, 2)), linewidth=1.2, zorder=2)
            axes.plot(
                [place], [1.0], marker="v", color=color, linestyle="none", clip_on=False,
                transform=axes.get_xaxis_transform(), label=next(restarts, None), markersize=6,
                zorder=6,
            )  # fmt: skip


def _shown(label):
    return f" {label}" if label.startswith("_") else label  # matplotlib leaves such ones out


def _add_legend(figure, axes):
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return

    def place(number):  # runs first, then restarts, then published marks
        return labels[number].startswith("published: "), labels[number] == "restart"

    order = sorted(range(len(labels)), key=place)
    legend = figure.legend(
        [handles[i] for i in order], [labels[i] for i in order],
        loc="outside lower left", fontsize=9, frameon=False, labelspacing=0.3,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _png_of(figure):
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
