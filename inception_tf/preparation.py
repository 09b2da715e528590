"""What has to stand before the first step: devices, data, variables, and a restored state."""

import dataclasses
import functools
import math

import keras
import tensorflow as tf

from inception_tf import cluster as clusters
from inception_tf import inputs as run_inputs
from inception_tf import overview
from inception_tf.errors import CheckpointError, ConfigError
from inception_tf.models import catalog
from inception_tf.reporting import summary
from inception_tf.run_directory import RunFacts
from inception_tf.training import objective, schedule
from inception_tf.training.checkpoint import CheckpointStore
from inception_tf.training.groups import apply_groups
from inception_tf.training.state import RunState
from inception_tf.training.recipe import StepRecipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that is ready for its next step.

    Attributes:
      experiment: the Experiment.
      run_dir: where everything is kept.
      cluster: this worker and its devices.
      inputs: the data.
      assignment: which declared replicas run where.
      total_steps: length of the run.
      state: the run's variables.
      recipe: of one step.
      facts: RunFacts of the first start, None where this is it.
      start_step: batches consumed so far.
      resumed: lines that say where a run goes on and with what differences.
      warnings: what the user should know and may want all the same.
    """

    experiment: object
    run_dir: object
    cluster: clusters.Cluster
    inputs: run_inputs.Inputs
    assignment: clusters.Assignment
    total_steps: int
    state: RunState
    recipe: StepRecipe
    facts: RunFacts | None
    start_step: int
    resumed: list[str]
    warnings: list[str]

    @property
    def steps_per_epoch(self):
        """Training examples / global batch, not rounded."""
        return self.inputs.num_train_examples / self.assignment.global_batch


def prepare(experiment, directory, *, is_synthetic):
    """Joins the cluster, opens the data, builds the variables and restores the newest checkpoint.

    Raises:
      UserError: whatever the user can mend.
    """
    facts = directory.read_facts()
    cluster = clusters.join(with_recorded_threads(experiment.cluster, facts))
    if is_synthetic:
        inputs = run_inputs.generated_inputs(experiment.model)
    else:
        splits = [experiment.data.train_split, experiment.data.eval_split]
        inputs = run_inputs.open_inputs(
            experiment.data, experiment.model, run_dir=directory.path, splits=splits
        )
    training = experiment.training
    assignment = cluster.assign(
        num_replicas=training.num_replicas, replica_batch=training.replica_batch
    )
    total_steps = total_steps_of(training, num_examples=inputs.num_train_examples)
    state, recipe = build_state(experiment, inputs, cluster, assignment)
    warnings = overview.warnings_of(experiment, state.model, assignment, total_steps=total_steps)
    start_step, resumed = restore(
        state, directory, facts, cluster, inputs, assignment, total_steps=total_steps
    )
    _check_same_start(cluster, start_step)
    return Prepared(
        experiment=experiment,
        run_dir=directory.path,
        cluster=cluster,
        inputs=inputs,
        assignment=assignment,
        total_steps=total_steps,
        state=state,
        recipe=recipe,
        facts=facts,
        start_step=start_step,
        resumed=resumed,
        warnings=warnings,
    )


def build_model(model_spec, training, *, num_classes):
    """The network of a run, with its initial weights."""
    return catalog.build_model(
        model_spec,
        num_classes=num_classes,
        num_replicas=training.num_replicas,
        seed=training.seed,
    )


def with_recorded_threads(spec, facts):
    """A resumed run computes with the threads it began with, unless the user says otherwise."""
    if facts is None or spec.intra_op_threads is not None:
        return spec
    return dataclasses.replace(spec, intra_op_threads=facts.intra_op_threads)


def build_state(experiment, inputs, cluster, assignment):
    """The run's variables and the recipe of one step."""
    training = experiment.training
    loss_scale = experiment.loss_scale if experiment.model.precision == "mixed_float16" else None
    with cluster.strategy.scope():
        model = build_model(experiment.model, training, num_classes=inputs.num_classes)
        trained = apply_groups(model, experiment.variables)
        state = RunState(
            model,
            trained,
            optimizer=training.optimizer,
            initial_loss_scale=loss_scale and loss_scale.initial,
        )
    outputs = model.output if isinstance(model.output, dict) else {"logits": model.output}
    num_outputs = outputs["logits"].shape[-1]
    scale = assignment.global_batch / 256 if training.learning_rate_per_256_images else 1.0
    recipe = StepRecipe(
        assignment=assignment,
        optimizer=training.optimizer,
        learning_rate=functools.partial(
            schedule.learning_rate_at,
            schedule=training.schedule,
            steps_per_epoch=inputs.num_train_examples / assignment.global_batch,
            warmup_epochs=training.warmup_epochs,
            scale=scale,
        ),
        output_weights=objective.check_output_weights(experiment.objective, outputs),
        label_smoothing=experiment.objective.label_smoothing,
        smoothing_prior=objective.smoothing_prior(
            experiment.objective,
            num_outputs=num_outputs,
            class_counts=_class_counts(experiment, inputs),
        ),
        averages=experiment.averages,
        clip_global_norm=training.clip_global_norm,
        reduction=training.reduction,
        seed=training.seed,
        loss_scale=loss_scale,
        jit_compile=training.jit_compile,
    )
    return state, recipe


def _class_counts(experiment, inputs):
    """Training examples per output of the network, where the manifest knows them."""
    if inputs.manifest is None or inputs.manifest.class_counts is None:
        return None
    counts = inputs.manifest.class_counts[experiment.data.train_split]
    return (0,) * experiment.model.background_class + tuple(counts)


def restore(state, directory, facts, cluster, inputs, assignment, *, total_steps):
    """Puts the newest good checkpoint into the state; its step and what to say about it.

    Raises:
      CheckpointError: checkpoints lie there but none can be used: nothing starts at 0 over them.
    """
    store = CheckpointStore.of_run(directory.path)
    if inputs.is_synthetic or not store.holds_checkpoints():
        return 0, []
    info, skipped = store.newest_verified()
    lines = [f"skipped {path}: {reason}" for path, reason in skipped]
    if info is None:
        raise CheckpointError(
            "A run directory that holds checkpoints must hold one that verifies.",
            received="; ".join(lines),
            remedy="Restore one of them, or give another --run_dir for a new run.",
        )
    store.check_matches(info, state.expected())
    state.restore(store.read(info))
    lines.append(
        summary.going_on(
            str(directory.path),
            info.step,
            total_steps,
            inputs.num_train_examples / assignment.global_batch,
        )
    )
    return info.step, lines + _changes(facts, cluster, inputs, info.step)


def _check_same_start(cluster, start_step):
    """Raises CheckpointError unless every worker goes on from the same step."""
    steps = cluster.gather(start_step)
    if len(set(steps)) > 1:
        raise CheckpointError(
            "Every worker must go on from the same checkpoint.",
            received=", ".join(f"worker {i}: step {step:,}" for i, step in enumerate(steps)),
            remedy="Give all of them the same --run_dir on a file system that they share.",
        )


def _changes(facts, cluster, inputs, step):
    """What differs from the first start and therefore rounds differently from here on."""
    if facts is None:
        raise CheckpointError(
            "A run directory with checkpoints must hold run.json.",
            remedy="Restore the file, or give another --run_dir for a new run.",
        )
    if facts.num_examples != inputs.num_train_examples:
        raise ConfigError(
            "A run goes on only with the data it began with.",
            received=f"{inputs.num_train_examples:,} training examples instead of "
            f"{facts.num_examples:,}",
            remedy="Give the same records, or another --run_dir for a new run.",
        )
    now = facts_of(inputs, cluster)
    return [
        f"goes on with other rounding from step {step:,}: {name} was {getattr(facts, name)}, "
        f"is {getattr(now, name)}"
        for name in ("device_kind", "intra_op_threads", "deterministic", "versions")
        if getattr(facts, name) != getattr(now, name)
    ]


def facts_of(inputs, cluster):
    return RunFacts(
        num_classes=inputs.num_classes,
        class_names=tuple(inputs.class_names),
        num_examples=inputs.num_train_examples,
        device_kind=cluster.device_kind,
        intra_op_threads=cluster.intra_op_threads,
        deterministic=cluster.deterministic,
        versions={"tensorflow": tf.__version__, "keras": keras.__version__},
    )


def total_steps_of(training, *, num_examples):
    """Length of a run in steps; epochs are rounded up, so that no epoch is cut short."""
    if training.num_steps is not None:
        return training.num_steps
    global_batch = training.num_replicas * training.replica_batch
    return math.ceil(round(training.num_epochs * num_examples / global_batch, 6))
