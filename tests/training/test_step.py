"""One step over the declared replicas, against the same step written out in float64."""

import functools
import time

import numpy as np
import pytest
import tensorflow as tf
from small_run import (
    PlainRun,
    SmallRun,
    constant_rate,
    conv_model,
    dense_model,
    random_batches,
)

from inception_tf.training.declared import read_faults
from inception_tf.training.groups import VariableGroups
from inception_tf.training.optimizer import Momentum
from inception_tf.training.reduction import GRADIENT_BITS, Reduction
from inception_tf.training.step import _LEFT_OUT, TrainStep

NUM_REPLICAS, REPLICA_BATCH = 3, 2
L2, CLIP = 0.01, 0.6
KERNELS_WITH_L2 = VariableGroups(groups=({"pattern": ".*/kernel", "l2": L2}, {"pattern": ".*"}))


@pytest.fixture(scope="module")
def conv_run():
    """Three declared replicas of `conv_model`; each test begins it again."""
    return SmallRun(
        functools.partial(conv_model, num_replicas=NUM_REPLICAS),
        num_replicas=NUM_REPLICAS,
        replica_batch=REPLICA_BATCH,
        groups=KERNELS_WITH_L2,
        clip_global_norm=CLIP,
    )


@pytest.fixture(scope="module")
def batches():
    """Images and labels of five steps."""
    return random_batches(5, NUM_REPLICAS, REPLICA_BATCH)


def relative_difference(ours, expected):
    return np.linalg.norm(ours - expected) / max(np.linalg.norm(expected), 1e-12)


# -- the whole step --------------------------------------------------------------------------------


def test_steps_equal_the_recipe_written_out_in_float64(conv_run, batches):
    conv_run.begin_again()
    plain = PlainRun(conv_run.initial, num_replicas=NUM_REPLICAS, rate=0.1, l2=L2, clip=CLIP)
    norms = []
    for images, labels in zip(*batches):
        outputs, expected = conv_run.take(images, labels), plain.take(images, labels)
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, rtol=2e-5, err_msg=name)
        norms.append(expected["gradient_norm"])
    # Some steps clip and some do not.
    assert min(norms) < CLIP < max(norms)
    values = conv_run.state.values()
    assert values["step"] == 5
    assert values["clipped_steps"] == sum(norm > CLIP for norm in norms)
    assert {name.split("/")[0] for name in values} >= {"model", "rms", "momentum", "average"}
    for name in (name for name in values if "/" in name):
        start = np.float64(conv_run.initial[name])
        moved = plain.values[name] - start
        assert np.linalg.norm(moved) > 0.0, f"{name} stands still"
        assert relative_difference(values[name] - start, moved) < 1e-4, name


@pytest.mark.parametrize(
    ("num_replicas", "decay", "kept"), [(3, 0.9, 0.729), (20, 0.9997, 0.9940170)]
)
def test_statistics_move_as_after_an_update_by_every_declared_replica(num_replicas, decay, kept):
    run = SmallRun(
        functools.partial(conv_model, num_replicas=num_replicas, batch_norm_decay=decay),
        num_replicas=num_replicas,
        replica_batch=REPLICA_BATCH,
    )
    images, labels = (values[0] for values in random_batches(1, num_replicas, REPLICA_BATCH))
    run.take(images, labels)
    kernel = run.initial["model/first/kernel"]
    outputs = [
        tf.nn.conv2d(replica, kernel, strides=1, padding="SAME").numpy().reshape(-1, 5)
        for replica in images
    ]
    np.testing.assert_allclose(kept, decay**num_replicas, rtol=1e-6)
    share = 1.0 - decay**num_replicas
    mean = share * np.mean([values.mean(0) for values in outputs], axis=0)
    variance = share * (np.mean([values.var(0, ddof=1) for values in outputs], axis=0) - 1.0)
    values = run.state.values()
    np.testing.assert_allclose(values["model/first/moving_mean"], mean, rtol=1e-4, atol=1e-7)
    moved = values["model/first/moving_variance"] - 1.0
    np.testing.assert_allclose(moved, variance, rtol=1e-4, atol=1e-7)
    # The variance over all images together is another: the replicas differ in brightness.
    union = share * (np.concatenate(outputs).var(0, ddof=1) - 1.0)
    assert relative_difference(moved, union) > 0.05


def test_l2_is_no_part_of_the_data_loss(conv_run, batches):
    conv_run.begin_again()
    outputs = conv_run.take(batches[0][0], batches[1][0])
    kernels = [value for name, value in conv_run.initial.items() if name.startswith("model/")
               and name.endswith("/kernel")]  # fmt: skip
    assert len(kernels) == 3
    expected = L2 / 2 * sum(np.sum(np.float64(kernel) ** 2) for kernel in kernels)
    np.testing.assert_allclose(outputs["l2_loss_nats"], expected, rtol=1e-6)
    without = SmallRun(
        functools.partial(conv_model, num_replicas=NUM_REPLICAS),
        num_replicas=NUM_REPLICAS,
        replica_batch=REPLICA_BATCH,
    )
    plain = without.take(batches[0][0], batches[1][0])
    assert plain["l2_loss_nats"] == 0.0
    assert plain["data_loss_nats"] == outputs["data_loss_nats"]


def test_five_steps_in_one_loop_are_five_single_steps_to_the_bit(conv_run, batches):
    conv_run.begin_again()
    for images, labels in zip(*batches):
        single = conv_run.take(images, labels)
    bits = conv_run.bits()
    conv_run.begin_again()
    looped = conv_run.take_in_one_loop(*batches, num_steps=5)
    assert conv_run.bits() == bits
    assert looped.pop("data_wait_secs") > 0.0
    assert {name: value.tobytes() for name, value in looped.items()} == {
        name: value.tobytes() for name, value in single.items()
    }


def test_order_of_the_declared_replicas_changes_no_bit(conv_run, batches):
    images, labels = batches[0][0], batches[1][0]
    results = set()
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        conv_run.begin_again()
        conv_run.take(images[order], labels[order])
        results.add(tuple(conv_run.bits().values()))
    assert len(results) == 1


def test_host_flags_come_back_and_change_nothing(conv_run, batches):
    images, labels = batches[0][0], batches[1][0]
    conv_run.begin_again()
    assert conv_run.take(images, labels)["host_flags"].tolist() == [0, 0]
    bits = conv_run.bits()
    conv_run.begin_again()
    outputs = conv_run.take(images, labels, flags=tf.constant([1, 5], tf.int64))
    assert outputs["host_flags"].tolist() == [1, 5]
    assert conv_run.bits() == bits


def test_one_declared_replica_is_a_plain_step(batches):
    images, labels = batches[0][:, :1], batches[1][:, :1]
    run = SmallRun(
        functools.partial(conv_model, num_replicas=1),
        num_replicas=1,
        replica_batch=REPLICA_BATCH,
        groups=KERNELS_WITH_L2,
        clip_global_norm=CLIP,
    )
    plain = PlainRun(run.initial, num_replicas=1, rate=0.1, l2=L2, clip=CLIP)
    for step in range(2):
        outputs = run.take(images[step], labels[step])
        expected = plain.take(images[step], labels[step])
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, rtol=2e-5, err_msg=name)
    for name, value in run.state.values().items():
        np.testing.assert_allclose(value, plain.values[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_each_statistic_gets_its_own_value_whatever_their_order(conv_run, batches):
    images, labels = batches[0][0], batches[1][0]
    conv_run.begin_again()
    conv_run.take(images, labels)
    bits = conv_run.bits()
    other = SmallRun(
        functools.partial(conv_model, num_replicas=NUM_REPLICAS),
        num_replicas=NUM_REPLICAS,
        replica_batch=REPLICA_BATCH,
        groups=KERNELS_WITH_L2,
        clip_global_norm=CLIP,
    )
    other.state.statistics.reverse()
    other.step = TrainStep(other.strategy, other.state, other.step.recipe, clock=time.perf_counter)
    other.take(images, labels)
    assert other.bits() == bits


# -- what stops a run ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_non_finite_image_of_one_replica_applies_no_update(conv_run, batches, value):
    conv_run.begin_again(step=np.int64(41))
    before = conv_run.bits()
    images, labels = batches[0][0].copy(), batches[1][0]
    images[1, 0, 2, 3, 1] = value
    outputs = conv_run.take(images, labels)
    assert outputs["failed_step"] == 41 and outputs["non_finite"] == 1
    fault, = read_faults(outputs["faults"], conv_run.state)
    assert (fault.declared, fault.is_too_large, fault.what) == (1, False, "the loss")
    assert np.isnan(fault.value)
    # Sums on the grid know no NaN: no number that they happen to hold is passed on.
    assert np.isnan(outputs["data_loss_nats"]) and np.isnan(outputs["gradient_norm"])
    assert conv_run.bits() == before


def test_from_the_failed_step_of_a_loop_on_nothing_is_applied(conv_run, batches):
    conv_run.begin_again()
    for step in range(2):
        conv_run.take(batches[0][step], batches[1][step])
    after_two = conv_run.bits()
    images = batches[0].copy()
    images[2, 2, 1] = np.nan
    conv_run.begin_again()
    outputs = conv_run.take_in_one_loop(images, batches[1], num_steps=5)
    assert conv_run.bits() == after_two
    assert outputs["failed_step"] == 2
    # What is reported is the failed step, not the sound batches after it.
    assert outputs["non_finite"] == 1 and outputs["too_large"] == 0


@pytest.fixture(scope="module")
def wide_run():
    """Two declared replicas of one zero dense layer, whose gradient is x (p - q)."""
    return SmallRun(
        lambda: dense_model(num_values=3),
        num_replicas=2,
        replica_batch=1,
        num_outputs=2,
        optimizer=Momentum(momentum=0.0),
        learning_rate=constant_rate(1.0),
        label_smoothing=0.0,
    )


LABELS = np.int32([[0], [0]])


def test_a_value_too_large_for_the_sums_is_flagged_and_not_wrapped(wide_run):
    wide_run.begin_again()
    before = wide_run.bits()
    images = np.float32([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 2e8]]])  # a gradient of 1e8
    outputs = wide_run.take(images, LABELS)
    assert outputs["too_large"] == 1 and outputs["non_finite"] == 0
    assert outputs["failed_step"] == 0
    fault, = read_faults(outputs["faults"], wide_run.state)
    assert (fault.declared, fault.is_too_large) == (1, True)
    assert fault.what == "the gradient of logits/kernel"
    # x (p - q) with p = 1/2: two columns of 1e8 and little else.
    np.testing.assert_allclose(fault.value, 1e8 * 2**0.5, rtol=1e-6)
    # The loss is a number all the same, but not the norm of a sum that could not be formed.
    np.testing.assert_allclose(outputs["data_loss_nats"], np.log(2.0), rtol=1e-6)
    assert np.isnan(outputs["gradient_norm"])
    assert wide_run.bits() == before


def test_a_loss_too_large_for_the_sums_is_no_number(wide_run):
    # Logits 4e4 x 5e4: the wrong class costs 2e9 nats, more than 2^30 / 2.
    weights = np.float32([[0.0, 4e4], [0.0, 0.0], [0.0, 0.0]])
    wide_run.begin_again(**{"model/logits/kernel": weights})
    outputs = wide_run.take(np.float32([[[1.0, 0.0, 0.0]], [[5e4, 0.0, 0.0]]]), LABELS)
    assert outputs["too_large"] == 1 and outputs["failed_step"] == 0
    assert np.isnan(outputs["data_loss_nats"])


def test_gradients_are_added_up_to_the_limit(wide_run):
    limit = Reduction(kind="exact", num_replicas=2).limit(GRADIENT_BITS)
    # The norm of x (1/2, -1/2) and its bias is |(x, 1)| / sqrt(2).
    for size, is_flagged in ((0.999, False), (1.001, True)):
        wide_run.begin_again()
        x = size * limit * 2**0.5
        outputs = wide_run.take(np.full([2, 1, 3], [0.0, 0.0, x], np.float32), LABELS)
        assert outputs["too_large"] == (2 if is_flagged else 0)
        assert outputs["failed_step"] == (0 if is_flagged else -1)
        if not is_flagged:
            kernel = wide_run.state.values()["model/logits/kernel"]
            np.testing.assert_allclose(kernel[2], [x / 2, -x / 2], rtol=1e-6)


def test_accuracy_is_the_share_of_images_whose_largest_logit_is_their_label(wide_run):
    weights = np.float32([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    for labels, accuracy in (([[0], [1]], 1.0), ([[0], [0]], 0.5), ([[1], [0]], 0.0)):
        wide_run.begin_again(**{"model/logits/kernel": weights})
        images = np.float32([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
        assert wide_run.take(images, np.int32(labels))["accuracy"] == accuracy


def test_a_step_is_traced_with_fused_operations_alone_and_leaves_the_options_as_they_were(wide_run):
    get = tf.config.optimizer.get_experimental_options
    tf.config.optimizer.set_experimental_options({"loop_optimization": False, "remapping": True})
    try:
        with wide_run.step._graph_options():
            inside = get()
        after = get()
    finally:
        tf.config.optimizer.set_experimental_options({"loop_optimization": True})
    assert inside["remapping"] and not inside["disable_meta_optimizer"]
    # A name that TensorFlow does not know would be passed over in silence.
    assert all(inside[name] is False for name in _LEFT_OUT)
    assert not after["loop_optimization"]
    assert all(after[name] for name in _LEFT_OUT if name != "loop_optimization")
