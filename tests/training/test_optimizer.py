"""RMSProp and momentum against TF1's own optimizers, and the clip."""

import numpy as np
import pytest
import tensorflow as tf
from small_run import EVERYTHING, SmallRun, constant_rate, dense_model

from inception_tf.errors import ConfigError
from inception_tf.training.optimizer import Momentum, RmsProp, Update, clip_scale


def build_variables(optimizer, weight):
    """The weight and its slots, as a run starts them."""
    slots = {
        name: tf.Variable(tf.fill(weight.shape, start)) for name, start in optimizer.slots.items()
    }
    return tf.Variable(weight), slots


def apply(optimizer, variable, slots, gradient, rate):
    handles = {name: slot.handle for name, slot in slots.items()}
    update = Update(variable.handle, handles, tf.constant(gradient), tf.constant(rate, tf.float32))
    optimizer.apply([update])


# w0 = 1, decay 0.9, momentum 0.9, epsilon 1; gradients 0.5, -0.2, 0.1: s, m, w after each.
PUBLISHED = [
    (0.5, 0.92500000, 0.03603750, 0.96396250),
    (-0.2, 0.83650000, 0.01767551, 0.94628699),
    (0.1, 0.75385000, 0.02345895, 0.92282804),
]


def test_rmsprop_makes_the_published_steps():
    optimizer = RmsProp(decay=0.9, momentum=0.9, epsilon=1.0)
    variable, slots = build_variables(optimizer, np.ones([1], np.float32))
    for gradient, rms, momentum, weight in PUBLISHED:
        apply(optimizer, variable, slots, np.float32([gradient]), 0.1)
        np.testing.assert_allclose(slots["rms"], [rms], rtol=2e-7)
        np.testing.assert_allclose(slots["momentum"], [momentum], rtol=5e-7)
        np.testing.assert_allclose(variable, [weight], rtol=2e-7)


def test_rate_is_inside_the_momentum():
    optimizer = RmsProp()
    variable, slots = build_variables(optimizer, np.ones([1], np.float32))
    for (gradient, *_), rate in zip(PUBLISHED, (0.1, 0.1, 0.05)):
        apply(optimizer, variable, slots, np.float32([gradient]), rate)
    np.testing.assert_allclose(slots["momentum"], [0.01968345], rtol=5e-7)
    np.testing.assert_allclose(variable, [0.92660354], rtol=2e-7)


def test_defaults_are_the_papers():
    assert RmsProp() == RmsProp(decay=0.9, momentum=0.9, epsilon=1.0)
    assert Momentum() == Momentum(momentum=0.9)


def steps_of_tf1(build, weight, gradients, rates):
    """Weight and slots after each step of a TF1 optimizer on a TF1 variable."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("weight", initializer=weight, use_resource=False)
        gradient = tf.compat.v1.placeholder(tf.float32, weight.shape)
        rate = tf.compat.v1.placeholder(tf.float32, [])
        optimizer = build(rate)
        update = optimizer.apply_gradients([(gradient, variable)])
        session.run(tf.compat.v1.global_variables_initializer())
        results = []
        for values in zip(gradients, rates):
            session.run(update, dict(zip((gradient, rate), values)))
            names = optimizer.get_slot_names()
            slots = {name: optimizer.get_slot(variable, name) for name in names}
            results.append(session.run({"weight": variable, **slots}))
    return results


def check_against_tf1(optimizer, build):
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(7, 11)).astype(np.float32)
    # From gradients that underflow in the square to some far above one.
    gradients = rng.normal(size=(20, 7, 11)) * 10.0 ** rng.uniform(-12, 3, size=(20, 7, 11))
    gradients = gradients.astype(np.float32)
    rates = (0.045 * 0.94 ** np.arange(20)).astype(np.float32)
    variable, slots = build_variables(optimizer, weight)
    expected = steps_of_tf1(build, weight, gradients, rates)
    for gradient, rate, after in zip(gradients, rates, expected):
        apply(optimizer, variable, slots, gradient, rate)
        assert set(after) == {"weight", *slots}
        np.testing.assert_array_equal(variable, after["weight"])
        for name, slot in slots.items():
            np.testing.assert_array_equal(slot, after[name])


@pytest.mark.parametrize("epsilon", [1.0, 1e-10])
def test_rmsprop_is_that_of_tf1_to_the_bit(epsilon):
    check_against_tf1(
        RmsProp(decay=0.9, momentum=0.9, epsilon=epsilon),
        lambda rate: tf.compat.v1.train.RMSPropOptimizer(
            rate, decay=0.9, momentum=0.9, epsilon=epsilon
        ),
    )


def test_momentum_is_that_of_tf1_to_the_bit():
    check_against_tf1(
        Momentum(momentum=0.9), lambda rate: tf.compat.v1.train.MomentumOptimizer(rate, 0.9)
    )


@pytest.mark.parametrize("norm", [0.0, 1e-30, 1.0, np.nextafter(np.float32(2), np.float32(0)), 2.0])
def test_nothing_is_scaled_within_the_limit(norm):
    scale = clip_scale(tf.constant(norm, tf.float32), tf.constant(2.0))
    assert scale.numpy() == 1.0


@pytest.mark.parametrize("norm", [np.nextafter(np.float32(2), np.float32(3)), 3.7, 1e6, 1e18])
def test_gradients_above_the_limit_are_scaled_to_it(norm):
    gradient = np.float32([0.6, -0.8]) * np.float32(norm)
    ours = gradient * clip_scale(tf.linalg.norm(gradient), tf.constant(2.0)).numpy()
    theirs, _ = tf.clip_by_global_norm([tf.constant(gradient)], 2.0)
    np.testing.assert_allclose(np.linalg.norm(ours), 2.0, rtol=2e-7)
    np.testing.assert_allclose(ours, theirs[0], rtol=4e-7)


@pytest.fixture(scope="module")
def opposed():
    """Two declared replicas of one image, clipped at 2, whose rate 1 shows the gradient."""
    return SmallRun(
        lambda: dense_model(num_values=2),
        num_replicas=2,
        replica_batch=1,
        num_outputs=2,
        groups=EVERYTHING,
        optimizer=Momentum(momentum=0.0),
        learning_rate=constant_rate(1.0),
        label_smoothing=0.0,
        clip_global_norm=2.0,
    )


def gradient_of(images, labels):
    """Mean gradient of the zero dense layer: x (1/2 - [k = y]), and that of its bias."""
    errors = 0.5 - np.eye(2)[labels]
    return np.mean([np.outer(x, error) for x, error in zip(images, errors)], 0), errors.mean(0)


def take(run, images, labels):
    run.begin_again()
    images, labels = np.float32(images), np.int32(labels)
    return run.take(images[:, None], labels[:, None])


def test_clip_acts_on_the_reduced_gradient(opposed):
    # Norms of about 7 each, which nearly cancel: clipping each to 2 would leave other directions.
    images, labels = [[10.0, 0.0], [10.0, 2.0]], [0, 1]
    kernel, bias = gradient_of(images, labels)
    outputs = take(opposed, images, labels)
    norm = np.sqrt(np.sum(kernel**2) + np.sum(bias**2))
    assert norm < 2.0 < np.linalg.norm(np.outer(images[0], [0.5, 0.5]))
    np.testing.assert_allclose(outputs["gradient_norm"], norm, rtol=1e-6)
    values = opposed.state.values()
    np.testing.assert_array_equal(values["model/logits/kernel"], -kernel.astype(np.float32))
    assert values["clipped_steps"] == 0


def test_reduced_gradient_is_clipped_to_the_limit(opposed):
    images, labels = [[10.0, 0.0], [6.0, 2.0]], [0, 0]
    kernel, bias = gradient_of(images, labels)
    norm = np.sqrt(np.sum(kernel**2) + np.sum(bias**2))
    outputs = take(opposed, images, labels)
    assert norm > 2.0
    np.testing.assert_allclose(outputs["gradient_norm"], norm, rtol=1e-6)
    values = opposed.state.values()
    np.testing.assert_allclose(values["model/logits/kernel"], -kernel * 2.0 / norm, rtol=1e-6)
    np.testing.assert_allclose(values["model/logits/bias"], -bias * 2.0 / norm, rtol=1e-6)
    assert values["clipped_steps"] == 1


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: RmsProp(decay=1.0), "decay"),
        (lambda: RmsProp(momentum=-0.1), "momentum"),
        (lambda: RmsProp(epsilon=-1.0), "epsilon"),
        (lambda: Momentum(momentum=1.0), "momentum"),
    ],
)
def test_values_out_of_range_are_refused(build, named):
    with pytest.raises(ConfigError, match=named):
        build()
