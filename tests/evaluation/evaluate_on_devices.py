"""Prints what the evaluator says of 50 images on several topologies, as one JSON line.

A process of its own, since logical devices are fixed before TensorFlow starts. With TF_CONFIG set:
two workers of one device each; without: 1 and 4 logical devices.
"""

import json
import os

import keras
import numpy as np
import tensorflow as tf

from inception_tf.errors import DataError
from inception_tf.evaluation.evaluator import Evaluator, evaluation_steps

NUM_EXAMPLES = 50
NUM_COUNTED = 37  # all but 1, 5, 9, ... 49
CLASSES = 7
SIDE_PX = 12


def images_and_labels():
    generator = np.random.default_rng(11)
    images = generator.uniform(-1, 1, (NUM_EXAMPLES, SIDE_PX, SIDE_PX, 3)).astype(np.float32)
    return images, generator.integers(0, CLASSES, NUM_EXAMPLES).astype(np.int32)


def build_model():
    """A small network with every kind of variable, the same in every process."""
    inputs = keras.Input([SIDE_PX, SIDE_PX, 3])
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.5, name="drop")(x)
    outputs = {
        "logits": keras.layers.Dense(CLASSES, name="logits")(x),
        "aux_logits": keras.layers.Dense(CLASSES, name="aux")(x),
    }
    model = keras.Model(inputs, outputs)
    generator = np.random.default_rng(5)
    for variable in model.variables:
        if not variable.path.endswith("seed_generator_state"):
            draw = generator.normal(size=variable.shape) * 0.7
            variable.assign(np.abs(draw) + 0.1 if "variance" in variable.path else draw)
    return model


def batches(num_physical, replica_batch, step_order=None, first_local=0, num_local=None):
    """This worker's padded micro-batches in the order (step, local replica)."""
    images, labels = images_and_labels()
    num_steps = evaluation_steps(
        NUM_EXAMPLES, num_physical=num_physical, replica_batch=replica_batch
    )
    total = num_steps * num_physical * replica_batch
    images = np.concatenate([images, np.full((total - len(images), *images.shape[1:]), np.nan)])
    labels = np.pad(labels, (0, total - NUM_EXAMPLES))
    valid = np.arange(total) < NUM_EXAMPLES
    counted = valid & (np.arange(total) % 4 != 1)
    shape = (num_steps, num_physical, replica_batch)
    order = list(range(num_steps)) if step_order is None else list(step_order(num_steps))
    local = slice(first_local, first_local + (num_local or num_physical))
    parts = {"images": images.astype(np.float32), "labels": labels, "valid": valid}
    parts["counted"] = counted
    parts = {name: part.reshape(*shape, *part.shape[1:]) for name, part in parts.items()}
    parts = {name: np.concatenate(part[order][:, local]) for name, part in parts.items()}
    return tf.data.Dataset.from_tensor_slices(parts), num_steps


def values_of(model, shift=None):
    """The model's values; with `shift` as other variables of the strategy, as averages are."""

    def pick(variable):
        if shift is None or variable.path.endswith("seed_generator_state"):
            return variable.value
        return tf.Variable(variable.value + shift, trainable=False)

    return (
        [pick(variable) for variable in model.trainable_variables],
        [pick(variable) for variable in model.non_trainable_variables],
    )


def numbers(result):
    others = result.without_blacklist
    return {
        "num_examples": result.num_examples,
        "top1_count": result.top1_count,
        "top5_count": result.top5_count,
        "loss_nats": result.loss_nats,
        **({} if others is None else {"without_blacklist": numbers(others)}),
    }


def evaluate_topologies():
    devices = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        devices[0], [tf.config.LogicalDeviceConfiguration() for _ in range(4)]
    )
    results = {}
    for num_physical in (1, 4):
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(num_physical)])
        with strategy.scope():
            model = build_model()
            averages = values_of(model, shift=0.05)
        evaluator = Evaluator(model, strategy, num_outputs=CLASSES)
        before = [variable.numpy().tobytes() for variable in model.variables]

        def run(name, values, replica_batch, step_order=None, num_examples=NUM_EXAMPLES, **options):
            dataset, num_steps = batches(num_physical, replica_batch, step_order)
            distributed = strategy.distribute_datasets_from_function(lambda _: dataset)
            result = evaluator.run(
                distributed, values, num_examples=num_examples, num_steps=num_steps, **options
            )
            results[f"{name} on {num_physical}"] = numbers(result)

        raw = values_of(model)
        run("raw 16", raw, 16)
        run("averaged 16", averages, 16)
        run("averaged as arrays 16", tf.nest.map_structure(lambda v: v.numpy(), averages), 16)
        results[f"traces on {num_physical}"] = (
            evaluator._add_batch.experimental_get_tracing_count()
        )
        run("raw 7", raw, 7)
        run("raw 4", raw, 4)
        run("counted 7", raw, 7, num_counted=NUM_COUNTED)
        run("raw 4 backwards", raw, 4, step_order=lambda steps: reversed(range(steps)))
        try:
            run("too few", raw, 16, num_examples=51)
        except DataError as error:
            results[f"refused on {num_physical}"] = str(error)
        images, _ = images_and_labels()
        results[f"probabilities on {num_physical}"] = evaluator.probabilities(
            images[:3], averages
        ).tolist()
        after = [variable.numpy().tobytes() for variable in model.variables]
        dataset, num_steps = batches(num_physical, 4)
        results[f"stopped on {num_physical}"] = stopped_run(
            evaluator, strategy, dataset, raw, num_steps=num_steps, asks=True
        )
        results[f"untouched on {num_physical}"] = before == after
    return results


def stopped_run(evaluator, strategy, dataset, values, *, num_steps, asks):
    """[batches asked for, result] of an evaluation where a stop is asked for before the second."""
    calls = []

    def is_stop_asked():
        calls.append(None)
        return asks and len(calls) >= 2

    result = evaluator.run(
        strategy.distribute_datasets_from_function(lambda _: dataset),
        values,
        num_examples=NUM_EXAMPLES,
        num_steps=num_steps,
        is_stop_asked=is_stop_asked,
    )
    return [len(calls), result and numbers(result)]


def evaluate_as_worker():
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = build_model()
        averages = values_of(model, shift=0.05)
    evaluator = Evaluator(model, strategy, num_outputs=CLASSES)
    results, raw = {}, values_of(model)
    for name, values, replica_batch, options in (
        ("raw 16", raw, 16, {}),
        ("averaged 16", averages, 16, {}),
        ("counted 7", raw, 7, {"num_counted": NUM_COUNTED}),
    ):
        dataset, num_steps = batches(2, replica_batch, first_local=index, num_local=1)
        distributed = strategy.distribute_datasets_from_function(lambda _: dataset)
        results[name] = numbers(
            evaluator.run(
                distributed, values, num_examples=NUM_EXAMPLES, num_steps=num_steps, **options
            )
        )
    dataset, num_steps = batches(2, 4, first_local=index, num_local=1)
    results["stopped"] = stopped_run(
        evaluator, strategy, dataset, values_of(model), num_steps=num_steps, asks=index == 1
    )
    return results


if __name__ == "__main__":
    # What the same bits on every topology rest on, as the road sets it.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    print(json.dumps(evaluate_as_worker() if "TF_CONFIG" in os.environ else evaluate_topologies()))
