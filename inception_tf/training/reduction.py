"""Sums over the declared replicas that do not depend on their order.

A float sum depends on the order of its terms, so two topologies part at the first step and, through
ReLU and max pooling, are strangers after ten. An integer sum does not. Each declared replica's
contribution is rounded once to a grid (multiples of 2^-bits), added and all-reduced as int64, and
turned into float32 once. Scaling by a power of two and rounding are exact in float32, so the grid
is the only error: at 2^-40 at most 5e-13 per contribution, which times a learning rate of 0.045 is
far below half an ulp of a weight of 1e-5.
"""

import dataclasses
import math

import tensorflow as tf

from inception_tf.errors import ConfigError

REDUCTIONS = ("exact", "float32", "bfloat16")

# Gradients are small and every digit of them moves a weight: a fine grid.
GRADIENT_BITS = 40
# Variances of un-normalised activations can be large, and digits below 1e-10 vanish beside batch
# norm's epsilon of 1e-3: a coarser grid with more room.
STATISTIC_BITS = 32
METRIC_BITS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reduction:
    """How contributions are carried, all-reduced and averaged.

    Attributes:
      kind: 'exact' (int64 grid; the same bits on every topology), 'float32' or 'bfloat16' (half
        and a quarter of the gradients' bytes on the wire; only a fixed topology repeats its bits).
      num_replicas: declared replicas N, whose mean is taken.
      bytes_per_pack: size of the packs of an all-reduce; 0 for one.
    """

    kind: str
    num_replicas: int
    bytes_per_pack: int = 0

    def __post_init__(self):
        if self.kind not in REDUCTIONS:
            raise ConfigError(
                f"training.reduction must be one of {REDUCTIONS}.", received=repr(self.kind)
            )

    @property
    def carried_dtype(self):
        """Type of the sums: int64, or float32 where order is allowed to matter."""
        # The sum of one contribution has no order, so it needs no grid.
        return tf.int64 if self.kind == "exact" and self.num_replicas > 1 else tf.float32

    def contribution(self, value, bits):
        """A declared replica's float32 tensor as it is added up."""
        if self.carried_dtype == tf.float32:
            return value
        return to_grid(value, bits)

    def pack(self, values, bits):
        """Float32 tensors as they are added up: one vector, or themselves where nothing is added.

        Args:
          values: list of tensors, may be empty.
        """
        if self.num_replicas == 1:
            return values
        flat = [tf.reshape(value, [-1]) for value in values]
        return self.contribution(tf.concat(flat, axis=0) if flat else tf.zeros([0]), bits)

    def unpack(self, total, bits, shapes):
        """The float32 means of the tensors, of these shapes, that were packed and added up."""
        if self.num_replicas == 1:
            return total
        sizes = [math.prod(shape) for shape in shapes]
        parts = tf.split(self.mean(total, bits), sizes) if sizes else []
        return [tf.reshape(part, shape) for part, shape in zip(parts, shapes)]

    def mean(self, total, bits):
        """Float32 mean over the declared replicas of a reduced sum."""
        if self.num_replicas == 1:
            return total
        if total.dtype != tf.int64:
            return tf.cast(total, tf.float32) / self.num_replicas
        return from_grid(total, bits, count=self.num_replicas)

    def limit(self, bits):
        """Magnitude that no contribution may reach, or N of them could wrap an int64."""
        return 2.0 ** (62 - bits) / self.num_replicas

    def all_reduce(self, context, sums, counted):
        """Sums over the physical replicas, in replica context.

        Args:
          context: the tf.distribute replica context.
          sums: [(gradients, statistics)], each as `pack` makes it.
          counted: int64 vector: metrics and flags, always exact.

        Returns:
          (sums, counted). Exact sums travel in ONE all-reduce; the others need further, small ones.
        """
        if self.num_replicas == 1:
            return sums, counted
        if self.kind == "bfloat16":
            # Statistics are absolute values that move by a thousandth a step: in bfloat16's 8 bits
            # they would stand still.
            sums = [(tf.cast(gradients, tf.bfloat16), moving) for gradients, moving in sums]
        by_dtype = {}  # one all-reduce per type
        for value in (*tf.nest.flatten(sums), counted):
            by_dtype.setdefault(value.dtype, []).append(value)
        options = tf.distribute.experimental.CommunicationOptions(
            bytes_per_pack=self.bytes_per_pack
        )
        reduced = {
            dtype: iter(context.all_reduce(tf.distribute.ReduceOp.SUM, values, options))
            for dtype, values in by_dtype.items()
        }
        return tf.nest.map_structure(lambda value: next(reduced[value.dtype]), (sums, counted))


def to_grid(value, bits):
    """Float32 rounded to multiples of 2^-bits, as int64 counts of them (half to even)."""
    return tf.cast(tf.round(value * 2.0**bits), tf.int64)


def from_grid(total, bits, *, count=1):
    """int64 counts of 2^-bits divided by `count`, as float32."""
    return tf.cast(tf.cast(total, tf.float64) * (2.0**-bits / count), tf.float32)
