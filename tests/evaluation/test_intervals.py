"""Intervals against published examples, and by how often they hold what they are about."""

import math

import numpy as np
import pytest

from inception_tf.evaluation import intervals
from inception_tf.evaluation.intervals import Share


# Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17
# (1998), table I, method 3.
@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_examples(count, total, low, high):
    found = Share(count, total).interval
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    mirrored = Share(total - count, total).interval
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low))


# Newcombe, "Interval estimation for the difference between independent proportions", Statistics
# in Medicine 17 (1998), table II, method 10.
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        (Share(56, 70), Share(48, 80), 0.0524, 0.3339),
        (Share(9, 10), Share(3, 10), 0.1705, 0.8090),
        (Share(10, 10), Share(0, 20), 0.6791, 1.0),
        (Share(10, 10), Share(0, 10), 0.6075, 1.0),
    ],
)
def test_differences_of_independent_shares_give_newcombes_examples(first, second, low, high):
    found = intervals.weighted_sum([(1.0, first), (-1.0, second)])
    assert found.value == pytest.approx(first.share - second.share)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=6e-5)
    opposite = intervals.weighted_sum([(1.0, second), (-1.0, first)])
    assert opposite.interval.low == pytest.approx(-found.interval.high)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (6, 2), (2, 6), (40, 11), (7, 7), (0, 5)])
def test_mcnemars_test_adds_up_the_binomials(first, second):
    tosses = first + second
    chances = [math.comb(tosses, heads) * 0.5**tosses for heads in range(tosses + 1)]
    extreme = min(first, second)
    expected = min(1.0, sum(chances[: extreme + 1]) + sum(chances[tosses - extreme :]))
    found = intervals.paired_difference(first, second, 100)
    assert found.p_value == pytest.approx(expected, rel=1e-12)
    assert found.value == (first - second) / 100
    assert found.interval.low <= found.value <= found.interval.high


def test_a_paired_interval_is_an_adjusted_normal_one():
    # By hand: 41 and 12 of 102; sqrt((53 / 102 - (29 / 102)^2) / 102) * 1.959964 = 0.128541...
    found = intervals.paired_difference(40, 11, 100)
    half = 1.959964 * math.sqrt((53 / 102 - (29 / 102) ** 2) / 102)
    assert found.interval.low == pytest.approx(29 / 102 - half, abs=1e-6)
    assert found.interval.high == pytest.approx(29 / 102 + half, abs=1e-6)


def test_many_tosses_neither_overflow_nor_lose_the_tail():
    assert intervals.paired_difference(5000, 5000, 50_000).p_value == 1.0
    assert 0 < intervals.paired_difference(5600, 5000, 50_000).p_value < 1e-7
    assert intervals.paired_difference(20_000, 0, 50_000).p_value == 0.0


def test_means_are_rounded_once_whatever_the_order():
    values = np.array([1e16, 1.0, -1e16, 3.0])
    for order in ([0, 1, 2, 3], [1, 3, 0, 2], [2, 0, 1, 3]):
        assert intervals.mean_and_interval(values[order])[0] == 1.0
    mean, interval = intervals.mean_and_interval(np.array([1.0, 2.0, 4.0]))
    half = 1.959964 * math.sqrt((16 / 9 + 1 / 9 + 25 / 9) / 2 / 3)
    assert (interval.low, interval.high) == pytest.approx((mean - half, mean + half), abs=1e-6)
    assert math.isnan(intervals.mean_and_interval(np.array([2.0]))[1].low)


def test_intervals_of_a_share_and_a_mean_hold_the_truth_19_times_of_20():
    generator = np.random.default_rng(0)
    counts = generator.binomial(200, 0.04, size=2000)
    held = [Share(int(n), 200).interval for n in counts]
    assert 0.93 < np.mean([one.low <= 0.04 <= one.high for one in held]) < 0.98
    held = [intervals.mean_and_interval(generator.exponential(2.0, 400))[1] for _ in range(1000)]
    assert 0.92 < np.mean([one.low <= 2.0 <= one.high for one in held]) < 0.97


def calibrated(generator, number, *, lie=0.0):
    confidences = generator.uniform(0.2, 1.0, number)
    is_right = generator.random(number) < confidences - lie
    return intervals.calibration_error(confidences, is_right, num_bins=15)


def test_calibration_errors_lie_around_their_mean_as_the_interval_says():
    generator = np.random.default_rng(2)
    for lie, held in ((0.0, 0.97), (0.02, 0.95), (0.15, 0.92)):
        found = [calibrated(generator, 1000, lie=lie) for _ in range(300)]
        mean = np.mean([one.value for one in found])
        inside = np.mean([one.interval.low <= mean <= one.interval.high for one in found])
        assert inside >= held
        widths = [one.interval.high - one.interval.low for one in found]
        # Nowhere wider than twice what the values' own spread asks for.
        assert np.mean(widths) < 2 * 2 * 1.96 * np.std([one.value for one in found])
    assert mean == pytest.approx(0.15, abs=0.005)


def test_a_calibrated_network_shows_the_error_of_chance():
    generator = np.random.default_rng(4)
    found = [calibrated(generator, 1000) for _ in range(400)]
    chance = np.mean([one.by_chance for one in found])
    assert np.mean([one.value for one in found]) == pytest.approx(chance, rel=0.04)


def test_bins_are_closed_above_as_guos():
    # 1/15 and 2/15 end bins 1 and 2; 0 and what lies just above 1/15 go into bins 1 and 2.
    confidences = np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 2 / 15, 1.0])
    is_right = np.array([1, 0, 0, 1, 1], bool)
    error = intervals.calibration_error(confidences, is_right, num_bins=15).value
    by_hand = (abs(1 - 1 / 15) + abs(1 - 3 / 15 - 1e-9) + 0.0) / 5
    assert error == pytest.approx(by_hand, rel=1e-9)
