"""The road: train and export an experiment, each a short list of named steps."""

import contextlib
import dataclasses
import pathlib
import time

import tensorflow as tf

from inception_tf import inputs as run_inputs
from inception_tf import exports, lost_workers, overview, preflight, preparation, products
from inception_tf.cluster import ClusterSpec, check_num_workers
from inception_tf.data.image import Augmentation, EvaluationCrop
from inception_tf.data.pipeline import DataSpec
from inception_tf.errors import ConfigError
from inception_tf.evaluation.evaluator import EvaluationSpec
from inception_tf.models.catalog import ModelSpec
from inception_tf.reporting import summary
from inception_tf.reporting.events import EventWriter, LoggingSpec
from inception_tf.run_directory import RunDirectory, Start
from inception_tf.serving.spec import SAVED_MODEL, ExportSpec
from inception_tf.session import Session
from inception_tf.stopping import StopRequests
from inception_tf.training import loop, watchdog
from inception_tf.training.averaging import Averages
from inception_tf.training.checkpoint import CheckpointSpec
from inception_tf.training.groups import VariableGroups
from inception_tf.training.objective import Objective
from inception_tf.training.spec import TrainingSpec
from inception_tf.training.recipe import LossScale
from inception_tf.training.step import TrainStep
from inception_tf.training.watchdog import WatchdogSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """All that a config says, one spec per room."""

    model: ModelSpec
    data: DataSpec
    augmentation: Augmentation
    evaluation_crop: EvaluationCrop
    training: TrainingSpec
    objective: Objective
    variables: VariableGroups
    averages: Averages
    loss_scale: LossScale
    checkpoints: CheckpointSpec
    evaluation: EvaluationSpec
    export: ExportSpec
    logging: LoggingSpec
    cluster: ClusterSpec
    watchdog: WatchdogSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingEnd:
    """How a call of `train` ended.

    Attributes:
      step: batches consumed.
      is_complete: whether the run reached its length; otherwise it was asked to stop.
      batches: the iterator of a run that was stopped. To free it waits for all that it reads ahead,
        which is seconds: a process that is to end keeps it.
    """

    step: int
    is_complete: bool
    batches: object = None


def train(
    experiment,
    *,
    run_dir,
    config_text,
    start_values,
    recipe_hash,
    operation_changes=(),
    paper_rows=(),
    is_synthetic=False,
    profile_steps=None,
):
    """Trains to the end of the run, or goes on with it; evaluates and exports at the end.

    Args:
      experiment: an Experiment.
      run_dir: of this run; one that holds checkpoints is gone on with.
      config_text: the resolved configuration, kept before the first step.
      start_values: name -> what a worker was told; every worker must have been told the same.
      recipe_hash: kept in every checkpoint.
      operation_changes: (parameter, before, now) since the run was last started here.
      paper_rows: (recipe value, paper, this run) where they differ.
      is_synthetic: generated batches instead of records; nothing is evaluated, saved or exported.
      profile_steps: (first, last) steps to trace for TensorBoard.

    Returns:
      A TrainingEnd.

    Raises:
      UserError: whatever the user can mend.
    """
    directory = RunDirectory(run_dir)
    with contextlib.ExitStack() as stack:
        check_num_workers(experiment.cluster)
        cluster, watch, stop_requests = _join(stack, experiment, directory)
        preflight.check_workers(cluster, experiment, start_values, directory, is_synthetic)
        preflight.keep_others_out(cluster, directory, stack)
        prepared = preparation.prepare(experiment, directory, cluster, is_synthetic=is_synthetic)
        _check_profile_steps(profile_steps, prepared.total_steps)
        if cluster.is_chief and not is_synthetic:
            _save_beginning(prepared, directory, config_text, operation_changes)
        writer = stack.enter_context(_open_writer(prepared))
        for text in overview.opening(prepared, operation_changes, paper_rows):
            writer.note(text)
        session = Session(
            prepared,
            writer=writer,
            clock=time.monotonic,
            stop_requests=stop_requests,
            watch=watch,
            checkpoint_facts={"recipe": recipe_hash},
        )
        stack.callback(session.end)
        step, batches = _run_steps(prepared, session, profile_steps)
        is_complete = _finish(prepared, session, step)
        # A worker that leaves early ends the others: all wait for what the chief still writes.
        cluster.gather(step)
        watch.enter(watchdog.ENDING)
        return TrainingEnd(step=step, is_complete=is_complete, batches=batches)


def export(experiment, *, run_dir, out_dir):
    """Writes a run's newest good checkpoint in the formats of the spec, checked on real images.

    Args:
      experiment: an Experiment, as the run's saved configuration says it.
      run_dir: of the run.
      out_dir: gets a version directory 1, 2, ...

    Returns:
      Text for the chief to print; '' on the other workers, which write nothing.

    Raises:
      UserError: no usable checkpoint or records, or the export differs from the evaluator.
    """
    if not experiment.export.formats:
        raise ConfigError(
            "An export needs a format.",
            received="export.formats = ()",
            remedy="Give some: --formats=saved_model.",
        )
    directory = RunDirectory(run_dir)
    with lost_workers.join(experiment, directory, verb="export") as (cluster, watch):
        watch.enter(watchdog.EXPORTING)
        text = _export(experiment, directory, cluster, out_dir) if cluster.is_chief else ""
        cluster.gather(0)  # a worker that leaves early ends the others
        return text


def _export(experiment, directory, cluster, out_dir):
    inputs, splits = None, exports.splits_for(experiment)
    if splits:
        inputs = run_inputs.open_inputs(
            experiment.data, experiment.model, run_dir=directory.path, splits=splits
        )
    trained = products.read_run(
        experiment, directory, cluster, num_classes=inputs.num_classes if inputs else None
    )
    exported = exports.write_export(
        experiment,
        trained.model,
        trained.values(averaged=experiment.export.weights == "averaged"),
        cluster=cluster,
        inputs=inputs,
        class_names=trained.facts.class_names,
        photo_edits=trained.facts.photo_edits,
        step=trained.step,
        directory=directory,
        out_dir=out_dir,
    )
    return "\n".join([*trained.skipped, *exported.lines])


# -- the steps of the road ---------------------------------------------------------------------


def _join(stack, experiment, directory):
    """This worker among the others, watched and ready to be stopped from the first moment on."""
    stop_requests = stack.enter_context(StopRequests())
    watch = stack.enter_context(
        lost_workers.watch(experiment, directory, is_stop_asked=stop_requests.has_arrived)
    )
    cluster = preparation.join_cluster(experiment, directory)
    stop_requests.install()  # TensorFlow's own handler, set by the strategy, swallows SIGTERM
    watch.has_devices(cluster.num_local)
    watch.enter(watchdog.PREPARING)
    return cluster, watch, stop_requests


def _check_profile_steps(profile_steps, total_steps):
    """Raises ConfigError unless the steps to trace begin within the run."""
    if profile_steps is not None and profile_steps[0] >= total_steps:
        raise ConfigError(
            "The traced steps must begin before the run ends.",
            received=f"--profile_steps={profile_steps[0]}:{profile_steps[1]} of {total_steps:,}",
        )


def _save_beginning(prepared, directory, config_text, operation_changes):
    """Keeps what this start is made of, before its first step."""
    directory.save_config(config_text)
    directory.add_changes(prepared.start_step, operation_changes)
    if prepared.facts is None:
        facts = preparation.facts_of(prepared.experiment, prepared.inputs, prepared.cluster)
        directory.save_facts(facts)
    if prepared.start_step < prepared.total_steps:  # a finished run is not started again
        start = Start(
            step=prepared.start_step,
            unix_secs=round(time.time(), 3),
            num_workers=prepared.cluster.num_workers,
            num_devices=prepared.cluster.num_physical,
        )
        directory.add_start(start)


def _open_writer(prepared):
    return EventWriter(
        prepared.run_dir,
        spec=prepared.experiment.logging,
        total_steps=prepared.total_steps,
        start_step=prepared.start_step,
        is_chief=prepared.cluster.is_chief,
        steps_per_epoch=prepared.steps_per_epoch,
    )


def _run_steps(prepared, session, profile_steps):
    """The optimizer steps, with everything that happens between them.

    Returns:
      (step reached, the iterator of batches where the run is not at its end).
    """
    if not session.catch_up(prepared.start_step):
        return prepared.start_step, None
    experiment, inputs = prepared.experiment, prepared.inputs
    cadence = loop.Cadence(
        total_steps=prepared.total_steps,
        num_examples=inputs.num_train_examples,
        global_batch=prepared.assignment.global_batch,
        log_every_steps=experiment.logging.every_steps,
        save_every_steps=experiment.checkpoints.every_steps,
        evaluate_every_epochs=None if inputs.is_synthetic else experiment.evaluation.every_epochs,
        profile_steps=profile_steps,
    )
    train_step = TrainStep(
        prepared.cluster.strategy, prepared.state, prepared.recipe, clock=session.clock
    )
    batches = run_inputs.train_batches(
        inputs,
        experiment,
        prepared.cluster,
        prepared.assignment,
        start_step=prepared.start_step,
    )
    try:
        step = loop.train(
            train_step,
            batches,
            start_step=prepared.start_step,
            steps_per_loop=experiment.training.steps_per_loop,
            cadence=cadence,
            hooks=session,
        )
        return step, batches if step < prepared.total_steps else None
    except tf.errors.OpError as error:
        if inputs.is_synthetic:
            raise
        record_ids = run_inputs.upcoming_record_ids(
            int(prepared.state.scalars["step"].numpy()),
            assignment=prepared.assignment,
            seed=experiment.training.seed,
            num_examples=inputs.num_train_examples,
            num_steps=experiment.data.prefetch_steps + 4,
        )
        reader = inputs.readers[experiment.data.train_split]
        run_inputs.raise_data_error(error, reader, record_ids=record_ids)


def _finish(prepared, session, step):
    """Shows the final evaluation, exports, and lets the export classify a few images.

    Returns:
      Whether the run is complete: it reached its length, and no stop came before the export.
    """
    experiment, inputs, writer = prepared.experiment, prepared.inputs, session.writer
    out_dir = pathlib.Path(prepared.run_dir) / "export"
    if prepared.inputs.is_synthetic:
        return step == prepared.total_steps
    # As the chief sees it: a network file system may show it to others later.
    if prepared.start_step == prepared.total_steps and session.is_seen_by_chief(out_dir):
        writer.note(f"run {prepared.run_dir} is complete; its export is in {out_dir}")
        return True
    results = session.final_results() if step == prepared.total_steps else None
    session.watch.enter(watchdog.EXPORTING, step=step)
    if results is None or session.is_any_stop_asked():
        writer.note(f"stopped at step {step:,}; the same command goes on from there")
        return False
    writer.note(summary.evaluation_table(results))
    if not prepared.cluster.is_chief or not experiment.export.formats:
        return True
    averaged = experiment.export.weights == "averaged"
    exported = exports.write_export(
        experiment,
        prepared.state.model,
        prepared.state.evaluated_variables(averaged=averaged),
        cluster=prepared.cluster,
        inputs=inputs,
        class_names=inputs.class_names,
        photo_edits=inputs.photo_edits,
        step=step,
        directory=RunDirectory(prepared.run_dir),
        out_dir=out_dir,
    )
    writer.note("\n".join(exported.lines))
    if SAVED_MODEL in exported.written:
        path = exported.written[SAVED_MODEL].path
        writer.note(summary.predictions_table(exports.classify_some(path, experiment, inputs)))
    return True
