"""What the training minimises: the smoothed cross-entropy of every output, and L2."""

import dataclasses

import tensorflow as tf

from inception_tf.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """Loss of the network's outputs (gin section `objective`).

    Attributes:
      label_smoothing: share e of the target spread over the prior u(k), in [0, 1); 0.1 in
        arXiv 1512.00567 section 7.
      smoothing_prior: u(k): 'uniform', 1/K for each output (section 7), or 'class_prior', the
        share of each class in the training records.
      output_weights: output name -> weight in the loss; None gives 'logits' 1.0 and, where the
        network has it, 'aux_logits' 0.4 (released trainers).
    """

    label_smoothing: float = 0.1
    smoothing_prior: str = "uniform"
    output_weights: dict[str, float] | None = None

    def __post_init__(self):
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(
                "label_smoothing must be at least 0 and below 1.", received=self.label_smoothing
            )
        if self.smoothing_prior not in ("uniform", "class_prior"):
            raise ConfigError(
                "smoothing_prior must be 'uniform' or 'class_prior'.",
                received=repr(self.smoothing_prior),
            )
        if self.smoothing_prior != "uniform" and self.label_smoothing == 0.0:
            raise ConfigError(
                "smoothing_prior has no effect without label smoothing.",
                received=f"smoothing_prior = {self.smoothing_prior!r}, label_smoothing = 0.0",
                remedy="Raise label_smoothing, or leave smoothing_prior at 'uniform'.",
            )


def named_outputs(outputs):
    """A network's outputs by name: one tensor is 'logits'."""
    return outputs if isinstance(outputs, dict) else {"logits": outputs}


def check_output_weights(objective, output_names):
    """The weight of each output in the loss.

    Raises:
      ConfigError: a weight names an output that the network does not have.
    """
    if objective.output_weights is None:
        released = {"logits": 1.0, "aux_logits": 0.4}
        return {name: released[name] for name in output_names}
    unknown = sorted(set(objective.output_weights) - set(output_names))
    if unknown:
        raise ConfigError(
            f"objective.output_weights names outputs that the network does not have: {unknown}.",
            received=f"outputs {sorted(output_names)}",
            remedy="objective.output_weights = None takes the usual weights of those there are; "
            "model.aux_head = True adds 'aux_logits'.",
        )
    return dict(objective.output_weights)


def smoothing_prior(objective, *, num_outputs, class_counts=None):
    """u(k), the distribution that label smoothing mixes into the target.

    Args:
      objective: an Objective.
      num_outputs: K, background included where the network has it.
      class_counts: training examples per output, needed for 'class_prior'.

    Returns:
      float32 [K] that sums to 1.

    Raises:
      ConfigError: 'class_prior' without counts.
    """
    if objective.smoothing_prior == "uniform":
        return tf.fill([num_outputs], 1.0 / num_outputs)
    if class_counts is None or len(class_counts) != num_outputs:
        raise ConfigError(
            "smoothing_prior 'class_prior' needs the training examples of each class.",
            received=f"counts of {0 if class_counts is None else len(class_counts)} classes "
            f"for {num_outputs} outputs",
            remedy="Build the records with this project's builder, or use 'uniform'.",
        )
    counts = tf.constant(class_counts, tf.float64)
    return tf.cast(counts / tf.reduce_sum(counts), tf.float32)


def smoothed_cross_entropy(logits, labels, *, smoothing, prior):
    """Cross-entropy of each image against its smoothed label.

    H(q', p) = (1 - e) H(q, p) + e H(u, p), arXiv 1512.00567 section 7, so the target
    q'(k) = (1 - e) [k = y] + e u(k) is never written out.

    Args:
      logits: float32 [n, K]; cast before the call, bfloat16 keeps 8 bits.
      labels: int32 [n], each in [0, K).
      smoothing: e in [0, 1).
      prior: float32 [K], u(k).

    Returns:
      float32 [n], nats per example.
    """
    log_p = tf.nn.log_softmax(logits)
    hard = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if smoothing == 0.0:
        return hard
    return (1.0 - smoothing) * hard - smoothing * tf.linalg.matvec(log_p, prior)


def data_loss(outputs, labels, *, weights, smoothing, prior):
    """Weighted sum over the outputs of the mean loss of one declared replica's images.

    Args:
      outputs: dict name -> logits [n, K] of any float type.
      labels: int32 [n].
      weights: dict name -> weight.
      smoothing, prior: see `smoothed_cross_entropy`.

    Returns:
      float32 scalar, nats, the mean over the declared replica (not divided by the replicas).
    """
    total = tf.constant(0.0)
    for name, weight in weights.items():
        logits = tf.cast(outputs[name], tf.float32)
        per_example = smoothed_cross_entropy(logits, labels, smoothing=smoothing, prior=prior)
        total += weight * tf.reduce_mean(per_example)
    return total
