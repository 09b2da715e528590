"""What one declared replica computes in a step, and whether its values can be summed."""

import dataclasses
import zlib

import numpy as np
import tensorflow as tf

from inception_tf.models.execution import Execution, traced_once
from inception_tf.training import objective as objectives
from inception_tf.training.blocks import VariableBlocks, stacked
from inception_tf.training.reduction import (
    GRADIENT_BITS,
    METRIC_BITS,
    STATISTIC_BITS,
    to_grid,
)
from inception_tf.training.state import is_dropout_seed

# Data loss, replicas without one that can be summed, correct images.
NUM_METRICS = 3
_VALUE_BITS = 32  # of a fault's int64 hold the value, those above it say which one it is


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a declared replica's values could not be summed.

    Attributes:
      declared: number of the declared replica.
      is_too_large: its values are finite, but beyond what the sums can hold.
      what: the first such value: the loss, or the norm of a gradient or the largest absolute value
        of a moving statistic, with the variable's path.
      value: that value.
    """

    declared: int
    is_too_large: bool
    what: str
    value: float


class DeclaredReplica:
    """The computation of a declared replica: the same on whichever device it runs.

    Args:
      state: RunState.
      recipe: StepRecipe.
      reduction: Reduction, whose sums bound the values.

    Attributes:
      blocks: VariableBlocks of the network.
    """

    def __init__(self, state, recipe, reduction):
        self._state, self._recipe, self._reduction = state, recipe, reduction
        self._execution = Execution(state.model, recompute=recipe.recompute)
        self.blocks = VariableBlocks(state, self._execution.variables_of_blocks)
        self._sizes, self._pack = traced_once(_sizes), traced_once(self._pack_block)
        self._micro_batch = self._forward_backward
        if recipe.jit_compile:
            self._micro_batch = tf.function(self._forward_backward, jit_compile=True)
        # By path: the order of the state need not be the model's.
        positions = {
            variable.path: position
            for position, variable in enumerate(state.model.non_trainable_variables)
        }
        self._statistic_positions = [positions[variable.path] for variable in state.statistics]
        # Without the grid there is a limit for the loss alone, which always travels on it.
        limits = [np.inf] * (len(state.trained) + len(state.statistics))
        if reduction.carried_dtype == tf.int64:
            limits = [reduction.limit(GRADIENT_BITS)] * len(state.trained)
            limits += [reduction.limit(STATISTIC_BITS)] * len(state.statistics)
        self._limits = [reduction.limit(METRIC_BITS), *limits]

    def contribution(self, images, labels, step, declared):
        """What it adds to the sums: gradients and statistics as carried, and what is counted.

        Args:
          images: float32 [n, H, W, 3] in [-1, 1].
          labels: int32 [n].
          step: int64 scalar.
          declared: integer scalar, its number.

        Returns:
          ([(gradients, statistics)] of the blocks, each as `Reduction.pack` makes it; int64
          [NUM_METRICS + N]: the metrics, then one fault per declared replica, as `read_faults`
          takes them; 0 in the others' places).
        """
        loss, gradients, statistics, num_correct = self.run(images, labels, step, declared)
        fault = self.fault(loss, gradients, statistics)
        # Not `~(size < limit)`: TensorFlow makes `size >= limit` of it, which is False for NaN.
        without_loss = tf.where(tf.abs(loss) < self._limits[0], 0, 1)
        counted = [to_grid(loss, METRIC_BITS), without_loss, num_correct]
        counted = tf.stack([tf.cast(count, tf.int64) for count in counted])
        faults = fault * tf.one_hot(declared, self._reduction.num_replicas, dtype=tf.int64)
        sums = [self._pack(*block) for block in self.blocks.split(gradients, statistics)]
        return sums, tf.concat([counted, faults], axis=0)

    def _pack_block(self, gradients, statistics):
        pack = self._reduction.pack
        return pack(gradients, GRADIENT_BITS), pack(statistics, STATISTIC_BITS)

    def run(self, images, labels, step, declared):
        """Loss, gradients, new moving statistics (all float32), and number of correct images."""
        scale = None
        if self._recipe.loss_scale is not None:
            scale = tf.identity(self._state.scalars["loss_scale"])
        return self._micro_batch(images, labels, self.fixed_values(step, declared), scale)

    def fixed_values(self, step, declared):
        """The non-trainable variables' values, with dropout's keys for this replica and step."""
        # Dropout's keys are made out here: XLA folds keys of 32 bits alone.
        variables = self._state.model.non_trainable_variables
        return [self._fixed_value(variable, step, declared) for variable in variables]

    def fault(self, loss, gradients, statistics):
        """int64 scalar, 0 where all can be summed; `read_faults` says what it means."""
        found = [self._sizes(*block) for block in self.blocks.split(gradients, statistics)]
        norms, largest = zip(*found)
        norms, largest = self.blocks.join_trained(norms), self.blocks.join_statistics(largest)
        sizes = tf.concat([[loss], norms, largest], axis=0)
        is_finite = tf.math.is_finite(sizes)
        is_too_large = is_finite & (tf.abs(sizes) >= tf.constant(self._limits, tf.float32))
        non_finite, too_large = _first(~is_finite), _first(is_too_large)
        number = tf.where(non_finite > 0, non_finite, -too_large)
        value = tf.gather(sizes, tf.maximum(tf.abs(number) - 1, 0))
        bits = tf.cast(tf.bitcast(value, tf.uint32), tf.int64)
        return tf.where(number == 0, tf.constant(0, tf.int64), number * 2**_VALUE_BITS + bits)

    def _forward_backward(self, images, labels, fixed, scale):
        model, recipe = self._state.model, self._recipe
        trainable = [tf.convert_to_tensor(v.value) for v in model.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trainable)
            outputs, new_fixed = self._execution(trainable, fixed, images)
            outputs = objectives.named_outputs(outputs)
            loss = objectives.data_loss(
                outputs,
                labels,
                weights=recipe.output_weights,
                smoothing=recipe.label_smoothing,
                prior=recipe.smoothing_prior,
            )
            scaled = loss if scale is None else loss * scale
        gradients = tape.gradient(scaled, trainable, unconnected_gradients="zero")
        gradients = [tf.cast(gradient, tf.float32) for gradient in gradients]
        if scale is not None:
            gradients = [gradient / scale for gradient in gradients]
        statistics = [
            tf.cast(new_fixed[position], tf.float32) for position in self._statistic_positions
        ]
        predicted = tf.argmax(outputs["logits"], axis=-1, output_type=labels.dtype)
        num_correct = tf.math.count_nonzero(predicted == labels)
        return loss, gradients, statistics, num_correct

    def _fixed_value(self, variable, step, declared):
        """A non-trainable variable's value, or a dropout layer's key for this replica and step."""
        if not is_dropout_seed(variable):
            return tf.convert_to_tensor(variable.value)
        layer = zlib.crc32(variable.path.encode())
        key = tf.constant([self._recipe.seed, layer], tf.int64)
        # Named, or the generator would depend on the device type.
        key = tf.random.fold_in(key, step, alg="philox")
        return tf.random.fold_in(key, tf.cast(declared, tf.int64), alg="philox")


def _sizes(gradients, statistics):
    """Vectors: the norm of each gradient, and the largest absolute value of each statistic."""
    # The norm is one pass over the values, and bounds each of them.
    halves = stacked([tf.nn.l2_loss(gradient) for gradient in gradients])
    return tf.sqrt(2.0 * halves), stacked([tf.reduce_max(tf.abs(s)) for s in statistics])


def _first(is_so):
    """int64: number of the first True, counted from 1; 0 where there is none."""
    found = tf.argmax(tf.cast(is_so, tf.int32), output_type=tf.int64) + 1
    return tf.where(tf.reduce_any(is_so), found, tf.constant(0, tf.int64))


def count_faults(faults):
    """How many declared replicas have values that are not finite, and how many too large ones.

    Args:
      faults: int64 [N], summed over all devices.
    """
    return tf.math.count_nonzero(faults > 0), tf.math.count_nonzero(faults < 0)


def read_faults(faults, state) -> list[Fault]:
    """The declared replicas whose values could not be summed, in their order.

    Args:
      faults: int64 [N] NumPy array: 0, or in the upper 32 bits the number of the first value that
        is not finite, of loss, gradients and statistics counted from 1 (below 0: that is too
        large), in the lower ones its float32 bits.
      state: RunState, whose variables the numbers mean.
    """
    names = ["the loss"]
    names += [f"the gradient of {item.path}" for item in state.trained]
    names += [f"the moving statistic {variable.path}" for variable in state.statistics]
    values = (faults & (2**_VALUE_BITS - 1)).astype(np.uint32).view(np.float32)
    numbers = faults >> _VALUE_BITS
    return [
        Fault(
            declared=int(declared),
            is_too_large=bool(numbers[declared] < 0),
            what=names[abs(int(numbers[declared])) - 1],
            value=float(values[declared]),
        )
        for declared in np.flatnonzero(faults)
    ]
