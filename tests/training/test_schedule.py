"""The learning rate at a step, against the published numbers and exact fractions."""

import fractions
import math

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.training.schedule import ExponentialDecay, TwoPhase, learning_rate_at

IMAGENET = 1_281_167
STEPS_PER_EPOCH = IMAGENET / 640


def rate_at(step, schedule, *, steps_per_epoch=STEPS_PER_EPOCH, **options):
    step = tf.constant(step, tf.int64)
    rate = learning_rate_at(step, schedule, steps_per_epoch=steps_per_epoch, **options)
    assert rate.dtype == tf.float32
    return rate.numpy()


# 0.045 x 0.94^(epoch / 2), to the digits of the recipe's table.
@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (2, 0.0423),
        (10, 0.0330257),
        (30, 0.0177881),
        (100, 0.00203988),
        (160, 3.18743e-4),
        (200, 9.24694e-5),
    ],
)
def test_papers_rate_after_each_epoch_of_the_table(epoch, rate):
    first_step_past = math.ceil(epoch * STEPS_PER_EPOCH)
    np.testing.assert_allclose(rate_at(first_step_past, ExponentialDecay()), rate, rtol=3e-6)


def test_first_rate_is_the_papers():
    assert rate_at(0, ExponentialDecay()) == np.float32(0.045)


@pytest.mark.parametrize(
    ("num_workers", "decay_steps"),
    [(1, 80072), (8, 10009), (20, 4003), (32, 2502), (50, 1601), (64, 1251), (100, 800)],
)
def test_integer_decay_steps_of_the_released_trainer(num_workers, decay_steps):
    assert int(IMAGENET / 32 * 2 / num_workers) == decay_steps
    schedule = ExponentialDecay(epochs_per_decay=None, decay_steps=decay_steps)
    assert rate_at(decay_steps - 1, schedule) == np.float32(0.045)
    np.testing.assert_allclose(rate_at(decay_steps, schedule), 0.045 * 0.94, rtol=1e-7)
    np.testing.assert_allclose(rate_at(2 * decay_steps - 1, schedule), 0.045 * 0.94, rtol=1e-7)
    np.testing.assert_allclose(rate_at(2 * decay_steps, schedule), 0.045 * 0.94**2, rtol=1e-7)


def test_decay_steps_take_no_notice_of_the_epochs():
    schedule = ExponentialDecay(epochs_per_decay=None, decay_steps=10)
    np.testing.assert_allclose(rate_at(25, schedule, steps_per_epoch=1.0), 0.045 * 0.94**2, 1e-7)


# 2 x 1,281,167 / 640 = 4003.646875: the rounded epoch of 2,001 or 2,002 steps would put the
# first decay at 4,002 or 4,004 and the eightieth 66 steps off.
@pytest.mark.parametrize("num_decays", [1, 2, 3, 80])
def test_epochs_are_not_rounded(num_decays):
    step = math.ceil(fractions.Fraction(2 * IMAGENET * num_decays, 640))
    assert num_decays != 1 or step == 4004
    assert num_decays != 2 or step == 8008
    assert num_decays != 3 or step == 12011
    assert num_decays != 80 or step == 320_292
    before, after = 0.045 * 0.94 ** (num_decays - 1), 0.045 * 0.94**num_decays
    np.testing.assert_allclose(rate_at(step - 1, ExponentialDecay()), before, rtol=1e-6)
    np.testing.assert_allclose(rate_at(step, ExponentialDecay()), after, rtol=1e-6)


# Batches for which epochs do end exactly after a step, but not in float64: 1437 / 39 x 13 x 3.
@pytest.mark.parametrize(
    ("num_examples", "global_batch", "epochs_per_decay"),
    [(1437, 39, 3.0), (80, 100, 3.0), (31, 3, 1.0), (1437, 64, 2.0), (59, 3, 2.0)],
)
def test_decay_falls_on_the_exact_step(num_examples, global_batch, epochs_per_decay):
    schedule = ExponentialDecay(learning_rate=1.0, factor=0.5, epochs_per_decay=epochs_per_decay)
    period = fractions.Fraction(num_examples, global_batch) * fractions.Fraction(epochs_per_decay)
    whole = [k for k in range(1, 60) if (k * period).denominator == 1]
    for num_decays in whole + [1, 2, 7]:
        step = math.ceil(num_decays * period)
        steps = tf.constant([step - 1, step], tf.int64)
        rates = learning_rate_at(steps, schedule, steps_per_epoch=num_examples / global_batch)
        expected = [0.5 ** math.floor(at / period) for at in (step - 1, step)]
        np.testing.assert_array_equal(rates, np.array(expected, np.float32))


@pytest.mark.parametrize("staircase", [True, False])
def test_staircase_and_smooth_decay_follow_the_formula(staircase):
    schedule = ExponentialDecay(
        learning_rate=0.3, factor=0.7, epochs_per_decay=1.5, staircase=staircase
    )
    steps = np.arange(0, 400, dtype=np.int64)
    rates = learning_rate_at(tf.constant(steps), schedule, steps_per_epoch=22.453125)
    decays = steps / (1.5 * 22.453125)
    expected = 0.3 * 0.7 ** (np.floor(decays) if staircase else decays)
    np.testing.assert_allclose(rates, expected, rtol=1e-7)
    assert len(set(rates.numpy())) == (12 if staircase else 400)


def test_warm_up_is_linear_and_reaches_the_scheduled_rate():
    schedule = ExponentialDecay(learning_rate=0.8, factor=0.5, epochs_per_decay=1.0)
    rates = [rate_at(step, schedule, steps_per_epoch=4.0, warmup_epochs=2.0) for step in range(10)]
    # 8 steps of warm-up, while the schedule below it decays every 4.
    expected = [0.8 * 0.5 ** (step // 4) * min((step + 1) / 8, 1.0) for step in range(10)]
    np.testing.assert_allclose(rates, expected, rtol=1e-7)
    assert rates[0] == np.float32(0.1)


def test_scale_multiplies_every_rate():
    schedule = ExponentialDecay()
    for step in (0, 5000, 100_000):
        plain = learning_rate_at(tf.constant(step, tf.int64), schedule, steps_per_epoch=2001.8)
        scaled = rate_at(step, schedule, steps_per_epoch=2001.8, scale=640 / 256)
        np.testing.assert_allclose(scaled, 2.5 * plain.numpy(), rtol=1e-7)


def test_two_phase_is_low_first_and_then_a_full_schedule_from_its_start():
    schedule = TwoPhase(first_learning_rate=0.001, first_epochs=1.5, then=ExponentialDecay())
    # 1.5 epochs of 10.5 steps = 15.75: steps 0 to 15 are low; then decays every 21 steps.
    rates = [rate_at(step, schedule, steps_per_epoch=10.5) for step in range(60)]
    expected = [
        0.001 if step < 15.75 else 0.045 * 0.94 ** math.floor((step - 15.75) / 21.0)
        for step in range(60)
    ]
    np.testing.assert_allclose(rates, expected, rtol=1e-7)


def test_second_phase_begins_on_the_exact_step():
    schedule = TwoPhase(first_learning_rate=0.001, first_epochs=39.0)
    # 39 epochs of 1797 / 39 steps are 1797 steps, and a little more in float64.
    assert 39.0 * (1797 / 39) > 1797
    assert rate_at(1796, schedule, steps_per_epoch=1797 / 39) == np.float32(0.001)
    assert rate_at(1797, schedule, steps_per_epoch=1797 / 39) == np.float32(0.045)


def test_late_steps_keep_their_digits():
    # float32 would no longer tell 2^24 + 1 from 2^24.
    schedule = ExponentialDecay(
        learning_rate=1.0, factor=0.5, epochs_per_decay=None, decay_steps=2**24 + 1
    )
    assert rate_at(2**24, schedule) == 1.0
    assert rate_at(2**24 + 1, schedule) == 0.5


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ExponentialDecay(learning_rate=0.0), "learning_rate"),
        (lambda: ExponentialDecay(factor=-0.94), "factor"),
        (lambda: ExponentialDecay(epochs_per_decay=0.0), "epochs_per_decay"),
        (lambda: ExponentialDecay(epochs_per_decay=None, decay_steps=0), "decay_steps"),
        (lambda: TwoPhase(first_learning_rate=0.0), "first_learning_rate"),
        (lambda: TwoPhase(first_epochs=-1.0), "first_epochs"),
    ],
)
def test_values_out_of_range_are_refused(build, named):
    with pytest.raises(ConfigError, match=named):
        build()


@pytest.mark.parametrize("options", [{"decay_steps": 4003}, {"epochs_per_decay": None}])
def test_a_decay_counts_epochs_or_steps_and_ignores_neither(options):
    with pytest.raises(ConfigError, match="epochs_per_decay = .*, decay_steps = .*None for the"):
        ExponentialDecay(**options)
