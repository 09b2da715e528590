"""A kept failed step (failed_step.py) done again on one device, looked at value by value."""

import dataclasses
import json
import math
import pathlib
import zipfile

import keras
import numpy as np
import tensorflow as tf

from inception_tf import cluster as clusters
from inception_tf import failed_step, preparation
from inception_tf import inputs as run_inputs
from inception_tf.data.pipeline import DataSpec
from inception_tf.errors import CheckpointError, ConfigError
from inception_tf.training.checkpoint import CheckpointStore
from inception_tf.training.declared import DeclaredReplica, Fault, read_faults
from inception_tf.training.reduction import Reduction

_REMEDY = "Copy the directory again from where the run wrote it."


@dataclasses.dataclass(frozen=True, kw_only=True)
class FailedStep:
    """What a directory of a failed step says of it.

    Attributes:
      path: the directory.
      step: its number.
      facts: what step.json holds.
    """

    path: pathlib.Path
    step: int
    facts: dict

    @property
    def config_file(self) -> pathlib.Path:
        """The configuration of the run."""
        return self.path / failed_step.CONFIG_FILE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """The batch of one declared replica.

    Attributes:
      images: float32 [n, H, W, 3].
      labels: int32 [n].
    """

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extremes:
    """The values of one tensor, or of all outputs of a layer.

    Attributes:
      name: of the layer or variable.
      kind: class of the layer; '' of a variable.
      largest: largest absolute value among the finite ones.
      num_non_finite, num_values: how many are NaN or Inf, of how many.
    """

    name: str
    kind: str
    largest: float
    num_non_finite: int
    num_values: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replayed:
    """What one declared replica computes.

    Attributes:
      loss_nats: data loss.
      fault: Fault, or None where all values can be summed.
      layers: Extremes of each layer's output, in the order of the forward pass.
      gradients, statistics: Extremes by variable.
    """

    loss_nats: float
    fault: Fault | None
    layers: list[Extremes]
    gradients: list[Extremes]
    statistics: list[Extremes]


def read(directory) -> FailedStep:
    """Reads what is said of a failed step.

    Raises:
      ConfigError: no directory of one, or of another format.
      CheckpointError: its step.json is damaged.
    """
    path = pathlib.Path(directory)
    file = path / failed_step.STEP_FILE
    if not file.is_file():
        raise ConfigError(
            f"The directory of a failed step holds {failed_step.STEP_FILE}.",
            received=str(file),
            remedy="Give RUN_DIR/failed_step_N, as the message of the failed run names it. Without "
            "that file a run was ended while it wrote the directory.",
        )
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        version, step, replicas = (facts[n] for n in ("format_version", "step", "replicas"))
        if version != failed_step.FORMAT_VERSION:
            raise ConfigError(
                f"A failed step must have format version {failed_step.FORMAT_VERSION}.",
                received=f"{file} with version {version}",
                remedy="Read it with the release of inception_tf that wrote it.",
            )
        for replica in replicas:
            fault_of(replica)
            where = replica["worker"], replica["device"], replica["file"]
            if not all(image.keys() >= {"record_id", "shard"} for image in replica["images"]):
                raise ValueError(f"images of declared replica {replica['declared']} on {where}")
        for name in ("num_classes", "num_examples", "intra_op_threads"):
            if type(facts[name]) is not int or facts[name] < 1:
                raise ValueError(f"{name} is {facts[name]!r}")
        if facts["smoothing_prior"] is not None:
            np.asarray(facts["smoothing_prior"], np.float32)
        return FailedStep(path=path, step=int(step), facts=facts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from error


def fault_of(replica) -> Fault:
    """The Fault that step.json keeps of a declared replica."""
    fields = {field.name: replica[field.name] for field in dataclasses.fields(Fault)}
    return Fault(**{**fields, "value": float(replica["value"])})


def read_batch(failed, declared) -> Batch | None:
    """The batch that a worker kept of a declared replica; None where it could not.

    Raises:
      CheckpointError: the file is damaged.
    """
    file = failed.path / failed_step.file_of_replica(declared)
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:  # zip: each array has a checksum
            batch = Batch(**{name: arrays[name] for name in arrays.files})
        sizes = batch.images.ndim, batch.images.shape[:1], batch.images.dtype, batch.labels.dtype
        if sizes != (4, batch.labels.shape, np.float32, np.int32):
            raise ValueError(f"images {batch.images.shape}, labels {batch.labels.shape}")
        return batch
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from error


def join_one_device(spec, failed):
    """One device of this machine, with the thread count of the run."""
    threads = spec.intra_op_threads or failed.facts["intra_op_threads"]
    alone = dataclasses.replace(spec, devices_per_worker=1, intra_op_threads=threads)
    return clusters.join(alone, is_alone=True)


def open_records(experiment, failed):
    """The records of the run, for batches that are made again.

    Raises:
      UserError: no records, or others.
    """
    data: DataSpec = experiment.data
    inputs = run_inputs.open_inputs(
        data, experiment.model, run_dir=failed.path.parent, splits=[data.train_split], trains=True
    )
    if inputs.num_train_examples != failed.facts["num_examples"]:
        raise ConfigError(
            "A batch is made again from the records of its run.",
            received=f"{inputs.num_train_examples:,} training examples in {inputs.data_dir} instead "
            f"of {failed.facts['num_examples']:,}",
            remedy="Give their directory with --data_dir.",
        )
    return inputs


class Replay:
    """The run before its failed step, on one device.

    Args:
      failed: FailedStep.
      experiment: Experiment of the run.
      cluster: Cluster of one device.

    Raises:
      CheckpointError: the variables are damaged or of another network.
    """

    def __init__(self, failed, experiment, cluster):
        training, facts = experiment.training, failed.facts
        total_steps = preparation.total_steps_of(training, num_examples=facts["num_examples"])
        self._strategy, self._step = cluster.strategy, failed.step
        self._num_replicas = training.num_replicas
        with self._strategy.scope():
            model = preparation.build_model(
                experiment.model, training, num_classes=facts["num_classes"],
                total_steps=total_steps,
            )  # fmt: skip
            outputs = [tf.nest.flatten(layer.output) for layer in model.layers]
            self._probe = keras.Model(model.inputs, outputs)
        self.state = preparation.build_state(experiment, model, cluster)
        _restore(self.state, failed)
        # Of what only the records know a prior that is not uniform was kept.
        inputs = run_inputs.Inputs(
            num_classes=facts["num_classes"], num_train_examples=facts["num_examples"]
        )
        uniform = dataclasses.replace(experiment.objective, smoothing_prior="uniform")
        recipe = preparation.build_recipe(
            dataclasses.replace(experiment, objective=uniform),
            inputs,
            model,
            cluster.assign(
                num_replicas=training.num_replicas, replica_batch=training.replica_batch
            ),
        )
        if facts["smoothing_prior"] is not None:
            prior = tf.constant(facts["smoothing_prior"], tf.float32)
            recipe = dataclasses.replace(recipe, smoothing_prior=prior)
        reduction = Reduction(kind=recipe.reduction, num_replicas=training.num_replicas)
        self._declared_replica = DeclaredReplica(self.state, recipe, reduction)

    def l2_norm(self) -> float:
        """Global norm of the L2 part of the gradient, which no declared replica has."""
        parts = [item.l2 * item.variable.value for item in self.state.trained if item.l2]
        return float(tf.linalg.global_norm(parts)) if parts else 0.0

    def run(self, declared, images, labels) -> Replayed:
        """Does the step's work of one declared replica; nothing is updated.

        Args:
          declared: its number.
          images: float32 [n, H, W, 3].
          labels: int32 [n].
        """
        number = tf.constant(declared, tf.int64)
        loss, fault, gradients, statistics, layers = self._strategy.run(
            self._compute, args=(tf.constant(images), tf.constant(labels), number)
        )
        faults = np.zeros([self._num_replicas], np.int64)
        faults[declared] = int(fault)
        trained = [(item.path, "") for item in self.state.trained]
        moving = [(variable.path, "") for variable in self.state.statistics]
        network = [(layer.name, type(layer).__name__) for layer in self.state.model.layers]
        return Replayed(
            loss_nats=float(loss),
            fault=next(iter(read_faults(faults, self.state)), None),
            layers=_described(network, layers),
            gradients=_described(trained, gradients),
            statistics=_described(moving, statistics),
        )

    @tf.function
    def _compute(self, images, labels, declared):
        step = tf.constant(self._step, tf.int64)
        loss, gradients, statistics, _ = self._declared_replica.run(images, labels, step, declared)
        fault = self._declared_replica.fault(loss, gradients, statistics)
        layers = self._walk(images, self._declared_replica.fixed_values(step, declared))
        return loss, fault, _extremes(gradients), _extremes(statistics), layers

    def _walk(self, images, fixed):
        """Extremes of every layer's output in the forward pass of training."""
        model, probe = self.state.model, self._probe
        values = {v.path: value for v, value in zip(model.non_trainable_variables, fixed)}
        found, _ = probe.stateless_call(
            [tf.convert_to_tensor(v.value) for v in probe.trainable_variables],
            [values[v.path] for v in probe.non_trainable_variables],
            images,
            training=True,
        )
        flat = [
            tf.concat([tf.reshape(tf.cast(t, tf.float32), [-1]) for t in tensors], axis=0)
            for tensors in found
        ]
        return _extremes(flat)


def _restore(state, failed):
    store = CheckpointStore(failed.path / failed_step.BEFORE_FOLDER)
    info, skipped = store.newest_verified()
    if info is None or info.step != failed.step:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in skipped)
        raise CheckpointError(
            f"A failed step must hold the variables before step {failed.step:,}.",
            received=reasons or str(store.directory),
            remedy=_REMEDY,
        )
    store.check_matches(info, state.expected())
    state.restore(store.read(info))


def _extremes(tensors):
    """float32 [T] and int64 [T, 2] of T float tensors; see Extremes."""
    if not tensors:
        return tf.zeros([0]), tf.zeros([0, 2], tf.int64)
    largest, counts = [], []
    for tensor in tensors:
        is_finite = tf.math.is_finite(tensor)
        largest.append(tf.reduce_max(tf.where(is_finite, tf.abs(tensor), 0.0)))
        bad = tf.math.count_nonzero(tf.math.logical_not(is_finite))
        counts.append(tf.stack([bad, tf.size(tensor, tf.int64)]))
    return tf.stack(largest), tf.stack(counts)


def _described(names, extremes):
    largest, counts = (values.numpy() for values in extremes)
    return [
        Extremes(
            name=name,
            kind=kind,
            largest=float(value),
            num_non_finite=int(bad),
            num_values=int(number),
        )
        for (name, kind), value, (bad, number) in zip(names, largest, counts, strict=True)
    ]


def is_same_failure(before: Fault, now: Fault | None) -> bool:
    """Whether the failure came again: of the same kind."""
    return now is not None and now.is_too_large == before.is_too_large


def is_same_value(before: Fault, now: Fault) -> bool:
    """Whether the first bad value is the same one, with the same value; NaN is NaN."""
    equal = before.value == now.value or (math.isnan(before.value) and math.isnan(now.value))
    return before.what == now.what and equal


def _damaged(file, what):
    return CheckpointError("A failed step's files must be whole.", received=f"{file}: {what}",
                           remedy=_REMEDY)  # fmt: skip
