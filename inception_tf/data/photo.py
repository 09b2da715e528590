"""What was done to photographs when they became records, done to the files of users in a graph.

Records hold photographs turned upright and shrunk, so nothing that reads records turns them. An
exported model gets files as cameras wrote them, and would see them lying on their side, or sampled
from a size that no record had. Everything here is TensorFlow operations, for a SavedModel.
"""

import dataclasses

import tensorflow as tf

from inception_tf.data import exif

_JPEG_START = b"\xff\xd8"
_MARKER_BYTES = 4  # FF, the marker, and the length that follows most of them
# A photograph has a few dozen segments before its scan. Each is a turn of a loop, which a file of
# nothing but fill bytes would keep going.
_MAX_SEGMENTS = 1000
_TO_THE_END = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoEdits:
    """What the builder does to every image of a source of photographs.

    Attributes:
      turn_upright: images are turned as their EXIF data say.
      max_side_px: of the longer side; None for no limit.
    """

    turn_upright: bool = False
    max_side_px: int | None = None


def edits_of(options: dict) -> PhotoEdits:
    """The edits that a manifest's options name; none where they name none."""
    return PhotoEdits(
        turn_upright=options.get("exif_rotation") == "applied",
        max_side_px=options.get("max_side_px"),
    )


def edit_as_built(image: tf.Tensor, *, edits: PhotoEdits) -> tf.Tensor:
    """An image file as `jpeg.build_record_image` would store it, but for the JPEG's own loss.

    A file that no edit changes comes back as it is; of others a PNG comes, which loses nothing.
    EXIF data are read of JPEGs; files of other formats, which the builder turns too, are taken to
    stand upright.

    Args:
      image: string scalar, a whole image file.
      edits: which ones.

    Returns:
      String scalar, a whole image file.

    Raises:
      tf.errors.InvalidArgumentError: the image would have to be changed and cannot be decoded.
    """
    if edits == PhotoEdits():
        return image
    orientation = read_orientation(image) if edits.turn_upright else tf.constant(exif.UPRIGHT)
    is_long = tf.constant(False)
    if edits.max_side_px is not None:
        is_long = tf.reduce_max(_shape_px(image)) > edits.max_side_px

    def edited():
        pixels = turn_upright(_decode(image), orientation)
        if edits.max_side_px is not None:
            pixels = tf.cond(is_long, lambda: shrink(pixels, edits.max_side_px), lambda: pixels)
        return tf.io.encode_png(pixels, compression=0)  # it is decoded at once

    return tf.cond(is_long | (orientation != exif.UPRIGHT), edited, lambda: image)


def edit_pixels_as_built(pixels: tf.Tensor, *, edits: PhotoEdits) -> tf.Tensor:
    """Pixels uint8 [H, W, 3] that stand upright, shrunk as `edit_as_built` shrinks a file."""
    if edits.max_side_px is None:
        return pixels
    is_long = tf.reduce_max(tf.shape(pixels)[:2]) > edits.max_side_px
    shrunk = tf.cond(is_long, lambda: shrink(pixels, edits.max_side_px), lambda: pixels)
    return tf.ensure_shape(shrunk, [None, None, 3])


def turn_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """`exif.turn_upright` in a graph; the orientation is an int32 scalar."""

    def where(orientations, changed):
        is_one = tf.reduce_any(orientation == list(orientations))
        return tf.cond(is_one, lambda: changed(pixels), lambda: pixels)

    pixels = where((5, 6, 7, 8), lambda pixels: tf.transpose(pixels, [1, 0, 2]))
    pixels = where((3, 4, 7, 8), lambda pixels: tf.reverse(pixels, [0]))
    return where((2, 3, 6, 7), lambda pixels: tf.reverse(pixels, [1]))


def shrink(pixels: tf.Tensor, max_side_px: int) -> tf.Tensor:
    """Pixels whose longer side is max_side_px; the other one is rounded, and at least 1 px.

    Args:
      pixels: uint8 [H, W, C].
      max_side_px: 1 or more, and not more than the longer side.
    """
    sides = tf.cast(tf.shape(pixels)[:2], tf.float64)
    scale = tf.constant(max_side_px, tf.float64) / tf.reduce_max(sides)
    size = tf.maximum(1, tf.cast(tf.round(sides * scale), tf.int32))
    shrunk = tf.image.resize(pixels, size, method="bicubic", antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(shrunk, 0.0, 255.0)), tf.uint8)


def read_orientation(image: tf.Tensor) -> tf.Tensor:
    """`exif.read_orientation` of a JPEG in a graph: int32 scalar, 1 to 8; 1 of other files.

    Args:
      image: string scalar, a file of any kind and in any condition.
    """
    value = tf.cond(
        _starts(image, _JPEG_START),
        lambda: _orientation_in_tiff(_find_tiff(image)),
        lambda: exif.UPRIGHT,
    )
    return tf.where((value >= 1) & (value <= 8), value, exif.UPRIGHT)


def _find_tiff(image):
    """The TIFF data of a JPEG's first EXIF segment; '' where there is none."""
    end = tf.strings.length(image)

    def goes_on(place, tiff, is_over):
        return ~is_over & (place < end)

    def look(place, tiff, is_over):
        first, marker, high, low = tf.unstack(_bytes_at(image, place, _MARKER_BYTES))
        length = high * 256 + low
        is_fill = marker == 0xFF
        is_bare = tf.reduce_any(marker == list(exif.JPEG_WITHOUT_LENGTH))
        is_over = (first != 0xFF) | (marker == exif.JPEG_SCAN) | (marker == exif.JPEG_END)
        segment = _part(image, place + _MARKER_BYTES, tf.maximum(length - 2, 0))
        has_exif = ~is_over & (marker == exif.JPEG_APP1) & _starts(segment, exif.HEADER)
        tiff = tf.where(has_exif, _part(segment, len(exif.HEADER), _TO_THE_END), tiff)
        step = tf.where(is_fill, 1, tf.where(is_bare, 2, 2 + length))
        return place + step, tiff, is_over | has_exif

    state = (tf.constant(2), tf.constant(b""), tf.constant(False))
    return tf.while_loop(goes_on, look, state, maximum_iterations=_MAX_SEGMENTS)[1]


def _orientation_in_tiff(tiff):
    """The orientation that TIFF data state in their first directory; 1 where they state none."""
    is_little, is_big = (_starts(tiff, mark) for mark in (b"II*\0", b"MM\0*"))

    def number(parts):  # along the last axis; a file may state more than int32 holds
        parts = tf.where(is_little, parts, tf.reverse(parts, [-1]))
        places = [256**i for i in range(parts.shape[-1])]
        return tf.reduce_sum(tf.cast(parts, tf.int64) * tf.constant(places, tf.int64), axis=-1)

    def number_at(place, count):
        stated = number(_bytes_at(tiff, place, count))
        return tf.cast(tf.minimum(stated, tf.cast(tf.strings.length(tiff), tf.int64)), tf.int32)

    directory = number_at(4, 4)
    count = number_at(directory, 2)
    entries = _part(tiff, directory + 2, _TO_THE_END)
    # Of the 12 bytes of an entry the last two say nothing here: data may end before them.
    count = tf.minimum(count, (tf.strings.length(entries) + 2) // exif.ENTRY_BYTES)
    table = tf.reshape(  # one row more, since no row would be none to take the first of
        _bytes_at(entries, 0, (count + 1) * exif.ENTRY_BYTES), [count + 1, exif.ENTRY_BYTES]
    )
    is_stated = (
        (tf.range(count + 1) < count)
        & (number(table[:, 0:2]) == exif.ORIENTATION_TAG)
        & (number(table[:, 2:4]) == exif.SHORT)
    )
    value = tf.cast(number(table[:, 8:10])[tf.argmax(is_stated)], tf.int32)
    return tf.where((is_little | is_big) & tf.reduce_any(is_stated), value, exif.UPRIGHT)


def _bytes_at(text, place, count):
    """int32 [count], zeros where the text ends before."""
    part = _part(text, place, count)
    return tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=count), tf.int32)


def _part(text, place, count):
    """At most `count` bytes from a place, which may lie behind the end."""
    return tf.strings.substr(text, tf.minimum(place, tf.strings.length(text)), count)


def _starts(text, head):
    return tf.strings.substr(text, 0, len(head)) == head


def _decode(image):
    pixels = tf.io.decode_image(image, channels=3, expand_animations=False)
    return tf.ensure_shape(pixels, [None, None, 3])


def _shape_px(image):
    """Height and width; of other files than JPEGs by decoding them."""
    return tf.cond(
        _starts(image, _JPEG_START),
        lambda: tf.image.extract_jpeg_shape(image)[:2],
        lambda: tf.shape(_decode(image))[:2],
    )
