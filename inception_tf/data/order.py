"""Which record stands at which position of a run, without state and in O(1) memory.

Positions count on without bound: position = epoch * num_examples + index. Every epoch is its own
permutation, and a batch may hold the end of one epoch and the start of the next.
"""

import tensorflow as tf

# The public index_shuffle fixes 4 cipher rounds, and its successive epochs correlate (0.3 at
# 1.28 million examples, 0.7 at 50,000). At 16 no correlation is left above the noise.
_CIPHER_ROUNDS = 16


def record_ids(positions: tf.Tensor, *, seed: int, num_examples: int) -> tf.Tensor:
    """The record at each position: in each epoch every record exactly once.

    Args:
      positions: int64 [n], at least 0; global, counted from the start of the run.
      seed: any int64.
      num_examples: records of the split.

    Returns:
      int64 [n], each in [0, num_examples).
    """
    positions = tf.convert_to_tensor(positions, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(
        index=positions % num_examples,
        seed=_cipher_keys(seed, positions // num_examples),
        max_index=tf.constant(num_examples - 1, tf.int64),
        rounds=_CIPHER_ROUNDS,
    )


def step_positions(step: tf.Tensor, declared: tf.Tensor, *, assignment) -> tf.Tensor:
    """The positions of one declared replica's images in one step.

    Args:
      step: int64 scalar, the optimizer step, from 0.
      declared: int64 scalar, the declared replica, from 0.
      assignment: anything with `global_batch` and `replica_batch`.

    Returns:
      int64 [n], n = replica_batch. Over all declared replicas and steps: every integer once.
    """
    first = (
        tf.cast(step, tf.int64) * assignment.global_batch
        + tf.cast(declared, tf.int64) * assignment.replica_batch
    )
    return first + tf.range(assignment.replica_batch, dtype=tf.int64)


def _cipher_keys(seed, epochs):
    """One key per position, int64 [n, 3], hashed from seed and epoch by SplitMix64.

    Of each of the three words the cipher reads only the lowest 8 bits (11 at 1.28 million
    records, half its block): seeds or epochs passed as they are would repeat after 256.
    """
    state = tf.cast(epochs + 1, tf.uint64) * _uint64(0x9E3779B97F4A7C15) + _uint64(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = tf.bitwise.bitwise_xor(state, _shifted(state, shift)) * _uint64(factor)
    state = tf.bitwise.bitwise_xor(state, _shifted(state, 31))
    words = [tf.bitwise.bitwise_and(_shifted(state, s), _uint64(2**21 - 1)) for s in (0, 21, 42)]
    return tf.cast(tf.stack(words, axis=-1), tf.int64)


def _shifted(state, bits):
    return tf.bitwise.right_shift(state, _uint64(bits))


def _uint64(number):
    return tf.constant(number % 2**64, tf.uint64)
