"""The layers of the networks: convolution and sum with fused batch norm, residual sum, dropout.

All are ordinary Keras layers. Under a user's own `compile`/`fit` the moving statistics are
assigned; under `model.stateless_call` they are returned.
"""

import keras
import tensorflow as tf

from inception_tf.errors import ConfigError

SAME, VALID = "same", "valid"


def has_batch_norm(layer):
    """Whether a layer holds batch norm's statistics: one of ours, or Keras' own."""
    return isinstance(layer, (_FusedNorm, keras.layers.BatchNormalization))


def is_seed_state(path):
    """Whether the Keras path of a variable is that of a seed generator's state: no weight."""
    return path.endswith("seed_generator_state")


class _FusedNorm(keras.layers.Layer):
    """Fused batch norm and ReLU of what a subclass computes; see `ConvUnit`."""

    def __init__(self, *, use_scale, use_relu, momentum, epsilon, **kwargs):
        super().__init__(**kwargs)
        if not 0.0 <= momentum <= 1.0:
            raise ConfigError("momentum must lie in [0, 1].", received=momentum)
        if not epsilon > 0.0:
            raise ConfigError("epsilon must be positive.", received=epsilon)
        self.use_scale = use_scale
        self.use_relu = use_relu
        self.momentum = momentum
        self.epsilon = epsilon
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def _add_statistics(self, channels):
        self.gamma = None
        if self.use_scale:
            self.gamma = self._add_statistic("gamma", channels, "ones", trainable=True)
        self.beta = self._add_statistic("beta", channels, "zeros", trainable=True)
        self.moving_mean = self._add_statistic("moving_mean", channels, "zeros", trainable=False)
        self.moving_variance = self._add_statistic(
            "moving_variance", channels, "ones", trainable=False
        )

    def _add_statistic(self, name, channels, initializer, *, trainable):
        # float32 and not autocast under any policy: the fused kernel has no 16-bit version of
        # these, and a moving mean that keeps 8 bits would stand still.
        return self.add_weight(
            name=name,
            shape=(channels,),
            initializer=initializer,
            trainable=trainable,
            dtype="float32",
            autocast=False,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "use_scale": self.use_scale,
            "use_relu": self.use_relu,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


def normalize(x, layers, *, training):
    """Fused batch norm and ReLU of several layers at once, and their new moving statistics.

    Args:
      x: [N, H, W, C], what the layers normalise, side by side in their order.
      layers: `ConvUnit`s or `SumNorm`s that differ in their variables alone.
      training: whether to use and assign the statistics of the batch, if the layers are trainable.
    """
    first = layers[0]

    def side_by_side(name):
        values = [tf.convert_to_tensor(getattr(layer, name)) for layer in layers]
        return values[0] if len(values) == 1 else tf.concat(values, axis=0)

    uses_batch = bool(training) and first.trainable
    # In training the kernel takes no statistics and returns the batch's, the variance
    # already times n / (n - 1), n = values per channel (n = 1 gives 0).
    nothing = tf.zeros([0], tf.float32)
    beta = side_by_side("beta")
    outputs = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=tf.ones_like(beta) if first.gamma is None else side_by_side("gamma"),
        offset=beta,
        mean=nothing if uses_batch else side_by_side("moving_mean"),
        variance=nothing if uses_batch else side_by_side("moving_variance"),
        epsilon=first.epsilon,
        is_training=uses_batch,
    )
    if uses_batch:
        for name, batch in (
            ("moving_mean", outputs.batch_mean),
            ("moving_variance", outputs.batch_variance),
        ):
            variables = [getattr(layer, name) for layer in layers]
            # TF1's form of the update: exact when the batch equals the moving statistics.
            moving = side_by_side(name)
            moving += (batch - moving) * (1.0 - first.momentum)
            parts = [moving]
            if len(layers) > 1:
                parts = tf.split(moving, [variable.shape[0] for variable in variables])
            for variable, part in zip(variables, parts):
                variable.assign(part)
    return tf.nn.relu(outputs.y) if first.use_relu else outputs.y


@keras.saving.register_keras_serializable(package="inception_tf")
class ConvUnit(_FusedNorm):
    """Convolution without bias, fused batch norm and ReLU, as one layer.

    Input [N, H, W, C] and output [N, H', W', filters] in the compute dtype; H' = ceil(H / stride)
    for 'same', floor((H - kernel) / stride) + 1 for 'valid'. Statistics, beta and gamma are
    float32 under every policy. Keras' own batch norm is unfused, upcasts 16-bit input and
    stores the biased variance; this one is the kernel that the papers' networks were trained
    with and stores, like TF1, the unbiased variance.

    With `training=True` and `trainable` the layer uses the statistics of its batch and assigns
    moving = momentum * moving + (1 - momentum) * batch; otherwise it uses the moving ones.

    Attributes:
      kernel: [kh, kw, C, filters].
      beta: float32 [filters], trainable; gamma too with `use_scale`, else None.
      moving_mean, moving_variance: float32 [filters], not trainable.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        *,
        strides=1,
        padding=SAME,
        use_scale=False,
        use_relu=True,
        momentum=0.9997,
        epsilon=0.001,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        """Takes Keras' usual `name`, `dtype` and `trainable` besides.

        Args:
          filters: output channels.
          kernel_size: int or (height, width).
          strides: int or (vertical, horizontal).
          padding: 'same' or 'valid'.
          use_scale: learn gamma; the released networks have none.
          use_relu: end with ReLU.
          momentum: share of the old moving statistics that an update keeps, in [0, 1].
          epsilon: added to the variance.
          kernel_initializer: anything `keras.initializers.get` takes.

        Raises:
          ConfigError: a value out of range.
        """
        super().__init__(
            use_scale=use_scale, use_relu=use_relu, momentum=momentum, epsilon=epsilon, **kwargs
        )
        if filters < 1:
            raise ConfigError("filters must be at least 1.", received=filters)
        if padding not in (SAME, VALID):
            raise ConfigError("padding must be 'same' or 'valid'.", received=repr(padding))
        self.filters = filters
        self.kernel_size = _pair(kernel_size)
        self.strides = _pair(strides)
        self.padding = padding
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        channels = input_shape[-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, channels, self.filters),
            initializer=self.kernel_initializer,
        )
        self._add_statistics(self.filters)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})

    def call(self, inputs, training=None):
        x = tf.nn.conv2d(
            inputs,
            tf.convert_to_tensor(self.kernel),
            strides=self.strides,
            padding=self.padding.upper(),
        )
        return normalize(x, [self], training=training)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (
            batch,
            output_size(height, self.kernel_size[0], self.strides[0], self.padding),
            output_size(width, self.kernel_size[1], self.strides[1], self.padding),
            self.filters,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="inception_tf")
class ResidualSum(keras.layers.Layer):
    """`x + scale * up`, then ReLU unless `use_relu` is False; called on [x, up].

    Both inputs and the output are [N, H, W, C] in the compute dtype. The scale is what keeps wide
    networks stable (arXiv 1602.07261 section 3.3 and figure 20). Batch norm on top of the sum,
    which the paper leaves out (section 3.2), is a layer of its own: `SumNorm`.
    """

    def __init__(self, scale, *, use_relu=True, **kwargs):
        """Takes the residual's scale, a pure ratio, and Keras' usual arguments."""
        super().__init__(**kwargs)
        self.scale = scale
        self.use_relu = use_relu

    def build(self, input_shape):
        x_shape, up_shape = input_shape
        if tuple(x_shape) != tuple(up_shape):
            raise ConfigError(
                "A residual must have the shape of what it is added to.",
                received=f"{tuple(up_shape)} added to {tuple(x_shape)} in layer {self.name}",
            )

    def call(self, inputs):
        x, up = inputs
        return self.add(x, self.scale * up)

    def add(self, x, scaled):
        """The sum with a residual that has been scaled, and its ReLU."""
        total = x + scaled
        return tf.nn.relu(total) if self.use_relu else total

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "use_relu": self.use_relu}


@keras.saving.register_keras_serializable(package="inception_tf")
class SumNorm(_FusedNorm):
    """Fused batch norm, then ReLU, on top of a residual sum [N, H, W, C]; see `ConvUnit`.

    The papers' networks have none there, to save memory (arXiv 1602.07261 section 3.2): it is what
    they left out, for whoever wants to see what that cost.
    """

    def __init__(
        self, *, use_scale=False, use_relu=True, momentum=0.9997, epsilon=0.001, **kwargs
    ):
        """Takes batch norm's arguments of `ConvUnit` and Keras' usual ones."""
        super().__init__(
            use_scale=use_scale, use_relu=use_relu, momentum=momentum, epsilon=epsilon, **kwargs
        )

    def build(self, input_shape):
        self._add_statistics(input_shape[-1])
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: input_shape[-1]})

    def call(self, inputs, training=None):
        return normalize(inputs, [self], training=training)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


@keras.saving.register_keras_serializable(package="inception_tf")
class Dropout(keras.layers.Layer):
    """Keras' dropout whose random state is named after the layer.

    The state of `keras.layers.Dropout` has a path such as `seed_generator_3/...`, numbered by what
    the process has built before; masks keyed by it would not be a function of the layer.
    Here it is `<layer name>/seed_generator_state`. The masks are Keras' own on a CPU, and the same
    on every device type: the generator is named. XLA turns a key into other masks.
    """

    def __init__(self, rate, *, seed=None, **kwargs):
        """Takes the share of values to drop, in [0, 1), and Keras' usual arguments."""
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ConfigError("The dropout rate must lie in [0, 1).", received=rate)
        self.rate = rate
        self.seed = seed
        if rate > 0.0:
            self.seed_generator = keras.random.SeedGenerator(seed, name=self.name)

    def build(self, input_shape):
        """Has nothing to build."""

    def call(self, inputs, training=None):
        if not training or self.rate == 0.0:
            return inputs
        # XLA takes keys of 32 bits alone; reduced as keras.random.dropout does it.
        key = tf.cast(self.seed_generator.next() % (tf.int32.max - 1), tf.int32)
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, key, rng_alg="philox")

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def output_size(size, kernel, stride, padding):
    """Rows or columns that a convolution or pool leaves of `size`; None stays None."""
    if size is None:
        return None
    if padding == SAME:
        return -(-size // stride)
    return (size - kernel) // stride + 1


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)
