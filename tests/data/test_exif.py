"""Photographs are stored upright, and shrunk when asked for; Pillow says what upright is."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from inception_tf.data import build
from inception_tf.data import exif
from inception_tf.data import jpeg
from inception_tf.data import sources
from inception_tf.data import tfrecord
from tests.data.conftest import picture

PILLOW = pytest.importorskip("PIL.Image", reason="needs Pillow")
OPS = pytest.importorskip("PIL.ImageOps", reason="needs Pillow")


def photo(orientation, *, form="JPEG", pixels=None, **options):
    """An image file that Pillow writes with the orientation in its EXIF data."""
    data = PILLOW.Exif()
    data[271] = "a maker"  # an entry before the orientation
    data[274] = orientation
    stream = io.BytesIO()
    pixels = picture(3) if pixels is None else pixels
    PILLOW.fromarray(pixels).save(stream, form, exif=data, **options)
    return stream.getvalue()


def upright(data):
    """The picture as Pillow shows it."""
    return np.asarray(OPS.exif_transpose(PILLOW.open(io.BytesIO(data))).convert("RGB")).astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_stored_picture_is_the_one_that_a_viewer_shows(orientation, form):
    data = photo(orientation, form=form, quality=100)
    assert exif.read_orientation(data) == orientation
    image = jpeg.build_record_image(data, apply_exif=True)
    assert (image.height_px, image.width_px) == upright(data).shape[:2]
    stored = tf.io.decode_jpeg(image.jpeg).numpy()
    assert stored.shape == (image.height_px, image.width_px, 3)
    assert abs(stored.astype(int) - upright(data)).mean() < 3  # JPEG of quality 95
    assert np.array_equal(image.pixels.astype(int), upright(data)) or form != "PNG"
    if orientation == 1:
        assert image.change == ("copied" if form == "JPEG" else "re-encoded")
    else:
        assert image.change == "turned"
        assert exif.read_orientation(image.jpeg) == 1  # nobody turns it a second time


def test_turning_is_exact():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for orientation in range(1, 9):
        data = photo(orientation, form="PNG", pixels=pixels)
        turned = exif.turn_upright(pixels, orientation)
        assert np.array_equal(turned, upright(data)), orientation


def test_the_released_records_are_not_turned():
    data = photo(6)
    image = jpeg.build_record_image(data)
    assert (image.jpeg, image.change) == (data, "copied")


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order):
    tiff = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    tiff += struct.pack(order + "HHHIHHI", 1, 274, 3, 1, 8, 0, 0)
    segment = b"Exif\0\0" + tiff
    plain = tf.io.encode_jpeg(picture(1)).numpy()
    app1 = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    assert exif.read_orientation(plain[:2] + app1 + plain[2:]) == 8
    assert exif.read_orientation(plain[:2] + b"\xff\xff" + app1[1:] + plain[2:]) == 8  # fill byte


def test_orientations_that_mean_nothing_are_upright():
    for value in (0, 9, 65535):
        assert exif.read_orientation(photo(value)) == 1


def test_a_chunk_of_odd_length_before_the_exif_data_is_passed_over():
    whole = photo(6, form="WEBP")
    odd = b"ICCP" + struct.pack("<I", 3) + b"abc\0"  # padded to an even place, not counted
    assert exif.read_orientation(whole[:12] + odd + whole[12:]) == 6


def test_a_file_may_end_anywhere():
    for form in ("JPEG", "PNG", "WEBP"):
        whole = photo(6, form=form)
        found = {exif.read_orientation(whole[:length]) for length in range(len(whole) + 1)}
        assert found == {1, 6}


@given(st.data())
def test_damaged_exif_data_never_stop_a_build(data):
    whole = photo(6, form=data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"])))
    damaged = bytearray(whole[: data.draw(st.integers(0, min(400, len(whole))))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=4)):
        damaged[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
    assert 1 <= exif.read_orientation(bytes(damaged)) <= 8


def test_real_photographs_are_turned(shared_images):
    found = {}
    for path in sorted((shared_images / "odd_images" / "exif").glob("*.jpg")):
        data = path.read_bytes()
        image = jpeg.build_record_image(data, apply_exif=True, max_side_px=300)
        expected = OPS.exif_transpose(PILLOW.open(io.BytesIO(data)))
        expected = np.asarray(expected.resize((image.width_px, image.height_px))).astype(float)
        stored = tf.io.decode_jpeg(image.jpeg).numpy()
        assert max(stored.shape) == 300
        assert abs(stored - expected).mean() < 4
        found[path.stem] = (stored.shape[0] > stored.shape[1], image.change)
    assert found == {
        "Landscape_1": (False, "shrunk"),
        "Landscape_3": (False, "turned and shrunk"),
        "Landscape_8": (False, "turned and shrunk"),
        "Portrait_6": (True, "turned and shrunk"),
    }


@pytest.mark.parametrize(
    ("height", "width", "limit", "expected"),
    [(40, 48, 48, (40, 48)), (40, 48, 47, (39, 47)), (40, 48, 24, (20, 24)), (90, 30, 45, (45, 15)),
     (1, 300, 100, (1, 100)), (40, 48, 1, (1, 1))],
)  # fmt: skip
def test_only_longer_sides_are_shrunk_and_the_shape_is_kept(height, width, limit, expected):
    pixels = picture(2, height_px=height, width_px=width)
    data = tf.io.encode_jpeg(pixels, quality=95).numpy()
    image = jpeg.build_record_image(data, max_side_px=limit)
    assert (image.height_px, image.width_px) == expected
    assert image.change == ("copied" if expected == (height, width) else "shrunk")


def test_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    image = jpeg.build_record_image(tf.io.encode_png(stripes).numpy(), max_side_px=16)
    inside = image.pixels[2:-2, 2:-2].astype(int)
    assert abs(inside - 127.5).max() < 4


def test_the_build_says_how_many_were_turned_and_shrunk(tmp_path):
    for name, split in (("a", "train"), ("b", "train"), ("a", "val")):
        folder = tmp_path / "in" / split / name
        folder.mkdir(parents=True)
        for number in range(3):
            pixels = picture(number + 7 * ord(name), width_px=30 + 20 * number)
            (folder / f"{split}_{number}.jpg").write_bytes(
                photo(6 if number == 1 else 1, pixels=pixels)
            )
    manifest = build.build_records(
        sources.FolderSource(tmp_path / "in", max_side_px=60), tmp_path / "out", processes=1
    )
    assert manifest.source["num_turned"] == 3 and manifest.source["num_shrunk"] == 3
    assert manifest.options["exif_rotation"] == "applied"
    assert manifest.options["max_side_px"] == 60
    for path in (tmp_path / "out").glob("*-of-*"):
        for raw in tf.data.TFRecordDataset(str(path)):
            record = tfrecord.parse_example(raw.numpy())
            shape = tf.io.decode_jpeg(record.jpeg).shape
            assert shape[:2] == (record.height_px, record.width_px)
            number = int(record.filename[-5])
            assert shape[:2] == {0: (40, 30), 1: (50, 40), 2: (34, 60)}[number]
