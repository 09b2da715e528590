"""An export is held against the evaluator, image by image, before it gets its name."""

import dataclasses

import numpy as np

from inception_tf.serving.formats import ExportError

# Two classes of an image whose probabilities the evaluator has this close together: rounding
# decides which comes first.
TIE = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceImages:
    """Images with the evaluator's answers.

    Attributes:
      files: M image files as bytes, at least one.
      probabilities: float32 [M, K], the evaluator's.
      levels: uint8 [M, H, W, 3], the evaluation crops rounded to whole levels; None where no
        format takes such.
      probabilities_of_levels: float32 [M, K], the evaluator's of these.
    """

    files: list[bytes]
    probabilities: np.ndarray
    levels: np.ndarray | None = None
    probabilities_of_levels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """How an export compares with the evaluator.

    Attributes:
      num_images: compared.
      max_difference: the largest of a probability.
      num_agreeing: images with the same top class, or with another that ties with it.
      num_ties: of these, the ones with another.
    """

    num_images: int
    max_difference: float
    num_agreeing: int
    num_ties: int

    @property
    def top1_agreement(self):
        """Share of the images."""
        return self.num_agreeing / self.num_images

    def __str__(self):
        ties = f", {self.num_ties} of them by a tie" if self.num_ties else ""
        return (
            f"largest difference of a probability {self.max_difference:.2g}, the same top class "
            f"on {self.num_agreeing:,} of {self.num_images:,} images{ties}"
        )


def agreement_of(found, expected) -> Agreement:
    """Compares probabilities float [M, K], M at least 1, with the evaluator's.

    Raises:
      ExportError: another shape, or something that is not a number.
    """
    found, expected = np.asarray(found, np.float32), np.asarray(expected, np.float32)
    if not len(expected):
        raise ExportError("The check of an export needs at least one image.", received="none")
    if found.shape != expected.shape:
        raise ExportError(
            "An export must give each class of each image a probability.",
            received=f"shape {list(found.shape)}, expected {list(expected.shape)}",
        )
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        raise ExportError(
            "An export must give the evaluator's probabilities.",
            received="some that are no numbers",
        )
    rows = np.arange(len(expected))
    own, others = expected.argmax(axis=1), found.argmax(axis=1)
    is_same = own == others
    is_tie = ~is_same & (expected[rows, own] - expected[rows, others] <= TIE)
    return Agreement(
        num_images=len(expected),
        max_difference=float(np.abs(found - expected).max()),
        num_agreeing=int((is_same | is_tie).sum()),
        num_ties=int(is_tie.sum()),
    )


def check_probabilities(found, expected, *, bound, what) -> Agreement:
    """The agreement, where it is within the bound.

    Args:
      found, expected: see `agreement_of`.
      bound: a Bound.
      what: names the export in an error.

    Raises:
      ExportError: it is not; the caller keeps nothing of the export.
    """
    agreement = agreement_of(found, expected)
    limit = bound.max_difference
    if limit is not None and agreement.max_difference > limit:
        differences = np.abs(np.asarray(found) - np.asarray(expected)).max(axis=1)
        raise ExportError(
            "An export must give the evaluator's probabilities.",
            received=f"{what} with a difference of {agreement.max_difference:.3g} on image "
            f"{int(differences.argmax())} of {agreement.num_images}, bound {limit:.3g}",
            remedy="Nothing was kept. Export with the weights, crop and size that were evaluated.",
        )
    if agreement.top1_agreement < bound.min_agreement:
        raise ExportError(
            "An export must have the evaluator's top class.",
            received=f"{what} with {agreement}, bound {bound.min_agreement:.2%}",
            remedy="Nothing was kept. More export.calibration_images, or another format, may help.",
        )
    return agreement
