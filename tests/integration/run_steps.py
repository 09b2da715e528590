"""Runs training jobs on ONE topology and writes every variable of the run before and after.

    python run_steps.py --devices=2 --out=DIR '{"name": "plain", "num_steps": 50}' ...

A process of its own, since devices are fixed before TensorFlow starts; several jobs share it,
since tracing for many devices is what costs. With TF_CONFIG set it is one worker of several, whose
index stands for '{worker}' in the name of DIR. Each job gives DIR/<name>.npz with
'start/<variable>' and 'end/<variable>'. A job may name one of `FAULTS`: mistakes that depend on the
topology, planted here so that the product needs no switch.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

from inception_tf import cluster
from inception_tf.data import image, pipeline
from inception_tf.models import catalog, initializers, layers
from inception_tf.training import objective, schedule
from inception_tf.training.averaging import Averages
from inception_tf.training.groups import VariableGroups, apply_groups
from inception_tf.training.optimizer import RmsProp, clip_scale
from inception_tf.training.recipe import StepRecipe
from inception_tf.training.reduction import GRADIENT_BITS, STATISTIC_BITS, from_grid, to_grid
from inception_tf.training.state import RunState
from inception_tf.training.step import TrainStep

NUM_REPLICAS = 20
REPLICA_BATCH = 2
CLASSES = 7
SEED = 3
NUM_RECORDS = 64
# Low enough to clip in the first steps of every network here.
CLIP_GLOBAL_NORM = 0.5
# Fine-tuning keeps the first layers as they are.
FROZEN_STEM = (
    {"pattern": r"(unit_0|unit_1)/.*", "trained": False},
    {"pattern": r".*/(kernel|bias)", "l2": 0.001, "learning_rate_factor": 0.5},
    {"pattern": ".*"},
)
# Strong L2, so that a mistake in it shows within a few steps.
ALL_TRAINED = ({"pattern": r".*/(kernel|bias)", "l2": 0.001}, {"pattern": ".*"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One run.

    Attributes:
      name: of the file that it writes.
      num_steps: steps in all.
      steps_per_loop: steps of one call of `TrainStep.run`.
      network: 'inception' (a narrow Inception-ResNet-v2) or 'units' (ConvUnits, residual sums).
      num_units: convolutions of 'units'.
      data: 'synthetic', or 'records': JPEG images with the released augmentation.
      reduction: 'exact', 'float32' or 'bfloat16'.
      bytes_per_pack: of the all-reduce, 0 for one pack.
      precision: Keras' dtype policy.
      frozen: freeze the first two units of 'units' (fine-tuning).
      aux_head: a second output, weight 0.4.
      fault: a key of FAULTS, or None.
    """

    name: str
    num_steps: int
    steps_per_loop: int = 1
    network: str = "units"
    num_units: int = 3
    data: str = "synthetic"
    reduction: str = "exact"
    bytes_per_pack: int = 0
    precision: str = "float32"
    frozen: bool = False
    aux_head: bool = False
    fault: str | None = None

    @property
    def side_px(self) -> int:
        """Height and width of an image."""
        return 75 if self.network == "inception" else 16


# -- the networks ----------------------------------------------------------------------------------


def build_network(job):
    """A small network with every kind of variable; weights depend on the layers' names alone."""
    if job.network == "inception":
        spec = catalog.ModelSpec(
            input_height_px=job.side_px,
            input_width_px=job.side_px,
            width_multiplier=0.1,
            block_counts=(1, 1, 1),
            precision=job.precision,
            aux_head=job.aux_head,
        )
        return catalog.build_model(spec, num_classes=CLASSES, num_replicas=NUM_REPLICAS, seed=SEED)
    inputs = keras.Input([job.side_px, job.side_px, 3])
    x = build_unit(job, inputs, "unit_0", strides=2)
    x = build_unit(job, x, "unit_1")
    for index in range(2, job.num_units):
        up = build_unit(job, x, f"unit_{index}", use_scale=index % 2 == 0)
        x = layers.ResidualSum(0.3, name=f"sum_{index}", dtype=job.precision)([x, up])
        if index == 2:
            x = keras.layers.MaxPooling2D(3, strides=2, name="pool", dtype=job.precision)(x)
    outputs = {"logits": build_head(job, x, "logits")}
    if job.aux_head:
        outputs["aux_logits"] = build_head(job, x, "aux_logits")
    return keras.Model(inputs, outputs)


def build_unit(job, x, name, **kwargs):
    """A ConvUnit of 8 filters; batch norm as over 20 declared replicas."""
    return layers.ConvUnit(
        8,
        3,
        momentum=0.9997**NUM_REPLICAS,
        kernel_initializer=initializers.xavier_uniform(SEED, name),
        name=name,
        dtype=job.precision,
        **kwargs,
    )(x)


def build_head(job, x, name):
    """Float32 logits of pooled and dropped-out features."""
    x = keras.layers.GlobalAveragePooling2D(name=f"{name}_mean", dtype=job.precision)(x)
    x = layers.Dropout(0.2, name=f"{name}_dropout", dtype=job.precision)(x)
    initializer = initializers.xavier_uniform(SEED, name)
    return keras.layers.Dense(
        CLASSES, kernel_initializer=initializer, name=name, dtype="float32"
    )(x)


# -- the data --------------------------------------------------------------------------------------


class NoiseReader:
    """Reads JPEG images that are made here: blurred noise, labels by record id."""

    def __init__(self):
        generator = np.random.default_rng(17)
        coarse = generator.uniform(0, 255, [NUM_RECORDS, 6, 5, 3])
        fine = tf.cast(tf.clip_by_value(tf.image.resize(coarse, [36, 30]), 0, 255), tf.uint8)
        self._jpegs = [tf.io.encode_jpeg(each).numpy() for each in fine]

    def read(self, record_ids):
        """JPEG bytes object [n] and labels int32 [n]."""
        jpegs = np.array([self._jpegs[index] for index in record_ids], dtype=object)
        return jpegs, (record_ids % CLASSES).astype(np.int32)


def build_dataset(job, assignment):
    """This worker's batches."""
    common = {
        "assignment": assignment,
        "start_step": 0,
        "seed": SEED,
        "height_px": job.side_px,
        "width_px": job.side_px,
        "spec": pipeline.DataSpec(num_parallel_calls=2),
    }
    if job.data == "synthetic":
        return pipeline.synthetic_dataset(num_classes=CLASSES, **common)
    return pipeline.train_dataset(
        NoiseReader(), num_examples=NUM_RECORDS, augmentation=image.Augmentation(), **common
    )


# -- five mistakes, each of which depends on the topology ------------------------------------------


class ClipsBeforeReduction(TrainStep):
    """Each device clips the mean gradient of its own declared replicas."""

    def __init__(self, strategy, state, recipe, **kwargs):
        self._limit = recipe.clip_global_norm
        recipe = dataclasses.replace(recipe, clip_global_norm=None)
        super().__init__(strategy, state, recipe, **kwargs)

    def _sum_declared_replicas(self, context, batch, step):
        sums, counted = super()._sum_declared_replicas(context, batch, step)
        count = num_own(self, context)
        means = [from_grid(gradients, GRADIENT_BITS, count=count) for gradients, _ in sums]
        scale = clip_scale(tf.linalg.global_norm(means), self._limit)
        clipped = [to_grid(mean * scale * count, GRADIENT_BITS) for mean in means]
        return [(own, moving) for own, (_, moving) in zip(clipped, sums)], counted


class TakesFirstStatistics(TrainStep):
    """Only the first device's batch-norm statistics count."""

    def _sum_declared_replicas(self, context, batch, step):
        sums, counted = super()._sum_declared_replicas(context, batch, step)
        share = NUM_REPLICAS / num_own(self, context) if physical_of(context) == 0 else 0.0
        return [
            (gradients, to_grid(from_grid(moving, STATISTIC_BITS) * share, STATISTIC_BITS))
            for gradients, moving in sums
        ], counted


class AddsL2OnEveryDevice(TrainStep):
    """L2 is added before the all-reduce, and so once per device."""

    def __init__(self, strategy, state, recipe, **kwargs):
        super().__init__(strategy, state, recipe, **kwargs)
        self.update.add_l2 = lambda gradients, *_: (gradients, [tf.constant(0.0)] * len(gradients))

    def _sum_declared_replicas(self, context, batch, step):
        sums, counted = super()._sum_declared_replicas(context, batch, step)
        added = [
            item.l2 * tf.convert_to_tensor(item.variable.value) * NUM_REPLICAS
            for item in self.state.trained
        ]
        blocks = self.declared_replica.blocks.split(added, self.state.statistics)
        return [
            (gradients + self.reduction.pack(own, GRADIENT_BITS), moving)
            for (gradients, moving), (own, _) in zip(sums, blocks)
        ], counted


class DropsTheSameEverywhere(TrainStep):
    """Dropout is keyed by the device's round and not by the declared replica."""

    def __init__(self, strategy, state, recipe, **kwargs):
        super().__init__(strategy, state, recipe, **kwargs)
        own, num_physical = self.declared_replica.fixed_values, recipe.assignment.num_physical
        self.declared_replica.fixed_values = lambda step, declared: own(
            step, declared // num_physical
        )


class ReducesInFloat32(TrainStep):
    """Sums are carried in float32."""

    def __init__(self, strategy, state, recipe, **kwargs):
        recipe = dataclasses.replace(recipe, reduction="float32")
        super().__init__(strategy, state, recipe, **kwargs)


FAULTS = {
    "clip_before_reduction": ClipsBeforeReduction,
    "first_statistics": TakesFirstStatistics,
    "l2_per_replica": AddsL2OnEveryDevice,
    "same_dropout_mask": DropsTheSameEverywhere,
    "float32_reduction": ReducesInFloat32,
}


def physical_of(context):
    """Number of the device that this replica context stands for."""
    return int(tf.get_static_value(context.replica_id_in_sync_group))


def num_own(train_step, context):
    """Declared replicas of this device."""
    return len(train_step.recipe.assignment.declared_of(physical_of(context)))


# -- a run -----------------------------------------------------------------------------------------


def run_job(job, here):
    """Trains; returns name -> array of every variable, at the start and at the end."""
    assignment = here.assign(num_replicas=NUM_REPLICAS, replica_batch=REPLICA_BATCH)
    optimizer = RmsProp()
    with here.strategy.scope():
        model = build_network(job)
        groups = VariableGroups(groups=FROZEN_STEM if job.frozen else ALL_TRAINED)
        state = RunState(model, apply_groups(model, groups), optimizer=optimizer)
    weights = objective.check_output_weights(
        objective.Objective(), objective.named_outputs(model.output)
    )
    recipe = StepRecipe(
        assignment=assignment,
        optimizer=optimizer,
        learning_rate=functools.partial(
            schedule.learning_rate_at,
            schedule=schedule.ExponentialDecay(),
            steps_per_epoch=NUM_RECORDS / assignment.global_batch,
        ),
        output_weights=weights,
        label_smoothing=0.1,
        smoothing_prior=tf.fill([CLASSES], 1 / CLASSES),
        averages=Averages(),
        clip_global_norm=CLIP_GLOBAL_NORM,
        reduction=job.reduction,
        bytes_per_pack=job.bytes_per_pack,
        seed=SEED,
    )
    step_class = FAULTS[job.fault] if job.fault else TrainStep
    train_step = step_class(here.strategy, state, recipe, clock=time.perf_counter)
    values = {f"start/{name}": value for name, value in state.values().items()}
    batches = iter(
        here.strategy.distribute_datasets_from_function(lambda _: build_dataset(job, assignment))
    )
    loop = tf.constant(job.steps_per_loop, tf.int64)
    for _ in range(job.num_steps // job.steps_per_loop):
        # A flag that every worker raises: it counts once per worker, whatever its devices.
        outputs = train_step.run(batches, loop, tf.constant([1], tf.int64))
        if int(outputs["failed_step"]) >= 0 or int(outputs["host_flags"][0]) != here.num_workers:
            raise SystemExit(f"{job.name}: {outputs}")
    check_copies(here.strategy, state)
    values.update({f"end/{name}": value for name, value in state.values().items()})
    return values


def check_copies(strategy, state):
    """Exits when a device's copy of a variable is not the first one's: only that one is written."""
    for name, variable in state.named_variables().items():
        first, *others = strategy.experimental_local_results(variable)
        if any(other.numpy().tobytes() != first.numpy().tobytes() for other in others):
            raise SystemExit(f"{name} differs between devices")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("jobs", nargs="+", help="JSON objects with the fields of Job")
    arguments = parser.parse_args()
    here = cluster.join(
        cluster.ClusterSpec(
            device="cpu", devices_per_worker=arguments.devices, intra_op_threads=1
        )
    )
    if here.num_physical != arguments.devices * here.num_workers:
        raise SystemExit(f"{here.num_physical} devices instead of {arguments.devices} per worker")
    out = pathlib.Path(arguments.out.replace("{worker}", str(here.worker_index)))
    out.mkdir(parents=True, exist_ok=True)
    for text in arguments.jobs:
        job = Job(**json.loads(text))
        keras.backend.clear_session()
        started = time.perf_counter()
        np.savez(out / f"{job.name}.npz", **run_job(job, here))
        print(f"{job.name}: {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
