"""The manifest and the index: what is there, what is missing, and what is remembered."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import index as index_module
from inception_tf.data import manifest as manifest_module
from inception_tf.data import tfrecord
from inception_tf.data.manifest import find_data_dir
from inception_tf.data.manifest import open_index
from inception_tf.data.manifest import read_manifest
from inception_tf.errors import DataError

FIRST, SECOND = "train-00000-of-00003", "train-00001-of-00003"


def write_released(root, labels, *, split="train", shards=2, **changes):
    """Records as TensorFlow's own writer makes them, in the released schema."""
    jpeg = tf.io.encode_jpeg(np.zeros((8, 9, 3), np.uint8)).numpy()
    for number, part in enumerate(np.array_split(labels, shards)):
        with tf.io.TFRecordWriter(f"{root}/{split}-{number:05d}-of-{shards:05d}") as writer:
            for label in part.tolist():
                features = {
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg])),
                    "image/class/label": tf.train.Feature(
                        int64_list=tf.train.Int64List(value=[label])
                    ),
                    "image/class/synset": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[f"n{label:08d}".encode()])
                    ),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    return root


def test_a_frame_is_what_tensorflow_writes(tmp_path):
    payloads = [b"", b"x", os.urandom(1000)]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    ours = b"".join(tfrecord.build_frame(payload) for payload in payloads)
    assert (tmp_path / "theirs").read_bytes() == ours
    frames = tfrecord.scan_frames(tmp_path / "theirs")
    assert frames.length.tolist() == [0, 1, 1000]
    assert frames.offset.tolist() == [0, 16, 33]
    assert frames.crc.tolist() == [tfrecord.masked_crc(payload) for payload in payloads]


def test_the_index_reads_no_payload(records):
    # A damaged payload is found when it is read, not by a scan that must stay fast.
    data = bytearray((records / FIRST).read_bytes())
    data[40] ^= 1
    (records / FIRST).write_bytes(data)
    _, index = open_index(records, "train")
    assert len(index) == 14


def test_manifest_states_classes_counts_and_checksums(built_records):
    manifest = read_manifest(built_records)
    assert manifest.class_names == ("ant", "bee", "cow")
    assert manifest.class_counts == {"train": (5, 5, 4), "validation": (2, 2, 2)}
    assert (manifest.label_base, manifest.num_classes) == (1, 3)
    assert [shard.num_records for shard in manifest.splits["train"]] == [4, 5, 5]
    assert manifest.num_records("validation") == 6


def test_truncated_shard_is_named_with_its_missing_bytes(records):
    data = (records / SECOND).read_bytes()
    (records / SECOND).write_bytes(data[:-7])
    with pytest.raises(DataError, match=f"truncated.*{SECOND}"):
        open_index(records, "train")


def test_missing_shard_is_named(records):
    (records / SECOND).unlink()
    with pytest.raises(DataError, match=f"missing.*{SECOND}"):
        open_index(records, "train")


def test_wrong_count_is_found(records):
    stored = json.loads((records / "manifest.json").read_text())
    stored["splits"]["train"][1]["num_records"] += 1
    (records / "manifest.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match=f"5 instead of 6 in .*{SECOND}"):
        open_index(records, "train")


def test_damaged_length_is_named_with_its_offset(records):
    offset = int(tfrecord.scan_frames(records / SECOND).offset[2])
    data = bytearray((records / SECOND).read_bytes())
    data[offset + 1] ^= 4
    (records / SECOND).write_bytes(data)
    with pytest.raises(DataError, match=f"length fails its checksum.*{SECOND} at byte {offset:,}"):
        open_index(records, "train")


def test_empty_and_absent_directories_say_how_to_build(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match="inception_tf.records build"):
            open_index(path, "train")


def test_unknown_split_lists_the_splits(records):
    with pytest.raises(DataError, match="train, validation"):
        open_index(records, "test")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 9}'])
def test_a_manifest_that_is_none_is_refused(records, text):
    (records / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="manifest.json must be"):
        open_index(records, "train")


def test_a_label_base_against_the_manifest_is_refused(records):
    with pytest.raises(DataError, match="label_base"):
        open_index(records, "train", label_base=0)


def count_scans(monkeypatch):
    scans = []
    scan = index_module._scan
    monkeypatch.setattr(
        index_module, "_scan", lambda *args, **kwargs: scans.append(1) or scan(*args, **kwargs)
    )
    return scans


def test_the_index_is_cached_until_a_shard_changes(records, monkeypatch):
    scans = count_scans(monkeypatch)
    _, first = open_index(records, "train")
    _, again = open_index(records, "train")
    assert len(scans) == 1
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    os.utime(records / SECOND, (1, 1))
    open_index(records, "train")
    assert len(scans) == 2
    (records / "index-train.npz").write_bytes(b"PK cut short")
    open_index(records, "train")
    assert len(scans) == 3


def test_a_read_only_data_directory_keeps_its_index_in_the_cache_directory(
    records, tmp_path, monkeypatch
):
    save = index_module._save_arrays

    def refuse_beside_the_data(cache, arrays):
        if cache.parent == records:
            raise PermissionError(13, "Permission denied")
        save(cache, arrays)

    monkeypatch.setattr(index_module, "_save_arrays", refuse_beside_the_data)
    scans = count_scans(monkeypatch)
    for _ in range(2):
        open_index(records, "train", cache_dir=tmp_path / "run")
    assert len(scans) == 1
    assert not (records / "index-train.npz").exists()
    assert (tmp_path / "run" / "index-train.npz").exists()
    open_index(records, "train")  # nowhere to keep it: works all the same
    assert len(scans) == 2


@pytest.mark.parametrize("label_base, labels", [(1, [1, 3, 2, 3]), (0, [0, 2, 1, 2])])
def test_released_records_without_manifest_are_read(tmp_path, monkeypatch, label_base, labels):
    write_released(tmp_path, labels)
    write_released(tmp_path, labels[:1], split="validation", shards=1)
    scans = count_scans(monkeypatch)
    for _ in range(2):
        manifest, index = open_index(tmp_path, "validation", label_base=label_base)
    assert len(scans) == 2  # one a split, then from the cache
    assert (len(index), manifest.num_classes) == (1, 3)  # classes of all splits together
    assert manifest.class_counts == {"train": (1, 1, 2), "validation": (1, 0, 0)}
    assert manifest.class_names == tuple(f"n{k + label_base:08d}" for k in range(3))


def test_released_records_need_their_label_base(tmp_path):
    write_released(tmp_path, [1, 2])
    with pytest.raises(DataError, match="data.label_base"):
        open_index(tmp_path, "train")
    write_released(tmp_path, [1, 0])
    with pytest.raises(DataError, match="label 0 in .*train-00001-of-00002 at byte 0"):
        open_index(tmp_path, "train", label_base=1)


def test_a_gap_in_released_shards_is_named(tmp_path):
    write_released(tmp_path, [1, 2, 3], shards=3)
    (tmp_path / SECOND).write_bytes(b"")
    with pytest.raises(DataError, match=f"empty.*{SECOND}"):
        open_index(tmp_path, "train", label_base=1)
    (tmp_path / SECOND).unlink()
    with pytest.raises(DataError, match=f"1 missing.*{SECOND}"):
        open_index(tmp_path, "train", label_base=1)


def test_data_are_found_in_the_first_place_that_holds_them(records, tmp_path):
    places = [("--data_dir", None), ("$TFDS_DATA_DIR", tmp_path), ("home", records)]
    assert find_data_dir(places, "train") == (str(records), "home")


def test_data_found_nowhere_list_every_place(records, tmp_path):
    places = [("--data_dir", None), ("$TFDS_DATA_DIR", tmp_path / "no"), ("home", records)]
    with pytest.raises(DataError) as error:
        find_data_dir(places, "test")
    for line in ("--data_dir: not given", "/no is no directory", "holds only train, validation"):
        assert line in str(error.value)
    assert "inception_tf.records build" in str(error.value)


def test_manifest_round_trips(records):
    manifest = read_manifest(records)
    before = (records / "manifest.json").read_bytes()
    manifest_module.save_manifest(records, manifest)
    assert read_manifest(records) == manifest
    assert (records / "manifest.json").read_bytes() == before
    assert set(json.loads(before)) == {
        "format", "label_base", "num_classes", "class_names", "splits", "class_counts", "source",
        "options",
    }  # fmt: skip


def changed_at(stored, path, value):
    """The JSON with one field replaced; `path` is its keys, and `...` as value removes it."""
    stored = json.loads(json.dumps(stored))
    place = stored
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return stored


SHARD_0 = ("splits", "train", 0)
WRONG_FIELDS = [
    (("format",), "1"), (("format",), True), (("format",), 2), (("format",), ...),
    (("label_base",), True), (("label_base",), 2), (("label_base",), 1.0), (("label_base",), None),
    (("num_classes",), "3"), (("num_classes",), 0), (("num_classes",), -3), (("num_classes",), 4.0),
    (("num_classes",), 10**12), (("num_classes",), [3]),
    (("class_names",), "ant"), (("class_names",), ["ant", "bee"]), (("class_names",), None),
    (("class_names", 1), 7), (("class_names", 1), None), (("class_names", 1), "\ud800"),
    (("splits",), {}), (("splits",), []), (("splits",), None), (("splits", "train"), []),
    (("splits", "train"), {}), (("splits", "../train"), []), (("splits", ""), []),
    (SHARD_0, 7), (SHARD_0, ["train"]), ((*SHARD_0, "more"), 1),
    *[((*SHARD_0, field), value) for field in ("num_records", "num_bytes", "crc32c")
      for value in ("7", -1, 1.5, True, [], ...)],
    ((*SHARD_0, "num_bytes"), None), ((*SHARD_0, "num_records"), None),
    ((*SHARD_0, "crc32c"), 2**32), ((*SHARD_0, "num_bytes"), 2**63),
    *[((*SHARD_0, "file"), value) for value in
      (7, None, "", "../x", "/etc/passwd", "a/../../x", ".", "a\0b", "\udc80", ...)],
    (("class_counts",), []), (("class_counts",), 7), (("class_counts",), ...),
    (("class_counts", "test"), [1, 1, 1]), (("class_counts", "train"), [5, 5]),
    (("class_counts", "train"), None), (("class_counts", "train", 0), "5"),
    (("class_counts", "train", 0), -5), (("class_counts", "train", 0), 5.0),
    (("source",), []), (("source",), None), (("source", "kind"), 7), (("source", "name"), None),
    (("source", "num_reencoded"), "1"), (("source", "num_images"), -1),
    (("options",), []), (("options",), ...), (("options", "seed"), "0"), (("options", "seed"), -1),
    (("options", "exif_rotation"), True), (("options", "max_side_px"), "512"),
    (("options", "max_side_px"), 0), (("options", "max_side_px"), True),
    (("options", "validation_share"), "0.1"), (("options", "validation_share"), 1.0),
    (("options", "validation_share"), float("nan")), (("options", "on_bad_image"), []),
    (("options", "split_seed"), 0.5), (("options", "plan_sha256"), 7),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value"), WRONG_FIELDS,
    ids=[f"{'.'.join(map(str, path))}={value!r:.20}".encode("ascii", "replace").decode()
         for path, value in WRONG_FIELDS],
)  # fmt: skip
def test_a_field_of_a_wrong_type_or_out_of_range_is_named(records, path, value):
    file = records / "manifest.json"
    file.write_text(json.dumps(changed_at(json.loads(file.read_text()), path, value)))
    with pytest.raises(DataError) as error:
        read_manifest(records)
    text = str(error.value)
    text.encode()  # it can be printed
    assert f"field {path[0]}" in text and all(str(key) in text for key in path)
    assert str(file) in text and "Copy or build" in text
    with pytest.raises(DataError, match="manifest.json"):
        open_index(records, "train")


def test_a_shard_that_is_listed_twice_is_named(records):
    stored = json.loads((records / "manifest.json").read_text())
    for split in ("train", "validation"):
        twice = json.loads(json.dumps(stored))
        twice["splits"][split].append(stored["splits"]["train"][1])
        (records / "manifest.json").write_text(json.dumps(twice))
        with pytest.raises(DataError, match=rf"another file than.*{SECOND}") as error:
            read_manifest(records)
        assert f"field splits.{split}[" in str(error.value)
        assert "that of splits.train[1]" in str(error.value)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"NaN", b"null"])
def test_a_manifest_of_any_bytes_is_no_traceback(records, data):
    (records / "manifest.json").write_bytes(data)
    with pytest.raises(DataError, match="manifest.json must be one that the record builder wrote"):
        read_manifest(records)


def test_a_manifest_that_cannot_be_read_says_why(records, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(manifest_module.files, "read_text", refuse)
    with pytest.raises(DataError, match="readable.*Permission denied.*manifest.json"):
        read_manifest(records)
