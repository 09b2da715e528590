"""Files of users are turned and shrunk in a graph as the builder did it; Pillow says what is so."""

import functools
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_tf.data import exif, jpeg, photo
from tests.data.conftest import picture
from tests.data.test_exif import OPS, PILLOW, photo as photo_file, upright

TURN = photo.PhotoEdits(turn_upright=True)


@functools.cache
def graph(edits):
    return tf.function(
        functools.partial(photo.edit_as_built, edits=edits),
        input_signature=[tf.TensorSpec([], tf.string)],
    )


read = tf.function(photo.read_orientation, input_signature=[tf.TensorSpec([], tf.string)])


def edited(data, edits):
    return graph(edits)(data).numpy()


def pixels_of(data):
    return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


def with_tiff(tiff, *, before=b""):
    segment = b"Exif\0\0" + tiff
    plain = tf.io.encode_jpeg(picture(1)).numpy()
    app1 = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    return plain[:2] + before + app1 + plain[2:]


def tiff_of(order, entries, *, at=8):
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    tiff = mark + struct.pack(order + "I", at) + bytes(at - 8)
    return tiff + struct.pack(order + "H", len(entries)) + b"".join(
        struct.pack(order + "HHIHH", tag, kind, 1, value, 0) for tag, kind, value in entries
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_seen_as_a_viewer_shows_it(orientation):
    data = photo_file(orientation, quality=100)
    found = edited(data, TURN)
    expected = upright(data)
    assert pixels_of(found).shape == expected.shape
    difference = abs(pixels_of(found).astype(int) - expected).mean()
    assert difference < 4 < abs(np.rot90(expected, 2) - expected).mean()  # decoders differ a little
    assert (found == data) == (orientation == 1)
    stored = jpeg.build_record_image(data, apply_exif=True)
    assert np.array_equal(pixels_of(found), stored.pixels)  # of the record, before its own JPEG


def test_turning_is_exact():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for orientation in range(1, 9):
        expected = upright(photo_file(orientation, form="PNG", pixels=pixels))
        turned = photo.turn_upright(tf.constant(pixels), tf.constant(orientation))
        assert np.array_equal(turned, expected), orientation


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("at", [8, 11, 300])
def test_both_byte_orders_are_read_wherever_the_directory_lies(order, at):
    entries = [(271, 2, 7), (274, 4, 2), (274, exif.SHORT, 8), (274, exif.SHORT, 3)]
    data = with_tiff(tiff_of(order, entries, at=at))
    alone = with_tiff(tiff_of(order, entries[2:3], at=at) + bytes(4))  # and no further directory
    with PILLOW.open(io.BytesIO(alone)) as image:
        assert image.getexif()[274] == 8
    assert read(data) == exif.read_orientation(data) == 8


@pytest.mark.parametrize("before", [
    b"\xff" * 9,  # fill bytes
    b"\xff\x01\xff\xd8",  # markers without length
    b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0",
    b"\xff\xe1\x00\x08http:/",  # another user of the same marker
    b"\xff\xe2" + struct.pack(">H", 60002) + bytes(60000),
])  # fmt: skip
def test_other_segments_before_are_passed_over(before):
    data = with_tiff(tiff_of(">", [(274, exif.SHORT, 6)]), before=before)
    assert read(data) == exif.read_orientation(data) == 6


@pytest.mark.parametrize("data", [
    b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1", b"text", bytes(100),
    b"\xff\xd8" + b"\xff" * 100_000,
    with_tiff(b""), with_tiff(b"II*\0"), with_tiff(b"II*\0\xff\xff\xff\xff" + bytes(40)),
    with_tiff(b"MM\0*\x80\0\0\0" + bytes(40)), with_tiff(b"II*\0\x08\0\0\0\xff\xff"),
    with_tiff(b"XX*\0" + tiff_of("<", [(274, 3, 6)])[4:]),
    with_tiff(tiff_of("<", [])), with_tiff(tiff_of("<", [(273, 3, 6)])),
    with_tiff(tiff_of("<", [(274, 3, 0)])), with_tiff(tiff_of("<", [(274, 3, 9)])),
    with_tiff(tiff_of(">", [(274, 3, 65535)])),
])  # fmt: skip
def test_what_cannot_be_read_is_upright_and_comes_back_as_it_is(data):
    assert read(data) == exif.read_orientation(data) == 1
    assert edited(data, TURN) == data


def test_entries_beyond_the_count_do_not_count():
    tiff = tiff_of("<", [(271, 3, 1), (274, 3, 6)])
    data = with_tiff(tiff[:8] + b"\x01\0" + tiff[10:])
    assert read(data) == exif.read_orientation(data) == 1


def test_a_file_may_end_anywhere():
    for whole in (photo_file(6), with_tiff(tiff_of(">", [(271, 3, 1), (274, 3, 6)]))):
        found = [int(read(whole[:length])) for length in range(400)]
        assert found == [exif.read_orientation(whole[:length]) for length in range(400)]
        assert set(found) == {1, 6}


@settings(deadline=None)
@given(st.data())
def test_damage_is_read_as_the_builder_reads_it(data):
    order = data.draw(st.sampled_from("<>"))
    whole = data.draw(st.sampled_from([photo_file(6), with_tiff(tiff_of(order, [(274, 3, 5)]))]))
    damaged = bytearray(whole[: data.draw(st.integers(0, min(400, len(whole))))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=4)):
        damaged[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
    assert read(bytes(damaged)) == exif.read_orientation(bytes(damaged))


@pytest.mark.parametrize("limit", [1, 24, 39, 47, 48, 60])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_picture_is_shrunk_as_it_was_for_its_record(limit, form):
    data = photo_file(1, form=form, pixels=picture(2))  # 40 x 48 px
    edits = photo.PhotoEdits(turn_upright=True, max_side_px=limit)
    found = edited(data, edits)
    stored = jpeg.build_record_image(data, apply_exif=True, max_side_px=limit)
    assert np.array_equal(pixels_of(found), stored.pixels)
    assert (found == data) == (limit >= 48)
    if limit < 48:
        side = max(1, round(40 * limit / 48))
        assert pixels_of(found).shape == (side, limit, 3)


def test_shrinking_is_that_of_pillow():
    pixels = np.asarray(PILLOW.fromarray(picture(5)).resize((400, 300), PILLOW.Resampling.BICUBIC))
    found = photo.shrink(tf.constant(pixels), 100).numpy().astype(int)
    expected = PILLOW.fromarray(pixels).resize((100, 75), PILLOW.Resampling.BICUBIC)
    assert abs(found - np.asarray(expected)).max() <= 2


def test_real_photographs_are_turned_and_shrunk(shared_images):
    for path in sorted((shared_images / "odd_images" / "exif").glob("*.jpg")):
        data = path.read_bytes()
        found = pixels_of(edited(data, photo.PhotoEdits(turn_upright=True, max_side_px=300)))
        expected = OPS.exif_transpose(PILLOW.open(io.BytesIO(data)))
        expected = np.asarray(expected.resize(found.shape[1::-1])).astype(float)
        assert max(found.shape) == 300 and abs(found - expected).mean() < 4
        assert read(data) == exif.read_orientation(data)


def test_the_options_of_a_manifest_say_which_edits():
    assert photo.edits_of({}) == photo.PhotoEdits()
    assert photo.edits_of({"exif_rotation": "not applied"}) == photo.PhotoEdits()
    assert photo.edits_of({"exif_rotation": "applied", "max_side_px": None}) == TURN
    assert photo.edits_of({"exif_rotation": "applied", "max_side_px": 9}).max_side_px == 9


def test_without_edits_a_file_is_left_alone():
    assert edited(photo_file(6), photo.PhotoEdits()) == photo_file(6)
