"""A process of tools/bench_cluster.py: builds a run's step and times what it is asked for.

Reads one JSON object a line from stdin ({"do": name, "count": times, ...}) and answers each with
one line on stdout, so that its peers can take turns with it. With TF_CONFIG it is one worker of
several, which all have to be asked the same.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from inception_tf import cluster as clusters
from inception_tf.cluster import ClusterSpec
from inception_tf.models.catalog import ModelSpec, build_model
from inception_tf.training.averaging import Averages
from inception_tf.training.checkpoint import CheckpointSpec, CheckpointStore
from inception_tf.training.groups import VariableGroups, apply_groups
from inception_tf.training.optimizer import RmsProp
from inception_tf.training.recipe import StepRecipe
from inception_tf.training.reduction import Reduction
from inception_tf.training.state import RunState
from inception_tf.training.step import TrainStep

NUM_CLASSES = 1000


class SendsNothing(Reduction):
    """What a step costs without its all-reduce; the numbers are those of this device alone."""

    def all_reduce(self, context, sums, counted):
        return sums, counted


class ComputeStep(TrainStep):
    """A step whose sums stay on the device."""

    def __init__(self, strategy, state, recipe, *, clock):
        super().__init__(strategy, state, recipe, clock=clock)
        fields = {"kind": self.reduction.kind, "num_replicas": self.reduction.num_replicas}
        self.reduction = SendsNothing(**fields)


class Bench:
    """One process: its place in the cluster, a state, a fixed batch, and what can be timed."""

    def __init__(self, options):
        self.cluster = clusters.join(
            ClusterSpec(
                device="cpu", devices_per_worker=options.devices, intra_op_threads=options.threads
            )
        )
        assignment = self.cluster.assign(
            num_replicas=options.num_replicas, replica_batch=options.replica_batch
        )
        spec = ModelSpec(
            width_multiplier=options.width_multiplier,
            block_counts=tuple(options.blocks) if options.blocks else None,
            input_height_px=options.image_px,
            input_width_px=options.image_px,
        )
        with self.cluster.strategy.scope():
            model = build_model(
                spec, num_classes=NUM_CLASSES, num_replicas=options.num_replicas
            )
            trained = apply_groups(model, VariableGroups())
            self.state = RunState(model, trained, optimizer=RmsProp())
        self.recipe = StepRecipe(
            assignment=assignment,
            optimizer=RmsProp(),
            learning_rate=lambda step: tf.constant(0.001),
            output_weights={"logits": 1.0},
            label_smoothing=0.1,
            smoothing_prior=tf.fill([NUM_CLASSES], 1.0 / NUM_CLASSES),
            averages=Averages(),
            clip_global_norm=2.0,
            reduction="exact",
            seed=0,
        )
        self.batch = self._batch(options.image_px)
        self._calls = {}

    def _batch(self, image_px):
        assignment = self.recipe.assignment
        shape = [assignment.rounds, assignment.replica_batch, image_px, image_px, 3]

        def on_replica(context):
            seed = [0, context.replica_id_in_sync_group]
            return {
                "images": tf.random.stateless_uniform(shape, seed=seed, minval=-1.0),
                "labels": tf.random.stateless_uniform(
                    shape[:2], seed=seed, maxval=NUM_CLASSES, dtype=tf.int32
                ),
            }

        return self.cluster.strategy.experimental_distribute_values_from_function(on_replica)

    def time(self, request):
        """Seconds of each of request['count'] calls of what is named by request['do']."""
        key = json.dumps({name: value for name, value in request.items() if name != "count"})
        if key not in self._calls:
            options = {n: v for n, v in request.items() if n not in ("do", "count")}
            self._calls[key] = getattr(self, f"make_{request['do']}")(**options)
        secs = []
        for _ in range(request["count"]):
            began = time.perf_counter()
            self._calls[key]()
            secs.append(time.perf_counter() - began)
        return secs

    def make_step(self):
        """The whole step."""
        return self._step(TrainStep)

    def make_compute(self):
        """The step without its all-reduce."""
        return self._step(ComputeStep)

    def _step(self, step_class):
        step = step_class(self.cluster.strategy, self.state, self.recipe, clock=time.perf_counter)
        flags = tf.constant([0, 0], tf.int64)

        def run():
            loss = float(step.run_one(self.batch, flags)["data_loss_nats"])
            if not math.isfinite(loss):  # from there on no update is applied, which is faster
                raise SystemExit(f"The loss became {loss}.")

        return run

    def make_all_reduce(self, *, kind="exact", bytes_per_pack=0):
        """The step's all-reduce alone, of values as many and as large."""
        recipe = dataclasses.replace(self.recipe, reduction=kind, bytes_per_pack=bytes_per_pack)
        step = TrainStep(self.cluster.strategy, self.state, recipe, clock=time.perf_counter)

        def on_replica():
            context = tf.distribute.get_replica_context()
            # Of the replica's own, or they would be constants that nobody has to send.
            one = self.state.scalars["step"] * 0 + 1
            values = [
                tuple(zeros + tf.cast(one, zeros.dtype) for zeros in block)
                for block in step.update.zero_sums()
            ]
            counted = tf.fill([7], one)
            sums = tf.nest.flatten(step.reduction.all_reduce(context, values, counted))
            # The head has no statistics: a vector may be empty.
            return tf.add_n([tf.cast(tf.reduce_sum(s[:1]), tf.float32) for s in sums])

        @tf.function
        def run():
            return self.cluster.strategy.run(on_replica)

        return lambda: self.cluster.strategy.experimental_local_results(run())[0].numpy()

    def make_save(self):
        """A checkpoint with the verification and removal of older ones, as a run does it."""
        store = CheckpointStore(pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("BENCH_DIR"))))
        steps = iter(range(1, 1_000_000))

        def save():
            step = next(steps)
            values = {**self.state.values(), "step": tf.constant(step, tf.int64)}
            store.save(step=step, values=values, facts={})
            store.prune(CheckpointSpec(keep_last=1), best_step=None, steps_per_epoch=1000.0)

        return save


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--num_replicas", type=int, required=True)
    parser.add_argument("--replica_batch", type=int, required=True)
    parser.add_argument("--image_px", type=int, required=True)
    parser.add_argument("--width_multiplier", type=float, required=True)
    parser.add_argument("--blocks", type=int, nargs="*")
    bench = Bench(parser.parse_args())
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps({"secs": bench.time(request)}), flush=True)


if __name__ == "__main__":
    main()
