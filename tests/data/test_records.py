"""Reading records: the right image and label, and every fault by shard and offset."""

import concurrent.futures
import dataclasses
import resource

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import check
from inception_tf.data import tfrecord
from inception_tf.data.manifest import ShardEntry
from inception_tf.data.manifest import open_index
from inception_tf.data.manifest import read_manifest
from inception_tf.data.manifest import save_manifest
from inception_tf.data.records import RecordReader
from inception_tf.errors import DataError

SHARD = "train-00001-of-00003"  # records 4 to 8


def open_reader(data_dir, split="train", **options):
    manifest, index = open_index(data_dir, split)
    return RecordReader(index, manifest, **options)


def rewrite(data_dir, changes, *, shard=SHARD):
    """Replaces records {position in the shard: change(Record)} by whole ones; their offsets."""
    frames = tfrecord.scan_frames(data_dir / shard)
    data = (data_dir / shard).read_bytes()
    written = b""
    offsets = {}
    for position, (offset, length) in enumerate(zip(frames.offset, frames.length)):
        payload = data[offset + 12 : offset + 12 + length]
        if position in changes:
            offsets[position] = len(written)
            changed = changes[position](tfrecord.parse_example(payload))
            if isinstance(changed, tfrecord.Record):
                changed = tfrecord.build_example(changed, text="")
            payload = changed
        written += tfrecord.build_frame(payload)
    (data_dir / shard).write_bytes(written)
    manifest = read_manifest(data_dir)
    entries = tuple(
        ShardEntry(entry.file, entry.num_records, len(written), None)
        if entry.file == shard
        else entry
        for entry in manifest.splits["train"]
    )
    splits = {**manifest.splits, "train": entries}
    save_manifest(data_dir, dataclasses.replace(manifest, splits=splits))
    return offsets


def with_jpeg(change):
    return lambda record: dataclasses.replace(record, jpeg=change(record.jpeg))


def without_quantization_tables(jpeg):
    """Begins and ends as a JPEG does, but cannot be decoded."""
    return jpeg.replace(b"\xff\xdb", b"\xff\xfe")


FAULTS = {
    "no_message": (lambda record: b"\xff\xff\xff", "not a tf.train.Example"),
    "no_label": (
        lambda record: tf.train.Example(
            features=tf.train.Features(
                feature={
                    "image/encoded": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[record.jpeg])
                    )
                }
            )
        ).SerializeToString(),
        "its keys: image/encoded",
    ),
    "label_high": (
        lambda record: dataclasses.replace(record, label=4),
        r"label 4 is not in 1\.\.3",
    ),
    "label_background": (
        lambda record: dataclasses.replace(record, label=0),
        r"label 0 is not in 1\.\.3",
    ),
    "png": (
        with_jpeg(lambda jpeg: tf.io.encode_png(tf.io.decode_jpeg(jpeg)).numpy()),
        "not a JPEG: it begins with 89 50 4e 47",
    ),
    "empty_image": (with_jpeg(lambda jpeg: b""), "empty"),
    "cut_in_half": (with_jpeg(lambda jpeg: jpeg[: len(jpeg) // 2]), "cut short"),
    "last_byte_missing": (with_jpeg(lambda jpeg: jpeg[:-1]), "cut short"),
}


def test_every_record_is_read_as_an_independent_reader_does(built_records):
    files = sorted(str(path) for path in built_records.glob("train-*"))
    spec = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }
    expected = [tf.io.parse_single_example(r, spec) for r in tf.data.TFRecordDataset(files)]
    images, labels = open_reader(built_records).read(np.arange(14))
    assert labels.dtype == np.int32
    assert images.tolist() == [example["image/encoded"].numpy() for example in expected]
    assert labels.tolist() == [int(example["image/class/label"]) - 1 for example in expected]


def test_ids_may_come_in_any_order_and_repeat_from_many_threads(built_records):
    reader = open_reader(built_records)
    whole, labels = reader.read(np.arange(14))
    orders = [np.random.RandomState(seed).randint(0, 14, 50) for seed in range(20)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for order, (images, found) in zip(orders, pool.map(reader.read, orders)):
            assert images.tolist() == whole[order].tolist()
            assert found.tolist() == labels[order].tolist()
    reader.close()
    assert reader.read(np.array([3]))[0][0] == whole[3]


def test_more_shards_than_open_files_are_read(built_records, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (8, 8))
    reader = open_reader(built_records)
    assert len(reader.read(np.arange(14))[0]) == 14
    assert len(reader._files) == 2  # the third shard is opened for each of its records


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_record_is_named_by_shard_and_offset(records, fault):
    change, reason = FAULTS[fault]
    offset = rewrite(records, {2: change})[2]
    reader = open_reader(records)
    message = f"{reason}.*{SHARD} at byte {offset:,} .record 6."
    with pytest.raises(DataError, match=message) as error:
        reader.read(np.array([5, 6]))
    assert reader.first_error is error.value
    assert "records check" in str(error.value)
    problems = check.check_records(records).problems
    assert [(p.file, p.offset) for p in problems if p.offset is not None] == [(SHARD, offset)]


def test_a_flipped_byte_is_named_by_shard_and_offset(records):
    reader = open_reader(records)
    offset = int(reader.index.offset[6])
    data = bytearray((records / SHARD).read_bytes())
    for place, reason in ((offset + 100, "payload fails"), (offset + 2, "length fails")):
        data[place] ^= 0x10
        (records / SHARD).write_bytes(data)
        with pytest.raises(DataError, match=f"{reason} its checksum.*{SHARD} at byte {offset:,}"):
            reader.read(np.array([6]))
        data[place] ^= 0x10


def test_a_shard_cut_while_it_is_read_is_an_error(records):
    reader = open_reader(records)
    data = (records / SHARD).read_bytes()
    (records / SHARD).write_bytes(data[:-10])
    with pytest.raises(DataError, match=f"10 bytes too early.*{SHARD}"):
        reader.read(np.array([8]))
    (records / SHARD).unlink()
    lost = RecordReader(reader.index, reader.manifest)
    with pytest.raises(DataError, match=f"No such file.*{SHARD}"):
        lost.read(np.array([8]))


def test_bytes_after_the_end_marker_are_no_truncation(records):
    rewrite(records, {2: with_jpeg(lambda jpeg: jpeg + b"\0camera notes")})
    images, _ = open_reader(records).read(np.array([6]))
    assert images[0].endswith(b"camera notes")


def test_an_undecodable_image_is_diagnosed_by_shard_offset_and_file(records):
    offset = rewrite(records, {2: with_jpeg(without_quantization_tables)})[2]
    reader = open_reader(records)
    reader.read(np.array([6]))  # it looks whole: decoding it is left to the graph
    reader.diagnose(np.array([4, 5, 7]))
    with pytest.raises(DataError, match=rf"decoded \(file .*JPEG\).*{SHARD} at byte {offset:,}"):
        reader.diagnose(np.array([5, 6]))
    assert any(p.offset == offset for p in check.check_records(records).problems)


def test_skipped_records_are_replaced_by_the_next_good_one_and_counted(records):
    changes = {2: FAULTS["cut_in_half"][0], 3: with_jpeg(without_quantization_tables)}
    rewrite(records, changes)
    rewrite(records, {4: FAULTS["label_high"][0]}, shard="train-00002-of-00003")  # the last one
    results = []
    for order in (np.arange(14), np.arange(14)[::-1]):
        reader = open_reader(records, on_bad_record="skip", max_bad_records=3)
        images, labels = reader.read(order)
        results.append((images[np.argsort(order)].tolist(), labels[np.argsort(order)].tolist()))
        bad = reader.bad_records
        assert [record.record_id for record in bad] == [6, 7, 13]
        offset = int(reader.index.offset[6])
        assert (bad[0].shard, bad[0].offset) == (SHARD, offset) and "cut short" in bad[0].reason
        assert bad[0].key.endswith(".JPEG")
        assert reader.first_error is None
    assert results[0] == results[1]
    images, labels = results[0]
    assert images[6] == images[7] == images[8]
    assert labels[6] == labels[7] == labels[8]
    assert images[13] == images[0]


def test_the_origin_of_an_image_is_the_record_that_stood_in(records):
    rewrite(records, {2: FAULTS["cut_in_half"][0], 3: with_jpeg(without_quantization_tables)})
    reader = open_reader(records, on_bad_record="skip", max_bad_records=2)
    index = reader.index
    for asked, read in ((5, 5), (6, 8), (7, 8)):
        origin = reader.origin(asked)
        assert (origin.record_id, origin.shard) == (read, SHARD)
        assert origin.offset == index.offset[read]
        payload = (records / SHARD).read_bytes()[origin.offset + 12 :][: index.length[read]]
        assert origin.key == tfrecord.parse_example(payload).filename != ""


def test_more_bad_records_than_tolerated_stop_the_run(records):
    rewrite(records, {2: FAULTS["cut_in_half"][0], 3: with_jpeg(without_quantization_tables)})
    reader = open_reader(records, on_bad_record="skip", max_bad_records=1)
    with pytest.raises(DataError, match="max_bad_records = 1 .*2 bad ones"):
        reader.read(np.arange(14))


def test_an_id_outside_the_data_set_is_refused(records):
    with pytest.raises(IndexError):
        open_reader(records).read(np.array([14]))


def test_check_finds_a_wrong_size_a_wrong_sum_and_wrong_class_counts(records):
    def mislabel(record):
        return dataclasses.replace(record, height_px=41, label=record.label % 3 + 1)

    rewrite(records, {0: mislabel})
    manifest = read_manifest(records)
    entries = tuple(dataclasses.replace(e, crc32c=1) for e in manifest.splits["validation"])
    save_manifest(
        records,
        dataclasses.replace(manifest, splits={**manifest.splits, "validation": entries}),
    )
    reasons = [problem.reason for problem in check.check_records(records).problems]
    assert len(reasons) == 3
    assert "40 x 48 px, the record says 41 x 48" in reasons[0]
    assert "checksum (CRC-32C) is not the manifest's" in reasons[1]
    assert "class counts" in reasons[2]
    found = check.check_records(records, quick=True).problems  # these shards are its whole sample
    assert [problem.reason for problem in found] == reasons[:1]
