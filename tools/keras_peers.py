"""TensorFlow's side of tools/bench_step.py and tools/bench_infer.py: this project and stock Keras.

Ours in training is the whole step of a run with one declared replica: forward and backward pass,
L2, global clip, RMSProp, moving statistics and averages over weights and statistics. In inference
it is the signature `logits` of a SavedModel as an export writes it, folded; it is written before,
by a process of its own, so that time and memory are those of who loads it.

Stock Keras is keras.applications, or the same layers from this project's tables where that has no
such network (tools/stock_network.py), called in a tf.function; in training Keras' own RMSprop
and nothing else.
"""

import time

import keras
import tensorflow as tf

import bench_export
import layer_list
from benched_batch import DROPOUT_RATE, LABEL_SMOOTHING, LEARNING_RATE, images_of, labels_of
from peer_processes import INFER, OURS, OURS_RECOMPUTE, PREPARE, TRAIN
from stock_network import build_stock_network

from inception_tf import cluster as clusters
from inception_tf.cluster import ClusterSpec
from inception_tf.models.catalog import CATALOG, ModelSpec, build_model
from inception_tf.training.averaging import Averages
from inception_tf.training.groups import VariableGroups, apply_groups
from inception_tf.training.optimizer import RmsProp
from inception_tf.training.recipe import StepRecipe
from inception_tf.training.state import RunState
from inception_tf.training.step import TrainStep

APPLICATIONS = {
    "inception_v3": keras.applications.InceptionV3,
    "inception_resnet_v2": keras.applications.InceptionResNetV2,
}
_EXPORT = "export"


def build_peer(peer, case, folder):
    """(function that makes one call and returns a loss or logit, what the network is)."""
    if peer == PREPARE:
        return prepare(case, folder)
    if peer == OURS_RECOMPUTE or (case.task, peer) == (TRAIN, OURS):
        recompute = peer == OURS_RECOMPUTE
        how = "recomputing blocks" if recompute else "the whole step"
        return _our_step(case, recompute), f"{case.network} {variant_of(case.network)}, {how}"
    tf.config.threading.set_intra_op_parallelism_threads(case.threads)
    if peer == OURS:
        return _our_export(case, folder), f"{case.network} {variant_of(case.network)}, folded, exported"
    model, description = _stock_model(case, folder)
    call = _stock_step(model, case) if case.task == TRAIN else _stock_logits(model, case)
    return call, description


def prepare(case, folder):
    """Writes the list of layers, and for inference the export, into a folder."""
    model = build_model(spec_of(case), num_classes=case.num_classes)
    layer_list.write_layers(folder / layer_list.FILE_NAME, model)
    if case.task == INFER:
        export = folder / _EXPORT
        precision = {"float32": "float32", "mixed_bfloat16": "bfloat16"}[case.precision]
        bench_export.write_folded(model, export, case, precision)
    return lambda: 0.0, "no peer"


def variant_of(network):
    """The released network, or the paper's where none was released."""
    variants = CATALOG[network]
    return "released" if "released" in variants else next(iter(variants))


def spec_of(case):
    """The ModelSpec of a case."""
    return ModelSpec(
        name=case.network, variant=variant_of(case.network), precision=case.precision,
        input_height_px=case.image_px, input_width_px=case.image_px,
        width_multiplier=case.width_multiplier, dropout_rate=DROPOUT_RATE,
    )  # fmt: skip


def _our_step(case, recompute):
    # Kernels need not be deterministic, as the peers' are not.
    joined = clusters.join(
        ClusterSpec(device="cpu", intra_op_threads=case.threads, deterministic=False),
        is_alone=True,
    )
    with joined.strategy.scope():
        model = build_model(spec_of(case), num_classes=case.num_classes)
        trained = apply_groups(model, VariableGroups())
        state = RunState(model, trained, optimizer=RmsProp())
    recipe = StepRecipe(
        assignment=joined.assign(num_replicas=1, replica_batch=case.batch),
        optimizer=RmsProp(),
        learning_rate=lambda step: tf.constant(LEARNING_RATE),
        output_weights={"logits": 1.0},
        label_smoothing=LABEL_SMOOTHING,
        smoothing_prior=tf.fill([case.num_classes], 1.0 / case.num_classes),
        averages=Averages(),
        clip_global_norm=2.0,
        reduction="exact",
        seed=0,
        recompute=recompute,
    )
    train_step = TrainStep(joined.strategy, state, recipe, clock=time.perf_counter)
    batch = {
        "images": tf.constant(images_of(case)[None]),
        "labels": tf.constant(labels_of(case)[None]),
    }
    flags = tf.constant([0, 0], tf.int64)
    return lambda: float(train_step.run_one(batch, flags)["data_loss_nats"])


def _our_export(case, folder):
    loaded, _ = bench_export.load(folder / _EXPORT)
    images = tf.constant(images_of(case))
    return lambda: float(loaded.signatures["logits"](images=images)["logits"][0, 0])


def _stock_model(case, folder):
    """(keras.Model, what it is)."""
    if not (case.is_full_width and case.network in APPLICATIONS):
        layers = layer_list.read_layers(folder / layer_list.FILE_NAME)
        return build_stock_network(layers), f"{case.network} of Keras' layers from our tables"
    build = APPLICATIONS[case.network]
    keras.config.set_dtype_policy(case.precision)
    model = build(
        weights=None, classes=case.num_classes, classifier_activation=None,
        input_shape=(case.image_px, case.image_px, 3),
    )  # fmt: skip
    return model, f"keras.applications {build.__name__}"


def _stock_step(model, case):
    optimizer = keras.optimizers.RMSprop(LEARNING_RATE, rho=0.9, momentum=0.9, epsilon=1.0)
    optimizer.build(model.trainable_variables)
    off_target = LABEL_SMOOTHING / case.num_classes

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = tf.cast(model(images, training=True), tf.float32)
            target = tf.one_hot(labels, case.num_classes) * (1.0 - LABEL_SMOOTHING) + off_target
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    images, labels = tf.constant(images_of(case)), tf.constant(labels_of(case))
    return lambda: float(step(images, labels))


def _stock_logits(model, case):
    call = tf.function(lambda images: model(images, training=False))
    images = tf.constant(images_of(case))
    return lambda: float(call(images)[0, 0])
