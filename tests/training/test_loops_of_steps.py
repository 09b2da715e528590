"""Loops over a real step: the same run whatever their size, a true report, and XLA's kernels."""

import functools
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_run import CLASSES, SIDE_PX, SmallRun, conv_model, random_batches

from inception_tf.errors import NonFiniteError
from inception_tf.models.layers import Dropout
from inception_tf.training.loop import Cadence, train

NUM_REPLICAS, REPLICA_BATCH, NUM_STEPS = 3, 2, 9


@pytest.fixture(scope="module")
def conv_run():
    """Three declared replicas of `conv_model`; each test begins it again."""
    return SmallRun(
        functools.partial(conv_model, num_replicas=NUM_REPLICAS),
        num_replicas=NUM_REPLICAS,
        replica_batch=REPLICA_BATCH,
    )


class Notes:
    """Hooks that write down the rows of a run.

    Attributes:
      rows: (step, counted steps of the interval, loss, norm) of each.
      saved: steps of the checkpoints.
      told: steps of the estimates.
    """

    def __init__(self, *, stop_after=None):
        self.rows, self.saved, self.told = [], [], []
        self.reached, self.stop_after = 0, stop_after
        self.clock = time.perf_counter

    def enter(self, phase, step, num_steps):
        pass

    def started(self, step, secs_per_step):
        assert secs_per_step > 0.0
        self.told.append(step)

    def progress(self, step, outputs, interval):
        self.reached = step
        assert interval.secs > interval.data_wait_secs >= 0.0

    def log(self, step, outputs, interval):
        loss, norm = (outputs[name].numpy() for name in ("data_loss_nats", "gradient_norm"))
        self.rows.append((step, interval.num_steps, loss, norm))

    def save(self, step, is_last):
        self.saved.append(step)

    def evaluate(self, step, is_stopping):
        return False

    def save_is_due(self):
        return False

    def stop_is_due(self):
        return self.stop_after is not None and self.reached >= self.stop_after

    def keep_failed_step(self, step, outputs, batch):
        images = None if batch is None else batch["images"]
        return f"{step} {outputs['faults'].numpy().nonzero()} {images is not None}", ""


def train_again(run, images, labels, *, steps_per_loop, **options):
    """Trains from the initial values; (step reached, Notes)."""
    run.begin_again()
    dataset = tf.data.Dataset.from_tensor_slices({"images": images, "labels": labels})
    notes = Notes(**options)
    step = train(
        run.step,
        iter(run.strategy.distribute_datasets_from_function(lambda _: dataset)),
        start_step=0,
        steps_per_loop=steps_per_loop,
        cadence=Cadence(
            total_steps=NUM_STEPS,
            num_examples=1000,
            global_batch=NUM_REPLICAS * REPLICA_BATCH,
            log_every_steps=5,
        ),
        hooks=notes,
    )
    return step, notes


def test_a_run_is_the_same_to_the_bit_whatever_the_size_of_its_loops(conv_run):
    images, labels = random_batches(NUM_STEPS, NUM_REPLICAS, REPLICA_BATCH)
    found = []
    for steps_per_loop in (1, 2, 1000):
        step, notes = train_again(conv_run, images, labels, steps_per_loop=steps_per_loop)
        assert step == NUM_STEPS and conv_run.state.values()["step"] == NUM_STEPS
        assert [row[:2] for row in notes.rows] == [(5, 4), (9, 4)]
        assert notes.told == [2] and notes.saved == [9]
        found.append((notes.rows, conv_run.bits()))
    assert found[0] == found[1] == found[2]


def test_a_stop_takes_hold_after_a_whole_loop(conv_run):
    images, labels = random_batches(NUM_STEPS, NUM_REPLICAS, REPLICA_BATCH)
    # Loops end after steps 1, 2 and 5; asked after 2, the flag comes back with step 5.
    step, notes = train_again(conv_run, images, labels, steps_per_loop=100, stop_after=2)
    assert step == 5 and conv_run.state.values()["step"] == 5
    assert notes.saved == [5]


@pytest.mark.parametrize("steps_per_loop", [1, 100])
def test_a_failed_step_is_reported_with_what_the_device_found(conv_run, steps_per_loop):
    images, labels = random_batches(NUM_STEPS, NUM_REPLICAS, REPLICA_BATCH)
    images[7, 1, 0, 2, 2, 0] = np.nan
    with pytest.raises(NonFiniteError) as caught:
        train_again(conv_run, images, labels, steps_per_loop=steps_per_loop)
    message = str(caught.value)
    assert "at step 7 they were not finite" in message
    assert "loss nan, gradient norm nan" in message
    # The declared replica, and its batch where it came through the host.
    assert f"; 7 (array([1]),) {steps_per_loop == 1}." in message
    assert conv_run.state.values()["step"] == 7


def dropout_model():
    """`conv_model` for one declared replica in short, with dropout."""
    inputs = keras.Input([SIDE_PX, SIDE_PX, 3])
    x = Dropout(0.5, name="dropout")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))


@pytest.mark.parametrize("num_replicas", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_xla_makes_the_same_steps_but_for_rounding(num_replicas):
    images, labels = random_batches(2, num_replicas, REPLICA_BATCH)
    build = functools.partial(conv_model, num_replicas=num_replicas)
    size = {"num_replicas": num_replicas, "replica_batch": REPLICA_BATCH}
    plain, compiled = SmallRun(build, **size), SmallRun(build, jit_compile=True, **size)
    for step in range(2):
        expected = plain.take(images[step], labels[step])
        outputs = compiled.take(images[step], labels[step])
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, rtol=1e-5, err_msg=name)
    values = compiled.state.values()
    for name, value in plain.state.values().items():
        np.testing.assert_allclose(values[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_xla_draws_dropout_masks_from_the_keys():
    images, labels = random_batches(1, 2, REPLICA_BATCH)
    run = SmallRun(dropout_model, num_replicas=2, replica_batch=REPLICA_BATCH, jit_compile=True)
    losses = []
    for step in (0, 0, 1):
        run.begin_again(step=np.int64(step))
        outputs = run.take(images[0], labels[0])
        assert outputs["failed_step"] == -1
        losses.append(float(outputs["data_loss_nats"]))
    assert np.all(np.isfinite(losses))
    assert losses[0] == losses[1] != losses[2]
