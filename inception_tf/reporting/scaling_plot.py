"""The picture of a scaling plan: efficiency and images a second over the number of workers."""

import pathlib
from collections.abc import Sequence

from inception_tf import durable
from inception_tf.errors import ConfigError
from inception_tf.reporting.scaling import Prediction

FORMATS = (".png", ".svg")
_SIZE_INCHES = (10, 4.5)
_DPI = 120
_PLAIN, _OVERLAPPED = "#b5482f", "#2f6db5"


def check_plot_path(path: str) -> None:
    """Raises ConfigError unless a name says which kind of picture is wanted."""
    if pathlib.Path(path).suffix.lower() not in FORMATS:
        raise ConfigError(f"--out must end with {' or '.join(FORMATS)}.", received=path)


def write_scaling_plot(path: str, rows: Sequence[Prediction], *, title: str) -> None:
    """Writes the plan as PNG or SVG, as the file's name ends.

    Args:
      path: of the file, in a folder that exists.
      rows: of the plan, ascending in workers, the first with one worker.
      title: stands at the top, over a line that says what is measured in the picture.

    Raises:
      ConfigError: the file cannot be written, or has neither name.
    """
    # Imported here: it takes half a second, for which no refusal should wait.
    import matplotlib
    from matplotlib.figure import Figure

    check_plot_path(path)
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    figure.suptitle(
        f"{title}\nthe step of one worker is measured, everything else is arithmetic",
        fontsize=10,
        parse_math=False,
    )
    left, right = figure.subplots(1, 2)
    workers = [row.num_workers for row in rows]
    _draw(left, workers, [100 * row.efficiency for row in rows],
          [100 * row.overlapped_efficiency for row in rows])  # fmt: skip
    left.set(ylabel="efficiency, %", ylim=(0, 105))
    _draw(right, workers, [row.images_per_sec for row in rows],
          [row.overlapped_images_per_sec for row in rows])  # fmt: skip
    linear = [number * rows[0].images_per_sec for number in workers]
    right.plot(workers, linear, color="0.5", linestyle=":", label="linear")
    right.set_yscale("log")
    right.set(ylabel="images/s")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(workers, [f"{number}" for number in workers], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("workers")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    kind = pathlib.Path(path).suffix.lower().removeprefix(".")
    # The same plan gives the same bytes: no date, and no ids by chance.
    metadata = {"Date": None} if kind == "svg" else {}
    try:
        with matplotlib.rc_context({"svg.hashsalt": "plan", "svg.fonttype": "none"}):
            with durable.open_whole(path) as stream:
                figure.savefig(stream, format=kind, metadata=metadata)
    except OSError as error:
        raise ConfigError(
            "--out must name a file that can be written.", received=f"{path} ({error.strerror})"
        ) from None


def _draw(axes, workers, plain, overlapped):
    """Both curves and what lies between them, and the measured point."""
    axes.fill_between(workers, plain, overlapped, color="0.9")
    axes.plot(workers, overlapped, ".-", color=_OVERLAPPED, label="with overlap")
    axes.plot(workers, plain, ".-", color=_PLAIN, label="without overlap")
    axes.plot(workers[:1], plain[:1], "o", color="black", label="measured")
