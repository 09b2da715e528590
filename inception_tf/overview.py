"""The start-up summary of a run: every number a user would otherwise work out by hand."""

import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.models import counting
from inception_tf.models.catalog import batch_norm_momentum
from inception_tf.models.execution import num_kept_values
from inception_tf.reporting import exposure, facts, summary
from inception_tf.training.schedule import TwoPhase

# Below 16 values per channel the variance of a batch is mostly noise.
_FEW_VALUES = 16


def warnings_of(experiment, model, assignment, *, total_steps):
    """What a user should know before the first step but may want all the same.

    Raises:
      ConfigError: a batch norm that cannot work.
    """
    return _batch_norm_warnings(model, replica_batch=assignment.replica_batch) + _decay_warnings(
        experiment, total_steps=total_steps, num_replicas=assignment.num_replicas
    )


def opening(prepared, operation_changes, paper_rows):
    """The texts that a run begins with: where it comes from, what changed, its parts."""
    return [
        *prepared.resumed,
        *(
            f"from step {prepared.start_step:,}: {name} {now!r}, was {before!r}"
            for name, before, now in operation_changes
        ),
        *([prepared.imported] if prepared.imported else []),
        start_text(prepared),
        summary.paper_table(paper_rows),
    ]


def start_text(prepared):
    """The whole summary as text."""
    experiment, inputs, cluster = prepared.experiment, prepared.inputs, prepared.cluster
    steps_per_epoch, total_steps = prepared.steps_per_epoch, prepared.total_steps
    training = experiment.training
    data = facts.DataFacts(
        data_dir=inputs.data_dir,
        where_from=inputs.where_from,
        split_examples=_split_examples(inputs),
        num_train_examples=inputs.num_train_examples,
        num_classes=inputs.num_classes,
        label_base=inputs.manifest.label_base if inputs.manifest else None,
        origin=inputs.manifest.origin if inputs.manifest else "",
    )
    return summary.start_summary(
        run_dir=str(prepared.run_dir),
        seed=training.seed,
        data=data,
        batch=batch_facts(prepared),
        schedule=facts.ScheduleFacts(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            words=schedule_words(training.schedule),
            first_rates=first_rates(prepared.recipe.learning_rate, total_steps, steps_per_epoch),
        ),
        model=_model_facts(experiment.model, prepared),
        machine=facts.MachineFacts(
            devices=cluster.device_names,
            intra_op_threads=cluster.intra_op_threads,
            is_deterministic=cluster.deterministic,
            reduction=training.reduction,
            workers_from=cluster.workers_from,
        ),
        memory=memory_guess(prepared),
        warnings=prepared.warnings + exposure.port_warnings(cluster.address),
    )


def memory_guess(prepared):
    """MemoryGuess of one device."""
    experiment, model = prepared.experiment, prepared.state.model
    num_px = experiment.model.input_height_px * experiment.model.input_width_px
    return facts.memory_guess(
        num_parameters=counting.count_parameters(model),
        num_trained=_num_trained(prepared.state),
        num_slots=len(experiment.training.optimizer.slots),
        has_averages=True,
        reduction=experiment.training.reduction,
        replica_batch=prepared.assignment.replica_batch,
        num_rounds=prepared.assignment.rounds,
        values_per_image=3 * num_px,
        activation_values_per_image=num_kept_values(
            model, recompute=experiment.training.recompute
        ),
        activation_bytes=4 if experiment.model.precision == "float32" else 2,
    )


def batch_facts(prepared):
    """Who computes what of a step."""
    return facts.BatchFacts(
        num_replicas=prepared.assignment.num_replicas,
        replica_batch=prepared.assignment.replica_batch,
        num_physical=prepared.assignment.num_physical,
        num_workers=prepared.cluster.num_workers,
    )


def _num_trained(state):
    return sum(int(tf.size(item.variable.value)) for item in state.trained)


def _model_facts(spec, prepared):
    return facts.ModelFacts(
        name=spec.name,
        variant=spec.variant,
        num_parameters=counting.count_parameters(prepared.state.model),
        num_trained=_num_trained(prepared.state),
        input_height_px=spec.input_height_px,
        input_width_px=spec.input_width_px,
        precision=spec.precision,
        batch_norm_momentum=batch_norm_momentum(
            spec,
            num_replicas=prepared.assignment.num_replicas,
            total_steps=prepared.total_steps,
        ),
    )


def _batch_norm_warnings(model, *, replica_batch):
    """Warnings about batch norms that see few values per channel in one declared replica.

    Raises:
      ConfigError: fewer than 2: such a batch has no variance.
    """
    warnings = []
    for layer, positions in counting.smallest_batch_norm_counts(model):
        count = positions * replica_batch
        if count < 2:
            raise ConfigError(
                "Batch norm needs at least 2 values per channel in every declared replica.",
                received=f"{count} in layer {layer} (training.replica_batch = {replica_batch})",
                remedy="Raise training.replica_batch or the input size.",
            )
        if count < _FEW_VALUES:
            warnings.append(
                f"batch norm of layer {layer} sees {count} values per channel in a declared "
                f"replica; below {_FEW_VALUES} its statistics are noisy"
            )
    return warnings[:1] + ([f"... and {len(warnings) - 1} more such layers"] if warnings[1:] else [])


def _decay_warnings(experiment, *, total_steps, num_replicas):
    """Warnings about averages that a run of this length cannot fill."""
    warnings = []
    decays = {
        "model.batch_norm_decay": batch_norm_momentum(
            experiment.model, num_replicas=num_replicas, total_steps=total_steps
        ),
        "averages.decay": experiment.averages.decay,
    }
    for name, decay in decays.items():
        constant = 1.0 / (1.0 - decay) if decay < 1.0 else float("inf")
        # The averages start with a small decay of their own, which forgets the first steps.
        is_warm = name == "averages.decay" and experiment.averages.warm_start
        if total_steps < 3 * constant and not is_warm:
            warnings.append(
                f"{name}: {decay:.5f} a step has a time constant of {constant:,.0f} steps, and the "
                f"run has {total_steps:,}: shorter than 3 of them, so what it starts with weighs in"
            )
    return warnings


def schedule_words(schedule):
    """A schedule as a sentence."""
    if isinstance(schedule, TwoPhase):
        return (
            f"{schedule.first_learning_rate:g} for {schedule.first_epochs:g} epochs, then "
            f"{schedule_words(schedule.then)}"
        )
    if schedule.decay_steps is None:
        every = f"{schedule.epochs_per_decay:g} epochs"
    else:
        every = f"{schedule.decay_steps:,} steps"
    how = "staircase" if schedule.staircase else "smooth"
    return f"{schedule.learning_rate:g} x {schedule.factor:g} every {every}, {how}"


def first_rates(learning_rate, total_steps, steps_per_epoch, *, most=3):
    """(step, rate) where the first rates of a schedule begin.

    A schedule that changes at every step (smooth, or warming up) is shown at whole epochs.
    """

    def rate(step):
        return float(learning_rate(tf.constant(step, tf.int64)))

    per_epoch = max(1, round(steps_per_epoch))
    if total_steps > 1 and rate(0) != rate(1):
        return [(step, rate(step)) for step in range(0, total_steps, per_epoch)[:most]]
    found, step = [(0, rate(0))], 0
    while len(found) < most:
        # The first whole epoch with another rate, then the very step between.
        low = step
        high = next((s for s in range(step, total_steps, per_epoch) if rate(s) != rate(low)), None)
        if high is None:
            return found
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if rate(middle) == found[-1][1] else (low, middle)
        found.append((high, rate(high)))
        step = high
    return found


def _split_examples(inputs):
    if inputs.is_synthetic:
        return {"train": inputs.num_train_examples}
    return {split: reader.num_examples for split, reader in inputs.readers.items()}
