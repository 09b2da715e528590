"""How sure a measured figure is: 95% intervals, all in closed form."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

_Z = 1.959963984540054  # of the normal distribution, two-sided at 95%


@dataclasses.dataclass(frozen=True)
class Interval:
    """Both ends of a 95% interval; NaN where the figures do not tell."""

    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


@dataclasses.dataclass(frozen=True)
class Share:
    """How many of how many; `total` is at least 1."""

    count: int
    total: int

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.count / self.total

    @property
    def interval(self) -> Interval:
        """Of the share, by Wilson's score."""
        return wilson(self.count, self.total)


@dataclasses.dataclass(frozen=True)
class Difference:
    """One share minus another.

    Attributes:
      value: in [-1, 1].
      interval: around it.
      p_value: two-sided, that both are equal (McNemar's exact test); None where none is made.
    """

    value: float
    interval: Interval
    p_value: float | None = None


def wilson(count: int, total: int) -> Interval:
    """The score interval of a share (Wilson 1927), which stays in [0, 1] and is never empty.

    The usual normal interval has no width at 0% and 100%, where classes of 50 images often are.
    """
    share = count / total
    middle = (share + _Z**2 / (2 * total)) / (1 + _Z**2 / total)
    half = math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    half *= _Z / (1 + _Z**2 / total)
    low = 0.0 if count == 0 else middle - half
    high = 1.0 if count == total else middle + half
    return Interval(low, high)


def weighted_sum(parts: Sequence[tuple[float, Share]]) -> Difference:
    """A weighted sum of shares of disjoint groups, with the interval of Zou and Donner (2008).

    With weights 1 and -1 it is Newcombe's hybrid score interval of a difference (1998, method 10).

    Args:
      parts: (weight, share) of independent groups.
    """
    value = math.fsum(weight * share.share for weight, share in parts)
    below, above = [], []
    for weight, share in parts:
        down = share.share - share.interval.low
        up = share.interval.high - share.share
        down, up = (down, up) if weight >= 0 else (up, down)
        below.append(weight * down)
        above.append(weight * up)
    return Difference(value, Interval(value - math.hypot(*below), value + math.hypot(*above)))


def paired_difference(first_only: int, second_only: int, total: int) -> Difference:
    """First share minus second, of two networks that saw the same images.

    The interval is Bonett and Price's (2012), the p-value McNemar's exact one. Images that both
    have right, or both wrong, say nothing about which is better; as independent samples the two
    would get an interval that is several times too wide.

    Args:
      first_only: images that the first alone has right.
      second_only: images that the second alone has right.
      total: images; at least 1.
    """
    first, second = (first_only + 1) / (total + 2), (second_only + 1) / (total + 2)
    half = _Z * math.sqrt((first + second - (first - second) ** 2) / (total + 2))
    middle = first - second
    return Difference(
        (first_only - second_only) / total,
        Interval(middle - half, middle + half),
        _mcnemar(first_only, second_only),
    )


def _mcnemar(first_only, second_only):
    """Chance of so uneven a split of the images that only one has right, were it a fair coin's."""
    tosses = first_only + second_only
    tail, term = 0, 1
    for heads in range(min(first_only, second_only) + 1):
        tail += term
        term = term * (tosses - heads) // (heads + 1)  # the next binomial coefficient
    return min(1.0, 2 * tail / 2**tosses)  # whole numbers: nothing is rounded before this


def mean_and_interval(values: np.ndarray) -> tuple[float, Interval]:
    """Mean of at least one value, correctly rounded whatever their order, and normal interval."""
    number = len(values)
    mean = math.fsum(values) / number
    if number < 2 or not math.isfinite(mean):
        return mean, UNKNOWN
    variance = math.fsum((values - mean) ** 2) / (number - 1)
    half = _Z * math.sqrt(variance / number)
    return mean, Interval(mean - half, mean + half)


@dataclasses.dataclass(frozen=True)
class CalibrationError:
    """How far confidences are from how often they are right.

    Attributes:
      value: in [0, 1].
      interval: of the value that images like these give on average, as many of them.
      by_chance: the value that a perfectly calibrated network with these confidences gives on
        average: the absolute values of chance do not cancel. Compare `value` with it.
    """

    value: float
    interval: Interval
    by_chance: float


NO_CALIBRATION = CalibrationError(math.nan, UNKNOWN, math.nan)


def calibration_error(
    confidences: np.ndarray, is_right: np.ndarray, *, num_bins: int
) -> CalibrationError:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3).

    Bin m of M equal ones holds the confidences in ((m - 1) / M, m / M]. The error is the mean of
    right minus confidence, taken with the sign that its sum has in the image's bin; so its
    interval is that of a mean. Where a bin's sign is chance itself, it is wider than need be.

    Args:
      confidences: float64 [n] in [0, 1]: the highest probability of each image; n at least 1.
      is_right: bool [n].
      num_bins: M.
    """
    bins = np.clip(np.ceil(confidences * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gaps, deviations = is_right - confidences, 0.0
    for index in range(num_bins):
        is_inside = bins == index
        if math.fsum(gaps[is_inside]) < 0:
            gaps[is_inside] *= -1
        inside = confidences[is_inside]
        deviations += math.sqrt(math.fsum(inside * (1 - inside)))
    value, interval = mean_and_interval(gaps)
    interval = Interval(max(0.0, interval.low), interval.high)
    # The mean of a normal variable's absolute value is sqrt(2 / pi) of its standard deviation.
    return CalibrationError(value, interval, math.sqrt(2 / math.pi) * deviations / len(gaps))
