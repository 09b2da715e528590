"""Whole JPEG images: is one complete, what is its size, and how does another format become one."""

import dataclasses
import struct

import numpy as np
import tensorflow as tf

START_MARKER = b"\xff\xd8\xff"  # SOI and the first byte of the next marker
END_MARKER = b"\xff\xd9"  # EOI

_MAX_IMAGE_PX = 2**27  # 400 MB decoded; a header may promise far more than its file can hold
_REENCODED_QUALITY = 100  # as the released build_imagenet_data.py


class BadImage(ValueError):
    """Bytes that cannot be decoded; the message gives the reason without the file's name."""


@dataclasses.dataclass(frozen=True)
class RecordImage:
    """An image as it goes into a record.

    Attributes:
      jpeg: a complete JPEG file with one or three components that ends in its end marker.
      height_px, width_px: as stored, before any EXIF rotation.
      change: 'copied' (the source's bytes), 'trimmed' (bytes after the end marker left out) or
        're-encoded' (the source was CMYK or no JPEG).
    """

    jpeg: bytes
    height_px: int
    width_px: int
    change: str


def check_start(data: bytes) -> None:
    """Raises BadImage unless the bytes begin as a JPEG file does."""
    if not data:
        raise BadImage("the image is empty")
    if not data.startswith(START_MARKER):
        raise BadImage(f"the image is not a JPEG: it begins with {data[:4].hex(' ')}")


def check_complete(data: bytes) -> None:
    """Raises BadImage if a JPEG file is cut short.

    Decoding only a part of an image accepts a cut file wherever the cut lies below that part,
    so this is asked of every image. Inside entropy-coded data FF is followed by 00 or by a
    restart marker, so a file cut there never ends in FF D9 and the last two bytes settle it.
    Some cameras write more bytes after the end marker: then the image is decoded in full, which
    fails exactly if data are missing.
    """
    if not data.endswith(END_MARKER):
        try:
            decode_whole(data)
        except BadImage:
            raise BadImage("the JPEG is cut short: its end marker FF D9 is missing") from None


def decode_whole(jpeg: bytes) -> np.ndarray:
    """All pixels of a JPEG: uint8 [H, W, 3].

    Damage that libjpeg only warns of (it fills what is missing with grey) is not seen.

    Raises:
      BadImage: the image cannot be decoded to its last row.
    """
    _check_promised_size(*read_jpeg_shape(jpeg)[:2])
    try:
        with tf.device("CPU:0"):
            return tf.io.decode_jpeg(jpeg, channels=3).numpy()
    except tf.errors.InvalidArgumentError:
        raise BadImage("the JPEG cannot be decoded") from None


def read_jpeg_shape(jpeg: bytes) -> tuple[int, int, int]:
    """Height in px, width in px and number of components that a JPEG's header states.

    Raises:
      BadImage: not a JPEG, or without a frame header that libjpeg supports.
    """
    check_start(jpeg)
    try:
        with tf.device("CPU:0"):
            height, width, components = tf.io.extract_jpeg_shape(jpeg).numpy().tolist()
    except tf.errors.InvalidArgumentError:
        raise BadImage("the JPEG's header cannot be read") from None
    return height, width, components


def build_record_image(data: bytes) -> RecordImage:
    """The JPEG to store for one source image, after decoding it in full.

    RGB and greyscale JPEGs are copied; CMYK JPEGs and other formats that TensorFlow decodes
    (PNG, GIF's first frame, BMP, WebP) become RGB JPEGs of quality 100. The file's name plays
    no part: ImageNet holds a PNG named .JPEG. EXIF rotation is not applied, as in the released
    records.

    Raises:
      BadImage: the image cannot be decoded.
    """
    if not data.startswith(START_MARKER):
        return _reencode(_decode_any(data))
    pixels = decode_whole(data)
    if read_jpeg_shape(data)[2] not in (1, 3):
        return _reencode(pixels)
    height, width = pixels.shape[:2]
    if data.endswith(END_MARKER):
        return RecordImage(data, height, width, "copied")
    trimmed = data[: data.rfind(END_MARKER) + len(END_MARKER)]
    if np.array_equal(decode_whole(trimmed), pixels):
        return RecordImage(trimmed, height, width, "trimmed")
    return _reencode(pixels)


def encode_jpeg(pixels: np.ndarray, *, quality: int) -> bytes:
    """An RGB JPEG of uint8 [H, W, 3] pixels, with full colour resolution."""
    with tf.device("CPU:0"):
        return tf.io.encode_jpeg(
            pixels, format="rgb", quality=quality, chroma_downsampling=False
        ).numpy()


def _reencode(pixels):
    height, width = pixels.shape[:2]
    jpeg = encode_jpeg(pixels, quality=_REENCODED_QUALITY)
    return RecordImage(jpeg, height, width, "re-encoded")


def _decode_any(data):
    if not data:
        raise BadImage("the image is empty")
    _check_promised_size(*_promised_size(data))
    try:
        with tf.device("CPU:0"):
            return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError:
        raise BadImage(
            f"the image cannot be decoded; it begins with {data[:4].hex(' ')}"
        ) from None


def _promised_size(data):
    """Height and width in px of a PNG, GIF or BMP header; (0, 0) of anything else."""
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
    elif data.startswith(b"GIF8") and len(data) >= 10:
        width, height = struct.unpack("<HH", data[6:10])
    elif data.startswith(b"BM") and len(data) >= 26:
        width, height = struct.unpack("<ii", data[18:26])
    else:
        width, height = 0, 0
    return abs(height), abs(width)


def _check_promised_size(height, width):
    if height * width > _MAX_IMAGE_PX:
        raise BadImage(
            f"the image's header promises {height} x {width} px, more than {_MAX_IMAGE_PX:,} px"
        )
