"""The images of a request, decoded one by one: a bad one spoils itself alone."""

import tensorflow as tf

_PARALLEL_DECODES = 16


def decode_each(image_bytes, decode, *, shape):
    """The images that can be decoded, and which those are.

    Args:
      image_bytes: string [N], each an image file.
      decode: string scalar -> float32 of `shape`, in TensorFlow operations.
      shape: (H, W, 3).

    Returns:
      (images float32 [N, H, W, 3], zeros where one is bad; is_ok bool [N]).
    """
    nothing = (tf.zeros(shape), tf.constant(False))
    # A graph has no `try`; a data set of one image leaves out what cannot be decoded.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False

    def decode_one(file):
        decoded = tf.data.Dataset.from_tensors(file).map(decode).ignore_errors()
        found = decoded.map(lambda image: (tf.ensure_shape(image, shape), tf.constant(True)))
        found = found.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)
        return found.with_options(options).get_single_element()

    return tf.map_fn(
        decode_one,
        image_bytes,
        fn_output_signature=(tf.TensorSpec(shape, tf.float32), tf.TensorSpec([], tf.bool)),
        parallel_iterations=_PARALLEL_DECODES,
    )


def refuse_bad(is_ok):
    """Raises InvalidArgumentError, when it is run, unless all are ok; names those that are not."""
    tf.debugging.Assert(
        tf.reduce_all(is_ok),
        [
            "These images of the request are no whole image files of a known format (JPEG, PNG, "
            "BMP, GIF or WebP); the first image is number 0:",
            tf.reshape(tf.where(~is_ok), [-1]),
        ],
        summarize=100,
    )


def emptied(outputs, is_ok, instead):
    """The outputs [N, ...] and `ok`; where an image is bad, `instead` of them.

    Args:
      outputs: name -> tensor [N, n].
      is_ok: bool [N].
      instead: name -> value; 0 of those that are not named.
    """
    told = {
        name: tf.where(is_ok[:, tf.newaxis], value, tf.constant(instead.get(name, 0), value.dtype))
        for name, value in outputs.items()
    }
    return {**told, "ok": is_ok}
