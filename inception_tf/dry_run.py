"""`--dry_run`: tries once all that a run needs, writes nothing, and tells what was found."""

import math
import pathlib
import shutil
import socket
import tempfile
import time

import tensorflow as tf

from inception_tf import cluster as clusters
from inception_tf import inputs as run_inputs
from inception_tf import lost_workers, overview, preflight, preparation
from inception_tf.cluster import check_num_workers
from inception_tf.errors import ConfigError, LostWorkersError
from inception_tf.reporting import exposure, memory, quantities, summary
from inception_tf.reporting.checklist import Report
from inception_tf.run_directory import RunDirectory
from inception_tf.stopping import end_at_once
from inception_tf.training import watchdog
from inception_tf.training.checkpoint import CheckpointStore
from inception_tf.training.step import TrainStep

_ROOM = 1.1  # file systems count in blocks
_NOT_TRIED = "not tried, for what failed above"
# What a process on CPUs has taken by the time that it asks what is left.
_TAKEN = ("weights_bytes", "slots_bytes", "averages_bytes")


def dry_run(experiment, *, run_dir, start_values, is_synthetic=False):
    """Tries what `experiment.train` would do before and in its first step.

    Args:
      experiment: an Experiment.
      run_dir: of the run, new or begun; left as it is.
      start_values: see `experiment.train`.
      is_synthetic: generated batches instead of records.

    Returns:
      (text for this worker to print, whether all passed). Workers other than the chief print
      only that they could not join, or lost one another.
    """
    with end_at_once("stopped; a dry run saves nothing") as stop_requests:
        return _dry_run(experiment, run_dir, start_values, is_synthetic, stop_requests)


def _dry_run(experiment, run_dir, start_values, is_synthetic, stop_requests):
    is_chief = clusters.read_workers()[1] == 0
    report, directory = Report(announce=is_chief), RunDirectory(run_dir)
    is_joined, cluster = report.attempt(
        "workers", lambda: _join(experiment, directory, stop_requests), tell=_workers_text
    )
    if is_joined:
        try:
            _check_joined(report, cluster, experiment, directory, start_values, is_synthetic)
        # Whatever it was, what needs the other workers cannot be asked any more.
        except tf.errors.OpError as error:
            report.add("TensorFlow", f"{type(error).__name__}: {error.message}", "MEND")
        except LostWorkersError as error:
            report.add("workers", str(error), "MEND")
        else:
            if not cluster.is_chief:  # which has found the same, and says it
                return "", report.is_passed
    return report.text(), report.is_passed


def _join(experiment, directory, stop_requests):
    check_num_workers(experiment.cluster)
    cluster = preparation.join_cluster(experiment, directory)
    stop_requests.install()  # TensorFlow's own handler, set by the strategy, swallows SIGTERM
    return cluster


def _check_joined(report, cluster, experiment, directory, start_values, is_synthetic):
    """The checks that all workers make together."""
    is_equal, _ = report.attempt(
        "configuration, code, versions",
        lambda: preflight.check_equal(cluster, start_values),
        tell=lambda _: _equal_text(cluster),
    )
    is_shared = is_synthetic or (
        is_equal
        and report.attempt(
            "run directory",
            lambda: preflight.check_shared(cluster, directory),
            tell=lambda _: f"{directory.path}: can be written, and all see what is written",
        )[0]
    )
    is_right, _ = report.attempt(
        "self-test",
        lambda: preflight.check_semantics(cluster, experiment),
        tell=lambda _: "gradients, statistics, dropout masks and clipping as they must be",
    )
    if not (is_equal and is_shared and is_right):
        report.add("records, network, step", _NOT_TRIED, "-")
        return
    with tempfile.TemporaryDirectory() as cache_dir:
        _copy_indices(directory, cache_dir)
        is_prepared, prepared = report.attempt(
            "records, network, checkpoint",
            lambda: preparation.prepare(
                experiment, directory, cluster, is_synthetic=is_synthetic, cache_dir=cache_dir
            ),
            tell=_prepared_text,
        )
        if not is_prepared:
            report.add("batch, disk, memory, step", _NOT_TRIED, "-")
            return
        _check_prepared(report, prepared, RunDirectory(cache_dir))


def _check_prepared(report, prepared, scratch):
    """The checks of a run that is ready for its next step.

    Args:
      scratch: RunDirectory of this worker alone, for what the watchdog writes.
    """
    cluster = prepared.cluster
    report.add("batch", summary.batch_arithmetic(overview.batch_facts(prepared)))
    if not prepared.inputs.is_synthetic:
        _attempt_alike(report, cluster, "lock", lambda: _free_of_others(prepared), str)
        _attempt_alike(report, cluster, "disk", lambda: _room_for_checkpoints(prepared), str)
    hosts = preflight.gather_text(cluster, socket.gethostname())
    sharing = hosts.count(hosts[cluster.worker_index])
    has_memory = _attempt_alike(
        report, cluster, "memory", lambda: _room_in_memory(prepared, sharing), str
    )
    if has_memory:
        train_step = TrainStep(
            cluster.strategy, prepared.state, prepared.recipe, clock=time.perf_counter
        )
        # Only from here on: before, another worker may rightly take an hour to index its records.
        with lost_workers.watch(prepared.experiment, scratch, is_stop_asked=bool) as watch:
            watch.has_devices(cluster.num_local)
            watch.enter(watchdog.FIRST_STEP, step=prepared.start_step + 1)
            _check_step(report, prepared, train_step)
            report.add("all-reduce", _timed_all_reduce(prepared, train_step))
    else:
        report.add("step, all-reduce", _NOT_TRIED, "-")
    for line in prepared.warnings + exposure.port_warnings(cluster.address):
        report.add("warning", line, "note")


def _attempt_alike(report, cluster, name, produce, tell):
    """`report.attempt` of what may fail on one worker alone: it then fails on all."""
    return report.attempt(name, lambda: preflight.agreed(cluster, produce), tell=tell)[0]


def _copy_indices(directory, cache_dir):
    """Indices that the run has kept are used; those that are made here go with the dry run."""
    kept = directory.path / "index"
    if kept.is_dir():
        shutil.copytree(kept, pathlib.Path(cache_dir) / "index")


# -- what is found ---------------------------------------------------------------------------------


def _workers_text(cluster):
    number = quantities.count_of(cluster.num_workers, "worker")
    local = ", ".join(sorted(set(cluster.device_names)))
    devices = quantities.count_of(cluster.num_local, "device")
    text = f"{number} ({cluster.workers_from}), {devices} each ({local})"
    return text + (f"; its port was free: {cluster.address}" if cluster.address else "")


def _equal_text(cluster):
    facts = preflight.start_facts(cluster, {})
    names = ("python", "tensorflow", "keras", "numpy")
    versions = ", ".join(f"{name} {facts[name]}" for name in names)
    return versions + ("; equal on all workers" if cluster.num_workers > 1 else "")


def _prepared_text(prepared):
    inputs = prepared.inputs
    place = "generated batches" if inputs.is_synthetic else f"{inputs.data_dir} (every shard there)"
    length = (
        f"{inputs.num_train_examples:,} training images, {inputs.num_classes:,} classes; "
        f"{prepared.total_steps:,} steps"
    )
    start = prepared.resumed or [f"a new run in {prepared.run_dir}"]
    return "\n".join([f"{place}: {length}", *start])


def _free_of_others(prepared):
    if prepared.cluster.is_chief:
        RunDirectory(prepared.run_dir).check_unlocked()
    return "no other process trains in the run directory"


def _room_for_checkpoints(prepared):
    """Raises ConfigError unless the checkpoints that are kept, and one more, have room."""
    store = CheckpointStore.of_run(prepared.run_dir)
    size = sum(
        math.prod(shape) * tf.as_dtype(dtype).size
        for shape, dtype in prepared.state.expected().values()
    )
    wanted = prepared.experiment.checkpoints.keep_last + 1
    number = max(1, wanted - len(store.checkpoints()))
    place = next(path for path in (store.directory, *store.directory.parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = (
        f"{quantities.byte_size(free)} free at {place}; {number} more of {wanted} checkpoints, "
        f"{quantities.byte_size(size)} each"
    )
    if prepared.cluster.is_chief and size * _ROOM * number > free:
        raise ConfigError(
            "checkpoints.keep_last checkpoints and the one being written must fit on the disk.",
            received=text,
            remedy="Make room there, lower checkpoints.keep_last, or give another --run_dir.",
        )
    return text


def _room_in_memory(prepared, num_sharing):
    """Raises ConfigError where the guess of what a step needs is more than there is.

    Args:
      num_sharing: workers on this host, this one among them.
    """
    guess, cluster = overview.memory_guess(prepared), prepared.cluster
    if cluster.device_kind == "GPU":
        needed, there, what = guess.total_bytes, memory.gpu_bytes(), "a device has"
    else:
        taken = sum(getattr(guess, name) for name in _TAKEN)
        # Finished batches wait in the host's memory, and one is being put together.
        waiting = guess.images_bytes * (prepared.experiment.data.prefetch_steps + 1)
        needed = (guess.total_bytes - taken + waiting) * cluster.num_local * num_sharing
        there, what = memory.host_bytes(), "free on this host, beside weights and slots"
    has = "not known" if there is None else quantities.byte_size(there)
    text = f"{summary.memory_line(guess)}\n{what}: {has}; needed: "
    text += f"about {quantities.byte_size(needed)}"
    if there is not None and needed > there:
        raise ConfigError(
            "A step must fit into memory.",
            received=text.replace("\n", "; "),
            remedy="Set training.recompute = True (more time), declare more replicas of fewer "
            "images (training.num_replicas, training.replica_batch: another recipe), use "
            "model.precision = 'mixed_bfloat16', or a machine with more memory.",
        )
    return text


def _check_step(report, prepared, train_step):
    """One real step with real data; nothing of it is saved."""
    batches = run_inputs.train_batches(
        prepared.inputs,
        prepared.experiment,
        prepared.cluster,
        prepared.assignment,
        start_step=prepared.start_step,
    )
    began = time.perf_counter()
    is_fetched, batch = report.attempt(
        "first batch",
        lambda: preflight.agreed(prepared.cluster, lambda: _fetch(prepared, batches)),
        tell=lambda _: f"read and decoded in {_secs_since(began)}",
    )
    if is_fetched:
        began = time.perf_counter()
        report.attempt(
            "one step",
            lambda: _take(train_step, batch),
            tell=lambda outputs: f"loss {quantities.loss_text(float(outputs['data_loss_nats']))} "
            f"nats, gradient norm {float(outputs['gradient_norm']):.3g}; {_secs_since(began)} with "
            "tracing, which later steps do not need",
        )


def _fetch(prepared, batches):
    try:
        return next(batches)
    except tf.errors.OpError as error:
        if prepared.inputs.is_synthetic:
            raise
        split = prepared.experiment.data.train_split
        run_inputs.raise_data_error(error, prepared.inputs.readers[split])


def _take(train_step, batch):
    try:
        outputs = train_step.run_one(batch, tf.zeros([2], tf.int64))
        failed_step = int(outputs["failed_step"])
    except tf.errors.ResourceExhaustedError as error:
        raise ConfigError(
            "A step must fit into memory.",
            received=error.message.splitlines()[0],
            remedy="Declare more replicas of fewer images, or use a device with more memory.",
        ) from error
    if failed_step >= 0:
        raise ConfigError(
            "Loss, gradients and statistics of a step must be finite.",
            received=f"step {failed_step:,}: loss {float(outputs['data_loss_nats'])}",
            remedy="Lower the learning rate, or look at that step's images.",
        )
    return outputs


def _timed_all_reduce(prepared, train_step):
    """What the sums of a step take on the wire, all workers together."""
    strategy, reduction = prepared.cluster.strategy, train_step.reduction
    if prepared.assignment.num_physical == 1:
        return "one device: nothing is sent"

    @tf.function
    def reduce():
        def on_device():
            context = tf.distribute.get_replica_context()
            zeros = train_step.update.zero_sums()
            return reduction.all_reduce(context, zeros, tf.zeros([1], tf.int64))[1]

        return strategy.experimental_local_results(strategy.run(on_device))[0]

    reduce().numpy()
    began = time.perf_counter()
    reduce().numpy()
    added = [item.variable for item in prepared.state.trained] + prepared.state.statistics
    count = sum(math.prod(variable.shape) for variable in added)
    value_bytes = {"exact": 8, "float32": 4, "bfloat16": 2}[reduction.kind]
    size = quantities.byte_size(value_bytes * count)
    devices = quantities.count_of(prepared.assignment.num_physical, "device")
    return f"{size} over {devices} in {_secs_since(began)}"


def _secs_since(began):
    return quantities.step_secs_text(time.perf_counter() - began)
