"""What the headers of PNG, GIF, BMP and WebP files promise, read before anything is decoded.

A decoder allocates the size that a header states, long before it finds that the file cannot hold
so many pixels.
"""

import struct

_GIF_EXTENSION, _GIF_FRAME = 0x21, 0x2C
_WEBP_FRAME_HEADER_BYTES = 16  # of an ANMF chunk, before the chunks of its picture


def promised_sizes_px(data: bytes) -> list[tuple[int, int]]:
    """Heights and widths in px that a decoder may allocate at once; [] of anything else.

    Of GIF the screen and every frame: TensorFlow reads all frames, each with one byte per pixel,
    even where only the first is asked for (measured, TensorFlow 2.21), and gives it in the
    frame's size whatever the screen's. Of WebP the canvas and the largest frame, which are
    stated apart. Where a file is cut, what stands before the cut.
    """
    if data.startswith(b"\x89PNG"):
        return [_unpack(">II", data, 16)[::-1]]
    if data.startswith(b"GIF8"):
        return _gif_sizes(data)
    if data.startswith(b"BM"):
        width, height = _unpack("<ii", data, 18)
        return [(abs(height), abs(width))]
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_sizes(data)
    return []


def is_gif(data: bytes) -> bool:
    """Whether a file begins as a GIF does."""
    return data.startswith(b"GIF8")


def _unpack(form, data, place):
    """Numbers at a place; zeros where the file ends before."""
    try:
        return struct.unpack_from(form, data, place)
    except struct.error:
        return (0,) * len(form.lstrip("<>"))


def _gif_sizes(data):
    """The screen, and the frames as their descriptors state them (GIF89a, section 20)."""
    width, height = _unpack("<HH", data, 6)
    sizes = [(height, width)]
    place = 13 + _color_table_bytes(data, 10)
    while place < len(data):
        if data[place] == _GIF_EXTENSION:
            place = _after_sub_blocks(data, place + 2)
        elif data[place] == _GIF_FRAME:
            width, height = _unpack("<HH", data, place + 5)
            sizes.append((height, width))
            # After the descriptor and its colours one byte says the size of a code.
            place = _after_sub_blocks(data, place + 11 + _color_table_bytes(data, place + 9))
        else:  # the trailer, or damage at which decoders end
            break
    return sizes


def _color_table_bytes(data, place):
    """Length of the colours that follow the flags at a place."""
    flags = data[place] if place < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_sub_blocks(data, place):
    """Where a chain of sub-blocks, each with its length before it, has ended."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1


def _webp_sizes(data):
    """The largest canvas and the largest frame (RFC 9649, section 2; RFC 6386; VP8L)."""
    canvas, frame = (0, 0), (0, 0)
    for name, begin, end in _webp_chunks(data, 12, len(data)):
        if name == b"VP8X":
            width, height = (int.from_bytes(data[begin + i : begin + i + 3], "little") + 1
                             for i in (4, 7))  # fmt: skip
            canvas = max(canvas, (height, width), key=_area)
            continue
        pictures = [(name, begin)]
        if name == b"ANMF":
            parts = _webp_chunks(data, begin + _WEBP_FRAME_HEADER_BYTES, end)
            pictures = [(name, begin) for name, begin, _ in parts]
        for name, begin in pictures:
            frame = max(frame, _webp_frame_size(data, name, begin), key=_area)
    return [canvas, frame]


def _webp_chunks(data, place, end):
    """(name, first byte, end) of the chunks in a part of a RIFF file."""
    while place + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, place)
        yield name, place + 8, min(place + 8 + length, end)
        place += 8 + length + length % 2


def _webp_frame_size(data, name, place):
    """Height and width of a lossy or lossless bit stream; (0, 0) of other chunks."""
    if name == b"VP8 " and data[place + 3 : place + 6] == b"\x9d\x01\x2a":
        width, height = _unpack("<HH", data, place + 6)
        return height & 0x3FFF, width & 0x3FFF
    if name == b"VP8L" and data[place : place + 1] == b"\x2f":
        (bits,) = _unpack("<I", data, place + 1)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    return 0, 0


def _area(size):
    return size[0] * size[1]
