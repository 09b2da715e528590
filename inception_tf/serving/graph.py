"""A folded network as TensorFlow operations, in float32 or bfloat16."""

import tensorflow as tf

from inception_tf.serving import fold


class FoldedGraph:
    """Calls a folded network whose weights are constants.

    Not variables: oneDNN lays out the weights of a convolution for the processor, and can do so
    once where they are constants of the graph, as TensorFlow Serving gets them. They are made here
    and not in the trace, which would copy them for every signature.

    In bfloat16 everything up to the last grid is; the mean over it and the classifier stay
    float32, as they do in the networks themselves.

    Args:
      network: a FoldedNetwork.
      precision: 'float32' or 'bfloat16'.
    """

    def __init__(self, network, *, precision="float32"):
        self.network = network
        self._dtype = tf.as_dtype(precision)
        self.weights = {
            operation.name: tuple(
                tf.constant(values.astype(self._dtype_of(operation).as_numpy_dtype))
                for values in (operation.kernel, operation.bias)
            )
            for operation in network.operations
            if operation.kernel is not None
        }

    @property
    def size_bytes(self):
        """Of all weights."""
        tensors = [values for pair in self.weights.values() for values in pair]
        return sum(values.dtype.size * values.shape.num_elements() for values in tensors)

    def __call__(self, images):
        """(features, logits), float32 [N, C] and [N, outputs], of float32 [N, H, W, 3]."""
        found = {fold.INPUT: tf.cast(images, self._dtype)}
        for operation in self.network.operations:
            inputs = [found[name] for name in operation.inputs]
            x = self._compute(operation, inputs)
            found[operation.name] = tf.nn.relu(x) if operation.has_relu else x
        return tf.cast(found[self.network.features], tf.float32), found[self.network.logits]

    def _dtype_of(self, operation):
        return tf.float32 if operation.kind in (fold.GLOBAL_MEAN, fold.DENSE) else self._dtype

    def _compute(self, operation, inputs):
        kind, x = operation.kind, inputs[0]
        window = {
            "strides": operation.strides, "padding": operation.padding.upper(),
        }  # fmt: skip
        if kind == fold.ADD:
            return inputs[0] + inputs[1]
        if kind == fold.CONCAT:
            return tf.concat(inputs, axis=-1)
        if kind == fold.MAX_POOL:
            return tf.nn.max_pool2d(x, operation.window, **window)
        if kind == fold.AVERAGE_POOL:
            return tf.nn.avg_pool2d(x, operation.window, **window)
        x = tf.cast(x, self._dtype_of(operation))
        if kind == fold.GLOBAL_MEAN:
            return tf.reduce_mean(x, axis=[1, 2])
        kernel, bias = self.weights[operation.name]
        if kind == fold.CONV:
            return tf.nn.bias_add(tf.nn.conv2d(x, kernel, **window), bias)
        if kind == fold.DENSE:
            return tf.nn.bias_add(tf.matmul(x, kernel), bias)
        return x * kernel + bias  # AFFINE
