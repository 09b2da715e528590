"""One training run in this process: what happens between the steps."""

import pathlib
import time

import tensorflow as tf

from inception_tf import failed_step, products
from inception_tf.bad_records import BadRecordLog
from inception_tf.reporting import summary
from inception_tf.reporting.metrics_file import UNIX_SECS
from inception_tf.saving import Saving
from inception_tf.training import watchdog
from inception_tf.training.checkpoint import CheckpointStore


EVALUATION_IS_PENDING = "evaluation_is_pending"  # in the facts of a checkpoint


class Session:
    """Logs, evaluates and saves a run; its methods are the hooks of training/loop.py.

    Args:
      prepared: the run, ready for its next step (preparation.Prepared).
      writer: EventWriter.
      clock: function without arguments that returns seconds.
      stop_requests: StopRequests.
      watch: the Watchdog of this worker.
      checkpoint_facts: JSON values that every checkpoint carries.
    """

    def __init__(self, prepared, *, writer, clock, stop_requests, watch, checkpoint_facts):
        self.prepared = prepared
        self.experiment = prepared.experiment
        self.run_dir = pathlib.Path(prepared.run_dir)
        self.cluster = prepared.cluster
        self.inputs = prepared.inputs
        self.state = prepared.state
        self.writer = writer
        self.clock = clock
        self.stop_requests = stop_requests
        self.watch = watch
        self.checkpoint_facts = checkpoint_facts
        self.store = CheckpointStore.of_run(prepared.run_dir)
        self._evaluator = None
        self._results = {}
        self.saving = Saving(self, self.experiment.checkpoints)
        self.evaluation_is_pending = False
        self.bad_records = BadRecordLog(prepared.run_dir, self.inputs.readers, self.cluster)
        self.bad_records.restore()

    def catch_up(self, step):
        """Makes up for the evaluation that a stop left for this start.

        Returns:
          Whether the run can go on; otherwise it was asked to stop again.
        """
        info = next((i for i in self.store.checkpoints() if i.step == step), None)
        if info is None or not info.facts.get(EVALUATION_IS_PENDING):
            return True
        if self.evaluate(step, is_stopping=False):
            return False
        self.save(step, is_last=step == self.prepared.total_steps)
        return True

    # -- hooks ---------------------------------------------------------------------------------

    def enter(self, phase, step, num_steps):
        """Tells the watchdog."""
        self.watch.enter(phase, step=step, num_steps=num_steps)

    def started(self, step, secs_per_step):
        """Tells what the whole run will take, once its rate is known."""
        remaining = self.prepared.total_steps - step
        is_resumed = self.prepared.start_step > 0
        self.writer.note(summary.first_estimate(secs_per_step, remaining, is_resumed=is_resumed))

    def progress(self, step, outputs, interval):
        """Moves the live line."""
        self.writer.progress(step, self._train_values(outputs, interval))

    def log(self, step, outputs, interval):
        """Writes the row of this step and starts counting clipped steps again."""
        clipped, last = (self.state.scalars[n] for n in ("clipped_steps", "last_row_step"))
        values = self._train_values(outputs, interval)
        values["train/clipped_share"] = int(clipped.numpy()) / (step - int(last.numpy()))
        values[UNIX_SECS] = round(time.time(), 3)
        self.writer.train_row(step, values)
        clipped.assign(0)
        last.assign(step)

    def evaluate(self, step, is_stopping):
        """Evaluates averaged and raw weights and remembers the best averaged top-1.

        Returns:
          Whether a stop left the evaluation, of which nothing is kept, for the next start.
        """
        if self.inputs.is_synthetic:
            return False
        self._results = {} if is_stopping else self._evaluated(step)
        self.evaluation_is_pending = not self._results
        if self.evaluation_is_pending:
            return True
        row = {
            **self._results["averaged"].as_row("eval_averaged"),
            **self._results["raw"].as_row("eval"),
        }
        self.writer.eval_row(step, row)
        best = self.state.scalars["best_top1"]
        if row["eval_averaged/top1"] > float(best.numpy()):
            best.assign(row["eval_averaged/top1"])
            self.state.scalars["best_step"].assign(step)
        return False

    def save(self, step, is_last):
        """Writes a checkpoint, the chief alone, and tells of bad records, all workers' at once.

        Raises:
          DataError: all workers together left out more records than tolerated. The checkpoint is
            written: with a larger budget the run goes on from there.
          NoRoomError: the disk refused too many in a row, on every worker.
        """
        self.saving.save(step, is_last=is_last)
        if step < self.prepared.total_steps:  # what was read ahead of the end harms no one
            self.bad_records.check_budget()

    def profile(self, is_start):
        """Starts or ends a TensorBoard trace of the steps between; the chief alone."""
        if not self.cluster.is_chief:
            return
        if is_start:
            tf.profiler.experimental.start(str(self.run_dir / "tensorboard"))
        else:
            tf.profiler.experimental.stop()

    def save_is_due(self):
        """Whether the chief's clock asks for a checkpoint."""
        return self.saving.is_due()

    def end(self):
        """Keeps what this process alone knows of, however the run ends."""
        try:
            for line in self.bad_records.keep():
                self.writer.note(line)
        except OSError as error:
            self.writer.note(f"the list of bad records could not be written: {error}")
        if summary_line := self.bad_records.summary():
            self.writer.note(summary_line)

    def stop_is_due(self):
        """Whether this process was asked to stop."""
        return self.stop_requests.has_arrived()

    def is_any_stop_asked(self):
        """Whether any worker was asked to stop; collective."""
        return any(self.cluster.gather(int(self.stop_is_due())))

    def is_seen_by_chief(self, path):
        """Whether a path exists where the chief looks; collective."""
        return bool(self.cluster.gather(int(path.exists()))[0])

    def keep_failed_step(self, step, outputs, batch):
        """Keeps a failed step for replay_step; what was found, and what to do about it."""
        found, remedy = failed_step.keep(
            self.prepared,
            step=step,
            outputs=outputs,
            batch=batch,
            checkpoint_facts=self.checkpoint_facts,
        )
        newest, _ = self.store.newest_verified()
        last = (
            f"No checkpoint lies in {self.store.directory}."
            if newest is None
            else f"The last good checkpoint is {newest.path}."
        )
        return found, f"{last} {remedy}"

    # -- parts ---------------------------------------------------------------------------------

    def _train_values(self, outputs, interval):
        data_loss, l2_loss = float(outputs["data_loss_nats"]), float(outputs["l2_loss_nats"])
        secs_per_step = interval.secs / interval.num_steps
        values = {
            "train/loss_nats": data_loss + l2_loss,
            "train/data_loss_nats": data_loss,
            "train/l2_loss_nats": l2_loss,
            "train/accuracy": float(outputs["accuracy"]),
            "train/learning_rate": float(outputs["learning_rate"]),
            "train/gradient_norm": float(outputs["gradient_norm"]),
            "perf/secs_per_step": secs_per_step,
            "perf/images_per_sec": self.prepared.assignment.global_batch / secs_per_step,
            "perf/data_wait_share": interval.data_wait_secs / interval.secs,
        }
        if "loss_scale" in self.state.scalars:
            values["train/loss_scale"] = float(self.state.scalars["loss_scale"].numpy())
        return values

    def write_checkpoint(self, step):
        """Writes a checkpoint and removes those that no rule keeps.

        Raises:
          CheckpointNotWritten, OSError: the disk did not take it, or the rows before it.
        """
        self.writer.flush()
        best_step = int(self.state.scalars["best_step"].numpy())
        facts = {
            **self.checkpoint_facts,
            "epoch": step / self.prepared.steps_per_epoch,
            "best_step": best_step if best_step >= 0 else None,
            **({EVALUATION_IS_PENDING: True} if self.evaluation_is_pending else {}),
        }
        self.store.save(step=step, values=self.state.values(), facts=facts)
        self.store.prune(
            self.experiment.checkpoints,
            best_step=best_step if best_step >= 0 else None,
            steps_per_epoch=self.prepared.steps_per_epoch,
        )

    def _evaluated(self, step):
        """Results of averaged and raw weights as they are now; {} where a stop came first."""
        moved = self.watch.enter_batches(watchdog.EVALUATING, step=step)
        if self._evaluator is None:
            self._evaluator = products.build_evaluator(
                self.experiment, self.state.model, self.cluster, self.inputs
            )
        results = {}

        def is_stop_asked():
            moved()
            return self.stop_is_due()

        for weights in ("averaged", "raw"):
            results[weights] = products.evaluate_split(
                self.experiment,
                self._evaluator,
                self.state.evaluated_variables(averaged=weights == "averaged"),
                self.cluster,
                self.inputs,
                is_stop_asked=is_stop_asked,
            )
            if results[weights] is None:
                return {}
        return results

    def final_results(self):
        """Results of the last evaluation; evaluates where this process has not done so.

        None where a stop left it for the next start.
        """
        if self._results or self.evaluation_is_pending:
            return self._results or None
        return self._evaluated(self.prepared.total_steps) or None
