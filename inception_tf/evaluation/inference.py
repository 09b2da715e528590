"""A network under weights that are given to it, on every device of this worker."""

import keras
import tensorflow as tf


class Inference:
    """Logits of a model under given weights: its own values are neither read nor changed.

    Args:
      model: keras.Model; images float32 [n, H, W, 3] in [-1, 1] -> logits [n, num_outputs], or a
        dict with 'logits'.
      strategy: the tf.distribute.Strategy under which it was built.
    """

    def __init__(self, model, strategy):
        self.strategy = strategy
        self._model = model
        # The default strategy, of code outside any scope, does not list its device.
        is_single = strategy.num_replicas_in_sync == 1
        self.num_local = 1 if is_single else len(strategy.extended.worker_devices)

    @property
    def num_outputs(self) -> int:
        """Outputs of the network, the background's included."""
        return _logits_of(self._model.output).shape[-1]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of an image."""
        return tuple(self._model.input.shape[1:])

    def local_tensors(self, values):
        """Each local replica's own copy of nested variables, arrays or tensors.

        They are read here and travel as tensors: a tf.function that takes two variables of a
        strategy with the same shape for arguments keeps the first one for both, so the averages
        would be evaluated as the raw weights. It also makes one trace serve all weights.
        """

        def read(context):
            local = context.replica_id_in_sync_group % self.num_local
            return tf.nest.map_structure(lambda value: self._local_tensor(value, local), values)

        if self.num_local == 1:  # as a step on one device returns them, or it would trace twice
            return tf.nest.map_structure(lambda value: self._local_tensor(value, 0), values)
        return self.strategy.experimental_distribute_values_from_function(read)

    def logits_of_first(self, images, values):
        """Logits on this worker's first device.

        Args:
          images: float32 [n, H, W, 3] in [-1, 1].
          values: (trainable, non-trainable) in the order of the model's lists: variables of the
            strategy, Keras variables, tensors or arrays.

        Returns:
          float32 [n, num_outputs].
        """
        first = [[self._local_tensor(value, 0) for value in part] for part in values]
        return self.logits(tf.convert_to_tensor(images, tf.float32), first)

    @tf.function
    def logits(self, images, values):
        """Float32 [n, num_outputs] of one replica, under `local_tensors` of it."""
        trainable, non_trainable = values
        outputs, _ = self._model.stateless_call(trainable, non_trainable, images, training=False)
        return tf.cast(_logits_of(outputs), tf.float32)

    def _local_tensor(self, value, local):
        if isinstance(value, keras.Variable):
            value = value.value
        copies = self.strategy.experimental_local_results(value)
        return tf.convert_to_tensor(copies[min(local, len(copies) - 1)])


def _logits_of(outputs):
    return outputs["logits"] if isinstance(outputs, dict) else outputs
