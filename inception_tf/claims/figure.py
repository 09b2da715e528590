"""The figure of a claim: errors over epochs, and the single runs of its first measure."""

import io
import statistics

from inception_tf.claims.measures import CURVES, PROBED_CURVES, label_of
from inception_tf.claims.results import VERDICTS, mean_of, values_of

COLORS = ("#2f6db5", "#b5482f", "#3a8f4d", "#8a5bb0", "#b08a2f", "#4f4f4f", "#c05a96", "#2fa3b5")
_SIZE_INCHES, _DPI = (10, 4.2), 110
_LEAST_DISTANCE = 1e-8  # float32 rounds at 6e-8; below, the axis is linear down to 0
_STYLES = ("-", "--")  # of the first and second curve of an arm


def png_of(content) -> bytes:
    """The picture; the same outcome gives the same bytes.

    Args:
      content: as `claims.results.outcome` returns it.
    """
    # Imported here: it takes half a second, for which no refusal should wait.
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    title = f"Claim {content['number']}: {content['title']} ({VERDICTS[content['holds']]})"
    figure.suptitle(title, fontsize=11, parse_math=False)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_curves(left, content)
    _draw_runs(right, content)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw_curves(axes, content):
    """The mean over the seeds, and their range as a band."""
    for number, arm in enumerate(content["arms"]):
        color = COLORS[number % len(COLORS)]
        names = sorted({name for run in arm["runs"] for name in run["curves"]})
        for name, style in zip(names, _STYLES, strict=False):
            curves = [run["curves"][name] for run in arm["runs"] if run["curves"].get(name)]
            if not curves:
                continue
            epochs, columns = _columns(curves)
            label = arm["name"] if len(names) == 1 else f"{arm['name']}, {_short(name)}"
            axes.plot(epochs, [statistics.fmean(c) for c in columns], style, color=color,
                      label=label, linewidth=1.6)  # fmt: skip
            axes.fill_between(epochs, [min(c) for c in columns], [max(c) for c in columns],
                              color=color, alpha=0.15, linewidth=0)  # fmt: skip
    drawn = {name for arm in content["arms"] for run in arm["runs"] for name in run["curves"]}
    probed = [PROBED_CURVES[name] for name in sorted(drawn) if name in PROBED_CURVES]
    what, along = probed[0] if probed else ("validation error", "epochs")
    axes.set(xlabel=along, ylabel=f"{what}, mean and range")
    if "distance" in drawn:
        axes.set_yscale("symlog", linthresh=_LEAST_DISTANCE)
        axes.set_ylim(bottom=0)
    if "crops" in drawn:
        axes.set_xscale("log")
        axes.set_xticks((1, 10, 144), ("1", "10", "144"))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)


def _short(name):
    if name in CURVES:
        return CURVES[name][1].rpartition(", ")[2]
    return {"crops": "alone", "ensemble_crops": "in the ensemble"}.get(name, name)


def _columns(curves):
    """Epochs that every curve has, and the values of all curves at each."""
    shared = set.intersection(*({point[0] for point in curve} for curve in curves))
    epochs = sorted(shared)
    values = [dict(map(tuple, curve)) for curve in curves]
    return epochs, [[value[epoch] for value in values] for epoch in epochs]


def _draw_runs(axes, content):
    """Each run a dot, the mean a line; runs that never came to it are counted in words."""
    measure = content["measures"][0]
    for number, arm in enumerate(content["arms"]):
        color = COLORS[number % len(COLORS)]
        all_values = values_of(arm, measure)
        values = [value for value in all_values if value is not None]
        axes.plot(values, [number] * len(values), "o", color=color, markersize=5)
        if num_never := len(all_values) - len(values):
            told = f"never: {num_never} of {len(all_values)}"
            axes.text(0.98, number, told, transform=axes.get_yaxis_transform(), color=color,
                      fontsize=8, ha="right", va="center")  # fmt: skip
        mean = mean_of(all_values)
        if mean is not None:
            axes.plot([mean, mean], [number - 0.3, number + 0.3], color=color, linewidth=2)
    axes.set_yticks(range(len(content["arms"])), [arm["name"] for arm in content["arms"]],
                    fontsize=8)  # fmt: skip
    axes.set_ylim(len(content["arms"]) - 0.5, -0.5)
    axes.set_xlabel(f"{label_of(measure)}\nevery run, and the mean")
    axes.grid(alpha=0.3, axis="x")
