"""The networks, as ordinary Keras models on TensorFlow."""

from inception_tf.errors import ConfigError


def _check_backend():
    """Raises ConfigError unless Keras computes with TensorFlow."""
    remedy = "Set KERAS_BACKEND=tensorflow, or the backend in ~/.keras/keras.json."
    rule = "inception_tf needs Keras' TensorFlow backend."
    try:
        import keras
    except (ImportError, ValueError) as error:  # a backend that is not installed, or unknown
        raise ConfigError(
            rule, received=f"a Keras that cannot be imported ({error})", remedy=remedy
        ) from error
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(rule, received=f"backend {keras.backend.backend()!r}", remedy=remedy)


_check_backend()
