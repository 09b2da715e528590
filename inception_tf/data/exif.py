"""Which way up a photograph is: the EXIF orientation of JPEG, PNG and WebP files.

TensorFlow's decoders give the pixels as stored. Cameras store them as the sensor lies and write
the turn into the EXIF data (tag 274, CIPA DC-008 section 4.6.4), which viewers apply. Of bytes in
a graph `photo.py` reads it by the same numbers.
"""

import struct

import numpy as np

UPRIGHT = 1

ORIENTATION_TAG = 274
SHORT = 3  # TIFF's number of the type uint16
ENTRY_BYTES = 12
HEADER = b"Exif\0\0"  # before the TIFF data in a JPEG, and by mistake in some other files
JPEG_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))  # TEM, RST0..RST7, SOI
JPEG_SCAN, JPEG_END, JPEG_APP1 = 0xDA, 0xD9, 0xE1


def read_orientation(data: bytes) -> int:
    """The EXIF orientation of an image file, 1 to 8; 1 where it states none that can be read.

    Damaged EXIF data are no reason to refuse a picture: viewers show it as stored too.
    """
    try:
        value = _parse_tiff(_find_exif(data))
    except (struct.error, IndexError):  # a length that leads out of the file
        return UPRIGHT
    return value if 1 <= value <= 8 else UPRIGHT


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The picture as it is to be seen, from the stored pixels [H, W, C].

    Args:
      pixels: as stored.
      orientation: 1 to 8; 5 to 8 exchange height and width.
    """
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _find_exif(data):
    """The TIFF data of a file's EXIF block; b'' where there is none."""
    if data.startswith(b"\xff\xd8"):
        exif = _find_in_jpeg(data)
    elif data.startswith(b"\x89PNG"):
        exif = _find_chunk(data, b"eXIf", start=8, order=">", name_first=False)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        exif = _find_chunk(data, b"EXIF", start=12, order="<", name_first=True)
    else:
        exif = b""
    return exif.removeprefix(HEADER)


def _find_in_jpeg(data):
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or marker in JPEG_WITHOUT_LENGTH:  # FF may be repeated before a marker
            place += 1 if marker == 0xFF else 2
            continue
        if marker in (JPEG_SCAN, JPEG_END):
            break
        (length,) = struct.unpack_from(">H", data, place + 2)
        segment = data[place + 4 : place + 2 + length]
        if marker == JPEG_APP1 and segment.startswith(HEADER):
            return segment
        place += 2 + length
    return b""


def _find_chunk(data, wanted, *, start, order, name_first):
    """A chunk's content in PNG (length, name, content, crc) or RIFF (name, length, content)."""
    place = start
    while place < len(data):
        form, trailer = ("4sI", 0) if name_first else ("I4s", 4)
        first, second = struct.unpack_from(order + form, data, place)
        name, length = (first, second) if name_first else (second, first)
        if name == wanted:
            return data[place + 8 : place + 8 + length]
        place += 8 + length + trailer
        place += place % 2 if name_first else 0  # RIFF pads to even bytes
    return b""


def _parse_tiff(tiff):
    """The orientation that TIFF data state in their first directory."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return UPRIGHT
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, directory)
    for number in range(count):
        entry = directory + 2 + ENTRY_BYTES * number
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
        if tag == ORIENTATION_TAG and kind == SHORT:
            return value
    return UPRIGHT
