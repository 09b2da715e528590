"""The figures of a network on every subset that is wanted, and how they differ."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from inception_tf.evaluation import scores
from inception_tf.evaluation.intervals import Difference
from inception_tf.evaluation.outcomes import Outcomes
from inception_tf.evaluation.scores import Scores
from inception_tf.evaluation.subsets import RealLabels, Subset


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubsetScores:
    """One network, or ensemble, on one subset.

    Attributes:
      name, path: of the subset, and of the list that makes it.
      is_real: under the ReaL labels.
      scores: the figures.
    """

    name: str
    path: str | None
    is_real: bool
    scores: Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """How one set of figures differs from another: shares of right images, first minus second.

    Attributes:
      first, second: subsets of one network, or networks on one subset.
      subset: of two networks; None between subsets.
    """

    first: str
    second: str
    subset: str | None = None
    top1: Difference
    top5: Difference


def score_subsets(
    outcomes: Outcomes,
    subsets: Sequence[Subset | RealLabels],
    *,
    file_names: Sequence[str],
    record_ids: Sequence[int],
    class_names: Sequence[str] = (),
) -> tuple[tuple[SubsetScores, ...], tuple[Contrast, ...]]:
    """Figures on every subset, in their order, and the first subset minus each other one.

    ReaL labels are others, so nothing is subtracted from or by their figures.

    Args:
      outcomes: of n images.
      subsets: from `subsets.open_subsets`.
      file_names, record_ids: of the n images, see `Subset.mask`.
      class_names: see `scores.score_outcomes`.

    Raises:
      DataError: a subset cannot be about these images, or leaves none of them.
    """
    found, masks = [], {}
    for subset in subsets:
        is_real = isinstance(subset, RealLabels)
        if is_real:
            figures = scores.real_score(outcomes, subset.labels_of(file_names))
        else:
            masks[subset.name] = subset.mask(file_names, record_ids)
            figures = scores.score_outcomes(
                outcomes, mask=masks[subset.name], class_names=class_names
            )
        found.append(
            SubsetScores(name=subset.name, path=subset.path, is_real=is_real, scores=figures)
        )
    first, *others = [*masks] or [None]
    return tuple(found), tuple(
        Contrast(
            first=first,
            second=other,
            top1=scores.compare_subsets(outcomes, masks[first], masks[other]),
            top5=scores.compare_subsets(outcomes, masks[first], masks[other], top=5),
        )
        for other in others
    )


def compare_on_subsets(
    first: tuple[str, Outcomes],
    second: tuple[str, Outcomes],
    subsets: Sequence[Subset | RealLabels],
    *,
    file_names: Sequence[str],
    record_ids: Sequence[int],
) -> tuple[Contrast, ...]:
    """How two networks differ on the same images, for every subset but ReaL's.

    Args:
      first, second: (title, outcomes) of each.
      subsets, file_names, record_ids: as for `score_subsets`.

    Raises:
      DataError: as `score_subsets`, or the networks did not see the same images.
    """

    def contrast(subset: Subset) -> Contrast:
        mask: np.ndarray = subset.mask(file_names, record_ids)
        compared = {
            f"top{top}": scores.compare_networks(first[1], second[1], mask=mask, top=top)
            for top in (1, 5)
        }
        return Contrast(first=first[0], second=second[0], subset=subset.name, **compared)

    return tuple(contrast(one) for one in subsets if not isinstance(one, RealLabels))
