"""Evaluates each new checkpoint of a run that trains elsewhere, and keeps the best."""

import contextlib
import os
import pathlib
import secrets
import shutil
import time

from inception_tf import cluster as clusters
from inception_tf import durable, preparation, products
from inception_tf import inputs as run_inputs
from inception_tf.errors import CheckpointError
from inception_tf.reporting.metrics_file import METRICS_FILE, read_rows, row_line
from inception_tf.reporting.progress import evaluation_text
from inception_tf.run_directory import RunDirectory
from inception_tf.stopping import StopRequests
from inception_tf.training.checkpoint import CheckpointStore

BEST_DIRECTORY = "best"
_POLL_SECS = 5.0


class WatchedResults:
    """The rows of a run's checkpoints, in <run_dir>/evaluations: the trainer's are never touched.

    metrics.jsonl has a row for each step, as the trainer's own (see reporting/metrics_file.py).
    best/ holds the checkpoint with the best averaged top-1, the earliest of equal ones: hard links
    where the file system has them, so that it stays when the trainer removes its own.

    Args:
      run_dir: of the run; made where it is absent.
    """

    def __init__(self, run_dir):
        self.directory = pathlib.Path(run_dir) / "evaluations"
        self.best = CheckpointStore(self.directory / BEST_DIRECTORY)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._path = self.directory / METRICS_FILE

    def steps(self) -> set[int]:
        """Steps that have a row."""
        return {row["step"] for row in read_rows(self.directory)}

    def best_step(self) -> int | None:
        """The step with the best averaged top-1 of all rows."""
        rows = sorted(read_rows(self.directory), key=lambda row: row["step"])
        return max(rows, key=lambda row: row["eval_averaged/top1"])["step"] if rows else None

    def add(self, step: int, row: dict) -> None:
        """Appends a row; what a kill left unfinished of an earlier one stays a line of its own."""
        with open(self._path, "a+b") as stream:
            if stream.tell() and not self._ends_a_line():
                stream.write(b"\n")
            stream.write(row_line(step, "eval", row).encode())
            stream.flush()
            os.fsync(stream.fileno())

    def keep_best(self, info) -> None:
        """Keeps a checkpoint as the best one, and drops the one that was.

        Raises:
          OSError: it is no longer there, or the disk does not take it.
        """
        self.best.directory.mkdir(exist_ok=True)
        final = self.best.directory / info.path.name
        if final.exists():
            return
        hidden = self.best.directory / f".saving-{secrets.token_hex(4)}-{final.name}"
        try:
            shutil.copytree(info.path, hidden, copy_function=_link)
            hidden.rename(final)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        durable.flush_to_disk(self.best.directory)
        for other in self.best.directory.iterdir():
            if other != final:
                shutil.rmtree(other, ignore_errors=True)

    def _ends_a_line(self):
        with open(self._path, "rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read() == b"\n"


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def new_checkpoints(run_dir, results: WatchedResults):
    """Whole checkpoints that have no row, oldest first."""
    seen = results.steps()
    infos = CheckpointStore.of_run(run_dir).checkpoints()
    return [info for info in infos if info.step not in seen and info.defect is None]


def watch_run(experiment, *, run_dir, tell) -> bool:
    """Evaluates every checkpoint of a run that trains in other processes, until it is complete.

    This process is alone, whatever TF_CONFIG says; it only adds files to <run_dir>/evaluations.

    Args:
      experiment: an Experiment, as the run's saved configuration says it.
      run_dir: of the run.
      tell: takes a line of text.

    Returns:
      Whether the run's last checkpoint was evaluated; False: a signal came first.

    Raises:
      UserError: no usable records, or a run of other classes.
    """
    directory = RunDirectory(run_dir)
    with StopRequests() as stop_requests:
        cluster = clusters.join(experiment.cluster, is_alone=True)
        stop_requests.install()  # TensorFlow's own handler, set by the strategy, swallows SIGTERM
        data = experiment.data
        inputs = run_inputs.open_inputs(
            data,
            experiment.model,
            run_dir=directory.path,
            splits=[data.eval_split],
            blacklist=experiment.evaluation.blacklist,
        )
        while (facts := directory.read_facts()) is None:  # the run has only just begun
            if stop_requests.has_arrived():
                return False
            time.sleep(_POLL_SECS)
        return watch(
            experiment,
            run_dir=run_dir,
            cluster=cluster,
            inputs=inputs,
            total_steps=preparation.total_steps_of(
                experiment.training, num_examples=facts.num_examples
            ),
            tell=tell,
            is_over=stop_requests.has_arrived,
            wait=lambda: _sleep(stop_requests),
        )


def _sleep(stop_requests):
    end = time.monotonic() + _POLL_SECS
    while time.monotonic() < end and not stop_requests.has_arrived():
        time.sleep(0.2)


def watch(experiment, *, run_dir, cluster, inputs, total_steps, tell, is_over, wait):
    """Evaluates averaged and raw weights of every checkpoint until the run's last one.

    Args:
      experiment: an Experiment, as the run's saved configuration says it.
      run_dir: of the run.
      cluster: this process's devices.
      inputs: the records.
      total_steps: of the run.
      tell: takes a line of text.
      is_over: asked before every batch; whether to leave off.
      wait: called where nothing is new.

    Returns:
      Whether the last checkpoint was evaluated.
    """
    results = WatchedResults(run_dir)
    directory, evaluator, model = RunDirectory(run_dir), None, None
    failed = set()
    while not is_over():
        new = [one for one in new_checkpoints(run_dir, results) if one.step not in failed]
        if not new:
            if total_steps in results.steps() | failed:
                return True
            wait()
            continue
        step = new[0].step
        try:
            trained = products.read_run(
                experiment, directory, cluster, num_classes=inputs.num_classes, step=step,
                model=model,
            )  # fmt: skip
        except (CheckpointError, OSError) as error:  # damaged, or the trainer has removed it
            tell(f"step {step:,} is passed over: {error}")
            failed.add(step)
            continue
        model = trained.model
        if evaluator is None:
            evaluator = products.build_evaluator(experiment, model, cluster, inputs)
        row = _row_of(experiment, evaluator, trained, cluster, inputs, is_over)
        if row is None:
            return False
        results.add(step, row)
        tell(evaluation_text(step, row))
        if results.best_step() == step:
            with contextlib.suppress(FileNotFoundError):  # the trainer has just removed it
                results.keep_best(new[0])
    return False


def _row_of(experiment, evaluator, trained, cluster, inputs, is_over):
    """The metrics of a checkpoint by name; None where it was left off."""
    row = {}
    for prefix, averaged in (("eval_averaged", True), ("eval", False)):
        result = products.evaluate_split(
            experiment, evaluator, trained.values(averaged=averaged), cluster, inputs,
            is_stop_asked=is_over,
        )  # fmt: skip
        if result is None:
            return None
        row |= result.as_row(prefix)
    return row


