"""Runs of a few small layers on one device, and the same step written out in float64.

`PlainRun` is the truth that the tests hold `TrainStep` against: plain TensorFlow operations in
float64, unfused batch norm, one declared replica after the other, and the update in NumPy.
"""

import time

import keras
import numpy as np
import tensorflow as tf

from inception_tf.cluster import Assignment
from inception_tf.models.initializers import xavier_uniform
from inception_tf.models.layers import ConvUnit
from inception_tf.training.averaging import Averages
from inception_tf.training.groups import VariableGroups, apply_groups
from inception_tf.training.optimizer import RmsProp
from inception_tf.training.recipe import StepRecipe
from inception_tf.training.state import RunState
from inception_tf.training.step import TrainStep

CLASSES = 4
SIDE_PX = 4
NO_FLAGS = tf.zeros([2], tf.int64)
EVERYTHING = VariableGroups(groups=({"pattern": ".*"},))


def constant_rate(rate):
    """A learning rate function that takes no notice of the step."""
    return lambda step: tf.constant(rate, tf.float32)


def conv_model(*, num_replicas, batch_norm_decay=0.9):
    """Two ConvUnits and a dense layer, each with seeded weights."""
    inputs = keras.Input([SIDE_PX, SIDE_PX, 3])
    x = inputs
    for name in ("first", "second"):
        x = ConvUnit(
            5,
            3,
            padding="same",
            momentum=batch_norm_decay**num_replicas,
            kernel_initializer=xavier_uniform(0, name),
            name=name,
        )(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    dense = keras.layers.Dense(
        CLASSES, kernel_initializer=xavier_uniform(0, "logits"), name="logits"
    )
    return keras.Model(inputs, dense(x))


def dense_model(*, num_values, num_classes=2, policy="float32"):
    """One dense layer on vectors, its weights zero: every gradient is x (p - q)."""
    inputs = keras.Input([num_values])
    dense = keras.layers.Dense(
        num_classes, kernel_initializer="zeros", name="logits", dtype=policy
    )
    return keras.Model(inputs, dense(inputs))


class SmallRun:
    """A model, its state and its step on one device."""

    def __init__(
        self,
        build,
        *,
        num_replicas,
        replica_batch,
        num_outputs=CLASSES,
        groups=EVERYTHING,
        prepare=None,
        **options,
    ):
        """Args: build, makes the model; prepare, changes it before the state takes its values."""
        self.strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        loss_scale = options.get("loss_scale")
        recipe = {
            "optimizer": RmsProp(),
            "learning_rate": constant_rate(0.1),
            "output_weights": {"logits": 1.0},
            "label_smoothing": 0.1,
            "smoothing_prior": tf.fill([num_outputs], 1.0 / num_outputs),
            "averages": Averages(),
            "clip_global_norm": None,
            "reduction": "exact",
            "seed": 0,
            **options,
        }
        with self.strategy.scope():
            self.model = build()
            if prepare is not None:
                prepare(self.model)
            self.state = RunState(
                self.model,
                apply_groups(self.model, groups),
                optimizer=recipe["optimizer"],
                initial_loss_scale=loss_scale and loss_scale.initial,
            )
        assignment = Assignment(num_replicas=num_replicas, replica_batch=replica_batch)
        self.step = TrainStep(
            self.strategy,
            self.state,
            StepRecipe(assignment=assignment, **recipe),
            clock=time.perf_counter,
        )
        self.initial = self.state.values()

    def take(self, images, labels, *, flags=NO_FLAGS):
        """One step; name -> NumPy value of what it returns."""
        batch = {"images": tf.constant(images), "labels": tf.constant(labels)}
        return {name: value.numpy() for name, value in self.step.run_one(batch, flags).items()}

    def take_in_one_loop(self, images, labels, *, num_steps, flags=NO_FLAGS):
        """`num_steps` steps without the host; images and labels have the step in front."""
        dataset = tf.data.Dataset.from_tensor_slices({"images": images, "labels": labels})
        iterator = iter(self.strategy.distribute_datasets_from_function(lambda _: dataset))
        outputs = self.step.run(iterator, tf.constant(num_steps, tf.int64), flags)
        return {name: value.numpy() for name, value in outputs.items()}

    def begin_again(self, **changes):
        """Puts the initial values back; `changes` replaces scalars such as the step."""
        self.state.restore({**self.initial, **changes})

    def bits(self):
        """Name -> bytes of every variable."""
        return {name: value.tobytes() for name, value in self.state.values().items()}


def random_batches(num_steps, num_replicas, replica_batch, *, seed=0):
    """Images float32 [S, N, n, H, W, 3] and labels int32 [S, N, n]."""
    rng = np.random.default_rng(seed)
    shape = (num_steps, num_replicas, replica_batch)
    images = rng.uniform(-1.0, 1.0, size=(*shape, SIDE_PX, SIDE_PX, 3)).astype(np.float32)
    # Each replica of another brightness: their statistics and gradients differ.
    brightness = np.linspace(-1.0, 1.0, num_replicas, dtype=np.float32)
    images += brightness[:, None, None, None, None]
    return images, rng.integers(CLASSES, size=shape).astype(np.int32)


class PlainRun:
    """`conv_model` trained as the recipe says, in float64.

    Attributes:
      values: name as in `RunState.named_variables` -> float64 array.
    """

    def __init__(self, values, *, num_replicas, rate, l2, clip, smoothing=0.1, frozen=()):
        self.values = {name: np.float64(value) for name, value in values.items()}
        self.num_replicas, self.rate, self.l2, self.clip = num_replicas, rate, l2, clip
        self.smoothing, self.frozen = smoothing, frozen
        self.trained = [
            path
            for path in (
                "first/kernel", "first/beta", "second/kernel", "second/beta", "logits/kernel",
                "logits/bias",
            )
            if path.split("/")[0] not in frozen
        ]  # fmt: skip
        self.num_steps = 0

    def _forward(self, weights, images):
        """Logits, and name -> (mean, unbiased variance) of the layers that train."""
        x, moments = tf.constant(images, tf.float64), {}
        for name in ("first", "second"):
            x = tf.nn.conv2d(x, weights[f"{name}/kernel"], strides=1, padding="SAME")
            if name in self.frozen:
                mean = self.values[f"model/{name}/moving_mean"]
                variance = self.values[f"model/{name}/moving_variance"]
            else:
                mean = tf.reduce_mean(x, axis=[0, 1, 2])
                variance = tf.reduce_mean(tf.square(x - mean), axis=[0, 1, 2])
                count = float(np.prod(x.shape[:3]))
                moments[name] = (mean.numpy(), variance.numpy() * count / (count - 1.0))
            x = (x - mean) / tf.sqrt(variance + 0.001) + weights[f"{name}/beta"]
            x = tf.maximum(x, 0.0)
        x = tf.reduce_mean(x, axis=[1, 2])
        return x @ weights["logits/kernel"] + weights["logits/bias"], moments

    def _replica(self, images, labels):
        """Loss, number correct, gradients by path and moments of one declared replica."""
        names = ("first/kernel", "first/beta", "second/kernel", "second/beta")
        weights = {
            path: tf.constant(self.values[f"model/{path}"])
            for path in (*names, "logits/kernel", "logits/bias")
        }
        target = (1.0 - self.smoothing) * np.eye(CLASSES)[labels] + self.smoothing / CLASSES
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits, moments = self._forward(weights, images)
            losses = -tf.reduce_sum(target * tf.nn.log_softmax(logits), axis=-1)
            loss = tf.reduce_mean(losses)
        gradients = {path: g.numpy() for path, g in tape.gradient(loss, weights).items()}
        correct = np.sum(np.argmax(logits.numpy(), axis=-1) == labels)
        return loss.numpy(), correct, gradients, moments

    def take(self, images, labels):
        """One step over [N, n, ...]; the metrics of it."""
        values, count = self.values, self.num_replicas
        replicas = [self._replica(images[index], labels[index]) for index in range(count)]
        weights = {path: values[f"model/{path}"] for path in self.trained}
        l2 = {path: self.l2 if "kernel" in path else 0.0 for path in self.trained}
        gradients = {
            path: sum(replica[2][path] for replica in replicas) / count + l2[path] * weights[path]
            for path in self.trained
        }
        l2_loss = sum(l2[path] * np.sum(weights[path] ** 2) / 2 for path in self.trained)
        norm = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients.values()))
        scale = min(1.0, self.clip / norm)
        for path, gradient in gradients.items():
            rms, momentum = values[f"rms/{path}"], values[f"momentum/{path}"]
            rms = 0.9 * rms + 0.1 * (scale * gradient) ** 2
            momentum = 0.9 * momentum + self.rate * scale * gradient / np.sqrt(rms + 1.0)
            values[f"rms/{path}"], values[f"momentum/{path}"] = rms, momentum
            values[f"model/{path}"] = weights[path] - momentum
        self._take_statistics([replica[3] for replica in replicas])
        self._take_averages()
        values["clipped_steps"] += norm > self.clip
        values["step"] += 1
        self.num_steps += 1
        return {
            "data_loss_nats": np.mean([replica[0] for replica in replicas]),
            "l2_loss_nats": l2_loss,
            "accuracy": sum(replica[1] for replica in replicas) / labels.size,
            "gradient_norm": norm,
            "learning_rate": self.rate,
        }

    def _take_statistics(self, moments):
        keep = 0.9**self.num_replicas
        for name in moments[0]:
            for index, statistic in enumerate(("moving_mean", "moving_variance")):
                key = f"model/{name}/{statistic}"
                batches = np.mean([replica[name][index] for replica in moments], axis=0)
                self.values[key] = keep * self.values[key] + (1.0 - keep) * batches

    def _take_averages(self):
        decay = min(0.9999, (1.0 + self.num_steps) / (10.0 + self.num_steps))
        for key in [key for key in self.values if key.startswith("average/")]:
            value = self.values[key.replace("average/", "model/")]
            self.values[key] = decay * self.values[key] + (1.0 - decay) * value
