"""The check of a data set: what it finds, counts and knows, and what it costs."""

import collections
import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import records as door
from inception_tf.data import check, check_shard, official, tfrecord
from inception_tf.data.duplicates import find_duplicates
from inception_tf.data.manifest import read_manifest, save_manifest
from tests.data.conftest import picture


def write_shard(path, entries):
    """Records of (label, picture number, height px, width px)."""
    frames = []
    for label, number, height_px, width_px in entries:
        pixels = picture(number, height_px=height_px, width_px=width_px)
        record = tfrecord.Record(
            jpeg=tf.io.encode_jpeg(pixels).numpy(), label=label, synset=f"n{label}",
            filename=f"{number}.JPEG", height_px=height_px, width_px=width_px,
        )  # fmt: skip
        frames.append(tfrecord.build_frame(tfrecord.build_example(record, text="")))
    path.write_bytes(b"".join(frames))


def independently(directory, split):
    """Labels, bytes, heights, widths and images of a split, read by TensorFlow alone."""
    files = sorted(str(path) for path in directory.glob(f"{split}-*-of-*"))
    spec = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }
    for raw in tf.data.TFRecordDataset(files).as_numpy_iterator():
        example = tf.io.parse_single_example(raw, spec)
        image = example["image/encoded"].numpy()
        yield int(example["image/class/label"]), image, tf.io.decode_jpeg(image).shape


@pytest.mark.parametrize("processes", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_counts_means_and_classes_are_those_of_an_independent_reader(built_records, processes):
    lines = []
    result = check.check_records(built_records, processes=processes, report=lines.append)
    assert result.problems == () and not result.is_quick and result.official == ()
    assert "4 of 4 shards" in lines[-1] and "20 records, 0 problems" in lines[-1]
    seen = set()
    for split in ("train", "validation"):
        labels, images, shapes = zip(*independently(built_records, split))
        found = result.splits[split]
        assert found.num_records == found.num_images == len(images)
        assert found.num_bytes == sum(
            path.stat().st_size for path in built_records.glob(f"{split}-*-of-*")
        )
        assert found.class_counts == dict(collections.Counter(labels))
        assert found.mean_image_bytes == pytest.approx(np.mean([len(i) for i in images]))
        assert found.mean_height_px == pytest.approx(np.mean([s[0] for s in shapes]))
        assert found.mean_width_px == pytest.approx(np.mean([s[1] for s in shapes]))
        repeated = 0
        for image in images:
            repeated += image in seen
            seen.add(image)
        assert found.num_duplicates == repeated


def test_duplicates_are_named_within_and_across_splits_with_their_labels(tmp_path):
    write_shard(tmp_path / "train-00000-of-00002", [(1, 0, 8, 8), (2, 1, 8, 8), (2, 0, 8, 8)])
    write_shard(tmp_path / "train-00001-of-00002", [(3, 2, 8, 8), (3, 1, 9, 8)])
    write_shard(tmp_path / "validation-00000-of-00001", [(3, 2, 8, 8), (1, 3, 8, 8)])
    result = check.check_records(tmp_path, label_base=1)
    places = [[(c.split, c.file[:11], c.label) for c in group] for group in result.duplicates]
    assert places == [
        [("train", "train-00000", 1), ("train", "train-00000", 2)],
        [("train", "train-00001", 3), ("validation", "validation-", 3)],
    ]
    assert result.duplicates[0][0].offset == 0 < result.duplicates[0][1].offset
    assert result.splits["train"].num_duplicates == 1
    assert result.splits["validation"].num_duplicates == 1
    assert result.problems == ()  # a copy is no fault of a record


def test_duplicates_agree_with_a_dictionary_on_many_random_hashes():
    rng = np.random.default_rng(0)
    findings = []
    for number, count in enumerate((0, 40, 1, 300)):
        task = check_shard.ShardTask(
            root="", split=f"s{number % 2}", first_label=0, end_label=None, quick=False,
            shard=check.ShardEntry(f"file{number}", -1, None, None), schema=tfrecord.RELEASED,
        )  # fmt: skip
        found = check_shard.Findings(task)
        found.hashes = rng.integers(0, 250, count).tolist()
        found.offsets = list(range(count))
        found.labels = [number] * count
        found.pack()
        findings.append(found)
    expected = collections.defaultdict(set)
    for found in findings:
        for value, offset in zip(found.hashes.tolist(), found.offsets.tolist()):
            expected[value].add((found.task.shard.file, offset))
    groups = {frozenset((c.file, c.offset) for c in group) for group in find_duplicates(findings)}
    assert groups == {frozenset(places) for places in expected.values() if len(places) > 1}
    assert find_duplicates([]) == ()


def test_a_quick_check_reads_headers_of_all_and_sixteen_records_of_each_shard(tmp_path):
    entries = [(1 + n % 2, n, 8, 8) for n in range(40)]
    shard = tmp_path / "train-00000-of-00001"
    write_shard(shard, entries)
    frames = tfrecord.scan_frames(str(shard))
    sampled = np.linspace(0, 39, 16).astype(int).tolist()
    whole = shard.read_bytes()
    found = set()
    for position in range(40):
        damaged = bytearray(whole)
        damaged[int(frames.offset[position]) + 50] ^= 1
        shard.write_bytes(damaged)
        result = check.check_records(tmp_path, label_base=1, quick=True)
        assert result.splits["train"].num_records == 40
        assert result.splits["train"].class_counts == {}
        if result.problems:
            assert result.problems[0].offset == frames.offset[position]
            found.add(position)
    assert sorted(found) == sampled
    damaged[int(frames.offset[21])] ^= 1  # a header
    shard.write_bytes(damaged)
    assert len(check.check_records(tmp_path, label_base=1, quick=True).problems) == 1


def test_records_before_a_damaged_length_are_still_checked(records):
    shard = records / "train-00001-of-00003"
    frames = tfrecord.scan_frames(str(shard))
    data = bytearray(shard.read_bytes())
    data[int(frames.offset[1]) + 60] ^= 1
    data[int(frames.offset[3]) + 9] ^= 1
    shard.write_bytes(data)
    problems = [p for p in check.check_records(records).problems if p.file == shard.name]
    assert [p.offset for p in problems] == [frames.offset[1], frames.offset[3], None]
    assert "what follows cannot be read" in problems[1].reason
    assert "3 records instead of the manifest's" in problems[2].reason


def test_the_faults_of_a_shard_are_counted_all_and_kept_a_hundred(tmp_path):
    frame = tfrecord.build_frame(b"\xff\xff\xff")
    (tmp_path / "train-00000-of-00001").write_bytes(frame * 250)
    result = check.check_records(tmp_path, label_base=1)
    assert len(result.problems) == 100
    assert result.splits["train"].num_problems == 250


def test_an_image_of_another_size_and_a_label_out_of_range_are_named(records):
    manifest = read_manifest(records)
    save_manifest(records, dataclasses.replace(
        manifest, num_classes=2, class_names=manifest.class_names[:2], class_counts=None
    ))  # fmt: skip
    result = check.check_records(records)
    labels = [p for p in result.problems if "label 3 is not 1..2 (file cow_" in p.reason]
    assert len(labels) == len(result.problems) == 4 + 2


def imagenet_counts():
    """1,000 classes of 732 to 1,300 records that add up to the official total."""
    counts = {1: 732}
    remaining = 1_281_167 - 732
    for label in range(2, 1001):
        left = 1001 - label
        counts[label] = min(1300, remaining - 733 * (left - 1))
        remaining -= counts[label]
    return counts


def test_official_imagenet_is_known_and_every_difference_is_said():
    train, val = imagenet_counts(), {label: 50 for label in range(1, 1001)}
    assert sum(train.values()) == 1_281_167 and max(train.values()) == 1300

    def compare(train, val, num_classes=1000):
        splits = {"train": sum(train.values()), "val": sum(val.values())}
        return official.compare(num_classes, splits, {"train": train, "val": val})

    same = compare(train, val)
    assert len(same) == 4 and all(", as official" in line for line in same)
    lines = compare({**train, 7: train[7] - 1, 9: 1301}, {**val, 3: 49})
    assert "1 class does not have 732 to 1,300 records (label 9: 1,301)" in lines[1]
    assert "49,999 records, 1 fewer than official ImageNet's validation split" in lines[2]
    assert "1 class does not have 50 records (label 3: 49)" in lines[3]
    lacking = {label: n for label, n in val.items() if label not in (4, 5)}
    assert "998 classes have records, officially 1,000" in compare(train, lacking)[3]
    assert "1 more than" in compare({**train, 1: 733}, val)[0]
    assert "classes of 733 to 1,300 records, officially 732" in compare({**train, 1: 733}, val)[1]
    assert "998 classes have records, officially 1,000; none of label 4" in compare(
        train, lacking, num_classes=998
    )[3]  # fmt: skip
    assert compare(train, val, num_classes=949) == compare(train, val, num_classes=0) == ()
    assert official.compare(1000, {"train": 10_000, "val": 5_000}, {}) == ()


def test_a_data_set_like_imagenet_is_compared(tmp_path, monkeypatch):
    small = dataclasses.replace(official._SPLITS[0], num_records=1000, least=1, most=1)
    monkeypatch.setattr(official, "_SPLITS", (small,))
    frame = [
        tfrecord.build_frame(tfrecord.build_example(
            tfrecord.Record(b"", label, "", "", 0, 0), text=""
        ))
        for label in range(1, 1001)
    ]  # fmt: skip
    (tmp_path / "train-00000-of-00001").write_bytes(b"".join(frame[:-1] + frame[:1]))
    monkeypatch.setattr(official, "_NUM_CLASSES", 999)
    result = check.check_records(tmp_path, label_base=1)
    assert "train: 1,000 records, as official ImageNet's train split" in result.official
    assert any("label 1: 2" in line for line in result.official)


def test_the_command_prints_a_table_and_exits_with_2_where_anything_is_bad(
    records, tmp_path, capsys
):
    report = tmp_path / "report.json"
    assert door.main(["check", str(records), "--json", str(report)]) == 0
    out = capsys.readouterr().out
    assert "40 x 48 px" in out and "Every record is good." in out
    assert "duplicates: 5 images stand more than once, 5 of them in several splits" in out
    stored = json.loads(report.read_text())
    assert stored["splits"]["train"]["num_records"] == 14 and stored["problems"] == []
    assert len(stored["duplicates"]) == 5
    assert stored["splits"]["train"]["class_counts"] == {"1": 5, "2": 5, "3": 4}

    shard = records / "train-00002-of-00003"
    data = bytearray(shard.read_bytes())
    data[-200] ^= 1
    shard.write_bytes(data)
    assert door.main(["check", str(records), "--json", str(report)]) == 2
    out = capsys.readouterr().out
    assert f"{shard.name} at byte" in out and "Every record is good" not in out
    assert len(json.loads(report.read_text())["problems"]) == 3  # record, file, classes
    assert door.main(["check", str(tmp_path / "nothing")]) == 2
    assert door.main(["check", str(records), "--processes", "0"]) == 2


def test_a_whole_check_holds_one_record_at_a_time(tmp_path, monkeypatch):
    """40 MB of records are read in pieces no larger than one record and the next one's header."""
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    record = tfrecord.Record(tf.io.encode_jpeg(pixels, quality=95).numpy(), 1, "", "", 512, 512)
    frame = tfrecord.build_frame(tfrecord.build_example(record, text=""))
    (tmp_path / "train-00000-of-00001").write_bytes(frame * 40)
    sizes = []

    class Recorder:
        def __init__(self, file):
            self.file = file
            self.close = file.close

        def read_at(self, offset, num_bytes):
            sizes.append(num_bytes)
            return self.file.read_at(offset, num_bytes)

    opened = check_shard.files.open_file
    monkeypatch.setattr(check_shard.files, "open_file", lambda path: Recorder(opened(path)))
    task = check_shard.ShardTask(
        root=str(tmp_path), split="train", first_label=1, end_label=2, quick=False,
        shard=check.ShardEntry("train-00000-of-00001", 40, None, None), schema=tfrecord.RELEASED,
    )  # fmt: skip
    found = check_shard.check_shard(task)
    assert found.num_records == found.num_images == 40 and not found.problems
    assert max(sizes) == len(frame) + tfrecord.HEADER_BYTES
    assert sum(sizes) <= 40 * (len(frame) + tfrecord.HEADER_BYTES) + tfrecord.HEADER_BYTES
