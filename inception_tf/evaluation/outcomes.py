"""What a network says of each image, and what several networks say together.

Probabilities are float32 [n, K], in memory or mapped from a file: they are read a block of images
at a time, and what is computed of them is float64.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from inception_tf.errors import ConfigError, DataError

# The smallest normal float32. Below it devices differ in what they keep of a softmax.
LEAST_PROBABILITY = 2.0**-126
NOTHING = -1  # the class that a network without an answer names
MEANS = ("probabilities", "logits")
_BLOCK = 1024
_SUM_TOLERANCE = 1e-3  # of a row: float32 softmax is nearer, logits are not
_LARGEST_RANK = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What one network, or an ensemble, makes of n images; row i is image i.

    Attributes:
      labels: int64 [n].
      ranks: int32 [n]: how many outputs stand before the label's; equal ones stand in the order
        of their index, as in `metrics.label_ranks`. Of a row with a NaN it is the largest int32.
      predicted: int64 [n]: the output that stands first; NOTHING for a row with a NaN.
      confidences: float64 [n]: the probability of `predicted`; NaN for a row with a NaN.
      losses_nats: float64 [n]: cross-entropy; NaN for a row with a NaN. A label's probability
        below 2^-126 counts as 2^-126, which is 87.3 nats: an infinite mean would tell less.
      is_floored: bool [n]: whether it did.
      num_outputs: K, the background's included.
      background: output 0 is the background and no class.
    """

    labels: np.ndarray
    ranks: np.ndarray
    predicted: np.ndarray
    confidences: np.ndarray
    losses_nats: np.ndarray
    is_floored: np.ndarray
    num_outputs: int
    background: bool = False

    @property
    def is_nan(self) -> np.ndarray:
        """Bool [n]: images of which the network says nothing."""
        return self.predicted == NOTHING


def outcomes_of(
    probabilities: np.ndarray, labels: np.ndarray, *, background: bool = False
) -> Outcomes:
    """What `probabilities` say of images whose classes are `labels`.

    Args:
      probabilities: float [n, K], n at least 1: a softmax in each row. A NaN makes its row an
        answer that is wrong; anything else outside [0, 1] is no probability.
      labels: int [n] in [0, K), with `background` in [1, K).
      background: output 0 is the background. It is ranked with the others, as the released
        evaluations do (see `metrics.label_ranks`): an image that it wins counts as wrong.

    Raises:
      DataError: shapes that do not fit, a label without an output, rows that are no softmax.
    """
    labels = np.asarray(labels)
    _check(probabilities, labels, first=int(background))
    blocks = [
        _outcomes_of_block(block, labels[rows])
        for rows, block in _blocks_of([probabilities])
    ]
    ranks, predicted, confidences, losses, is_floored = map(np.concatenate, zip(*blocks))
    return Outcomes(
        labels=labels.astype(np.int64),
        ranks=ranks,
        predicted=predicted,
        confidences=confidences,
        losses_nats=losses,
        is_floored=is_floored,
        num_outputs=probabilities.shape[1],
        background=background,
    )


def ensemble(
    members: Sequence[np.ndarray],
    *,
    mean: str = "probabilities",
    backgrounds: Sequence[bool] | None = None,
) -> np.ndarray:
    """The probabilities of several networks, or of several crops, taken together.

    The order of the members does not change a bit of the result.

    Args:
      members: float [n, K] each, rows and columns of the same images and outputs.
      mean: 'probabilities', as in the papers, or 'logits': the softmax of the mean logits, which
        is the members' geometric mean, scaled to sum to 1. There every probability counts as at
        least 2^-126: one that a member's float32 rounded to 0 would rule its class out for all.
      backgrounds: of each member, whether its output 0 is the background; None: of nobody or of
        all. Where some have one, the result does (labels then count it, see `outcomes_of`), and
        to the others, which have a column less, it has the probability 0.

    Returns:
      float32 [n, K]; a row in which any member has a NaN is NaN.

    Raises:
      ConfigError: no members, members that do not fit each other, or no such mean.
      DataError: rows that are no softmax.
    """
    if mean not in MEANS:
        raise ConfigError(f"The members' mean must be one of {MEANS}.", received=repr(mean))
    backgrounds = [False] * len(members) if backgrounds is None else list(backgrounds)
    missing = [int(any(backgrounds) and not one) for one in backgrounds]
    shape = _joint_shape(members, missing)
    together = np.empty(shape, np.float32)
    for rows, *blocks in _blocks_of(members):
        padded = [np.pad(block, [(0, 0), (lack, 0)]) for block, lack in zip(blocks, missing)]
        # Sorted: a float64 sum is nearly exact here, and this takes the order out of the rest.
        stacked = np.sort(np.stack(padded), axis=0)
        if mean == "logits":
            logs = np.log(np.maximum(stacked, LEAST_PROBABILITY)).mean(axis=0)
            joint = np.exp(logs - logs.max(axis=1, keepdims=True))
            together[rows] = joint / joint.sum(axis=1, keepdims=True)
        else:
            together[rows] = stacked.mean(axis=0)
        together[rows][np.isnan(stacked).any(axis=(0, 2))] = np.nan
    return together


def _joint_shape(members, missing):
    """(n, K) of the members with the columns that they lack."""
    shapes = [tuple(member.shape) for member in members]
    fits = len(shapes) == len(missing) and all(len(shape) == 2 for shape in shapes)
    joint = {(shape[0], shape[1] + lack) for shape, lack in zip(shapes, missing)} if fits else ()
    if len(joint) != 1:
        raise ConfigError(
            "The members of an ensemble must have the same images and the same classes.",
            received=f"probabilities of shapes {shapes}",
            remedy="Evaluate every member on the same records, and say which of them have a"
            " background output.",
        )
    return joint.pop()


def _blocks_of(arrays) -> Iterator[tuple]:
    """Slice of rows, and the block of each array in float64, checked to be probabilities."""
    number = len(arrays[0])
    for first in range(0, number, _BLOCK):
        rows = slice(first, min(first + _BLOCK, number))
        blocks = [np.asarray(array[rows], np.float64) for array in arrays]
        for block in blocks:
            _check_softmax(block, first)
        yield rows, *blocks


def _outcomes_of_block(block, labels):
    """Ranks, predicted, confidences, losses and whether they are floored, of one block."""
    own = np.take_along_axis(block, labels[:, np.newaxis].astype(np.int64), axis=1)
    is_earlier = np.arange(block.shape[1]) < labels[:, np.newaxis]
    ranks = ((block > own) | ((block == own) & is_earlier)).sum(axis=1, dtype=np.int32)
    is_nan = np.isnan(block).any(axis=1)
    predicted = block.argmax(axis=1)  # the first of equal ones
    confidences = np.take_along_axis(block, predicted[:, np.newaxis], axis=1)[:, 0]
    own = np.where(is_nan, np.nan, own[:, 0])
    return (
        np.where(is_nan, _LARGEST_RANK, ranks).astype(np.int32),
        np.where(is_nan, NOTHING, predicted),
        np.where(is_nan, np.nan, confidences),
        # Without the 0.0 a certain network would lose -0.0 nats.
        0.0 - np.log(np.clip(own, LEAST_PROBABILITY, 1.0)),
        own < LEAST_PROBABILITY,
    )


def _check(probabilities, labels, *, first):
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise DataError(
            "Probabilities must be [images, outputs] with one label for each of at least one"
            " image.",
            received=f"shapes {probabilities.shape} and {labels.shape}",
        )
    num_outputs = probabilities.shape[1]
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError("Labels must be whole numbers.", received=f"dtype {labels.dtype}")
    wrong = np.flatnonzero((labels < first) | (labels >= num_outputs))
    if len(wrong):
        raise DataError(
            f"Every label must name a class of the network, in {first}..{num_outputs - 1}.",
            received=f"{len(wrong):,} others, such as {labels[wrong[0]]} in row {wrong[0]:,}",
            remedy="Evaluate with the label convention and classes that the network was built for.",
        )


def _check_softmax(block, first_row):
    sums = block.sum(axis=1)
    is_outside = ((block < 0) | (block > 1 + _SUM_TOLERANCE)).any(axis=1)
    wrong = np.flatnonzero(is_outside | (np.abs(sums - 1) > _SUM_TOLERANCE))
    if len(wrong):
        row = wrong[0]
        raise DataError(
            "Every row of probabilities must lie in [0, 1] and sum to 1.",
            received=f"row {first_row + row:,} with {block[row].min():.6g} to"
            f" {block[row].max():.6g} and the sum {sums[row]:.6g}",
            remedy="Give what the softmax makes of the logits, every output of it.",
        )
