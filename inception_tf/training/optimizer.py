"""One update of a weight on this device: RMSProp with TF1's semantics, or momentum.

Keras 3's optimizers sum the gradients over the replicas themselves and start RMSProp's second
moment at zero, so neither can follow our own all-reduce nor repeat the papers' runs. TensorFlow's
fused kernels are TF1's update to the bit.
"""

import dataclasses

import tensorflow as tf

from inception_tf.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Update:
    """What one variable is updated by.

    Attributes:
      handle: resource of the variable.
      slots: name of a slot -> resource.
      gradient: float32, of the variable's shape.
      learning_rate: float32 scalar.
    """

    handle: object
    slots: dict
    gradient: object
    learning_rate: object


@dataclasses.dataclass(frozen=True, kw_only=True)
class RmsProp:
    """RMSProp of arXiv 1602.07261 section 4, as TF1's RMSPropOptimizer (gin section `rmsprop`).

        s = decay * s + (1 - decay) * g^2            s starts at ONE
        m = momentum * m + rate * g / sqrt(s + epsilon)
        w = w - m

    Attributes:
      decay: of the second moment s.
      momentum: of the update m, the learning rate inside it.
      epsilon: inside the root.
    """

    decay: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1.0

    # slot name -> initial value of each element
    slots = {"rms": 1.0, "momentum": 0.0}

    def __post_init__(self):
        _check_share("decay", self.decay)
        _check_share("momentum", self.momentum)
        if self.epsilon < 0:
            raise ConfigError("epsilon must not be negative.", received=self.epsilon)

    def apply(self, updates):
        """Updates variables and their slots in place, on the devices of their handles.

        Args:
          updates: list of Update.
        """
        # Tensors once, or every operation would get constants of its own.
        decay, momentum, epsilon = (
            tf.constant(value, tf.float32) for value in (self.decay, self.momentum, self.epsilon)
        )
        for update in updates:
            tf.raw_ops.ResourceApplyRMSProp(
                var=update.handle,
                ms=update.slots["rms"],
                mom=update.slots["momentum"],
                lr=update.learning_rate,
                rho=decay,
                momentum=momentum,
                epsilon=epsilon,
                grad=update.gradient,
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Momentum:
    """TF1's MomentumOptimizer, the papers' earlier experiments (gin section `momentum`).

    m = momentum * m + g;  w = w - rate * m

    Attributes:
      momentum: 0.9 in arXiv 1602.07261 section 4.
    """

    momentum: float = 0.9

    slots = {"momentum": 0.0}

    def __post_init__(self):
        _check_share("momentum", self.momentum)

    def apply(self, updates):
        """Updates variables and their slots in place, on the devices of their handles.

        Args:
          updates: list of Update.
        """
        momentum = tf.constant(self.momentum, tf.float32)
        for update in updates:
            tf.raw_ops.ResourceApplyMomentum(
                var=update.handle,
                accum=update.slots["momentum"],
                lr=update.learning_rate,
                grad=update.gradient,
                momentum=momentum,
            )


def _check_share(name, value):
    if not 0.0 <= value < 1.0:
        raise ConfigError(f"{name} must be at least 0 and below 1.", received=value)


def clip_scale(norm, limit):
    """What gradients of this global norm are multiplied by to stay within the limit.

    Exactly 1.0 where nothing is clipped. arXiv 1512.00567 section 8 clips at 2.0; the norm is
    that of the reduced gradient, L2 included, or the bound would grow with the replicas.
    """
    return tf.where(norm > limit, limit / norm, 1.0)
