"""PNG images inside records, as TensorFlow Datasets writes them (CIFAR-10, MNIST).

A PNG cannot be decoded in part, so a crop of one is decoded in full and cut out.
"""

import struct
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from inception_tf.data import jpeg

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_CHUNK = b"\x00\x00\x00\x0dIHDR"
_END_CHUNK = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"  # no data, then their CRC
_SIZE_PLACE = len(_SIGNATURE) + len(_HEADER_CHUNK)  # of width and height, big-endian


def is_png(data: bytes) -> bool:
    """Whether a file begins as a PNG does."""
    return data.startswith(_SIGNATURE)


def check_whole(data: bytes) -> None:
    """Raises BadImage unless a PNG has a header of a size that may be allocated, and an end."""
    if not data.startswith(_SIGNATURE + _HEADER_CHUNK) or len(data) < _SIZE_PLACE + 8:
        raise jpeg.BadImage("the PNG has no header")
    width_px, height_px = struct.unpack_from(">II", data, _SIZE_PLACE)
    if not width_px or not height_px:
        raise jpeg.BadImage("the PNG's header states no size")
    jpeg.check_promised_size(height_px, width_px)
    if not data.endswith(_END_CHUNK):
        raise jpeg.BadImage("the PNG is cut short: its end chunk IEND is missing")


def decode_whole(data: bytes) -> np.ndarray:
    """All pixels of a PNG: uint8 [H, W, 3], without transparency, 16 bits cut to 8.

    Raises:
      BadImage: the image cannot be decoded to its last row.
    """
    check_whole(data)
    try:
        with tf.device("CPU:0"):
            return tf.io.decode_png(data, channels=3).numpy()
    except tf.errors.InvalidArgumentError:
        raise jpeg.BadImage("the PNG cannot be decoded") from None


def image_shape(image: tf.Tensor) -> tf.Tensor:
    """int32 [3], height, width and channels, from the header of a JPEG or PNG.

    Args:
      image: string scalar, a whole image file.
    """

    def of_png():
        size = tf.io.decode_raw(
            tf.strings.substr(image, _SIZE_PLACE, 8), tf.int32, little_endian=False
        )
        return tf.stack([size[1], size[0], 3])

    return tf.cond(_is_png(image), of_png, lambda: tf.image.extract_jpeg_shape(image))


def decode_window(
    image: tf.Tensor, window: tf.Tensor, *, of_jpeg: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """The pixels of one window of a JPEG or PNG, equal to decoding all of it and slicing.

    Args:
      image: string scalar, a whole image file.
      window: int32 [4], top, left, height, width in pixels, inside the image.
      of_jpeg: does the same for a JPEG.

    Returns:
      uint8 [height, width, 3], RGB.
    """

    def of_png():
        top, left, height, width = tf.unstack(window)
        whole = tf.io.decode_png(image, channels=3)
        return whole[top : top + height, left : left + width]

    return tf.cond(_is_png(image), of_png, lambda: of_jpeg(image, window))


def _is_png(image):
    return tf.equal(tf.strings.substr(image, 0, len(_SIGNATURE)), _SIGNATURE)
