"""A step that failed, kept so that it can be looked at again on one device.

    RUN_DIR/failed_step_1234/
      before/step-000001234/    every variable as it was before the step, as a checkpoint
      replica_17.npz            the batch of a guilty declared replica: images and labels
      config_of_run.gin         the run's configuration
      step.json                 what was found, where the images come from; written last

A resume looks for checkpoints in RUN_DIR/checkpoints alone. A step that fails again gets
failed_step_1234-2 and then -3; what is there already is never written over.
"""

import dataclasses
import json
import math
import pathlib
import platform
import shutil

import keras
import numpy as np
import tensorflow as tf

import inception_tf
from inception_tf import durable
from inception_tf import inputs as run_inputs
from inception_tf.data import order
from inception_tf.run_directory import RunDirectory
from inception_tf.training.checkpoint import CheckpointStore
from inception_tf.training.declared import read_faults

FORMAT_VERSION = 1
BEFORE_FOLDER = "before"
CONFIG_FILE = "config_of_run.gin"
STEP_FILE = "step.json"
# Batches that are written: at 32 images of 299 x 299 px 34 MB each.
MOST_BATCHES = 4
_MOST_DIRECTORIES = 3  # of one step number
_SAVED_VARIABLES, _SAVED_STEP = 1, 2


def keep(prepared, *, step, outputs, batch, checkpoint_facts) -> tuple[str, str]:
    """Keeps a failed step in the run directory; every worker calls it at the same step.

    The chief writes the variables and step.json, each guilty worker its own batches. Whatever goes
    wrong here is told and not raised: the step's own error has to come through.

    Args:
      prepared: Prepared, its variables those before the step.
      step: its number.
      outputs: of TrainStep.
      batch: this worker's of the step, or None where the host never had it.
      checkpoint_facts: JSON values that every checkpoint of the run carries.

    Returns:
      What was found, and what to do about it.
    """
    faults = read_faults(outputs["faults"].numpy(), prepared.state)
    places = [_place(prepared, fault.declared) for fault in faults]
    found = _found(faults, places)
    if prepared.inputs.is_synthetic:
        return found, "Generated batches are not kept. Use a lower learning rate."
    keeper = _Keeper(prepared, step, outputs, batch, checkpoint_facts)
    try:
        return found, keeper.keep(faults, places)
    except Exception as error:  # a worker that is lost, memory: anything but the step's own error
        return found, f"The step could not be kept: {type(error).__name__}: {_line(error)}."


def file_of_replica(declared) -> str:
    """File name of a declared replica's batch."""
    return f"replica_{declared}.npz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Place:
    """Worker and device that ran a declared replica; `is_own` where that is this worker."""

    worker: int
    device: str
    local: int
    is_own: bool


def _place(prepared, declared):
    cluster = prepared.cluster
    worker, local = divmod(declared % cluster.num_physical, cluster.num_local)
    return _Place(
        worker=worker,
        device=f"{cluster.device_kind}:{local}",
        local=local,
        is_own=worker == cluster.worker_index,
    )


def _found(faults, places):
    if not faults:
        return "every declared replica's values are finite, what became of their sum is not"
    lines = [
        f"declared replica {fault.declared} (worker {place.worker}, {place.device}) has "
        f"{fault.value:g} as {fault.what}"
        for fault, place in zip(faults, places)
    ]
    more = len(lines) - MOST_BATCHES
    return "; ".join(lines[:MOST_BATCHES]) + (f"; and {more} more" if more > 0 else "")


class _Keeper:
    """Writes the files of one failed step, with the other workers."""

    def __init__(self, prepared, step, outputs, batch, checkpoint_facts):
        self.prepared, self.step, self.outputs = prepared, step, outputs
        self.batch, self.checkpoint_facts = batch, checkpoint_facts
        self.problems = []

    def keep(self, faults, places):
        """Writes everything; what to do about the failure. Collective."""
        cluster, kept = self.prepared.cluster, faults[:MOST_BATCHES]
        number = cluster.gather(self._attempt(self._make_directory) if cluster.is_chief else 0)[0]
        if number == 0:
            return self._not_kept(f"no directory failed_step_{self.step}")
        path = _directory(self.prepared.run_dir, self.step, number)
        # From here on each worker goes through every gather, whatever it could not write.
        own = sum(
            self._attempt(self._save_batch, path, fault.declared, place) << bit
            for bit, (fault, place) in enumerate(zip(kept, places))
            if place.is_own
        )
        done = self._attempt(self._save_variables, path) if cluster.is_chief else 0
        mask = sum(cluster.gather(own))
        written = {fault.declared for bit, fault in enumerate(kept) if mask >> bit & 1}
        if cluster.is_chief:
            done |= self._attempt(self._save_step, path, faults, places, written)
        # The last gather too: a worker that leaves early ends the others.
        if cluster.gather(done)[0] != _SAVED_VARIABLES | _SAVED_STEP:
            if cluster.is_chief:
                shutil.rmtree(path, ignore_errors=True)  # of no use, and room may be short
            return self._not_kept(f"{path} was removed again")
        lacking = [fault.declared for fault in kept if fault.declared not in written]
        notes = [f"The batch of declared replica {d} could not be written;" for d in lacking]
        notes += ["--from_data makes it again."] if lacking else []
        notes += [f"Look at it on one device: python -m inception_tf.replay_step {path}"]
        return " ".join([*self._own_problems(), *notes])

    def _attempt(self, save, *arguments):
        """What `save` returns; 0 where it fails, and the problem is noted."""
        try:
            return save(*arguments)
        except Exception as error:  # all workers have to meet again: nothing may get through
            self.problems.append(f"{type(error).__name__}: {_line(error)}")
            return 0

    def _own_problems(self):
        return [f"Not written: {'; '.join(self.problems)}."] if self.problems else []

    def _not_kept(self, what):
        return " ".join([f"The step is not kept: {what}.", *self._own_problems()])

    def _make_directory(self):
        """Number of a new directory, from 1."""
        for number in range(1, _MOST_DIRECTORIES + 1):
            try:
                _directory(self.prepared.run_dir, self.step, number).mkdir()
                return number
            except FileExistsError:
                continue
        raise FileExistsError(f"{_MOST_DIRECTORIES} of that step are there already: remove them")

    def _save_batch(self, path, declared, place):
        if self.batch is None:
            images, labels = run_inputs.declared_batch(
                self.prepared.inputs, self.prepared.experiment, declared=declared, step=self.step
            )
        else:
            round_index = declared // self.prepared.cluster.num_physical
            local_results = self.prepared.cluster.strategy.experimental_local_results
            images, labels = (
                local_results(self.batch[name])[place.local][round_index].numpy()
                for name in ("images", "labels")
            )
        with durable.open_whole(path / file_of_replica(declared)) as stream:
            np.savez(stream, images=images, labels=labels)
        return 1

    def _save_variables(self, path):
        store = CheckpointStore(path / BEFORE_FOLDER)
        facts = {**self.checkpoint_facts, "is_before_failed_step": True}
        store.save(step=self.step, values=self.prepared.state.values(), facts=facts)
        return _SAVED_VARIABLES

    def _save_step(self, path, faults, places, written):
        config = RunDirectory(self.prepared.run_dir).config_file.read_text(encoding="utf-8")
        durable.save_text(path / CONFIG_FILE, config)
        text = json.dumps(self._describe(faults, places, written), indent=1)
        durable.save_text(path / STEP_FILE, text + "\n")
        return _SAVED_STEP

    def _describe(self, faults, places, written):
        prepared, kept = self.prepared, faults[:MOST_BATCHES]
        names = ("data_loss_nats", "l2_loss_nats", "gradient_norm", "learning_rate")
        loop = prepared.experiment.training.steps_per_loop
        return {
            "format_version": FORMAT_VERSION,
            "step": self.step,
            **{name: _number(float(self.outputs[name])) for name in names},
            "recipe": self.checkpoint_facts["recipe"],
            "versions": {
                "inception_tf": inception_tf.__version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "num_classes": prepared.inputs.num_classes,
            "num_examples": prepared.inputs.num_train_examples,
            "num_workers": prepared.cluster.num_workers,
            "num_devices": prepared.cluster.num_physical,
            "device_names": list(prepared.cluster.device_names),
            "intra_op_threads": prepared.cluster.intra_op_threads,
            "smoothing_prior": self._smoothing_prior(),
            "batches": "as they were fed"
            if self.batch is not None
            else f"made again from the records: with training.steps_per_loop = {loop} the device "
            "alone had them",
            "replicas": [
                self._describe_replica(fault, place, written) for fault, place in zip(kept, places)
            ],
            "left_out": [fault.declared for fault in faults[MOST_BATCHES:]],
        }

    def _smoothing_prior(self):
        """What only the data knows of the recipe; None where it is uniform."""
        if self.prepared.experiment.objective.smoothing_prior == "uniform":
            return None
        return np.asarray(self.prepared.recipe.smoothing_prior).tolist()

    def _describe_replica(self, fault, place, written):
        has_file = fault.declared in written
        return {
            **dataclasses.asdict(fault),
            "value": _number(fault.value),
            "worker": place.worker,
            "device": place.device,
            "file": file_of_replica(fault.declared) if has_file else None,
            "images": self._describe_images(fault.declared),
        }

    def _describe_images(self, declared):
        """Position and origin of each image of a declared replica's batch."""
        prepared, experiment = self.prepared, self.prepared.experiment
        positions = order.step_positions(self.step, declared, assignment=prepared.assignment)
        record_ids = order.record_ids(
            positions,
            seed=experiment.training.seed,
            num_examples=prepared.inputs.num_train_examples,
        )
        reader = prepared.inputs.readers[experiment.data.train_split]
        has_boxes = experiment.augmentation.use_bounding_boxes
        return [
            {
                "position": position,
                **dataclasses.asdict(reader.origin(record_id, has_boxes=has_boxes)),
            }
            for position, record_id in zip(
                positions.numpy().tolist(), record_ids.numpy().tolist()
            )
        ]


def _directory(run_dir, step, number):
    suffix = "" if number == 1 else f"-{number}"
    return pathlib.Path(run_dir) / f"failed_step_{step}{suffix}"


def _number(value):
    """A float as JSON has it, which knows neither NaN nor infinity."""
    return value if math.isfinite(value) else str(value)


def _line(error):
    return (str(error).splitlines() or [""])[0].rstrip(".")
