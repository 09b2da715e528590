"""One optimizer step over the declared replicas.

The recipe speaks of N declared replicas of n images each; the hardware gives R <= N devices. Device
r works through the declared replicas r, r + R, ... in a `tf.while_loop`, adds up what each
contributes, and one all-reduce gives every device the sums over all N. From there on each device
does the same update of its own copy of the variables.
"""

import contextlib

import tensorflow as tf

from inception_tf.training.declared import NUM_METRICS, DeclaredReplica, count_faults
from inception_tf.training.reduction import METRIC_BITS, Reduction, from_grid
from inception_tf.training.update import StateUpdate, assign

# Parts of the graph optimiser that are on by default.
_LEFT_OUT = (
    "arithmetic_optimization", "constant_folding", "dependency_optimization",
    "function_optimization", "implementation_selector", "layout_optimizer", "loop_optimization",
    "shape_optimization",
)  # fmt: skip
# What `TrainStep` returns, equal on every device and worker.
_OUTPUTS = {
    # Mean over the global batch of the last step; NaN where a declared replica's cannot be summed.
    "data_loss_nats": tf.float32,
    "l2_loss_nats": tf.float32,
    "accuracy": tf.float32,  # share of its images whose largest logit is their label
    # Global norm of the reduced gradient with L2, before the clip; NaN where `non_finite` or
    # `too_large` is above 0: the sums then hold no numbers.
    "gradient_norm": tf.float32,
    "learning_rate": tf.float32,
    "non_finite": tf.int64,  # declared replicas with a NaN or Inf
    "too_large": tf.int64,  # declared replicas with a value that the sums could not hold
    "faults": tf.int64,  # [N], why each declared replica cannot be summed (declared.read_faults)
    "failed_step": tf.int64,  # the first step that could not be applied, else -1
    "host_flags": tf.int64,  # [F], sums over the workers of what each host passed in
}


class TrainStep:
    """Runs optimizer steps on a strategy; the only place that writes the run's variables."""

    def __init__(self, strategy, state, recipe, *, clock):
        """Args: clock, a function without arguments that returns seconds, for the data wait."""
        self._clock = clock
        self.strategy = strategy
        self.state = state
        self.recipe = recipe
        self.reduction = Reduction(
            kind=recipe.reduction,
            num_replicas=recipe.assignment.num_replicas,
            bytes_per_pack=recipe.bytes_per_pack,
        )
        self.declared_replica = DeclaredReplica(state, recipe, self.reduction)
        self.update = StateUpdate(
            state, recipe, reduction=self.reduction, blocks=self.declared_replica.blocks
        )

    def run(self, iterator, num_steps, host_flags):
        """Runs `num_steps` steps on the device without the host.

        From the first step with a non-finite or too large value on no update is applied.

        Args:
          iterator: distributed iterator of `{'images', 'labels'}` (data/pipeline.py).
          num_steps: int64 scalar tensor, at least 1.
          host_flags: int64 [F] of this worker's host; summed over the workers.

        Returns:
          dict as `_OUTPUTS`, and 'data_wait_secs', float64: this worker's wait for batches.
        """
        with self._graph_options():
            return self._run(iterator, num_steps, host_flags)

    def run_one(self, batch, host_flags):
        """One step on a batch that the host has fetched; a dict as `_OUTPUTS`."""
        with self._graph_options():
            return self._run_one(batch, host_flags)

    @contextlib.contextmanager
    def _graph_options(self):
        """Of TensorFlow's graph optimiser, on CPUs, what fuses operations.

        On the graph of a training step the rest of it takes up to as long as all else of a start,
        for a per cent of the step (docs/results.md). GPUs need it for the layout of their
        convolutions.
        """
        if tf.config.list_logical_devices("GPU"):  # as models/merging.py
            yield
            return
        given = tf.config.optimizer.get_experimental_options()
        tf.config.optimizer.set_experimental_options(dict.fromkeys(_LEFT_OUT, False))
        try:
            yield
        finally:
            tf.config.optimizer.set_experimental_options(
                {name: given.get(name, True) for name in _LEFT_OUT}
            )

    @tf.function
    def _run(self, iterator, num_steps, host_flags):
        outputs = {name: tf.zeros([], dtype) for name, dtype in _OUTPUTS.items()}
        outputs["host_flags"] = tf.zeros_like(host_flags)
        outputs["faults"] = tf.zeros([self.recipe.assignment.num_replicas], tf.int64)
        outputs["failed_step"] = tf.constant(-1, tf.int64)
        waited = tf.constant(0.0, tf.float64)
        for _ in tf.range(num_steps):
            asked = self._now()
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            with tf.control_dependencies(self._local_labels(batch)):
                waited += self._now() - asked
            has_failed = outputs["failed_step"] >= 0
            new = self._on_replicas(batch, outputs["failed_step"], host_flags)
            # The outputs of the failed step stay: the error tells what was wrong with them.
            outputs = {name: tf.where(has_failed, outputs[name], new[name]) for name in outputs}
        return {**outputs, "data_wait_secs": waited}

    @tf.function
    def _run_one(self, batch, host_flags):
        return self._on_replicas(batch, tf.constant(-1, tf.int64), host_flags)

    def _now(self):
        # tf.timestamp is refused under op determinism.
        now = tf.numpy_function(self._clock, [], tf.float64)
        return tf.ensure_shape(now, [])

    def _local_labels(self, batch):
        return self.strategy.experimental_local_results(batch["labels"])

    # Nothing in here is for AutoGraph, whose look at every call would be a good part of the tracing.
    @tf.autograph.experimental.do_not_convert
    def _on_replicas(self, batch, failed_step, host_flags):
        outputs = self.strategy.run(self._replica_step, args=(batch, failed_step, host_flags))
        return {
            name: self.strategy.experimental_local_results(value)[0]
            for name, value in outputs.items()
        }

    def _replica_step(self, batch, failed_step, host_flags):
        """One step on this device (replica context)."""
        context = tf.distribute.get_replica_context()
        step = tf.identity(self.state.scalars["step"])
        sums, counted = self._sum_declared_replicas(context, batch, step)
        # Only the first local device speaks for its host.
        first = context.replica_id_in_sync_group == self.recipe.assignment.first_local
        counted = tf.concat([counted, tf.where(first, host_flags, 0)], axis=0)
        sums, counted = self.reduction.all_reduce(context, sums, counted)
        means, l2_loss, norm = self.update.means(sums)
        metrics = self._metrics(counted, step, l2_loss, norm)
        failed_step = self._apply(step, means, norm, metrics, failed_step)
        return {**metrics, "failed_step": failed_step}

    # -- the declared replicas ---------------------------------------------------------------

    def _sum_declared_replicas(self, context, batch, step):
        """Sums of what this device's declared replicas contribute."""
        assignment = self.recipe.assignment
        physical = tf.get_static_value(context.replica_id_in_sync_group)
        count = len(assignment.declared_of(physical))

        def contribute(round_index):
            declared = physical + round_index * assignment.num_physical
            return self.declared_replica.contribution(
                batch["images"][round_index], batch["labels"][round_index], step, declared
            )

        if assignment.num_replicas == 1:
            return contribute(tf.constant(0))

        # A loop even for one round: an unrolled body may be optimised into other roundings.
        def body(round_index, sums, counted):
            new_sums, new_counted = contribute(round_index)
            sums = tf.nest.map_structure(tf.add, sums, new_sums)
            return round_index + 1, sums, counted + new_counted

        _, sums, counted = tf.while_loop(
            lambda round_index, *_: round_index < count,
            body,
            (
                tf.constant(0),
                self.update.zero_sums(),
                tf.zeros([NUM_METRICS + assignment.num_replicas], tf.int64),
            ),
            parallel_iterations=1,
        )
        return sums, counted

    # -- the update ----------------------------------------------------------------------------

    def _metrics(self, counted, step, l2_loss, norm):
        assignment = self.recipe.assignment
        num_flags = counted.shape[0] - NUM_METRICS - assignment.num_replicas
        metrics, faults, host_flags = tf.split(
            counted, [NUM_METRICS, assignment.num_replicas, num_flags]
        )
        loss_sum, without_loss, num_correct = tf.unstack(metrics)
        non_finite, too_large = count_faults(faults)
        loss = from_grid(loss_sum, METRIC_BITS, count=assignment.num_replicas)
        nothing = tf.constant(float("nan"))
        return {
            "data_loss_nats": tf.where(without_loss > 0, nothing, loss),
            "accuracy": tf.cast(num_correct / assignment.global_batch, tf.float32),
            "non_finite": non_finite,
            "too_large": too_large,
            "faults": faults,
            "host_flags": host_flags,
            "l2_loss_nats": l2_loss,
            "gradient_norm": tf.where(non_finite + too_large > 0, nothing, norm),
            "learning_rate": self.recipe.learning_rate(step),
        }

    def _apply(self, step, means, norm, metrics, failed_step):
        """Updates this device's variables, unless a step has failed; returns `failed_step`."""
        scalars = self.state.scalars
        usable = (metrics["non_finite"] + metrics["too_large"] == 0) & tf.math.is_finite(norm)
        if self.recipe.loss_scale is None:
            failed_step = tf.where((failed_step < 0) & ~usable, step, failed_step)
        else:
            failed_step = self._adapt_loss_scale(step, metrics, usable, failed_step)
        goes_on = failed_step < 0
        clipped = self.update.apply(
            step, goes_on & usable, means, norm=norm, learning_rate=metrics["learning_rate"]
        )
        assign(scalars["clipped_steps"], scalars["clipped_steps"] + clipped)
        assign(scalars["step"], step + tf.cast(goes_on, tf.int64))
        return failed_step

    def _adapt_loss_scale(self, step, metrics, usable, failed_step):
        """float16: a step whose REDUCED gradients overflowed is skipped and halves the scale.

        Returns `failed_step`.
        """
        scalars = self.state.scalars
        scale = tf.identity(scalars["loss_scale"])
        good_steps = tf.identity(scalars["loss_scale_good_steps"]) + 1
        # Values that are finite but too large, alone or in the norm, are not the scale's: they have
        # been divided by it.
        is_overflow = (metrics["non_finite"] > 0) & (metrics["too_large"] == 0)
        grows = good_steps >= self.recipe.loss_scale.growth_steps
        new_scale = tf.where(usable, tf.where(grows, scale * 2.0, scale), scale / 2.0)
        # At a scale below one it is not float16's range that overflows either: the run has failed.
        has_failed = (~usable & ~is_overflow) | (new_scale < 1.0)
        failed_step = tf.where((failed_step < 0) & has_failed, step, failed_step)
        goes_on = failed_step < 0
        assign(scalars["loss_scale"], tf.where(goes_on, new_scale, scale))
        new_good_steps = tf.where(usable & ~grows, good_steps, 0)
        assign(
            scalars["loss_scale_good_steps"], tf.where(goes_on, new_good_steps, good_steps - 1)
        )
        return failed_step
