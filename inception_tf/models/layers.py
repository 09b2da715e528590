"""The layers of the networks: convolution with fused batch norm, residual sum, dropout.

All are ordinary Keras layers. Under a user's own `compile`/`fit` the moving statistics are
assigned; under `model.stateless_call` they are returned.
"""

import hashlib

import keras
import tensorflow as tf

from inception_tf.errors import ConfigError

SAME, VALID = "same", "valid"


def is_seed_state(path):
    """Whether the Keras path of a variable is that of a seed generator's state: no weight."""
    return path.endswith("seed_generator_state")


def layer_seed(seed, layer_name):
    """Seed of one layer's random numbers: a pure function of the model's seed and its name.

    Keyed by name and not by order of creation, so that adding a head or a block changes no other
    layer's initial weights.

    Returns:
      int in [0, 2**31).
    """
    digest = hashlib.sha256(f"{seed}/{layer_name}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def xavier_uniform(seed, layer_name):
    """Initializer of the released Inception-ResNet-v2: uniform in +-sqrt(6 / (fan_in + fan_out)).

    The released arg scope names no initializer, so slim's own default holds, for convolutions
    (both fans count kh * kw) and dense layers alike.
    """
    return keras.initializers.GlorotUniform(seed=layer_seed(seed, layer_name))


@keras.saving.register_keras_serializable(package="inception_tf")
class ConvUnit(keras.layers.Layer):
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
        super().__init__(**kwargs)
        if filters < 1:
            raise ConfigError("filters must be at least 1.", received=filters)
        if padding not in (SAME, VALID):
            raise ConfigError("padding must be 'same' or 'valid'.", received=repr(padding))
        if not 0.0 <= momentum <= 1.0:
            raise ConfigError("momentum must lie in [0, 1].", received=momentum)
        if epsilon <= 0.0:
            raise ConfigError("epsilon must be positive.", received=epsilon)
        self.filters = filters
        self.kernel_size = _pair(kernel_size)
        self.strides = _pair(strides)
        self.padding = padding
        self.use_scale = use_scale
        self.use_relu = use_relu
        self.momentum = momentum
        self.epsilon = epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        channels = input_shape[-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, channels, self.filters),
            initializer=self.kernel_initializer,
        )
        self.gamma = self._statistic("gamma", "ones", trainable=True) if self.use_scale else None
        self.beta = self._statistic("beta", "zeros", trainable=True)
        self.moving_mean = self._statistic("moving_mean", "zeros", trainable=False)
        self.moving_variance = self._statistic("moving_variance", "ones", trainable=False)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})

    def _statistic(self, name, initializer, *, trainable):
        # float32 and not autocast under any policy: the fused kernel has no 16-bit version of
        # these, and a moving mean that keeps 8 bits would stand still.
        return self.add_weight(
            name=name,
            shape=(self.filters,),
            initializer=initializer,
            trainable=trainable,
            dtype="float32",
            autocast=False,
        )

    def call(self, inputs, training=None):
        uses_batch = bool(training) and self.trainable
        x = tf.nn.conv2d(
            inputs,
            tf.convert_to_tensor(self.kernel),
            strides=self.strides,
            padding=self.padding.upper(),
        )
        x = self._normalize(x, uses_batch=uses_batch)
        return tf.nn.relu(x) if self.use_relu else x

    def _normalize(self, x, *, uses_batch):
        mean = tf.convert_to_tensor(self.moving_mean)
        variance = tf.convert_to_tensor(self.moving_variance)
        ones = tf.ones([self.filters], tf.float32)
        # In training the kernel takes no statistics and returns the batch's, the variance
        # already times n / (n - 1), n = values per channel (n = 1 gives 0).
        nothing = tf.zeros([0], tf.float32)
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=tf.convert_to_tensor(self.gamma) if self.use_scale else ones,
            offset=tf.convert_to_tensor(self.beta),
            mean=nothing if uses_batch else mean,
            variance=nothing if uses_batch else variance,
            epsilon=self.epsilon,
            is_training=uses_batch,
        )
        if uses_batch:
            batch_share = 1.0 - self.momentum
            # TF1's form of the update: exact when the batch equals the moving statistics.
            mean += (outputs.batch_mean - mean) * batch_share
            variance += (outputs.batch_variance - variance) * batch_share
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return outputs.y

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
            "use_scale": self.use_scale,
            "use_relu": self.use_relu,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="inception_tf")
class ResidualSum(keras.layers.Layer):
    """`x + scale * up`, then ReLU unless `use_relu` is False; called on [x, up].

    Both inputs and the output are [N, H, W, C] in the compute dtype. The scale is what keeps wide
    networks stable (arXiv 1602.07261 section 3.3 and figure 20); batch norm does not stand on
    the sum (section 3.2).
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
        x = x + self.scale * up
        return tf.nn.relu(x) if self.use_relu else x

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "use_relu": self.use_relu}


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
