"""What a check says of labels: names that contradict, ImageNet's order, and splits without any."""

import pathlib
import tarfile

import pytest
import tensorflow as tf

from inception_tf import records as door
from inception_tf.data import check, check_synsets, official, tfrecord
from tests.data import prepared
from tests.data.conftest import picture

IMAGE = tf.io.encode_jpeg(picture(0, height_px=8, width_px=8)).numpy()
SYNSETS = official.read_synsets()


def write_shard(path, entries):
    """Records of (label, synset) with one and the same small image; their offsets."""
    frames = [
        tfrecord.build_frame(
            tfrecord.build_example(
                tfrecord.Record(IMAGE, label, synset, f"{number}.JPEG", 8, 8), text=""
            )
        )
        for number, (label, synset) in enumerate(entries)
    ]
    path.write_bytes(b"".join(frames))
    return [sum(map(len, frames[:number])) for number in range(len(frames))]


def faults(result):
    return [(p.split, p.file, p.offset, p.reason) for p in result.problems]


# ------------------------------------------------------------------ names that contradict


def test_a_label_with_two_synsets_is_found_in_one_shard_and_between_splits(tmp_path):
    first, second = tmp_path / "train-00000-of-00002", tmp_path / "train-00001-of-00002"
    other = tmp_path / "validation-00000-of-00001"
    offsets = write_shard(first, [(1, "n2"), (1, "n1"), (2, "n3"), (3, "")])
    write_shard(second, [(1, "n1"), (2, "n3"), (2, "n3")])
    write_shard(other, [(2, "n1"), (2, "n1")])
    result = check.check_records(tmp_path, label_base=1)
    name = "image/class/synset"
    assert faults(result) == [
        ("train", first.name, offsets[0], f"{name} n2 with label 1 in 1 record; 2 others say n1"),
        ("validation", other.name, 0, f"{name} n1 with label 2 in 2 records; 3 others say n3"),
    ]
    assert [split.num_problems for split in result.splits.values()] == [1, 1]
    assert door.main(["check", str(tmp_path), "--label_base", "1"]) == 2


def test_a_synset_of_two_labels_is_found(tmp_path):
    offsets = write_shard(tmp_path / "train-00000-of-00001", [(1, "n1"), (2, "n2"), (3, "n1")])
    ((_, _, offset, reason),) = faults(check.check_records(tmp_path, label_base=1))
    assert (offset, reason) == (offsets[2], "image/class/synset n1 with label 3 and with label 1")


def test_a_record_of_another_class_than_the_manifest_says_is_found(records):
    shard = records / "train-00001-of-00003"
    data = shard.read_bytes()
    assert check.check_records(records).problems == ()
    frames = tfrecord.scan_frames(str(shard))
    frame = data[: int(frames.length[0]) + tfrecord.FRAME_BYTES]
    record = tfrecord.parse_example(frame[12:-4])
    other = {b"ant": b"bee", b"bee": b"cow", b"cow": b"ant"}[record.synset.encode()]
    payload = frame[12:-4].replace(b"\n\x03" + record.synset.encode(), b"\n\x03" + other)
    shard.write_bytes(tfrecord.build_frame(payload) + data[len(frame) :])
    reasons = [p.reason for p in check.check_records(records).problems if p.offset == 0]
    assert reasons == [f"image/class/synset {other.decode()} with label {record.label} in 1"
                       f" record; the manifest says {record.synset}"]  # fmt: skip


def test_contradictions_without_end_are_counted(tmp_path):
    entries = [(1, f"n{number}") for number in range(300)] + [(1, "n7")]
    write_shard(tmp_path / "train-00000-of-00001", entries)
    problems = check.check_records(tmp_path, label_base=1).problems
    assert len(problems) == check_synsets._LISTED
    assert problems[-1].reason == "200 more synsets are not those of their labels"


# ------------------------------------------------------------------ official ImageNet


@pytest.fixture
def write_imagenet(tmp_path):
    """Writes records of the given (label, synset) in two shards; what a check of them says."""

    def write_and_check(entries, **options):
        for number in range(2):
            write_shard(tmp_path / f"train-{number:05d}-of-00002", entries[number::2])
        return check.check_records(tmp_path, label_base=options.pop("label_base", 1), **options)

    return write_and_check


def test_the_list_of_synsets_is_the_published_one(shared_images):
    path = shared_images / "imagenet_meta" / "imagenet_lsvrc_2015_synsets.txt"
    assert tuple(path.read_text().split()) == SYNSETS == tuple(sorted(SYNSETS))
    assert len(SYNSETS) == 1000


@pytest.mark.parametrize("has_list", [True, False])
def test_imagenet_in_its_own_order_is_no_fault_whatever_its_size(
    write_imagenet, monkeypatch, has_list
):
    if not has_list:
        monkeypatch.setattr(official, "read_synsets", lambda: ())
    result = write_imagenet(list(enumerate(SYNSETS, 1)))
    assert result.problems == ()
    assert result.official[0] == (
        "train: 1,000 records, 1,280,167 fewer than official ImageNet's train split"
    )
    assert result.official[-1] == "classes: the synsets of 1,000 labels, as officially"


@pytest.mark.parametrize("has_list", [True, False])
def test_imagenet_in_another_order_is_a_fault(write_imagenet, monkeypatch, has_list):
    if not has_list:
        monkeypatch.setattr(official, "read_synsets", lambda: ())
    swapped = [*SYNSETS[:5], SYNSETS[6], SYNSETS[5], *SYNSETS[7:]]
    ((split, _, offset, reason),) = faults(write_imagenet(list(enumerate(swapped, 1))))
    assert (split, offset) == ("train", None)
    assert "the labels are not those of ImageNet: label" in reason and "officially" in reason
    if has_list:
        assert f"label 6 is {SYNSETS[6]}, officially {SYNSETS[5]}" in reason
        assert "2 of 1,000 labels are wrong" in reason


def test_imagenet_with_another_first_label_than_its_own_is_a_fault(write_imagenet):
    ((*_, reason),) = faults(write_imagenet(list(enumerate(SYNSETS, 1)), label_base=0))
    assert f"label 1 is {SYNSETS[0]}, officially {SYNSETS[1]} where labels begin at 0" in reason
    assert write_imagenet(list(enumerate(SYNSETS)), label_base=0).problems == ()


def test_imagenet_is_known_without_some_of_its_classes_and_they_are_named(write_imagenet):
    entries = [(label, synset) for label, synset in enumerate(SYNSETS, 1) if label not in (3, 1000)]
    result = write_imagenet(entries)
    assert result.problems == ()
    assert f"none of label 3 ({SYNSETS[2]}), 1000 ({SYNSETS[999]})" in result.official[1]
    assert result.official[-1] == f"classes: no record names {SYNSETS[2]}, {SYNSETS[999]}"


def test_a_quick_check_knows_imagenet_by_a_sample(write_imagenet, monkeypatch):
    from inception_tf.data import check_shard

    monkeypatch.setattr(check_shard, "_SAMPLES", 300)  # of 500 in each shard
    result = write_imagenet(list(enumerate(SYNSETS, 1)), quick=True)
    assert result.problems == () and result.splits["train"].num_images == 600
    assert "fewer than official ImageNet's train split" in result.official[0]
    assert len(result.official) == 2  # a sample does not say how large a class is
    wrong = write_imagenet(list(enumerate(reversed(SYNSETS), 1)), quick=True)
    assert "not those of ImageNet" in wrong.problems[0].reason


def test_a_quick_check_knows_imagenet_without_names_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(official, "_SPLITS", (official._OfficialSplit("train", 1000, 1, 1),))
    for number in range(100):
        entries = [(label, "") for label in range(1, 1001)][10 * number :][:10]
        write_shard(tmp_path / f"train-{number:05d}-of-00100", entries)
    result = check.check_records(tmp_path, label_base=1, quick=True)
    assert result.official == ("train: 1,000 records, as official ImageNet's train split",)


def test_a_few_of_imagenets_classes_and_many_others_are_data_sets_of_their_own(write_imagenet):
    few = [(label, SYNSETS[100 * label - 1]) for label in range(10, 0, -1)]
    result = write_imagenet(few)
    assert result.problems == () and result.official == ()
    many = {label: f"n{90_000_000 + label}" for label in range(20_841)}
    assert not official.are_names_of_imagenet(many | dict(enumerate(SYNSETS, 20_841)))


# ------------------------------------------------------------------ splits without labels


@pytest.fixture(scope="module")
def tfds_imagenet(tmp_path_factory):
    """The directory of imagenet2012/5.1.0 as TFDS prepares it with its test split."""
    manual_dir, data_dir = (tmp_path_factory.mktemp(name) for name in ("manual", "tfds"))
    prepared.write_imagenet_tars(manual_dir)
    with tarfile.open(manual_dir / "ILSVRC2012_img_test.tar", "w") as tar:
        for number in range(1, 5):
            data = tf.io.encode_jpeg(prepared.picture(200 + number)).numpy()
            prepared._add(tar, f"test/ILSVRC2012_test_{number:08d}.JPEG", data)
    prepared.prepare_imagenet(data_dir, manual_dir)
    return data_dir / "imagenet2012" / "5.1.0"


@pytest.mark.parametrize("quick", [False, True])
def test_the_unlabelled_test_split_of_tfds_is_named_and_no_fault(tfds_imagenet, quick, capsys):
    result = check.check_records(tfds_imagenet, quick=quick)
    assert result.problems == () and set(result.splits) == {"train", "validation", "test"}
    test = result.splits["test"]
    assert (test.num_records, test.num_images, test.class_counts) == (4, 4, {})
    (note,) = result.notes
    assert note.startswith("test: 4 records, none with a label (all have -1)")
    assert "test: 4 records, 99,996 fewer than official ImageNet's test split" in result.official
    assert door.main(["check", str(tfds_imagenet)]) == 0
    assert note in capsys.readouterr().out


def test_a_record_without_a_label_among_labelled_ones_is_a_fault(tfds_imagenet, tmp_path):
    copy = tmp_path / "5.1.0"
    copy.mkdir()
    for path in tfds_imagenet.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    shard = next(path for path in sorted(copy.glob("*-train.tfrecord-*")) if path.stat().st_size)
    frames = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    example = tf.train.Example.FromString(frames[1])
    example.features.feature["label"].int64_list.value[0] = -1
    frames[1] = example.SerializeToString()
    shard.write_bytes(b"".join(map(tfrecord.build_frame, frames)))
    result = check.check_records(copy)
    ((split, file, offset, reason),) = faults(result)
    assert (split, file, offset) == ("train", shard.name, len(frames[0]) + 16)
    assert reason == "label -1, where other records have one"
    assert len(result.notes) == 1


def test_a_label_below_the_first_is_a_fault_of_other_records(tmp_path):
    write_shard(pathlib.Path(tmp_path, "train-00000-of-00001"), [(-1, "")])
    (problem,) = check.check_records(tmp_path, label_base=0).problems
    assert "label -1 is not 0 or more" in problem.reason
