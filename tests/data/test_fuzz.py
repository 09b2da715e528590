"""Arbitrary and damaged bytes: the parsers raise their own errors, and nothing else."""

import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inception_tf.data import encoded, jpeg, jpeg_header, tfrecord
from inception_tf.data import index as record_index
from inception_tf.errors import DataError
from tests.data.conftest import picture

FUZZ = settings(
    max_examples=200, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
IMAGE = tf.io.encode_jpeg(picture(4, height_px=16, width_px=16), quality=50).numpy()
PAYLOAD = tfrecord.build_example(
    tfrecord.Record(b"\xff\xd8\xff" + bytes(range(60)), 3, "n01", "a.JPEG", 3, 4), text="ant"
)
FRAME = tfrecord.build_frame(PAYLOAD)
SHARD = FRAME * 3


@st.composite
def damaged(draw, whole):
    """A byte string with a few bytes changed, left out, doubled or put in, or cut."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        end = min(len(data), place + draw(st.integers(1, 20)))
        kind = draw(st.sampled_from(["change", "leave out", "double", "put in", "cut"]))
        if kind == "change" and place < end:
            data[place] ^= draw(st.integers(1, 255))
        elif kind == "leave out":
            del data[place:end]
        elif kind == "double":
            data[place:place] = data[place:end]
        elif kind == "put in":
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "cut":
            del data[place:]
    return bytes(data)


@FUZZ
@given(st.one_of(st.binary(max_size=200), damaged(PAYLOAD)))
def test_any_payload_is_a_record_or_a_bad_frame(payload):
    try:
        record = tfrecord.parse_example(payload)
    except tfrecord.BadFrame:
        return
    assert isinstance(record.jpeg, bytes) and isinstance(record.label, int)
    assert isinstance(record.synset, str) and isinstance(record.filename, str)
    assert isinstance(record.height_px, int) and isinstance(record.width_px, int)


FEATURE = st.one_of(
    st.lists(st.binary(max_size=8), max_size=3).map(
        lambda values: tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    ),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(
        lambda values: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    ),
    st.lists(st.floats(width=32), max_size=3).map(
        lambda values: tf.train.Feature(float_list=tf.train.FloatList(value=values))
    ),
    st.just(tf.train.Feature()),
)
KEYS = ["image/encoded", "image/class/label", "image/class/synset", "image/filename",
        "image/height", "image/width", "other"]  # fmt: skip


@FUZZ
@given(st.dictionaries(st.sampled_from(KEYS), FEATURE))
def test_keys_of_any_kind_are_a_record_or_a_bad_frame(features):
    example = tf.train.Example(features=tf.train.Features(feature=features))
    has_image = len(features.get(KEYS[0], tf.train.Feature()).bytes_list.value) == 1
    has_label = len(features.get(KEYS[1], tf.train.Feature()).int64_list.value) == 1
    try:
        tfrecord.parse_example(example.SerializeToString())
        assert has_image and has_label
    except tfrecord.BadFrame:
        assert not (has_image and has_label)


@FUZZ
@given(st.one_of(st.binary(max_size=200), damaged(FRAME)), st.integers(-1, 2**32))
def test_any_frame_is_the_payload_of_the_index_or_a_bad_frame(frame, crc):
    right = int.from_bytes(FRAME[-4:], "little")
    for length, stated in ((len(PAYLOAD), right), (len(PAYLOAD), crc), (max(0, crc), right)):
        try:
            assert tfrecord.read_payload(frame, length=length, crc=stated) == PAYLOAD
        except tfrecord.BadFrame:
            pass


@FUZZ
@given(data=st.one_of(st.binary(max_size=200), damaged(SHARD)))
def test_any_shard_is_whole_records_or_a_data_error(data, tmp_path):
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(data)
    try:
        frames = tfrecord.scan_frames(str(path))
    except DataError as error:
        assert path.name in str(error)
        return
    ends = frames.offset + frames.length + tfrecord.FRAME_BYTES
    assert ends.tolist() == [*frames.offset[1:].tolist(), len(data)][: len(ends)]
    assert (ends[-1] if len(ends) else 0) == len(data)


@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_a_damaged_cache_of_the_index_is_made_again(data, tmp_path):
    shard, cache = tmp_path / "train-00000-of-00001", tmp_path / "index-train.npz"
    if not shard.exists():
        shard.write_bytes(SHARD)
    cache.unlink(missing_ok=True)
    read = {"split": "train", "directories": [tmp_path], "with_labels": True}
    record_index.read_index([shard], **read)
    cache.write_bytes(data.draw(damaged(cache.read_bytes())))
    index, scan = record_index.read_index([shard], **read)
    assert index.offset.tolist() == [0, len(FRAME), 2 * len(FRAME)]
    assert index.crc.tolist() == [int.from_bytes(FRAME[-4:], "little")] * 3
    assert scan.labels.tolist() == [3, 3, 3]


def test_flags_of_a_zip_file_that_claim_encryption_are_damage_too(tmp_path):
    shard, cache = tmp_path / "train-00000-of-00001", tmp_path / "index-train.npz"
    shard.write_bytes(SHARD)
    record_index.read_index([shard], split="train", directories=[tmp_path])
    whole = cache.read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for place, value in ((entry + 8, 1), (entry + 10, 99), (entry + 6, 255)):
        cache.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        index, _ = record_index.read_index([shard], split="train", directories=[tmp_path])
        assert len(index) == 3


@FUZZ
@given(st.one_of(st.binary(max_size=100).map(b"\xff\xd8\xff".__add__), damaged(IMAGE)))
def test_any_image_is_pixels_or_a_bad_image_and_the_size_is_the_decoders(data):
    if data.startswith(jpeg.START_MARKER):
        try:
            expected = jpeg.read_jpeg_shape(data)[:2]
        except jpeg.BadImage:
            expected = None
        assert expected is None or jpeg_header.frame_size_px(data) == expected
    try:
        encoded.check_image(data, takes_png=False)
        pixels = encoded.decode_image(data)
    except jpeg.BadImage:
        return
    assert pixels.shape == (*jpeg_header.frame_size_px(data), 3)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (65_000, 3)])
def test_the_header_gives_the_size_of_any_jpeg(size):
    data = tf.io.encode_jpeg(tf.zeros([*size, 3], tf.uint8)).numpy()
    assert jpeg_header.frame_size_px(data) == size
