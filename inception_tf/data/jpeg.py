"""Whole JPEG images: is one complete, how large is it, and what becomes of others in records."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from inception_tf.data import exif
from inception_tf.data import photo
from inception_tf.data import promised_size

START_MARKER = b"\xff\xd8\xff"  # SOI and the first byte of the next marker
END_MARKER = b"\xff\xd9"  # EOI

_MAX_IMAGE_PX = 2**27  # 400 MB decoded; a header may promise far more than its file can hold
_MAX_GIF_FRAMES_PX = 3 * _MAX_IMAGE_PX  # together, at one byte a pixel: 400 MB too
_REENCODED_QUALITY = 100  # as the released build_imagenet_data.py
_EDITED_QUALITY = 95  # of turned and shrunk images: at 100 they would outgrow their source


class BadImage(ValueError):
    """Bytes that cannot be decoded; the message gives the reason without the file's name."""


@dataclasses.dataclass(frozen=True)
class RecordImage:
    """An image as it goes into a record.

    Attributes:
      jpeg: a complete JPEG file with one or three components that ends in its end marker.
      height_px, width_px: as stored, before any EXIF rotation that the file still states.
      change: 'copied' (the source's bytes), 'trimmed' (bytes after the end marker left out),
        're-encoded' (the source was CMYK or no JPEG) or 'turned', 'shrunk' or 'turned and shrunk'.
      pixels: uint8 [height_px, width_px, 3], before the encoding if there was one.
    """

    jpeg: bytes
    height_px: int
    width_px: int
    change: str
    pixels: np.ndarray = dataclasses.field(compare=False, repr=False)


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
    check_promised_size(*read_jpeg_shape(jpeg)[:2])
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


def build_record_image(
    data: bytes,
    *,
    apply_exif: bool = False,
    max_side_px: int | None = None,
    full_colour: bool = True,
) -> RecordImage:
    """The JPEG to store for one source image, after decoding it in full.

    RGB and greyscale JPEGs are copied; CMYK JPEGs and other formats that TensorFlow decodes
    (PNG, GIF's first frame, BMP, still WebP) become RGB JPEGs of quality 100. The file's name plays
    no part: ImageNet holds a PNG named .JPEG. An image that is turned or shrunk becomes an RGB
    JPEG of quality 95 without EXIF data.

    Args:
      data: the source's file.
      apply_exif: turn the image upright; the released records do not.
      max_side_px: an image whose longer side is longer is shrunk to it (bicubic, antialiased).
      full_colour: re-encode with a colour for every pixel, not one for every 2 x 2 as the released
        records do.

    Raises:
      BadImage: the image cannot be decoded.
    """
    is_jpeg = data.startswith(START_MARKER)
    pixels = decode_whole(data) if is_jpeg else _decode_any(data)
    edits = []
    orientation = exif.read_orientation(data) if apply_exif else exif.UPRIGHT
    if orientation != exif.UPRIGHT:
        pixels = exif.turn_upright(pixels, orientation)
        edits.append("turned")
    if max_side_px is not None and max(pixels.shape[:2]) > max_side_px:
        with tf.device("CPU:0"):
            pixels = photo.shrink(pixels, max_side_px).numpy()
        edits.append("shrunk")
    if edits:
        return _encode(
            pixels, quality=_EDITED_QUALITY, change=" and ".join(edits), full_colour=full_colour
        )
    reencode = functools.partial(
        _encode,
        pixels,
        quality=_REENCODED_QUALITY,
        change="re-encoded",
        full_colour=full_colour,
    )
    if not is_jpeg or read_jpeg_shape(data)[2] not in (1, 3):
        return reencode()
    if data.endswith(END_MARKER):
        return RecordImage(data, *pixels.shape[:2], "copied", pixels)
    trimmed = data[: data.rfind(END_MARKER) + len(END_MARKER)]
    if np.array_equal(decode_whole(trimmed), pixels):
        return RecordImage(trimmed, *pixels.shape[:2], "trimmed", pixels)
    return reencode()


def encode_jpeg(pixels: np.ndarray, *, quality: int, full_colour: bool = True) -> bytes:
    """An RGB JPEG of uint8 [H, W, 3] pixels, with a colour for every pixel or for 2 x 2.

    The latter is what build_imagenet_data.py writes: it calls tf.image.encode_jpeg with format
    and quality alone, and chroma_downsampling is True unless one says otherwise (since TF1).
    """
    with tf.device("CPU:0"):
        return tf.io.encode_jpeg(
            pixels, format="rgb", quality=quality, chroma_downsampling=not full_colour
        ).numpy()


def _encode(pixels, *, quality, change, full_colour):
    jpeg = encode_jpeg(pixels, quality=quality, full_colour=full_colour)
    return RecordImage(jpeg, *pixels.shape[:2], change, pixels)


def _decode_any(data):
    if not data:
        raise BadImage("the image is empty")
    check_promises(data)
    try:
        with tf.device("CPU:0"):
            return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError:
        raise BadImage(
            f"the image cannot be decoded; it begins with {data[:4].hex(' ')}"
        ) from None


def check_promises(data: bytes) -> None:
    """Raises BadImage for an image file of any kind whose decoder would allocate too much."""
    if data.startswith(START_MARKER):
        check_promised_size(*read_jpeg_shape(data)[:2])
        return
    sizes = promised_size.promised_sizes_px(data)
    for height, width in sizes:
        check_promised_size(height, width)
    frames_px = sum(height * width for height, width in sizes)
    if promised_size.is_gif(data) and frames_px > _MAX_GIF_FRAMES_PX:
        raise BadImage(
            f"the frames of the GIF promise {frames_px:,} px, more than {_MAX_GIF_FRAMES_PX:,} px"
        )


def check_promised_size(height: int, width: int) -> None:
    """Raises BadImage for a size in px that no decoder should be asked to allocate."""
    if height * width > _MAX_IMAGE_PX:
        raise BadImage(
            f"the image's header promises {height} x {width} px, more than {_MAX_IMAGE_PX:,} px"
        )
