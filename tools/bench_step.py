"""One training step of the released Inception-ResNet-v2 against stock Keras 3, alternating.

    python tools/bench_step.py --replica_batch=8 --steps=8

Ours is the whole step of a run with one declared replica: forward and backward pass, L2, global
clip, RMSProp, moving statistics and averages over weights and statistics. The peer is
keras.applications.InceptionResNetV2 with Keras' own batch norm and RMSprop and nothing else, in the
same bare loop on the same batch. Both live in one process and take turns, so that a machine whose
speed drifts slows both. The last line is one JSON object.
"""

import argparse
import json
import os
import platform
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

from inception_tf import cluster as clusters
from inception_tf.cluster import ClusterSpec
from inception_tf.models.catalog import ModelSpec, build_model
from inception_tf.training.averaging import Averages
from inception_tf.training.groups import VariableGroups, apply_groups
from inception_tf.training.optimizer import RmsProp
from inception_tf.training.recipe import StepRecipe
from inception_tf.training.state import RunState
from inception_tf.training.step import TrainStep

NUM_CLASSES = 1000
RATE = 0.045


def build_ours(precision, batch, *, cluster):
    """A function that runs one step of this project on a fixed batch."""
    assignment = cluster.assign(num_replicas=1, replica_batch=len(batch["labels"][0]))
    with cluster.strategy.scope():
        spec = ModelSpec(
            precision=precision,
            input_height_px=batch["images"].shape[2],
            input_width_px=batch["images"].shape[3],
        )
        model = build_model(spec, num_classes=NUM_CLASSES)
        trained = apply_groups(model, VariableGroups())
        state = RunState(model, trained, optimizer=RmsProp())
    recipe = StepRecipe(
        assignment=assignment,
        optimizer=RmsProp(),
        learning_rate=lambda step: tf.constant(RATE),
        output_weights={"logits": 1.0},
        label_smoothing=0.1,
        smoothing_prior=tf.fill([NUM_CLASSES], 1.0 / NUM_CLASSES),
        averages=Averages(),
        clip_global_norm=2.0,
        reduction="exact",
        seed=0,
    )
    train_step = TrainStep(cluster.strategy, state, recipe, clock=time.perf_counter)
    flags = tf.constant([0, 0], tf.int64)
    return lambda: float(train_step.run_one(batch, flags)["data_loss_nats"])


def build_stock(precision, batch):
    """A function that runs one step of stock Keras on the same batch."""
    keras.config.set_dtype_policy(precision)
    model = keras.applications.InceptionResNetV2(
        weights=None,
        classes=NUM_CLASSES,
        classifier_activation=None,
        input_shape=tuple(batch["images"].shape[2:]),
    )
    keras.config.set_dtype_policy("float32")
    optimizer = keras.optimizers.RMSprop(RATE, rho=0.9, momentum=0.9, epsilon=1.0)
    optimizer.build(model.trainable_variables)
    images, labels = batch["images"][0], batch["labels"][0]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = tf.cast(model(images, training=True), tf.float32)
            target = tf.one_hot(labels, NUM_CLASSES) * 0.9 + 0.1 / NUM_CLASSES
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return lambda: float(step())


def time_alternating(steps_by_name, *, num_steps, num_warmup):
    """Name -> secs of each counted step, the peers taking turns."""
    for step in steps_by_name.values():
        for _ in range(num_warmup):
            step()
    secs = {name: [] for name in steps_by_name}
    for _ in range(num_steps):
        for name, step in steps_by_name.items():
            began = time.perf_counter()
            step()
            secs[name].append(time.perf_counter() - began)
    return secs


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replica_batch", type=int, default=8)
    parser.add_argument("--image_px", type=int, default=299)
    parser.add_argument("--steps", type=int, default=8, help="counted steps of each peer")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--precision", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()

    spec = ClusterSpec(device="cpu", intra_op_threads=args.threads, deterministic=False)
    cluster = clusters.join(spec)
    shape = [1, args.replica_batch, args.image_px, args.image_px, 3]
    batch = {
        "images": tf.random.stateless_uniform(shape, seed=[0, 0], minval=-1.0),
        "labels": tf.random.stateless_uniform(
            shape[:2], seed=[0, 1], minval=0, maxval=NUM_CLASSES, dtype=tf.int32
        ),
    }
    found = {
        "machine": platform.processor() or platform.machine(),
        "threads": args.threads,
        "replica_batch": args.replica_batch,
        "image_px": args.image_px,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    print(f"{'precision':<16}{'ours img/s':>12}{'stock img/s':>13}{'ratio':>8}")
    for precision in args.precision:
        peers = {
            "ours": build_ours(precision, batch, cluster=cluster),
            "stock": build_stock(precision, batch),
        }
        secs = time_alternating(peers, num_steps=args.steps, num_warmup=args.warmup)
        rates = {
            name: args.replica_batch / statistics.median(values) for name, values in secs.items()
        }
        # Of each pair of neighbours in time, then the median: drift cancels.
        ratio = statistics.median(b / a for a, b in zip(secs["ours"], secs["stock"]))
        print(f"{precision:<16}{rates['ours']:>12.2f}{rates['stock']:>13.2f}{ratio:>8.2f}")
        found[f"{precision}_ours_images_per_sec"] = round(rates["ours"], 3)
        found[f"{precision}_stock_images_per_sec"] = round(rates["stock"], 3)
        found[f"{precision}_ratio"] = round(ratio, 3)
        keras.backend.clear_session()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
