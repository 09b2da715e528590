"""A toy step with a known answer, taken at every start under the run's own strategy.

What a run promises rests on the behaviour of TensorFlow and Keras: what `stateless_call` returns,
what an all-reduce adds up, which bits a key gives. The toy has the project's layers, is stepped by
the project's `TrainStep` on every device of the run, and is held against the same three steps in
NumPy. It has variables, names and batches of its own and leaves no trace in the run.
"""

import dataclasses
import zlib

import keras
import numpy as np
import tensorflow as tf

from inception_tf.errors import UserError
from inception_tf.models.layers import ConvUnit, Dropout
from inception_tf.training.averaging import Averages
from inception_tf.training.groups import VariableGroups, apply_groups
from inception_tf.training.optimizer import Momentum
from inception_tf.training.recipe import StepRecipe
from inception_tf.training.state import RunState
from inception_tf.training.step import TrainStep

_SIDE_PX, _CHANNELS, _CLASSES = 4, 3, 3
_REPLICA_BATCH = 2
_SEED = 20160223
_RATE, _L2, _CLIP, _SMOOTHING = 0.5, 0.01, 1.0, 0.1
_KEPT = 0.75  # of the moving statistics
_EPSILON = 0.001  # of batch norm
_DROPPED = 0.5
_GROUPS = ({"pattern": r".*/kernel", "l2": _L2}, {"pattern": r".*"})
# Behind batch norm the gradient is inverse to the kernel: in two steps it stays far below the bound
# of the norm in every declared replica, in the third it is far above it.
_KERNEL_SIZES = (3.0, 3.0, 0.03)
# What the first two declared replicas keep of the first image in step 0, 32 values as bits: another
# generator in TensorFlow would change the masks of every run.
_FIRST_MASKS = (0x828317ED, 0xD8274049)
# Largest difference, as a share of the largest change that a step makes to a variable.
_TOLERANCES = {"exact": 1e-3, "float32": 1e-3, "bfloat16": 0.05}
_TF32_TOLERANCE = 0.01
_ROUNDING = 1e-6  # float32, as a share of the largest value of a variable

_STATISTICS = "the batch-norm statistics are the mean over the declared replicas"
_GRADIENTS = "the gradients are the mean over the declared replicas, with L2 added once"
_DROPOUT = "the dropout masks are those of (seed, step, declared replica, layer)"
_CLIPPING = "the bound of the global norm acts once, on the reduced gradient"
_COPIES = "every device holds the same variables"
_KERNEL, _BETA, _MEAN, _VARIANCE = (
    f"model/self_test_conv/{name}" for name in ("kernel", "beta", "moving_mean", "moving_variance")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Batch:
    """The images of all declared replicas of one step, float32 [N, n, H, W, C], and labels."""

    images: np.ndarray
    labels: np.ndarray


def check_semantics(cluster, *, reduction, step_class=TrainStep):
    """Takes three steps of the toy on every device; all workers call it.

    Args:
      cluster: the run's Cluster.
      reduction: the run's ('exact', 'float32' or 'bfloat16').
      step_class: takes the steps; tests plant mistakes in it.

    Raises:
      UserError: a property does not hold with the installed versions. Status 2: the versions are
        the user's to change, and starting again without that fails again.
    """
    broken = _broken_properties(cluster, reduction, step_class, drop_rate=_DROPPED)
    # Asked of all, so that every worker goes the same way: the steps are collective.
    if any(cluster.gather(int(_GRADIENTS in broken))):
        without = _broken_properties(cluster, reduction, step_class, drop_rate=0.0)
        if _GRADIENTS in broken and not without:
            broken = broken - {_GRADIENTS} | {_DROPOUT}
    if broken:
        raise UserError(
            "The installed TensorFlow and Keras must do what a run rests on. In the self-test at "
            f"the start this does not hold: {'; '.join(sorted(broken))}.",
            received=f"tensorflow {tf.__version__}, keras {keras.__version__}",
            remedy="Install the versions that setup.py and constraints.txt name; if these are "
            "they, it is a fault of a device or of inception_tf.",
        )


def _broken_properties(cluster, reduction, step_class, *, drop_rate):
    """What does not hold in the first of the three steps in which something does not.

    All three are taken in any case: another worker may have found nothing.
    """
    # One more than devices: somebody works through two of them.
    assignment = cluster.assign(
        num_replicas=cluster.num_physical + 1, replica_batch=_REPLICA_BATCH
    )
    state = _build_state(cluster.strategy, drop_rate)
    # No clock: it is for loops on the device, and single steps are taken here.
    train_step = step_class(cluster.strategy, state, _recipe(assignment, reduction), clock=None)
    generator, first_broken = np.random.default_rng(_SEED), set()
    for step, size in enumerate(_KERNEL_SIZES):
        kernel = generator.uniform(-size, size, state.model.trainable_variables[0].shape)
        state.model.trainable_variables[0].value.assign(kernel.astype(np.float32))
        batch = _draw_batch(generator, assignment.num_replicas)
        masks = _masks(step, assignment.num_replicas) if drop_rate else np.ones([1, 1, 1])
        before = state.values()
        train_step.run_one(
            _distributed(cluster.strategy, assignment, batch), tf.zeros([2], tf.int64)
        )
        expected = _after_step(before, batch, masks / (1.0 - drop_rate))
        broken = _differences(
            state.values(), expected, before, tolerance=_tolerance(reduction)
        )
        if step == len(_KERNEL_SIZES) - 1 and _GRADIENTS in broken:
            # Below the bound they were right: what is wrong above it is the bound.
            broken = broken - {_GRADIENTS} | {_CLIPPING}
        if drop_rate:
            broken |= _wrong_masks(step, masks)
        broken |= _unequal_copies(cluster.strategy, state)
        first_broken = first_broken or broken
    return first_broken


def _tolerance(reduction):
    tolerance = _TOLERANCES[reduction]
    if tf.config.experimental.tensor_float_32_execution_enabled():
        tolerance = max(tolerance, _TF32_TOLERANCE)
    return tolerance


# -- the toy ---------------------------------------------------------------------------------------


def _build_state(strategy, drop_rate):
    """The toy's variables."""
    with strategy.scope():
        model = _build_model(drop_rate)
        trained = apply_groups(model, VariableGroups(groups=_GROUPS))
        return RunState(model, trained, optimizer=Momentum(momentum=0.0))


def _build_model(drop_rate):
    """A convolution with batch norm, and the dropped-out mean of its channels as the logits.

    Names and seeds are given: what Keras numbers or draws would move those of the run.
    """
    inputs = keras.Input([_SIDE_PX, _SIDE_PX, _CHANNELS], name="self_test_images")
    x = ConvUnit(
        _CLASSES,
        1,
        momentum=_KEPT,
        epsilon=_EPSILON,
        kernel_initializer="zeros",
        name="self_test_conv",
        dtype="float32",
    )(inputs)
    x = Dropout(drop_rate, seed=0, name="self_test_dropout", dtype="float32")(x)
    x = keras.layers.GlobalAveragePooling2D(name="self_test_logits", dtype="float32")(x)
    return keras.Model(inputs, x, name="self_test")


def _recipe(assignment, reduction):
    return StepRecipe(
        assignment=assignment,
        optimizer=Momentum(momentum=0.0),
        learning_rate=_learning_rate,
        output_weights={"logits": 1.0},
        label_smoothing=_SMOOTHING,
        smoothing_prior=tf.fill([_CLASSES], 1.0 / _CLASSES),
        averages=Averages(),
        clip_global_norm=_CLIP,
        reduction=reduction,
        seed=_SEED,
        # XLA draws other masks, and takes seconds to compile.
        jit_compile=False,
    )


def _learning_rate(step):
    return tf.constant(_RATE)


def _draw_batch(generator, num_replicas):
    shape = [num_replicas, _REPLICA_BATCH, _SIDE_PX, _SIDE_PX, _CHANNELS]
    images = generator.uniform(-1.0, 1.0, shape)
    # Each replica of another brightness and contrast: none can stand for another.
    place = np.arange(1, num_replicas + 1).reshape(-1, 1, 1, 1, 1) / num_replicas
    images = images * (1.0 + place) + place
    labels = generator.integers(_CLASSES, size=shape[:2])
    return _Batch(images=images.astype(np.float32), labels=labels.astype(np.int32))


def _distributed(strategy, assignment, batch):
    """The batch as the data pipeline deals it: per device [rounds, n, ...], zeros at the end."""

    def of_device(context):
        places = list(assignment.declared_of(int(context.replica_id_in_sync_group)))
        missing = assignment.rounds - len(places)

        def rows(values):
            padding = np.zeros([missing, *values.shape[1:]], values.dtype)
            return tf.constant(np.concatenate([values[places], padding]))

        return {"images": rows(batch.images), "labels": rows(batch.labels)}

    return strategy.experimental_distribute_values_from_function(of_device)


def _masks(step, num_replicas):
    """What each declared replica keeps: bool [N, n, values], made without a strategy."""
    layer = zlib.crc32(b"self_test_dropout/seed_generator_state")
    ones = tf.ones([_REPLICA_BATCH, _SIDE_PX * _SIDE_PX * _CLASSES])
    masks = []
    with tf.device("/CPU:0"):
        key = tf.constant([_SEED, layer], tf.int64)
        of_step = tf.random.fold_in(key, tf.constant(step, tf.int64), alg="philox")
        for declared in range(num_replicas):
            key = tf.random.fold_in(of_step, tf.constant(declared, tf.int64), alg="philox")
            key = tf.cast(key % (tf.int32.max - 1), tf.int32)
            kept = tf.nn.experimental.stateless_dropout(ones, _DROPPED, key, rng_alg="philox")
            masks.append(kept.numpy() > 0.0)
    return np.stack(masks)


# -- the answer, in NumPy --------------------------------------------------------------------------


def _after_step(values, batch, factors):
    """Name -> float64 array of the model's variables after one step from `values`.

    Args:
      factors: what dropout multiplies with, [N, n, values] or anything that broadcasts to it.
    """
    values = {name: np.float64(values[name]) for name in (_KERNEL, _BETA, _MEAN, _VARIANCE)}
    gradients, statistics = _means(values, batch, factors)
    gradients[_KERNEL] = gradients[_KERNEL] + _L2 * values[_KERNEL]
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients.values()))
    scale = min(1.0, _CLIP / norm)
    after = {name: values[name] - _RATE * scale * gradients[name] for name in gradients}
    for name, statistic in statistics.items():
        after[name] = _KEPT * values[name] + (1.0 - _KEPT) * statistic
    return after


def _means(values, batch, factors):
    """Means over the declared replicas: gradients by name, and batch mean and variance by name."""
    num_replicas, num_images = batch.labels.shape
    num_px = _SIDE_PX**2
    x = np.float64(batch.images).reshape(num_replicas, num_images * num_px, _CHANNELS)
    z = x @ values[_KERNEL][0, 0]
    mean, variance = z.mean(1, keepdims=True), z.var(1, keepdims=True)
    deviation = np.sqrt(variance + _EPSILON)
    normed = (z - mean) / deviation
    y = normed + values[_BETA]
    factors = np.broadcast_to(factors, [num_replicas, num_images, num_px * _CLASSES])
    factors = factors.reshape(y.shape)
    pooled = np.maximum(y, 0.0) * factors
    logits = pooled.reshape(num_replicas, num_images, num_px, _CLASSES).mean(2)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    # And back.
    target = (1.0 - _SMOOTHING) * np.eye(_CLASSES)[batch.labels] + _SMOOTHING / _CLASSES
    d_logits = (p - target) / (num_images * num_replicas)
    d_y = np.repeat(d_logits / num_px, num_px, axis=1) * factors * (y > 0.0)
    d_z = d_y - d_y.mean(1, keepdims=True) - normed * (d_y * normed).mean(1, keepdims=True)
    gradients = {
        _KERNEL: np.einsum("rpc,rpf->cf", x, d_z / deviation)[np.newaxis, np.newaxis],
        _BETA: d_y.sum((0, 1)),
    }
    unbiased = variance * z.shape[1] / (z.shape[1] - 1)
    return gradients, {_MEAN: mean.mean((0, 1)), _VARIANCE: unbiased.mean((0, 1))}


# -- comparing -------------------------------------------------------------------------------------


def _differences(found, expected, before, *, tolerance):
    """The properties of which a variable is not as expected."""
    broken = set()
    for name, value in expected.items():
        allowed = tolerance * np.max(np.abs(value - before[name]))
        allowed += _ROUNDING * np.max(np.abs(before[name]))
        # Not written as '>': a NaN must not pass.
        if not np.max(np.abs(found[name] - value)) <= allowed:
            broken.add(_STATISTICS if name in (_MEAN, _VARIANCE) else _GRADIENTS)
    return broken


def _wrong_masks(step, masks):
    """Whether two declared replicas drop the same, or the first ones another set than ever."""
    if len({mask.tobytes() for mask in masks}) < len(masks):
        return {_DROPOUT}
    if step == 0 and tuple(_bits(mask) for mask in masks[:2]) != _FIRST_MASKS:
        return {_DROPOUT}
    return set()


def _bits(mask):
    """The first 32 values of a mask as one number."""
    return int("".join(str(int(kept)) for kept in mask[0, :32]), 2)


def _unequal_copies(strategy, state):
    for variable in state.named_variables().values():
        copies = strategy.experimental_local_results(variable)
        if len({copy.numpy().tobytes() for copy in copies}) > 1:
            return {_COPIES}
    return set()
