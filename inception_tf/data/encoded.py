"""The image of a record as it stands there: which formats there are, and whether one is whole."""

import numpy as np

from inception_tf.data import jpeg
from inception_tf.data import jpeg_header
from inception_tf.data import png


def check_image(data: bytes, *, takes_png: bool) -> None:
    """Raises BadImage unless an image is complete and of a size that may be allocated.

    Nothing is decoded, except a JPEG with bytes after its end marker.

    Args:
      data: the image's file.
      takes_png: whether records of this schema hold PNGs too.
    """
    if takes_png and png.is_png(data):
        png.check_whole(data)
        return
    jpeg.check_start(data)
    jpeg_header.check_size(data)
    jpeg.check_complete(data)


def decode_image(data: bytes) -> np.ndarray:
    """All pixels of a JPEG or PNG, uint8 [H, W, 3].

    Raises:
      BadImage: the image cannot be decoded to its last row.
    """
    return png.decode_whole(data) if png.is_png(data) else jpeg.decode_whole(data)
