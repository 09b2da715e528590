"""What has to stand before the first step: devices, data, variables, and a restored state."""

import dataclasses
import faulthandler
import functools
import math
import sys

import keras
import tensorflow as tf

from inception_tf import cluster as clusters
from inception_tf import initial_weights, overview, own_port, preflight
from inception_tf import inputs as run_inputs
from inception_tf.errors import CheckpointError, ConfigError
from inception_tf.meeting import await_workers
from inception_tf.models import catalog
from inception_tf.reporting import summary
from inception_tf.run_directory import FACTS_FILE, RunFacts
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
      imported: the report of the weights that a run begins with; '' where they are drawn or come
        from a checkpoint.
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
    imported: str
    warnings: list[str]

    @property
    def steps_per_epoch(self):
        """Training examples / global batch, not rounded."""
        return self.inputs.num_train_examples / self.assignment.global_batch


def join_cluster(experiment, directory):
    """This worker and its devices, with the thread count that a run began with.

    Raises:
      LostWorkersError: another worker did not come within the limit.
    """
    spec, facts = experiment.cluster, _facts_of_checkpoints(directory)
    if facts is not None and spec.intra_op_threads is None:
        spec = dataclasses.replace(spec, intra_op_threads=facts.intra_op_threads)
    own_port.check_this_worker()
    limit_secs = experiment.watchdog.start_secs
    # Where a worker is lost between its answer and TensorFlow's own wait, which holds Python's
    # lock, no thread of Python runs: a timer in C shows the stacks and ends the process.
    faulthandler.dump_traceback_later(2 * limit_secs, exit=True, file=sys.__stderr__)
    try:
        return clusters.join(
            spec, await_workers=functools.partial(await_workers, limit_secs=limit_secs)
        )
    finally:
        faulthandler.cancel_dump_traceback_later()


def prepare(experiment, directory, cluster, *, is_synthetic, cache_dir=None):
    """Opens the data, builds the variables and restores the newest checkpoint.

    Args:
      cache_dir: instead of the run directory, where indices of the records are kept.

    Raises:
      UserError: whatever the user can mend.
    """
    facts, training = _facts_of_checkpoints(directory), experiment.training
    cache_dir = cache_dir or directory.path
    inputs = preflight.agreed_data(
        cluster, lambda: _open_inputs(experiment, cache_dir, is_synthetic=is_synthetic)
    )
    assignment = cluster.assign(
        num_replicas=training.num_replicas, replica_batch=training.replica_batch
    )
    total_steps = total_steps_of(training, num_examples=inputs.num_train_examples)
    with cluster.strategy.scope():
        model = build_model(
            experiment.model, training, num_classes=inputs.num_classes, total_steps=total_steps
        )
    imported = ""
    if training.init_from is not None and facts is None:  # without a checkpoint the run is new
        imported = _fill(model, experiment, inputs, cluster)
    state = build_state(experiment, model, cluster)
    recipe = build_recipe(experiment, inputs, state.model, assignment)
    warnings = overview.warnings_of(experiment, state.model, assignment, total_steps=total_steps)
    start_step, resumed = 0, []
    if not is_synthetic:
        info, resumed = preflight.agreed_checkpoint(cluster, lambda: restore(state, directory))
        start_step = info.step if info else 0
    if start_step > total_steps:
        raise ConfigError(
            "A run cannot be shorter than what it has done.",
            received=f"{directory.path} is at step {start_step:,} of {total_steps:,}",
            remedy="Raise training.num_epochs or training.num_steps.",
        )
    if start_step:
        steps_per_epoch = inputs.num_train_examples / assignment.global_batch
        resumed += [summary.going_on(str(directory.path), start_step, total_steps, steps_per_epoch)]
        resumed += _changes(facts, facts_of(experiment, inputs, cluster), start_step)
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
        imported=imported,
        warnings=warnings,
    )


def _fill(model, experiment, inputs, cluster):
    """Gives a network the weights of `training.init_from`; what to say about it."""
    if inputs.is_synthetic:
        return "training.init_from is not read: generated batches measure speed alone"
    return preflight.agreed(
        cluster,
        lambda: initial_weights.fill_model(model, experiment, inputs, cluster.strategy),
        lambda _: {"CRC-32 of the weights": initial_weights.digest_of(model)},
        rule="Every worker must begin with the same weights.",
        remedy="Give training.init_from a file that is the same for all of them.",
    )


def _open_inputs(experiment, cache_dir, *, is_synthetic):
    if is_synthetic:
        return run_inputs.generated_inputs(experiment.model)
    splits = [experiment.data.train_split, experiment.data.eval_split]
    return run_inputs.open_inputs(
        experiment.data, experiment.model, run_dir=cache_dir, splits=splits, trains=True,
        blacklist=experiment.evaluation.blacklist,
    )  # fmt: skip


def build_model(model_spec, training, *, num_classes, total_steps=None):
    """The network of a run, with drawn weights.

    Args:
      total_steps: where it is to be trained; inference builds the same network without.
    """
    return catalog.build_model(
        model_spec,
        num_classes=num_classes,
        num_replicas=training.num_replicas,
        total_steps=total_steps,
        seed=training.seed,
    )


def build_state(experiment, model, cluster):
    """The run's variables; the averages begin with the weights that the model has now."""
    training = experiment.training
    loss_scale = _loss_scale(experiment)
    with cluster.strategy.scope():
        return RunState(
            model,
            apply_groups(model, experiment.variables),
            optimizer=training.optimizer,
            initial_loss_scale=loss_scale and loss_scale.initial,
        )


def _loss_scale(experiment):
    return experiment.loss_scale if experiment.model.precision == "mixed_float16" else None


def build_recipe(experiment, inputs, model, assignment):
    """The recipe of one step."""
    training = experiment.training
    outputs = model.output if isinstance(model.output, dict) else {"logits": model.output}
    num_outputs = outputs["logits"].shape[-1]
    scale = assignment.global_batch / 256 if training.learning_rate_per_256_images else 1.0
    return StepRecipe(
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
        bytes_per_pack=experiment.cluster.bytes_per_pack,
        seed=training.seed,
        loss_scale=_loss_scale(experiment),
        jit_compile=training.jit_compile,
        recompute=training.recompute,
    )


def _class_counts(experiment, inputs):
    """Training examples per output of the network, where the manifest knows them."""
    if inputs.manifest is None or inputs.manifest.class_counts is None:
        return None
    counts = inputs.manifest.class_counts[experiment.data.train_split]
    return (0,) * experiment.model.background_class + tuple(counts)


def restore(state, directory):
    """Puts the newest good checkpoint into the state; its CheckpointInfo and what to say about it.

    None where there is no checkpoint.

    Raises:
      CheckpointError: checkpoints lie there but none can be used: nothing starts at 0 over them.
    """
    store = CheckpointStore.of_run(directory.path)
    if not store.holds_checkpoints():
        if directory.config_file.exists():
            begun = f"run {directory.path} was begun but holds no checkpoint: starts at step 0"
            return None, [begun]
        return None, []
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
    return info, lines


def _facts_of_checkpoints(directory):
    """The facts that the checkpoints of a directory were made under; None without checkpoints.

    Raises:
      CheckpointError: checkpoints without them.
    """
    if not CheckpointStore.of_run(directory.path).holds_checkpoints():
        return None
    facts = directory.read_facts()
    if facts is None:
        raise CheckpointError(
            f"A run directory with checkpoints must hold {FACTS_FILE}.",
            received=str(directory.path),
            remedy="Restore the file, or give another --run_dir for a new run.",
        )
    return facts


def _changes(facts, now, step):
    """What differs from the first start and therefore rounds differently from here on."""
    if facts.num_examples != now.num_examples:
        raise ConfigError(
            "A run goes on only with the data it began with.",
            received=f"{now.num_examples:,} training examples instead of {facts.num_examples:,}",
            remedy="Give the same records, or another --run_dir for a new run.",
        )
    names = ("device_kind", "intra_op_threads", "deterministic", "topology")
    before = {**{name: getattr(facts, name) for name in names}, **facts.kernels}
    after = {**{name: getattr(now, name) for name in names}, **now.kernels}
    return [
        f"goes on with other rounding from step {step:,}: {name} was {before.get(name)!r}, is "
        f"{after.get(name)!r}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def facts_of(experiment, inputs, cluster):
    """What decides this run's bits, or what its outputs mean."""
    is_exact = experiment.training.reduction == "exact"
    return RunFacts(
        num_classes=inputs.num_classes,
        class_names=tuple(inputs.class_names),
        num_examples=inputs.num_train_examples,
        device_kind=cluster.device_kind,
        intra_op_threads=cluster.intra_op_threads,
        deterministic=cluster.deterministic,
        # Exact sums are the same on every topology; others only repeat on their own.
        topology="" if is_exact else _topology(experiment.cluster, cluster),
        kernels={
            "devices": ", ".join(sorted(set(cluster.device_names))),
            "tf32": str(experiment.cluster.tf32),
            "jit_compile": str(experiment.training.jit_compile),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            # Named where it is on: runs that began before there was such a choice lack it.
            **({"recompute": "True"} if experiment.training.recompute else {}),
        },
        identity=dataclasses.asdict(
            initial_weights.identity_of(experiment, num_classes=inputs.num_classes)
        ),
        photo_edits=inputs.photo_edits,
    )


def _topology(spec, cluster):
    """What decides the order of float sums, in words."""
    packs = f", packs of {spec.bytes_per_pack:,} bytes" if spec.bytes_per_pack else ""
    return f"{cluster.num_physical} of {cluster.num_workers} workers{packs}"


def total_steps_of(training, *, num_examples):
    """Length of a run in steps; epochs are rounded up, so that no epoch is cut short."""
    if training.num_steps is not None:
        return training.num_steps
    global_batch = training.num_replicas * training.replica_batch
    return math.ceil(round(training.num_epochs * num_examples / global_batch, 6))
