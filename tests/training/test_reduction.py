"""Sums on the fixed-point grid: exact, without order, and never wrapped."""

import fractions
import itertools

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.training.reduction import (
    GRADIENT_BITS,
    METRIC_BITS,
    STATISTIC_BITS,
    Reduction,
    from_grid,
    to_grid,
)

ALL_BITS = sorted({GRADIENT_BITS, STATISTIC_BITS, METRIC_BITS})


def float32_values(*, bits):
    """Magnitudes from far below the grid to just below its limit, both signs."""
    rng = np.random.default_rng(bits)
    exponents = rng.uniform(-bits - 12, 62 - bits - 0.01, size=2000)
    values = (rng.choice([-1.0, 1.0], 2000) * 2.0**exponents).astype(np.float32)
    halves = (np.arange(-9, 10) + 0.5) * 2.0**-bits
    return np.concatenate([values, halves.astype(np.float32), np.float32([0.0, -0.0, 1.0])])


@pytest.mark.parametrize("bits", ALL_BITS)
def test_grid_is_the_nearest_multiple_with_halves_to_even(bits):
    values = float32_values(bits=bits)
    # Python rounds a Fraction exactly, halves to even.
    expected = [round(fractions.Fraction(float(value)) * 2**bits) for value in values]
    assert to_grid(tf.constant(values), bits).numpy().tolist() == expected


def test_halves_go_to_even():
    values = tf.constant([0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5]) * 2.0**-GRADIENT_BITS
    assert to_grid(values, GRADIENT_BITS).numpy().tolist() == [0, 2, 2, 4, 0, -2, -2]


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_mean_of_a_sum_is_the_fractions(bits, count):
    rng = np.random.default_rng(count)
    totals = rng.integers(-(2**62), 2**62, size=500) >> rng.integers(0, 60, size=500)
    means = from_grid(tf.constant(totals), bits, count=count)
    assert means.dtype == tf.float32
    for total, mean in zip(totals.tolist(), means.numpy()):
        exact = fractions.Fraction(total, count * 2**bits)
        # Half an ulp of float32, and what float64 rounds before it.
        slack = fractions.Fraction(1, 2**24) + fractions.Fraction(1, 2**50)
        assert abs(fractions.Fraction(float(mean)) - exact) <= abs(exact) * slack


@pytest.mark.parametrize("bits", ALL_BITS)
def test_multiples_of_the_grid_come_back_to_the_bit(bits):
    values = np.float32(np.arange(-(2**12), 2**12)) * np.float32(2.0**-bits)
    back = from_grid(to_grid(tf.constant(values), bits), bits)
    np.testing.assert_array_equal(back, values)


# The large terms cancel: what float32 keeps of the small ones depends on when they do.
ADVERSARIAL = np.float32([3e4, 1.25e-3, -3e4, 7.7e-5, 1e-9, -1.1e-3])


def test_exact_sum_is_the_same_in_every_order():
    reduction = Reduction(kind="exact", num_replicas=len(ADVERSARIAL))
    grids = {
        float(term): reduction.contribution(tf.constant(term), GRADIENT_BITS).numpy()
        for term in ADVERSARIAL
    }
    exact, plain = set(), set()
    for order in itertools.permutations(ADVERSARIAL):
        plain.add(float(np.add.accumulate(np.float32(order))[-1]))
        exact.add(int(np.add.accumulate([grids[float(term)] for term in order])[-1]))
    assert len(plain) > 20  # float32 does depend on the order
    assert len(exact) == 1
    mean = reduction.mean(tf.constant(exact.pop(), tf.int64), GRADIENT_BITS)
    true_mean = sum(fractions.Fraction(float(term)) for term in ADVERSARIAL) / len(ADVERSARIAL)
    assert abs(float(mean) - float(true_mean)) < 2.0**-40


@pytest.mark.parametrize("num_replicas", [2, 20, 50])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_sums_of_values_below_the_limit_do_not_wrap(num_replicas, bits):
    reduction = Reduction(kind="exact", num_replicas=num_replicas)
    below = np.nextafter(np.float32(reduction.limit(bits)), np.float32(0))
    for sign in (1.0, -1.0):
        contribution = reduction.contribution(tf.constant(np.float32(sign * below)), bits)
        total = tf.reduce_sum(tf.fill([num_replicas], contribution))
        assert int(total) == num_replicas * int(contribution)  # Python's integers do not wrap
        np.testing.assert_allclose(reduction.mean(total, bits), sign * below, rtol=1e-7)


def test_limits_leave_room_for_what_networks_produce():
    paper = Reduction(kind="exact", num_replicas=20)
    assert paper.limit(GRADIENT_BITS) == 2**22 / 20  # norm of one declared replica's gradient
    assert paper.limit(STATISTIC_BITS) == 2**30 / 20


@pytest.mark.parametrize(
    ("kind", "num_replicas", "dtype"),
    [
        ("exact", 20, tf.int64),
        ("exact", 1, tf.float32),
        ("float32", 20, tf.float32),
        ("bfloat16", 20, tf.float32),
    ],
)
def test_contributions_are_added_up_in_the_type_of_their_kind(kind, num_replicas, dtype):
    reduction = Reduction(kind=kind, num_replicas=num_replicas)
    assert reduction.carried_dtype == dtype
    value = tf.constant([1.5, -2.0**-50])
    contribution = reduction.contribution(value, GRADIENT_BITS)
    assert contribution.dtype == dtype
    if dtype == tf.float32:
        np.testing.assert_array_equal(contribution, value)
        mean = reduction.mean(contribution, GRADIENT_BITS)
        np.testing.assert_array_equal(mean, value.numpy() / np.float32(num_replicas))


class RecordingContext:
    """A replica context of one device that notes what is sent."""

    def __init__(self):
        self.sent = []
        self.packs = set()

    def all_reduce(self, _, values, options):
        self.sent.append([value.dtype for value in tf.nest.flatten(values)])
        self.packs.add(options.bytes_per_pack)
        return values


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("exact", [[tf.int64] * 3]),
        ("float32", [[tf.float32] * 2, [tf.int64]]),
        # Statistics are kept whole: they move by less than bfloat16 can tell apart.
        ("bfloat16", [[tf.bfloat16], [tf.float32], [tf.int64]]),
    ],
)
def test_wire_carries_the_type_of_the_kind_and_exact_counts(kind, sent):
    reduction = Reduction(kind=kind, num_replicas=4, bytes_per_pack=50_000_000)
    context = RecordingContext()
    gradients = reduction.pack([tf.constant([[0.1], [0.2]]), tf.constant(0.4)], GRADIENT_BITS)
    statistics = reduction.pack([tf.constant(0.3)], STATISTIC_BITS)
    counted = tf.constant([2**40 + 1, 3], tf.int64)
    ((gradients, statistics),), counts = reduction.all_reduce(
        context, [(gradients, statistics)], counted
    )
    assert context.sent == sent and context.packs == {50_000_000}
    np.testing.assert_array_equal(counts, [2**40 + 1, 3])
    one, other = reduction.unpack(gradients, GRADIENT_BITS, ((2, 1), ()))
    (moving,) = reduction.unpack(statistics, STATISTIC_BITS, ((),))
    assert one.dtype == other.dtype == tf.float32
    rtol = 4e-3 if kind == "bfloat16" else 1e-6
    np.testing.assert_allclose(one, [[0.025], [0.05]], rtol=rtol)
    np.testing.assert_allclose(other, 0.1, rtol=rtol)
    np.testing.assert_allclose(moving, 0.075, rtol=1e-6)


@pytest.mark.parametrize("num_replicas", (1, 4))
def test_a_block_without_variables_of_a_kind_is_packed(num_replicas):
    reduction = Reduction(kind="exact", num_replicas=num_replicas)
    assert reduction.unpack(reduction.pack([], GRADIENT_BITS), GRADIENT_BITS, ()) == []


def test_one_declared_replica_sends_nothing():
    context = RecordingContext()
    reduction = Reduction(kind="exact", num_replicas=1)
    values, counted = [tf.constant([0.1])], tf.constant([7], tf.int64)
    sums, counts = reduction.all_reduce(context, [(values, [])], counted)
    assert not context.sent
    assert sums == [(values, [])] and sums[0][0] is values and counts is counted


def test_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="float16"):
        Reduction(kind="float16", num_replicas=2)
