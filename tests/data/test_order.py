"""The order of records is a good shuffle, stateless, and loses nothing at epoch borders."""

import types

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import order


def ids_of(positions, *, seed=7, num_examples):
    positions = tf.constant(positions, tf.int64)
    return order.record_ids(positions, seed=seed, num_examples=num_examples).numpy()


@pytest.mark.parametrize("num_examples", [1, 2, 3, 10, 257, 1437])
def test_every_epoch_holds_every_record_once(num_examples):
    ids = ids_of(np.arange(4 * num_examples), num_examples=num_examples)
    for epoch in ids.reshape(4, num_examples):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(num_examples))


def test_successive_epochs_of_50000_do_not_correlate():
    n = 50_000
    epochs = ids_of(np.arange(4 * n), num_examples=n).reshape(4, n)
    # Four cipher rounds, which the public index_shuffle has, give 0.7 here; the noise is 0.0045.
    for a in range(4):
        for b in range(a):
            assert abs(np.corrcoef(epochs[a], epochs[b])[0, 1]) < 0.02
    assert abs(np.corrcoef(epochs[0][1:], epochs[0][:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(epochs[0], np.arange(n))[0, 1]) < 0.02


def test_successive_seeds_do_not_correlate():
    n = 50_000
    one, other = (ids_of(np.arange(n), seed=seed, num_examples=n) for seed in (3, 4))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02


def test_an_id_depends_on_its_position_alone():
    n = 100
    whole = ids_of(np.arange(350), num_examples=n)
    shuffled = np.random.default_rng(0).permutation(350)
    np.testing.assert_array_equal(ids_of(shuffled, num_examples=n), whole[shuffled])
    np.testing.assert_array_equal(ids_of([249], num_examples=n), whole[249:250])


@pytest.mark.parametrize("other", [8, -7, 7 + 2**8, 7 + 2**32, 7 + 2**40, 7 - 2**63])
def test_every_bit_of_the_seed_counts(other):
    orders = [ids_of(np.arange(200), seed=seed, num_examples=200) for seed in (7, other)]
    assert np.mean(orders[0] == orders[1]) < 0.1


def test_orders_do_not_come_again_after_256_epochs():
    # The shuffle reads 8 bits of each word of its key: epochs must not be passed as they are.
    orders = ids_of(np.arange(1000 * 60), num_examples=60).reshape(1000, 60)
    assert len(np.unique(orders, axis=0)) == 1000


def test_epoch_keys_are_splitmix64():
    def splitmix64(seed, epoch):
        z = (seed + (epoch + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    assert splitmix64(1234567, 0) == 6457827717110365317  # published test vector
    positions = tf.constant([0, 99, 100, 12_345_678], tf.int64)
    words = []
    for epoch in (0, 0, 1, 123_456):
        z = splitmix64(1234567, epoch)
        words.append([z & 0x1FFFFF, z >> 21 & 0x1FFFFF, z >> 42 & 0x1FFFFF])
    expected = tf.raw_ops.RandomIndexShuffle(
        index=positions % 100, seed=tf.constant(words, tf.int64), max_index=99, rounds=16
    )
    np.testing.assert_array_equal(ids_of(positions, seed=1234567, num_examples=100), expected)


def test_late_epochs_are_permutations_too():
    n = 1_281_167
    positions = 100_000 * n + np.arange(1000)
    ids = ids_of(positions, num_examples=n)
    assert len(set(ids)) == 1000 and ids.min() >= 0 and ids.max() < n


def test_batches_across_epoch_borders_lose_and_double_nothing():
    assignment = types.SimpleNamespace(num_replicas=3, replica_batch=4, global_batch=12)
    positions = np.concatenate(
        [
            order.step_positions(step, declared, assignment=assignment).numpy()
            for step in range(25)
            for declared in range(3)
        ]
    )
    np.testing.assert_array_equal(positions, np.arange(300))
    counts = np.bincount(ids_of(positions, num_examples=50), minlength=50)
    np.testing.assert_array_equal(counts, np.full(50, 6))  # 300 images are 6 epochs of 50
