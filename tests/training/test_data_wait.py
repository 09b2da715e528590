"""'Waiting for data', measured by the real loop and step over a source of a known slowness."""

import time
import types

import pytest
import small_run
import tensorflow as tf

from inception_tf.training.loop import Cadence, train

NUM_STEPS = 12
SECS_PER_BATCH = 0.15


def sleep(batch, secs):
    """The batch, `secs` later."""

    def wait(labels):
        time.sleep(secs)
        return labels

    labels = tf.numpy_function(wait, [batch["labels"]], tf.int32)
    return {**batch, "labels": tf.ensure_shape(labels, batch["labels"].shape)}


def train_from(secs_per_batch, *, steps_per_loop):
    """Seconds of all steps but the first two, which trace, and how many of them were waited."""
    run = small_run.SmallRun(
        lambda: small_run.conv_model(num_replicas=2), num_replicas=2, replica_batch=3
    )
    images, labels = small_run.random_batches(NUM_STEPS, 2, 3)
    dataset = tf.data.Dataset.from_tensor_slices({"images": images, "labels": labels})
    dataset = dataset.map(lambda batch: sleep(batch, secs_per_batch))
    intervals = []
    hooks = types.SimpleNamespace(
        enter=lambda phase, step, num_steps: None,
        started=lambda step, secs: None,
        progress=lambda step, outputs, interval: None,
        log=lambda step, outputs, interval: intervals.append(interval),
        evaluate=lambda step, is_stopping: False,
        save=lambda step, is_last: None,
        save_is_due=lambda: False,
        stop_is_due=lambda: False,
        clock=time.perf_counter,
    )
    train(
        run.step,
        iter(run.strategy.distribute_datasets_from_function(lambda context: dataset)),
        start_step=0,
        steps_per_loop=steps_per_loop,
        cadence=Cadence(
            total_steps=NUM_STEPS, num_examples=6, global_batch=6, log_every_steps=NUM_STEPS
        ),
        hooks=hooks,
    )
    (interval,) = intervals
    return interval


@pytest.mark.parametrize("steps_per_loop", [1, 3])
def test_the_time_a_slow_source_takes_is_waited_and_no_other_time(steps_per_loop):
    slow = train_from(SECS_PER_BATCH, steps_per_loop=steps_per_loop)
    ready = train_from(0.0, steps_per_loop=steps_per_loop)
    assert slow.data_wait_secs > 0.6 * slow.secs
    # What is not waited is the step itself, as long as it takes with a source that is ready.
    assert slow.secs - slow.data_wait_secs < ready.secs + 0.2
    assert ready.data_wait_secs < 0.5 * slow.data_wait_secs
