"""Data sets as TensorFlow Datasets prepares them, against what TFDS itself reads."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import inputs
from inception_tf.cluster import Assignment
from inception_tf.data import image
from inception_tf.data import evaluation_pipeline, pipeline
from inception_tf.data.manifest import find_data_dir
from inception_tf.data.manifest import open_index
from inception_tf.data.records import RecordReader
from inception_tf.errors import DataError
from inception_tf.models.catalog import ModelSpec
from tests.data import prepared

# The image as it is, in [-1, 1]: neither crop nor flip nor colour.
WHOLE = image.Augmentation(
    area_range=(1.0, 1.0), aspect_ratio_range=(1.0, 1.0), min_object_covered=1.0,
    resize_methods=("nearest",), horizontal_flip=False, color="none",
)  # fmt: skip
CIFAR_PX = {"height_px": 32, "width_px": 32}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """(data_dir, TFDS's builder, {file name: bytes in the tars}) of imagenet2012/5.1.0."""
    manual_dir, data_dir = (tmp_path_factory.mktemp(name) for name in ("manual", "tfds"))
    written = prepared.write_imagenet_tars(manual_dir)
    return data_dir, prepared.prepare_imagenet(data_dir, manual_dir), written


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """(version directory, TFDS's builder, {split: (images, labels)}) of cifar10/3.0.2."""
    source, data_dir = (tmp_path_factory.mktemp(name) for name in ("source", "cifar"))
    written = prepared.write_cifar_batches(source)
    builder = prepared.prepare_cifar(data_dir, source)
    return data_dir / "cifar10" / "3.0.2", builder, written


@pytest.fixture
def copied(cifar, tmp_path):
    """A copy of cifar10/3.0.2 to change, without the index that others left."""
    copy = tmp_path / "cifar10" / "3.0.2"
    shutil.copytree(cifar[0], copy, ignore=shutil.ignore_patterns("*.npz"))
    return copy


def open_reader(data_dir, split="train"):
    manifest, index = open_index(data_dir, split)
    return RecordReader(index, manifest)


def read_all(reader):
    images, labels = reader.read(np.arange(reader.num_examples))
    return list(zip(images.tolist(), labels.tolist(), strict=True))


def change_json(path, change):
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize("split, count", [("train", 19), ("validation", 5)])
def test_imagenet_is_read_as_tfds_reads_it(imagenet, split, count):
    data_dir, builder, written = imagenet
    theirs = prepared.stored_examples(builder, split)
    reader = open_reader(data_dir, split)
    assert len(reader.index.files) == 3
    assert reader.num_examples == count == len(theirs)
    assert sorted(read_all(reader)) == sorted((e["image"], int(e["label"])) for e in theirs)
    names = reader.manifest.class_names
    for example in theirs:
        name = example["file_name"].decode()
        if name != prepared.PNG_IN_DISGUISE:
            assert (example["image"], name.split("_")[0]) == (
                written[name],
                names[example["label"]] if split == "train" else "ILSVRC2012",
            )
    assert (reader.manifest.num_classes, reader.manifest.label_base) == (1000, 0)
    assert list(names) == sorted(names)  # sorted WNIDs, the order of all released labels
    assert reader.manifest.origin == "TensorFlow Datasets imagenet2012/5.1.0"


def test_tfds_reads_on_where_our_index_lies(imagenet):
    data_dir, builder, _ = imagenet
    open_reader(data_dir)
    assert (data_dir / "imagenet2012" / "5.1.0" / "index-train.npz").exists()
    again = prepared.tfds.builder_from_directory(builder.data_dir)
    assert len(list(again.as_dataset(split="train"))) == 19


@pytest.mark.parametrize("below", ["", "imagenet2012", "imagenet2012/5.1.0"])
def test_imagenet_is_found_at_and_below_a_place(imagenet, below):
    places = [("--data_dir", None), ("$TFDS_DATA_DIR", imagenet[0] / below)]
    expected = str(imagenet[0] / "imagenet2012" / "5.1.0")
    assert find_data_dir(places, "validation") == (expected, "$TFDS_DATA_DIR")


def test_a_run_finds_imagenet_where_tfds_keeps_it(imagenet, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(imagenet[0]))
    found = inputs.open_inputs(
        pipeline.DataSpec(), ModelSpec(), run_dir=tmp_path, splits=("train", "validation")
    )
    assert (found.where_from, found.num_classes) == ("$TFDS_DATA_DIR", 1000)
    assert {name: reader.num_examples for name, reader in found.readers.items()} == {
        "train": 19, "validation": 5,
    }  # fmt: skip


def test_the_highest_version_is_read(copied):
    for version in ("3.0.10", "2.9.9"):
        shutil.copytree(copied, copied.parent / version)
    (copied.parent / "9.0.0").mkdir()  # nothing in it
    (copied.parent / "incomplete.A1_9.0.1").mkdir()
    found, _ = find_data_dir([("--data_dir", copied.parent)], "train")
    assert found == str(copied.parent / "3.0.10")


def test_cifar_is_read_with_its_pngs_names_and_splits(cifar):
    version, _, written = cifar
    for split, (pixels, labels) in written.items():
        reader = open_reader(version.parent, split)
        found = [
            (tf.io.decode_png(png).numpy().tobytes(), label) for png, label in read_all(reader)
        ]
        assert sorted(found) == sorted((p.tobytes(), k) for p, k in zip(pixels, labels))
    assert reader.manifest.class_names == tuple(prepared.CIFAR_CLASSES)
    with pytest.raises(DataError, match="split 'validation'.*test, train"):
        open_index(version, "validation")


def test_pngs_reach_training_and_evaluation_pixel_by_pixel(cifar):
    version, _, written = cifar
    expected = sorted(
        (label + 1, pixels.tobytes()) for pixels, label in zip(*written["train"], strict=True)
    )
    reader = open_reader(version)
    assignment = Assignment(
        num_replicas=1, replica_batch=20, num_physical=1, first_local=0, num_local=1
    )
    spec = pipeline.DataSpec()
    training = pipeline.train_dataset(
        reader, assignment=assignment, num_examples=20, start_step=0, seed=3,
        augmentation=WHOLE, spec=spec, label_offset=1, **CIFAR_PX,
    )  # fmt: skip
    evaluation = evaluation_pipeline.eval_dataset(
        reader, num_examples=20, replica_batch=20, num_physical=1, first_local=0, num_local=1,
        crop=image.EvaluationCrop(central_fraction=1.0), spec=spec, label_offset=1, **CIFAR_PX,
    )  # fmt: skip
    for dataset in (training, evaluation):
        batch = next(iter(dataset))
        pixels = np.rint((batch["images"].numpy().reshape([20, 32, 32, 3]) + 1) * 127.5)
        labels = batch["labels"].numpy().ravel().tolist()
        found = [(k, p.astype(np.uint8).tobytes()) for k, p in zip(labels, pixels)]
        assert sorted(found) == expected


def test_a_damaged_png_is_named(copied):
    shard = copied / "cifar10-train.tfrecord-00000-of-00001"
    payload = next(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    example = tf.train.Example.FromString(payload)
    image_values = example.features.feature["image"].bytes_list.value
    png = image_values[0]
    for damaged, reason in (
        (png[:-1], "cut short"),
        (png[:20], "no header"),
        (b"GIF89a" + png, "not a JPEG"),
        (png[:16] + b"\0\0\xff\xff\0\0\xff\xff" + png[24:], "promises 65535 x 65535"),
        (png[:60] + bytes([png[60] ^ 255]) + png[61:], "PNG cannot be decoded"),
    ):
        image_values[0] = damaged
        with tf.io.TFRecordWriter(str(shard)) as writer:
            for _ in range(20):
                writer.write(example.SerializeToString())
        reader = open_reader(copied)
        with pytest.raises(DataError, match=f"{reason}.*file train_.*{shard.name} at byte 0"):
            reader.read(np.array([0]))
            reader.diagnose(np.array([0]))


def drop(*path):
    def change(stored):
        for key in path[:-1]:
            stored = stored[key]
        del stored[path[-1]]

    return change


def put(value, *path):
    def change(stored):
        for key in path[:-1]:
            stored = stored[key]
        stored[path[-1]] = value

    return change


def rename(stored, old, new):
    stored[new] = stored.pop(old)


INFO, FEATURES = "dataset_info.json", "features.json"
OF_FEATURES = ("featuresDict", "features")
FAULTS = {
    "array_record": (INFO, put("array_record", "fileFormat"), "fileFormat 'array_record' in .*"),
    "no splits": (INFO, drop("splits"), f"{INFO}: no key 'splits'"),
    "no name": (INFO, drop("name"), f"{INFO}: no key 'name'"),
    "counts": (INFO, put(["19"], "splits", 0, "shardLengths"), "20 instead of 19 in .*-of-00001"),
    "shards": (INFO, put(["10", "10"], "splits", 0, "shardLengths"), "missing.*-of-00002"),
    "old counts": (INFO, put({"name": "train", "numShards": "1"}, "splits", 0), "shardLengths"),
    "template": (INFO, put("{NO}", "splits", 0, "filepathTemplate"), f"{INFO}: no key 'NO'"),
    "no image": (FEATURES, drop(*OF_FEATURES, "image"), f"{FEATURES} with id: Text, label: Class"),
    "no label": (FEATURES, drop(*OF_FEATURES, "label"), "one class label.*id: Text, image: Image"),
    "float image": (FEATURES, put("float32", *OF_FEATURES, "image", "image", "dtype"), "float32"),
    "no classes": (FEATURES, put("0", *OF_FEATURES, "label", "classLabel", "numClasses"), "of 0"),
    "more classes": (
        FEATURES, put("11", *OF_FEATURES, "label", "classLabel", "numClasses"),
        "10 lines in .*label.labels.txt",
    ),
    "no features": (FEATURES, drop("featuresDict"), f"{FEATURES}: no key"),
    "other key": (
        FEATURES, lambda stored: rename(stored["featuresDict"]["features"], "image", "picture"),
        "one picture .bytes. .*its keys: id, image, label.*cifar10-train.* at byte 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_lacks_or_contradicts_is_named(copied, fault):
    file, change, message = FAULTS[fault]
    change_json(copied / file, change)
    with pytest.raises(DataError, match=message):
        open_reader(copied).read(np.array([0]))


def test_missing_files_are_named(copied):
    (copied / "label.labels.txt").unlink()
    assert open_reader(copied).manifest.class_names == tuple("0123456789")
    (copied / FEATURES).unlink()
    with pytest.raises(DataError, match=f"need their.*no .*{FEATURES}"):
        open_index(copied, "train")
    (copied / INFO).unlink()
    with pytest.raises(DataError, match="split 'train'.*cifar10-train.tfrecord"):
        open_index(copied, "train")
    with pytest.raises(DataError, match=f"no image/class/label and.*{INFO} and {FEATURES}"):
        open_index(copied, "cifar10-train.tfrecord")


def test_a_shard_cut_at_a_record_is_found(copied):
    shard = copied / "cifar10-train.tfrecord-00000-of-00001"
    _, index = open_index(copied, "train")
    with open(shard, "r+b") as stream:
        stream.truncate(int(index.offset[-1]))
    with pytest.raises(DataError, match=f"19 instead of 20 in .*{shard.name}"):
        open_index(copied, "train")


def test_a_label_base_against_the_data_set_is_refused(cifar):
    with pytest.raises(DataError, match="label_base must be the one of dataset_info.json"):
        open_index(cifar[0], "train", label_base=1)


def legacy_features(num_classes):
    """features.json as TFDS wrote it before it had a proto for features."""
    core = "tensorflow_datasets.core.features"
    return {
        "type": f"{core}.features_dict.FeaturesDict",
        "content": {
            "id": {"type": f"{core}.text_feature.Text", "content": {}},
            "image": {
                "type": f"{core}.image_feature.Image",
                "content": {"shape": [32, 32, 3], "dtype": "uint8", "encoding_format": None},
            },
            "label": {
                "type": f"{core}.class_label_feature.ClassLabel",
                "content": {"num_classes": num_classes},
            },
        },
    }


def proto_in_type(stored):
    """features.json from between the two forms: the new content as text inside the old frame."""
    return {
        "type": stored["pythonClassName"],
        "content": json.dumps(stored["featuresDict"]),
        "proto_cls": "tensorflow_datasets.FeaturesDict",
    }


@pytest.mark.parametrize("form", ["legacy", "proto in type"])
def test_older_forms_of_features_are_read(copied, form):
    before = open_reader(copied)
    path = copied / FEATURES
    new = legacy_features(10) if form == "legacy" else proto_in_type(json.loads(path.read_text()))
    path.write_text(json.dumps(new))
    theirs = prepared.tfds.features.FeaturesDict.from_config(str(copied))
    assert theirs["label"].num_classes == 10  # TFDS takes it for such a form too
    after = open_reader(copied)
    assert after.manifest == before.manifest
    assert read_all(after) == read_all(before)


def test_shards_by_another_template_and_the_only_keys_are_read(copied):
    expected = read_all(open_reader(copied))
    (copied / "cifar10-train.tfrecord-00000-of-00001").rename(copied / "train_00000-00001.tfrecord")
    template = "{SPLIT}_{SHARD_INDEX}-{NUM_SHARDS}.{FILEFORMAT}"
    change_json(copied / INFO, put(template, "splits", 1, "filepathTemplate"))
    change_json(copied / INFO, put(template, "splits", 0, "filepathTemplate"))
    change_json(copied / INFO, drop("supervisedKeys"))
    assert read_all(open_reader(copied)) == expected


@pytest.mark.slow
def test_a_run_trains_on_what_tfds_prepared_and_says_so(cifar, tmp_path):
    params = [
        "data.eval_split = 'test'", "model.width_multiplier = 0.05",
        "model.block_counts = (1, 1, 1)", "training.num_epochs = None", "training.num_steps = 2",
        "training.replica_batch = 4", "evaluation.every_epochs = None",
    ]  # fmt: skip
    flags = [f"--run_dir={tmp_path / 'run'}", f"--data_dir={cifar[0].parent}"]
    flags += [f"--gin_param={param}" for param in params]
    done = subprocess.run(
        [sys.executable, "-m", "inception_tf.train", "--gin_file=configs/digits.gin", *flags],
        cwd=pathlib.Path(__file__).resolve().parents[2],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text in (
        f"{cifar[0]} (from --data_dir",
        "train 20, test 4 images of 10 classes, labels 0 to 9",
        "records: TensorFlow Datasets cifar10/3.0.2",
        "evaluation at step 2",
    ):
        assert text in done.stdout
