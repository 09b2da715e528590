"""From what a network says of each image to the figures of an evaluation.

Shares carry Wilson's 95% interval, the mean cross-entropy and the calibration error a normal one
(see intervals.py). Counts are whole numbers and means are correctly rounded sums, so no figure
depends on the order of the images.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from inception_tf.errors import DataError
from inception_tf.evaluation import intervals
from inception_tf.evaluation.intervals import CalibrationError, Difference, Interval, Share
from inception_tf.evaluation.outcomes import NOTHING, Outcomes, outcomes_of

CALIBRATION_BINS = 15  # as Guo et al. 2017
_NUM_CONFUSIONS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: its output in the network, its name, its images (perhaps none), the right ones."""

    index: int
    name: str
    num_examples: int
    top1_count: int
    top5_count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confusion:
    """Images of one class that were taken for another; `label_examples` has the class in all."""

    label: int
    label_name: str
    predicted: int
    predicted_name: str
    count: int
    label_examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """The figures of one network, or ensemble, on one subset.

    Under ReaL labels there are only counts and `top1`: the authors define nothing else.

    Attributes:
      num_examples: images, each counted once; at least 1.
      top1, top5: those whose label stands first, or among the first five; under ReaL labels
        `top1` has those whose first answer is among their labels.
      loss_nats, loss_interval: mean cross-entropy; NaN where `num_nan` is not 0, since a mean
        without its worst images would flatter.
      calibration: expected calibration error over 15 bins; NaN where `num_nan` is not 0.
      num_nan: images for which the network gave a NaN: they count as wrong.
      num_floored: images whose label had a probability below 2^-126 and counts as that.
      num_left_out: images without a ReaL label, which count neither as right nor as wrong.
      classes: every class in the order of the outputs, without the background.
      confusions: the most frequent wrong answers, the worst first; equal ones by output.
    """

    num_examples: int
    top1: Share
    top5: Share | None = None
    loss_nats: float | None = None
    loss_interval: Interval | None = None
    calibration: CalibrationError | None = None
    num_nan: int
    num_floored: int = 0
    num_left_out: int = 0
    classes: tuple[ClassScore, ...] = ()
    confusions: tuple[Confusion, ...] = ()


def score(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    background: bool = False,
) -> Scores:
    """`score_outcomes` of `outcomes_of`, for a single subset."""
    outcomes = outcomes_of(probabilities, labels, background=background)
    return score_outcomes(outcomes, mask=mask, class_names=class_names)


def score_outcomes(
    outcomes: Outcomes, *, mask: np.ndarray | None = None, class_names: Sequence[str] = ()
) -> Scores:
    """The figures of one subset.

    Args:
      outcomes: of all images.
      mask: bool [n]: the images that count; None: all.
      class_names: of the outputs without the background; () names each by its output.

    Raises:
      DataError: no image counts, or names for another number of classes.
    """
    mask = _mask(outcomes, mask)
    names = _names(outcomes, class_names)
    number = int(np.count_nonzero(mask))
    ranks, is_nan = outcomes.ranks[mask], outcomes.is_nan[mask]
    num_nan = int(np.count_nonzero(is_nan))
    loss, calibration = (math.nan, intervals.UNKNOWN), intervals.NO_CALIBRATION
    if not num_nan:
        loss = intervals.mean_and_interval(outcomes.losses_nats[mask])
        calibration = intervals.calibration_error(
            outcomes.confidences[mask], ranks < 1, num_bins=CALIBRATION_BINS
        )
    return Scores(
        num_examples=number,
        top1=Share(int(np.count_nonzero(ranks < 1)), number),
        top5=Share(int(np.count_nonzero(ranks < 5)), number),
        loss_nats=loss[0],
        loss_interval=loss[1],
        calibration=calibration,
        num_nan=num_nan,
        num_floored=int(np.count_nonzero(outcomes.is_floored[mask])),
        classes=_classes(outcomes, mask, names),
        confusions=_confusions(outcomes, mask, names),
    )


def real_score(
    outcomes: Outcomes, real_labels: Sequence[Sequence[int]], *, mask: np.ndarray | None = None
) -> Scores:
    """Accuracy under the ReaL labels, as their authors count it (arXiv 2006.07159).

    Args:
      outcomes: of all images. The 1,000 classes must stand in the order of their synsets.
      real_labels: of each image, in [0, 1000): zero-based whether or not the network has a
        background, which moves them by one here.
      mask: bool [n]: the images that count; None: all.

    Raises:
      DataError: another number of images, a label without an output, or no image with a label.
    """
    mask = _mask(outcomes, mask)
    first = int(outcomes.background)
    if len(real_labels) != len(mask):
        raise DataError(
            "ReaL labels must be given for every image.",
            received=f"{len(real_labels):,} lists for {len(mask):,} images",
        )
    sizes = np.array([len(labels) for labels in real_labels])
    flat = np.array([label for labels in real_labels for label in labels], np.int64) + first
    if len(flat) and not first <= flat.min() <= flat.max() < outcomes.num_outputs:
        raise DataError(
            "Every ReaL label must name a class of the network.",
            received=f"labels {flat.min() - first}..{flat.max() - first} for"
            f" {outcomes.num_outputs - first} classes",
            remedy="ReaL labels are for networks with ImageNet's 1,000 classes.",
        )
    images = np.repeat(np.arange(len(mask)), sizes)
    is_right = np.zeros(len(mask), bool)
    is_right[images[flat == outcomes.predicted[images]]] = True
    counts = mask & (sizes > 0)
    number = int(np.count_nonzero(counts))
    if not number:
        raise DataError("At least one image must have a ReaL label.", received="none")
    return Scores(
        num_examples=number,
        top1=Share(int(np.count_nonzero(is_right & counts)), number),
        num_left_out=int(np.count_nonzero(mask)) - number,
        num_nan=int(np.count_nonzero(outcomes.is_nan & counts)),
    )


def compare_subsets(
    outcomes: Outcomes, first: np.ndarray, second: np.ndarray, *, top: int = 1
) -> Difference:
    """Share of right images of one subset minus that of another, of one network.

    The two may overlap. What both hold, what only the first and what only the second holds are
    independent groups, and the interval is made of theirs.

    Args:
      first, second: bool [n], each with at least one image.
      top: right is a label among the first `top` outputs.
    """
    first, second = _mask(outcomes, first), _mask(outcomes, second)
    num_first, num_second = np.count_nonzero(first), np.count_nonzero(second)
    parts = []
    for group, weight in (
        (first & second, 1 / num_first - 1 / num_second),
        (first & ~second, 1 / num_first),
        (~first & second, -1 / num_second),
    ):
        number = int(np.count_nonzero(group))
        if number:
            right = int(np.count_nonzero(outcomes.ranks[group] < top))
            parts.append((weight * number, Share(right, number)))
    return intervals.weighted_sum(parts)


def compare_networks(
    first: Outcomes, second: Outcomes, *, mask: np.ndarray | None = None, top: int = 1
) -> Difference:
    """Share of right images of one network minus that of another, on the same images.

    Args:
      mask: bool [n]: the images that count; None: all.
      top: as for `compare_subsets`.

    Raises:
      DataError: the networks did not see the same images.
    """
    shifts = [int(one.background) for one in (first, second)]
    if not np.array_equal(first.labels - shifts[0], second.labels - shifts[1]):
        raise DataError(
            "Networks are compared image by image, on the same ones in the same order.",
            received=f"other labels among {len(first.labels):,} and {len(second.labels):,} images",
        )
    mask = _mask(first, mask)
    right, others = first.ranks[mask] < top, second.ranks[mask] < top
    return intervals.paired_difference(
        int(np.count_nonzero(right & ~others)),
        int(np.count_nonzero(others & ~right)),
        int(np.count_nonzero(mask)),
    )


def _mask(outcomes, mask):
    """The mask as bool [n], with at least one image in it."""
    number = len(outcomes.labels)
    mask = np.ones(number, bool) if mask is None else np.asarray(mask)
    if mask.shape != (number,) or mask.dtype != bool:
        raise DataError(
            f"A mask must say of each of {number:,} images whether it counts.",
            received=f"{mask.dtype} {mask.shape}",
        )
    if not mask.any():
        raise DataError("At least one image must count.", received="an empty subset")
    return mask


def _names(outcomes, class_names):
    """The name of every output."""
    num_outputs, first = outcomes.num_outputs, int(outcomes.background)
    if not len(class_names):
        return [str(index) for index in range(num_outputs)]
    if len(class_names) != num_outputs - first:
        raise DataError(
            "Every class of the network must have a name.",
            received=f"{len(class_names):,} names for {num_outputs - first:,} classes",
        )
    return [*["background"] * first, *class_names]


def _classes(outcomes, mask, names):
    labels, ranks = outcomes.labels[mask], outcomes.ranks[mask]
    images, top1, top5 = (
        np.bincount(labels[is_counted], minlength=outcomes.num_outputs).tolist()
        for is_counted in (ranks >= 0, ranks < 1, ranks < 5)
    )
    return tuple(
        ClassScore(
            index=index,
            name=names[index],
            num_examples=images[index],
            top1_count=top1[index],
            top5_count=top5[index],
        )
        for index in range(int(outcomes.background), outcomes.num_outputs)
    )


def _confusions(outcomes, mask, names):
    labels, predicted = outcomes.labels[mask], outcomes.predicted[mask]
    examples = np.bincount(labels, minlength=outcomes.num_outputs)
    is_wrong = (labels != predicted) & (predicted != NOTHING)
    pairs = labels[is_wrong] * outcomes.num_outputs + predicted[is_wrong]
    pairs, counts = np.unique(pairs, return_counts=True)  # in the order of label, predicted
    worst = np.argsort(-counts, kind="stable")[:_NUM_CONFUSIONS]
    found = []
    for pair, count in zip(pairs[worst].tolist(), counts[worst].tolist()):
        label, other = divmod(pair, outcomes.num_outputs)
        found.append(
            Confusion(
                label=label,
                label_name=names[label],
                predicted=other,
                predicted_name=names[other],
                count=count,
                label_examples=int(examples[label]),
            )
        )
    return tuple(found)
