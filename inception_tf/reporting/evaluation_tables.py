"""The figures of an evaluation for the terminal: errors in percent, as the papers print them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from inception_tf.reporting import quantities
from inception_tf.reporting.table import aligned_table

_ABSENT = "-"
_HEADER = (
    "network", "crops", "subset", "images", "top-1 error %", "top-5 error %", "nats", "ECE %",
)  # fmt: skip


class Interval(Protocol):
    """Both ends of a 95% interval."""

    low: float
    high: float


class Share(Protocol):
    """How many of how many, and the interval of their ratio."""

    count: int
    total: int
    share: float
    interval: Interval


class Difference(Protocol):
    """One share minus another; `p_value` is None where no test is made."""

    value: float
    interval: Interval
    p_value: float | None


class Contrast(Protocol):
    """How the shares of right images differ, first minus second; `subset` of two networks."""

    first: str
    second: str
    subset: str | None
    top1: Difference
    top5: Difference


class SubsetScores(Protocol):
    """The figures on one subset; `scores` as evaluation/scores.py lists them."""

    name: str
    path: str | None
    is_real: bool
    scores: object


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """One network with its weights, and how it saw the images.

    Attributes:
      source: as the user named it.
      what: a sentence that says which weights these are.
      weights: 'averaged' or 'raw', of a run; else ''.
      step: of a run's checkpoint or of an export, else None.
      crops: name of the protocol.
      num_crops: of each image.
      details: what else is known, as JSON takes it: network, input size, protocol, digest.
    """

    source: str
    what: str
    weights: str
    step: int | None
    crops: str
    num_crops: int
    details: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A network, or several together, and its figures.

    Attributes:
      title: names it in the table; others have other titles or other crops.
      networks: one, or the members of an ensemble.
      average: over crops and members: 'probabilities' or 'logits'.
      subsets: the figures on each.
      contrasts: between its subsets.
    """

    title: str
    networks: Sequence[Network]
    average: str
    subsets: Sequence[SubsetScores]
    contrasts: Sequence[Contrast] = ()

    @property
    def crops(self) -> str:
        """The protocols of the networks, each once."""
        return "+".join(dict.fromkeys(network.crops for network in self.networks))

    @property
    def num_crops(self) -> int | None:
        """Of each image; None where the members differ in it."""
        counts = {network.num_crops for network in self.networks}
        return counts.pop() if len(counts) == 1 else None


def evaluation_table(
    evaluated: Sequence[Evaluated], comparisons: Sequence[Contrast] = ()
) -> str:
    """A line for each network and subset, then what differs; 95% intervals in brackets.

    Beside the errors stand the mean cross-entropy and the expected calibration error; their
    intervals are in the files.

    Args:
      evaluated: members of an ensemble before it.
      comparisons: of two networks on the same images.
    """
    rows = []
    for one in evaluated:
        names = [one.title, one.crops]
        for subset in one.subsets:
            rows.append([*names, *_figures(subset)])
            names = ["", ""]  # once for each network
        for contrast in one.contrasts:
            subtracted = f"{contrast.first} minus {contrast.second}"
            rows.append(["", "", subtracted, "", *_differences(contrast), "", ""])
    for contrast in comparisons:
        subtracted = f"{contrast.first} minus {contrast.second}"
        rows.append([subtracted, "", contrast.subset or "", "", *_differences(contrast), "", ""])
    lines = [aligned_table(rows, header=_HEADER, align="lllrrrrr")]
    lines += [note for one in evaluated for note in _notes(one)]
    return "\n".join(lines)


def error_of(share: Share) -> tuple[float, tuple[float, float]]:
    """The share of the others, and its interval."""
    return (share.total - share.count) / share.total, (
        1 - share.interval.high,
        1 - share.interval.low,
    )


def error_difference(difference: Difference) -> tuple[float, tuple[float, float]]:
    """How the errors differ where the shares of right images do by `difference`."""
    interval = difference.interval
    return -difference.value, (-interval.high, -interval.low)


def _figures(subset):
    """Cells from the subset's name on."""
    scores = subset.scores
    cells = [subset.name, quantities.count(scores.num_examples), _error_cell(scores.top1)]
    if subset.is_real:
        return [*cells, _ABSENT, _ABSENT, _ABSENT]
    calibration = 100 * scores.calibration.value
    return [*cells, _error_cell(scores.top5), f"{scores.loss_nats:.4f}", f"{calibration:.2f}"]


def _error_cell(share):
    error, (low, high) = error_of(share)
    return f"{100 * error:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _differences(contrast):
    cells = []
    for difference in (contrast.top1, contrast.top5):
        value, (low, high) = error_difference(difference)
        # 'z': what rounds to nothing has no sign of its own.
        cells.append(f"{100 * value:+z.2f} [{100 * low:+z.2f}, {100 * high:+z.2f}]")
    return cells


def _notes(one):
    """What the figures of one network must not be read without."""
    for subset in one.subsets:
        about = f"{one.title}, {subset.name}:"
        if subset.scores.num_nan:
            images = quantities.count_of(subset.scores.num_nan, "image")
            yield f"{about} {images} gave NaN and {_counts(subset.scores.num_nan)} as wrong"
        if not subset.is_real and subset.scores.num_floored:
            images = quantities.count_of(subset.scores.num_floored, "image")
            yield (
                f"{about} {images} gave their class less than 2^-126, and"
                f" {_counts(subset.scores.num_floored)} with 87.3 nats"
            )


def _counts(number):
    return "counts" if number == 1 else "count"
