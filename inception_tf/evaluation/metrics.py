"""What one evaluated image adds to the result, as integers whose sums know no order.

A float mean depends on the order of its terms, hence on batches and devices. Here every image adds
counts, and its cross-entropy rounded once to a multiple of 2^-32 nats; sums of those are exact.
"""

import dataclasses
import fractions

import tensorflow as tf

LOSS_BITS = 32  # 2.3e-10 nats: far below what float32 logits can resolve
# The grid's whole nats and its fraction are summed apart, so that neither sum can wrap before 2^32
# images. A larger loss is counted as non-finite: only a broken network has one.
LOSS_LIMIT_NATS = 2.0**31

# The places of `batch_counts`.
EXAMPLES, TOP1, TOP5, NON_FINITE, BAD_LABELS, LOSS_WHOLE, LOSS_FRACTION = range(7)
NUM_COUNTS = 7


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """What the evaluated images say of one set of weights; global, the same on every worker.

    Attributes:
      num_examples: images, each counted once.
      top1_count: images whose label has the highest logit.
      top5_count: images whose label is among the five highest logits.
      loss_nats: mean cross-entropy, without label smoothing; NaN where `num_non_finite` is not 0,
        since a mean without its worst images would flatter.
      num_non_finite: images whose loss is NaN, infinite or at least 2^31 nats. One with a NaN logit
        also counts as wrong.
      without_blacklist: the same of the images that ImageNet's blacklist leaves in; None where
        nobody asked for it.
    """

    num_examples: int
    top1_count: int
    top5_count: int
    loss_nats: float
    num_non_finite: int = 0
    without_blacklist: "EvaluationResult | None" = None

    @property
    def top1(self) -> float:
        """Share of the images in `top1_count`."""
        return self.top1_count / self.num_examples

    @property
    def top5(self) -> float:
        """Share of the images in `top5_count`."""
        return self.top5_count / self.num_examples

    def as_row(self, prefix: str = "eval") -> dict[str, float]:
        """Metric name -> value; the count of non-finite losses only where there are any.

        Names of figures without the blacklist end with `_without_blacklist`.
        """
        row = {
            f"{prefix}/top1": self.top1,
            f"{prefix}/top5": self.top5,
            f"{prefix}/loss_nats": self.loss_nats,
        }
        if self.num_non_finite:
            row[f"{prefix}/num_non_finite"] = self.num_non_finite
        if self.without_blacklist is not None:
            others = self.without_blacklist.as_row(prefix)
            row |= {f"{name}_without_blacklist": value for name, value in others.items()}
        return row


def label_ranks(logits, labels):
    """How many outputs stand before the label's, per example.

    Equal logits stand in the order of their index, as `tf.math.top_k` lists them. So a network
    that gives every class the same score is right by chance only (`in_top_k` would give it 100%).
    Without a background class the top k counted here are the k that the exported model names. With
    one, its output is ranked like any other, as the released evaluations do over their 1,001
    outputs (slim eval_image_classifier.py, inception_eval.py): an image for which it comes first
    counts as wrong, where an export, which never names it, may answer the right class.

    Args:
      logits: float [n, K].
      labels: int32 [n] in [0, K).

    Returns:
      int32 [n] in [0, K); the largest int32 for a row with a NaN, which is in no top k.
    """
    own = tf.gather(logits, labels, batch_dims=1)[:, tf.newaxis]
    is_earlier = tf.range(tf.shape(logits)[1])[tf.newaxis, :] < labels[:, tf.newaxis]
    before = (logits > own) | ((logits == own) & is_earlier)
    ranks = tf.reduce_sum(tf.cast(before, tf.int32), axis=1)
    return tf.where(tf.reduce_any(tf.math.is_nan(logits), axis=1), tf.int32.max, ranks)


def batch_counts(logits, labels, valid):
    """What one replica's batch adds to the counts.

    Args:
      logits: float [n, K].
      labels: int32 [n]; those outside [0, K) are counted as such.
      valid: bool [n]; False marks padding, which adds nothing.

    Returns:
      int64 [NUM_COUNTS], in the places named above.
    """
    is_output = (labels >= 0) & (labels < tf.shape(logits)[1])
    # On a CPU the loss refuses a label outside the outputs, on a GPU it gives NaN: count it here.
    labels = tf.where(valid & is_output, labels, 0)
    # In float64 the loss has no rounding of its own: a confident network's is 1e-7 of its logits.
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float64))
    is_summed = tf.math.is_finite(losses) & (losses < LOSS_LIMIT_NATS)
    losses = tf.where(valid & is_summed, losses, 0.0)
    whole = tf.floor(losses)
    fraction = tf.round((losses - whole) * 2.0**LOSS_BITS)
    ranks = label_ranks(logits, labels)
    return tf.stack(
        [
            tf.math.count_nonzero(valid),
            tf.math.count_nonzero(valid & (ranks < 1)),
            tf.math.count_nonzero(valid & (ranks < 5)),
            tf.math.count_nonzero(valid & ~is_summed),
            tf.math.count_nonzero(valid & ~is_output),
            tf.reduce_sum(tf.cast(whole, tf.int64)),
            tf.reduce_sum(tf.cast(fraction, tf.int64)),
        ]
    )


def result_from_counts(counts) -> EvaluationResult:
    """The result of summed `batch_counts`; `counts[EXAMPLES]` is at least 1."""
    counts = [int(count) for count in counts]
    # Python's integers and one division: nothing is rounded before the mean itself.
    total = fractions.Fraction((counts[LOSS_WHOLE] << LOSS_BITS) + counts[LOSS_FRACTION])
    mean_nats = float(total / (counts[EXAMPLES] << LOSS_BITS))
    return EvaluationResult(
        num_examples=counts[EXAMPLES],
        top1_count=counts[TOP1],
        top5_count=counts[TOP5],
        loss_nats=float("nan") if counts[NON_FINITE] else mean_nats,
        num_non_finite=counts[NON_FINITE],
    )
