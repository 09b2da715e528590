"""One training run in this process: what happens between the steps."""

import pathlib

import tensorflow as tf

from inception_tf import failed_step, products
from inception_tf.bad_records import BadRecordLog
from inception_tf.reporting import summary
from inception_tf.training.checkpoint import CheckpointStore


class Session:
    """Logs, evaluates and saves a run; its methods are the hooks of training/loop.py.

    Args:
      prepared: the run, ready for its next step (preparation.Prepared).
      writer: EventWriter.
      clock: function without arguments that returns seconds.
      stop_requests: list to which the signal handlers append.
      checkpoint_facts: JSON values that every checkpoint carries.
    """

    def __init__(self, prepared, *, writer, clock, stop_requests, checkpoint_facts):
        self.prepared = prepared
        self.experiment = prepared.experiment
        self.run_dir = pathlib.Path(prepared.run_dir)
        self.cluster = prepared.cluster
        self.inputs = prepared.inputs
        self.state = prepared.state
        self.writer = writer
        self.clock = clock
        self.stop_requests = stop_requests
        self.checkpoint_facts = checkpoint_facts
        self.store = CheckpointStore.of_run(prepared.run_dir)
        self._evaluator = None
        self._results = {}
        self._saved_at_secs = clock()
        self.bad_records = BadRecordLog(prepared.run_dir, self.inputs.readers, self.cluster)
        self.bad_records.restore()

    # -- hooks ---------------------------------------------------------------------------------

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
        self.writer.train_row(step, values)
        clipped.assign(0)
        last.assign(step)

    def evaluate(self, step):
        """Evaluates averaged and raw weights and remembers the best averaged top-1."""
        if self.inputs.is_synthetic:
            return
        self._results = self._evaluated()
        row = {
            **self._results["averaged"].as_row("eval_averaged"),
            **self._results["raw"].as_row("eval"),
        }
        self.writer.eval_row(step, row)
        best = self.state.scalars["best_top1"]
        if row["eval_averaged/top1"] > float(best.numpy()):
            best.assign(row["eval_averaged/top1"])
            self.state.scalars["best_step"].assign(step)

    def save(self, step):
        """Writes a checkpoint, the chief alone, and tells of bad records, all workers' at once.

        Raises:
          DataError: all workers together left out more records than tolerated. The checkpoint is
            written: with a larger budget the run goes on from there.
        """
        self._saved_at_secs = self.clock()
        for line in self.bad_records.exchange():
            self.writer.note(line)
        if self.cluster.is_chief and not self.inputs.is_synthetic:
            self._save_checkpoint(step)
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
        minutes = self.experiment.checkpoints.every_minutes
        if minutes is None or not self.cluster.is_chief:
            return False
        return self.clock() - self._saved_at_secs >= 60.0 * minutes

    def end(self):
        """Keeps what this process alone knows of, however the run ends."""
        for line in self.bad_records.keep():
            self.writer.note(line)
        if summary_line := self.bad_records.summary():
            self.writer.note(summary_line)

    def stop_is_due(self):
        """Whether this process was asked to stop."""
        return bool(self.stop_requests)

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

    def _save_checkpoint(self, step):
        """Writes a checkpoint and removes those that no rule keeps."""
        self.writer.flush()
        best_step = int(self.state.scalars["best_step"].numpy())
        facts = {
            **self.checkpoint_facts,
            "epoch": step / self.prepared.steps_per_epoch,
            "best_step": best_step if best_step >= 0 else None,
        }
        self.store.save(step=step, values=self.state.values(), facts=facts)
        self.store.prune(
            self.experiment.checkpoints,
            best_step=best_step if best_step >= 0 else None,
            steps_per_epoch=self.prepared.steps_per_epoch,
        )

    def _evaluated(self):
        """Results of averaged and raw weights as they are now."""
        if self._evaluator is None:
            self._evaluator = products.build_evaluator(
                self.experiment, self.state.model, self.cluster, self.inputs
            )
        return {
            weights: products.evaluate_split(
                self.experiment,
                self._evaluator,
                self.state.evaluated_variables(averaged=weights == "averaged"),
                self.cluster,
                self.inputs,
            )
            for weights in ("averaged", "raw")
        }

    def final_results(self):
        """Results of the last evaluation; evaluates where this process has not done so."""
        return self._results or self._evaluated()
