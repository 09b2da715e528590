"""Every image counts exactly once, on any number of devices and at any batch size."""

import dataclasses

import tensorflow as tf

from inception_tf.errors import ConfigError, DataError
from inception_tf.evaluation.inference import Inference
from inception_tf.evaluation.metrics import (
    BAD_LABELS,
    EXAMPLES,
    NUM_COUNTS,
    EvaluationResult,
    batch_counts,
    result_from_counts,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSpec:
    """The evaluation during and after training (gin section `evaluation`).

    Attributes:
      every_epochs: epochs between evaluations; None: only at the end.
      replica_batch: images per physical replica and evaluation step.
      blacklist: path of the official list of 1,762 of ImageNet's 50,000 validation images
        (arXiv 1602.07261 section 5): the other 48,238 are counted apart too. None counts all only.
    """

    every_epochs: float | None = 1.0
    replica_batch: int = 32
    blacklist: str | None = None

    def __post_init__(self):
        if self.every_epochs is not None and not self.every_epochs > 0:
            raise ConfigError("every_epochs must be above 0, or None.", received=self.every_epochs)
        if self.replica_batch < 1:
            raise ConfigError("replica_batch must be at least 1.", received=self.replica_batch)


def evaluation_steps(num_examples: int, *, num_physical: int, replica_batch: int) -> int:
    """Steps in which `num_physical` replicas see every example once, the last ones padded."""
    return -(-num_examples // (num_physical * replica_batch))


class Evaluator:
    """Single-crop accuracy and cross-entropy of a model under given weights.

    The weights are arguments: nothing is swapped into the model, so an evaluation cannot disturb a
    run. Sums are integers, added on each device and all-reduced once at the end; so neither the
    order of the batches nor the number of devices changes a bit of the result.

    Args:
      model: keras.Model; images float32 [n, H, W, 3] -> logits [n, num_outputs], or a dict with
        'logits'. Its own values are not read.
      strategy: the tf.distribute.Strategy under which the model was built.
      num_outputs: outputs of the network, the background's included.
      background_class: output 0 is the background and no class; labels count it already. `run`
        ranks it with the others (see `metrics.label_ranks`).

    Raises:
      ConfigError: the model has another number of outputs.
    """

    def __init__(self, model, strategy, *, num_outputs: int, background_class: bool = False):
        self.inference = Inference(model, strategy)
        built = self.inference.num_outputs
        if built != num_outputs:
            raise ConfigError(
                "The network must have one output for each class (and the background).",
                received=f"{built} outputs for {num_outputs}",
                remedy="Set model.num_classes or model.background_class as the records need.",
            )
        self.strategy = strategy
        self.num_outputs = num_outputs
        self.background_class = background_class

    def run(
        self, dataset, values, *, num_examples: int, num_steps: int,
        num_counted: int | None = None, is_stop_asked=bool,
    ) -> EvaluationResult | None:  # fmt: skip
        """The result over `num_examples` images; every worker calls it and gets the same.

        Args:
          dataset: distributed dataset, one element per local replica and step: {'images' float32
            [n, H, W, 3] in [-1, 1], 'labels' int32 [n] in [0, num_outputs), 'valid' bool [n]}, with
            `num_counted` also 'counted' bool [n].
          values: (trainable, non-trainable): what to evaluate, in the order of
            `model.trainable_variables` and `model.non_trainable_variables`: variables of the
            strategy, Keras variables, tensors or arrays.
          num_examples: valid images in the data set, over all workers; at least 1.
          num_steps: steps that hold them (`evaluation_steps`).
          num_counted: valid images that are 'counted': the result has `without_blacklist`, made of
            these in the same pass. None: it has not.
          is_stop_asked: called before every batch. Where it says True on any worker, all of them
            leave off a batch later and return None.

        Raises:
          DataError: `num_steps` steps hold another number of valid or counted images, or a label
            without an output.
        """
        values = self.inference.local_tensors(values)
        num_sets = 1 if num_counted is None else 2
        counts = self.inference.local_tensors(tf.zeros([num_sets, NUM_COUNTS], tf.int64))
        iterator, num_asking = iter(dataset), None
        for _ in range(num_steps):
            asks = self.inference.local_tensors(tf.constant(int(is_stop_asked()), tf.int64))
            batch = next(iterator, None)
            if batch is None:
                break  # too few images: every worker learns of it from the sum
            counts, asking_now = self._add_batch(batch, values, counts, asks)
            # Read a batch later, so that the devices never wait for the host.
            if num_asking is not None and int(num_asking) > 0:
                return None
            num_asking = asking_now
        totals, *others = self._sum_over_replicas(counts).numpy()
        _check_counts(totals, num_examples=num_examples, num_steps=num_steps)
        result = result_from_counts(totals)
        if not others:
            return result
        _check_counted(others[0], num_counted=num_counted)
        return dataclasses.replace(result, without_blacklist=result_from_counts(others[0]))

    def probabilities(self, images, values):
        """Probabilities of the classes, on this worker's first device.

        Args:
          images: float32 [n, H, W, 3] in [-1, 1].
          values: as for `run`.

        Returns:
          NumPy float32 [n, classes]. The background has its share in the softmax and no column.
        """
        logits = self.inference.logits_of_first(images, values)
        return tf.nn.softmax(logits)[:, int(self.background_class) :].numpy()

    @tf.function
    def _add_batch(self, batch, values, counts, asks):
        """Counts of each local replica, and how many replicas ask to stop, over all workers."""

        def add(batch, values, counts, asks):
            logits = self.inference.logits(batch["images"], values)
            sets = [batch["valid"]]
            if counts.shape[0] == 2:
                sets.append(batch["valid"] & batch["counted"])
            added = [batch_counts(logits, batch["labels"], one) for one in sets]
            return counts + tf.stack(added), _summed(asks)

        counts, asking = self.strategy.run(add, args=(batch, values, counts, asks))
        return counts, self.strategy.experimental_local_results(asking)[0]

    @tf.function
    def _sum_over_replicas(self, counts):
        totals = self.strategy.run(_summed, args=(counts,))
        return self.strategy.experimental_local_results(totals)[0]


def _summed(value):
    """The sum of a replica's tensor over all replicas."""
    context = tf.distribute.get_replica_context()
    # A function's argument has no device for the sum to go to; a copy of it has.
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))


def _check_counts(totals, *, num_examples, num_steps):
    if totals[EXAMPLES] != num_examples or num_examples < 1:
        raise DataError(
            "An evaluation counts every example of the split exactly once.",
            received=f"{totals[EXAMPLES]} valid images in {num_steps} steps for {num_examples}",
            remedy="Check the records: python -m inception_tf.records check.",
        )
    if totals[BAD_LABELS]:
        raise DataError(
            "Every label must name an output of the network.",
            received=f"{totals[BAD_LABELS]} labels outside the outputs",
            remedy="Evaluate with the label convention and classes that the network was built for.",
        )


def _check_counted(totals, *, num_counted):
    if totals[EXAMPLES] != num_counted:
        raise DataError(
            "Every image that the blacklist leaves in must be in the records exactly once.",
            received=f"{totals[EXAMPLES]:,} of them, where {num_counted:,} are",
            remedy="Check the records: python -m inception_tf.records check.",
        )
