"""The frame header of a JPEG, found without decoding: the size that a decoder would allocate.

TensorFlow's own op for this costs 58 us a call from Python; every record that is read is asked.
"""

from inception_tf.data import jpeg as jpegs

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15
_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD9)))  # TEM, RST0..RST7, SOI: no length follows
_SCAN_OR_END = frozenset((0xD9, 0xDA))  # EOI, SOS


def check_size(jpeg: bytes) -> None:
    """Raises BadImage unless a JPEG states a size, and one that may be allocated."""
    size_px = frame_size_px(jpeg)
    if size_px is None or 0 in size_px:
        raise jpegs.BadImage("the JPEG's header states no size")
    jpegs.check_promised_size(*size_px)


def frame_size_px(jpeg: bytes) -> tuple[int, int] | None:
    """Height and width in px that the first frame header states; None where there is none.

    Finds markers as libjpeg does, which passes over any bytes between two segments, so that no
    decoder meets a frame header which this has missed.

    Args:
      jpeg: a file that begins with the marker SOI (ITU-T T.81, annex B).
    """
    end = len(jpeg)
    place = 2
    while True:
        place = jpeg.find(b"\xff", place)
        if place < 0:
            return None
        while place < end and jpeg[place] == 0xFF:  # any number of fill bytes
            place += 1
        if place >= end:
            return None
        marker = jpeg[place]
        place += 1
        if marker == 0 or marker in _BARE_MARKERS:
            continue
        if marker in _SCAN_OR_END or place + 2 > end:
            return None
        if marker in _FRAME_MARKERS:
            if place + 7 > end:
                return None
            height_px = int.from_bytes(jpeg[place + 3 : place + 5], "big")
            return height_px, int.from_bytes(jpeg[place + 5 : place + 7], "big")
        place += int.from_bytes(jpeg[place : place + 2], "big")
