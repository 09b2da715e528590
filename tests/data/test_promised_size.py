"""Sizes that headers promise are found as Pillow finds them, and are never allocated."""

import io
import pathlib
import struct

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import jpeg, promised_size
from tests.data.conftest import picture

PILLOW = pytest.importorskip("PIL.Image", reason="needs Pillow")
WEBP = {
    "lossy": {},
    "lossless": {"lossless": True},
    "with alpha": {"alpha": True},
    "lossless with alpha": {"lossless": True, "alpha": True},
    "with EXIF data": {"exif": b"Exif\0\0odd"},
}


def saved(form, *, alpha=False, **options):
    """A still picture of 30 x 41 px."""
    stream = io.BytesIO()
    image = PILLOW.fromarray(picture(1, height_px=30, width_px=41))
    if alpha:
        image.putalpha(PILLOW.linear_gradient("L").resize(image.size))
    image.save(stream, form, **options)
    return stream.getvalue()


def moving(form):
    """An animation of three frames, of which a GIF's later ones hold what changed."""
    frames = []
    for number in range(3):
        pixels = picture(1, height_px=30, width_px=41)
        pixels[4 : 4 + 8 * number, 6:25] = 255 - 90 * number
        # Grey levels are kept in a GIF, so that what is alike between frames stays alike.
        frames.append(PILLOW.fromarray(pixels[..., 0] if form == "GIF" else pixels))
    stream = io.BytesIO()
    frames[0].save(stream, form, save_all=True, append_images=frames[1:], duration=20)
    return stream.getvalue()


def peak_kib():
    with open("/proc/self/status") as stream:
        return int(next(line for line in stream if line.startswith("VmHWM")).split()[1])


def assert_refused_unallocated(data, match):
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this kernel does not reset the peak of a process's memory")
    before = peak_kib()
    with pytest.raises(jpeg.BadImage, match=match):
        jpeg.build_record_image(data)
    assert peak_kib() - before < 50 * 2**10


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "WEBP"])
def test_the_size_is_the_one_that_pillow_and_the_decoder_find(form):
    data = saved(form)
    assert set(promised_size.promised_sizes_px(data)) <= {(30, 41), (0, 0)}
    assert (30, 41) in promised_size.promised_sizes_px(data)
    assert jpeg.build_record_image(data).pixels.shape == (30, 41, 3)


@pytest.mark.parametrize("kind", WEBP)
def test_every_kind_of_webp_states_its_frame(kind):
    canvas, frame = promised_size.promised_sizes_px(saved("WEBP", **WEBP[kind]))
    assert frame == (30, 41)
    assert canvas == ((30, 41) if kind in ("with alpha", "with EXIF data") else (0, 0))


def test_frames_of_an_animation_are_found():
    data = moving("GIF")
    with PILLOW.open(io.BytesIO(data)) as image:
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            left, top, right, bottom = image.tile[0].extents
            frames.append((bottom - top, right - left))
    assert len(set(frames)) > 1
    assert promised_size.promised_sizes_px(data) == [(30, 41), *frames]
    canvas, frame = promised_size.promised_sizes_px(moving("WEBP"))
    assert (canvas, frame) == ((30, 41), (30, 41))


def test_a_frame_larger_than_the_screen_of_a_gif_is_not_allocated():
    data = saved("GIF")
    frame = data.index(struct.pack("<BHHHH", 0x2C, 0, 0, 41, 30))
    screen = struct.pack("<HH", 41, 30)
    assert data[6:10] == screen
    tiny = data[:6] + struct.pack("<HH", 1, 1) + data[10:]
    assert tf.io.decode_image(tiny, expand_animations=False).shape == (30, 41, 3)
    huge = data[: frame + 5] + struct.pack("<HH", 60000, 50000) + data[frame + 9 :]
    assert_refused_unallocated(huge, "promises 50000 x 60000 px")


def test_the_last_frame_of_a_gif_is_looked_at_too():
    data = moving("GIF")
    height, width = promised_size.promised_sizes_px(data)[-1]
    size = data.rindex(struct.pack("<HH", width, height))
    huge = data[:size] + struct.pack("<HH", 65535, 65535) + data[size + 4 :]
    assert_refused_unallocated(huge, "promises 65535 x 65535 px")


def test_many_frames_of_a_gif_are_bounded_together():
    """Each is small enough, but TensorFlow holds all of them at once: 40 x 100 MB here."""
    data = saved("GIF")
    frame = data.index(struct.pack("<BHHHH", 0x2C, 0, 0, 41, 30))
    large = data[frame : frame + 5] + struct.pack("<HH", 10000, 10000) + data[frame + 9 : -1]
    assert_refused_unallocated(data[:frame] + large * 40 + b";", "frames of the GIF promise")


@pytest.mark.parametrize("kind", ["lossy", "lossless"])
def test_the_frame_of_a_webp_is_not_allocated(kind, monkeypatch):
    monkeypatch.setattr(PILLOW, "MAX_IMAGE_PIXELS", None)
    data = bytearray(saved("WEBP", **WEBP[kind]))
    if kind == "lossy":
        data[26:30] = struct.pack("<HH", 16383, 16383)
    else:
        (bits,) = struct.unpack_from("<I", data, 21)
        data[21:25] = struct.pack("<I", bits | 0xFFFFFFF)
    with PILLOW.open(io.BytesIO(bytes(data))) as image:
        size = image.size[::-1]
    assert size == ((16383, 16383) if kind == "lossy" else (16384, 16384))
    assert_refused_unallocated(bytes(data), f"promises {size[0]} x {size[1]} px")


@pytest.mark.parametrize("form", ["still", "moving"])
def test_the_canvas_of_a_webp_is_not_allocated(form):
    data = bytearray(saved("WEBP", alpha=True) if form == "still" else moving("WEBP"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (40000 - 1).to_bytes(3, "little") + (20000 - 1).to_bytes(3, "little")
    assert_refused_unallocated(bytes(data), "promises 20000 x 40000 px")


def test_frames_inside_an_animated_webp_are_looked_at():
    data = bytearray(moving("WEBP"))
    first = data.index(b"\x9d\x01\x2a")
    data[first + 3 : first + 7] = struct.pack("<HH", 16000, 16001)
    assert_refused_unallocated(bytes(data), "promises 16001 x 16000 px")


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "WEBP", "moving GIF", "moving WEBP"])
def test_a_file_may_end_anywhere(form):
    data = moving(form.split()[1]) if " " in form else saved(form)
    for length in range(len(data)):
        sizes = promised_size.promised_sizes_px(data[:length])
        assert all(height <= 30 and width <= 41 for height, width in sizes)


def test_the_first_frame_of_an_animated_gif_is_taken():
    assert jpeg.build_record_image(moving("GIF")).pixels.shape == (30, 41, 3)


def test_negative_height_of_a_bmp_counts():
    data = bytearray(saved("BMP"))
    data[18:26] = struct.pack("<ii", 30000, -30000)
    assert_refused_unallocated(bytes(data), "promises 30000 x 30000 px")
    assert np.prod(promised_size.promised_sizes_px(bytes(data))[0]) == 9 * 10**8
