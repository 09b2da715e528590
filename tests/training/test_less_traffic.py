"""The step where gradients travel in fewer bytes than the exact sums take."""

import functools

import numpy as np
import pytest
from small_run import SmallRun, constant_rate, conv_model, dense_model, random_batches

from inception_tf.training.optimizer import Momentum

NUM_REPLICAS, REPLICA_BATCH = 3, 2


def conv_run(*, batch_norm_decay=0.9, **options):
    """Three declared replicas of `conv_model`."""
    return SmallRun(
        functools.partial(conv_model, num_replicas=NUM_REPLICAS, batch_norm_decay=batch_norm_decay),
        num_replicas=NUM_REPLICAS,
        replica_batch=REPLICA_BATCH,
        **options,
    )


@pytest.mark.parametrize(("reduction", "tolerance"), [("float32", 1e-4), ("bfloat16", 1e-2)])
def test_reductions_with_less_traffic_make_the_same_step_but_for_rounding(reduction, tolerance):
    images, labels = (values[0] for values in random_batches(1, NUM_REPLICAS, REPLICA_BATCH))
    runs = {}
    for kind in ("exact", reduction):
        runs[kind] = conv_run(reduction=kind, clip_global_norm=0.6)
        runs[kind].take(images, labels)
    exact = runs["exact"].state.values()
    for name, value in runs[reduction].state.values().items():
        start = runs[reduction].initial[name]
        if name.startswith(("model/", "momentum/")):
            moved, expected = value - start, exact[name] - start
            difference = np.linalg.norm(moved - expected)
            assert difference < tolerance * max(np.linalg.norm(expected), 1e-12), name


def test_statistics_keep_their_digits_where_gradients_travel_in_bfloat16():
    # Each step moves them by 0.6 % of what they are away, less than bfloat16 tells apart.
    images, labels = random_batches(200, NUM_REPLICAS, REPLICA_BATCH)
    images += 1.0  # means that are not about zero
    found = {}
    for reduction in ("exact", "bfloat16"):
        run = conv_run(
            batch_norm_decay=0.994 ** (1 / NUM_REPLICAS),
            learning_rate=constant_rate(1e-4),
            reduction=reduction,
        )
        run.take_in_one_loop(images, labels, num_steps=200)
        found[reduction] = run.state.values()
    for layer in ("first", "second"):
        for statistic in ("moving_mean", "moving_variance"):
            name = f"model/{layer}/{statistic}"
            exact, start = found["exact"][name], run.initial[name]
            assert np.max(np.abs(exact - start)) > 0.1, f"{name} stands still"
            np.testing.assert_allclose(found["bfloat16"][name], exact, atol=1e-3, err_msg=name)


@pytest.mark.parametrize(("reduction", "num_replicas"), [("float32", 2), ("exact", 1)])
def test_values_that_are_not_carried_as_integers_may_be_large(reduction, num_replicas):
    run = SmallRun(
        lambda: dense_model(num_values=3),
        num_replicas=num_replicas,
        replica_batch=1,
        num_outputs=2,
        optimizer=Momentum(momentum=0.0),
        learning_rate=constant_rate(1.0),
        label_smoothing=0.0,
        reduction=reduction,
    )
    images = np.full([num_replicas, 1, 3], [0.0, 0.0, 2e8], np.float32)
    outputs = run.take(images, np.zeros([num_replicas, 1], np.int32))
    assert outputs["too_large"] == 0 and outputs["failed_step"] == -1
    np.testing.assert_allclose(outputs["gradient_norm"], 1e8 * 2**0.5, rtol=1e-6)
    kernel = run.state.values()["model/logits/kernel"]
    np.testing.assert_allclose(kernel[2], [1e8, -1e8], rtol=1e-6)
