"""What comes of a run: its newest good checkpoint, and evaluations of its weights."""

import dataclasses

import numpy as np
import tensorflow as tf

from inception_tf import inputs as run_inputs
from inception_tf import preparation
from inception_tf.errors import CheckpointError, ConfigError
from inception_tf.evaluation.evaluator import Evaluator, evaluation_steps
from inception_tf.run_directory import RunFacts
from inception_tf.training.checkpoint import CheckpointStore


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A run's newest good checkpoint, with a model to put it into.

    Attributes:
      step: of the checkpoint.
      facts: of the run.
      model: the network, with initial weights.
      variables: name -> array, as saved.
      skipped: lines that name newer checkpoints that do not verify.
    """

    step: int
    facts: RunFacts
    model: object
    variables: dict[str, np.ndarray]
    skipped: list[str]

    def values(self, *, averaged):
        """(trainable, non-trainable) values in the model's order.

        Args:
          averaged: take the average of each variable that has one.
        """

        def pick(variable):
            average = self.variables.get(f"average/{variable.path}")
            if averaged and average is not None:
                return average
            # A dropout layer's seed is no variable of the run, and inference draws nothing.
            return self.variables.get(f"model/{variable.path}", variable.value)

        return (
            [pick(variable) for variable in self.model.trainable_variables],
            [pick(variable) for variable in self.model.non_trainable_variables],
        )


def read_run(experiment, directory, cluster, *, num_classes=None, step=None, model=None):
    """The newest good checkpoint of a run directory, or the one of a step.

    Args:
      num_classes: of the records that it is to be used on; None does not ask.
      step: of the checkpoint; None takes the newest good one.
      model: the network, where it was built before.

    Raises:
      CheckpointError: no run, or no checkpoint that verifies and fits the configuration.
      ConfigError: the run was trained on another number of classes.
    """
    facts = directory.read_facts()
    store = CheckpointStore.of_run(directory.path)
    info, skipped = store.newest_verified() if step is None else (_of_step(store, step), [])
    if facts is None or info is None:
        raise CheckpointError(
            "A run directory must hold a run with a checkpoint that verifies.",
            received=f"{directory.path}" + "".join(f"; {path}: {why}" for path, why in skipped),
            remedy="Give the --run_dir of a training run.",
        )
    if num_classes not in (None, facts.num_classes):
        raise ConfigError(
            "The records must have the classes that the run was trained on.",
            received=f"{num_classes} classes instead of {facts.num_classes}",
        )
    if model is None:
        with cluster.strategy.scope():
            model = preparation.build_model(
                experiment.model, experiment.training, num_classes=facts.num_classes
            )
    wanted = {f"model/{v.path}": (tuple(v.shape), v.dtype) for v in model.weights}
    found = {name: info.variables.get(name) for name in wanted}
    wrong = [
        f"{name}: {found[name]} instead of {wanted[name]}"
        for name in wanted
        if found[name] is None or tuple(found[name][0]) != wanted[name][0]
    ]
    if wrong:
        raise CheckpointError(
            "A checkpoint must hold every weight of the network, in its shape.",
            received=f"{info.path} with {len(wrong)} others: {'; '.join(wrong[:10])}",
            remedy="Use the configuration of that run.",
        )
    return TrainedRun(
        step=info.step,
        facts=facts,
        model=model,
        variables=store.read(info),
        skipped=[f"skipped {path}: {reason}" for path, reason in skipped],
    )


def _of_step(store, step):
    """The checkpoint of a step, every byte of it tested; CheckpointError where there is none."""
    infos = {info.step: info for info in store.checkpoints()}
    if step not in infos:
        raise CheckpointError(
            "A checkpoint must be there to be used.",
            received=f"step {step:,}, where {store.directory} has "
            + (", ".join(f"{one:,}" for one in infos) or "none"),
        )
    store.verify(infos[step])
    return infos[step]


def build_evaluator(experiment, model, cluster, inputs):
    """Evaluator of a network on the classes of the data."""
    background = experiment.model.background_class
    return Evaluator(
        model,
        cluster.strategy,
        num_outputs=inputs.num_classes + int(background),
        background_class=background,
    )


def evaluate_split(experiment, evaluator, values, cluster, inputs, *, is_stop_asked=bool):
    """Result over every record of the evaluation split, each counted once.

    Args:
      is_stop_asked: asked after every batch; where any worker's says True, all leave off.

    Returns:
      An EvaluationResult, with `without_blacklist` where the inputs have a blacklist; None where
      it was left off.

    Raises:
      DataError: a record that cannot be read or decoded, or is not what the blacklist is about.
    """
    reader = inputs.readers[experiment.data.eval_split]
    num_steps = evaluation_steps(
        reader.num_examples,
        num_physical=cluster.num_physical,
        replica_batch=experiment.evaluation.replica_batch,
    )
    batches = run_inputs.eval_batches(inputs, experiment, cluster)
    try:
        return evaluator.run(
            batches,
            values,
            num_examples=reader.num_examples,
            num_steps=num_steps,
            num_counted=None if inputs.stays is None else int(np.count_nonzero(inputs.stays)),
            is_stop_asked=is_stop_asked,
        )
    except tf.errors.OpError as error:
        run_inputs.raise_data_error(error, reader, record_ids=range(reader.num_examples))
