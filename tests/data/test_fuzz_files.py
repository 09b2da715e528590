"""Arbitrary and damaged files of a data directory: only errors that a user can mend leave."""

import contextlib
import gzip
import json
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_tf.data import boxes, build, check, encoded, jpeg, tfds, tfrecord
from inception_tf.data.csv_source import CsvSource
from inception_tf.data.manifest import open_index, read_manifest
from inception_tf.data.manifest_fields import parse_manifest
from inception_tf.data.records import RecordReader
from inception_tf.data.sources import FolderSource, open_source
from inception_tf.errors import DataError, UserError
from tests.data.conftest import picture
from tests.data.test_fuzz import FUZZ, IMAGE, damaged

SLOW_FUZZ = settings(FUZZ, max_examples=60)
# What JSON can say, wherever something else was expected.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@st.composite
def changed_json(draw, stored):
    """The JSON with one value somewhere inside replaced, removed or put beside another."""
    stored = json.loads(json.dumps(stored))
    place = stored
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return stored
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and draw(st.integers(0, 3)):
            place = place[key]
            continue
        if draw(st.booleans()):
            place[key] = draw(JSON)
        else:
            del place[key]
        return stored


def as_bytes(stored):
    return json.dumps(stored).encode()


@pytest.fixture(scope="module")
def stored_manifest(built_records):
    return json.loads((built_records / "manifest.json").read_text())


@FUZZ
@given(data=st.data())
def test_any_manifest_is_one_or_a_value_error_that_names_a_field(data, stored_manifest):
    try:
        manifest = parse_manifest(data.draw(changed_json(stored_manifest) | JSON))
    except ValueError as error:
        assert str(error).startswith("field ")
        return
    # What was taken can be used as it stands.
    assert all(manifest.num_records(split) >= 0 for split in manifest.splits)
    assert len(manifest.class_names) == manifest.num_classes


@SLOW_FUZZ
@given(data=st.data())
def test_a_directory_with_any_manifest_is_opened_or_refused(data, stored_manifest, built_records,
                                                            tmp_path):  # fmt: skip
    for path in built_records.glob("*-of-*"):
        if not (tmp_path / path.name).exists():
            (tmp_path / path.name).symlink_to(path)
    whole = as_bytes(stored_manifest)
    content = data.draw(damaged(whole) | changed_json(stored_manifest).map(as_bytes) | st.binary())
    (tmp_path / "manifest.json").write_bytes(content)
    with contextlib.suppress(DataError):
        manifest, index = open_index(tmp_path, "train")
        assert len(index) == manifest.num_records("train")
        with contextlib.suppress(DataError):  # a label base or a class that is another one
            RecordReader(index, manifest).read(np.arange(len(index)))
    with contextlib.suppress(DataError):
        check.check_records(tmp_path, quick=True)


@SLOW_FUZZ
@given(data=st.data())
def test_a_build_beside_any_journal_ends_with_the_right_bytes_or_an_error(
    data, image_folder, built_records, tmp_path
):
    expected = {path.name: path.read_bytes() for path in built_records.glob("*-of-*")}
    expected["manifest.json"] = (built_records / "manifest.json").read_bytes()
    journal = (built_records / "build_journal.jsonl").read_bytes()
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    kept = data.draw(st.sets(st.sampled_from(sorted(expected))))
    for name in kept:
        (out / name).write_bytes(expected[name])
    lines = journal.splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    lines[place] = data.draw(
        damaged(lines[place])
        | changed_json(json.loads(lines[place])).map(as_bytes)
        | st.binary(max_size=50)
    )
    (out / "build_journal.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    source = FolderSource(image_folder)
    try:
        build.build_records(source, out, num_shards={"train": 3, "validation": 1}, processes=1)
    except DataError as error:
        assert place == 0 and str(out) in str(error)  # whose build it was is not known
        return
    built = {path.name: path.read_bytes() for path in out.glob("*-of-*")}
    # What the lines count, such as changed images, no checksum proves.
    assert built == {name: expected[name] for name in built} and len(built) == 4
    read_manifest(out)


INFO = {
    "name": "x", "version": "1.0.0", "fileFormat": "tfrecord",
    "splits": [{"name": "train", "shardLengths": ["1"], "numBytes": "9",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}],
    "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
}  # fmt: skip
FEATURES = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {"features": {
        "image": {"pythonClassName": "a.Image", "image": {"shape": {}, "dtype": "uint8"}},
        "label": {"pythonClassName": "a.ClassLabel", "classLabel": {"numClasses": "2"}},
        "id": {"pythonClassName": "a.Text", "text": {}},
    }},
}  # fmt: skip


@FUZZ
@given(info=st.just(INFO) | changed_json(INFO) | JSON,
       features=st.just(FEATURES) | changed_json(FEATURES) | JSON)  # fmt: skip
def test_any_description_of_tfds_is_one_or_a_data_error(info, features, tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "features.json").write_text(json.dumps(features))
    with contextlib.suppress(DataError):
        manifest = tfds.read_description(str(tmp_path))
        assert len(manifest.class_names) == manifest.num_classes >= 1
        for split in manifest.splits:
            with contextlib.suppress(DataError):
                open_index(tmp_path, split)


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        (INFO, ("splits", 0, "shardLengths", 0), float("inf")),
        (INFO, ("splits", 0, "shardLengths", 0), -1),
        (INFO, ("splits", 0, "name"), "../train"),
        (INFO, ("splits", 0, "name"), ""),
        (INFO, ("splits", 0, "filepathTemplate"), "../{SPLIT}"),
        (INFO, ("splits", 0, "filepathTemplate"), "/etc/passwd"),
        (INFO, ("splits", 0, "filepathTemplate"), "a\0b"),
        (INFO, ("splits", 0), {**INFO["splits"][0], "shardLengths": [1, 1],
                               "filepathTemplate": "{DATASET}.{SPLIT}"}),
        (FEATURES, ("featuresDict", "features", "label", "classLabel", "numClasses"), 1e400),
        (FEATURES, ("featuresDict", "features", "label", "classLabel", "numClasses"), 10**12),
    ],
)  # fmt: skip
def test_numbers_and_paths_of_tfds_keep_to_what_there_can_be(file, path, value, tmp_path):
    changed = json.loads(json.dumps(file))
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "dataset_info.json").write_text(json.dumps(changed if file is INFO else INFO))
    (tmp_path / "features.json").write_text(json.dumps(changed if file is FEATURES else FEATURES))
    with pytest.raises(DataError, match=f"{tmp_path}/.*json.*Prepare|for image classification"):
        tfds.read_description(str(tmp_path))


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_brackets_without_end_are_no_traceback(name, tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps(INFO))
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(DataError, match=name):
        tfds.read_description(str(tmp_path))


# ------------------------------------------------------------------ records with right checksums


@SLOW_FUZZ
@given(data=st.data())
def test_any_record_with_right_checksums_is_read_skipped_or_named(data, tmp_path):
    """What a broken writer stores is no better than what a disk damages."""
    box = st.tuples(*[st.floats(-1, 2, width=32)] * 4)
    image = data.draw(damaged(IMAGE) | st.binary(max_size=60))
    record = tfrecord.Record(image, data.draw(st.integers(0, 3)), "", "a.JPEG", 16, 16)
    payload = tfrecord.build_example(record, text="", boxes=data.draw(st.just(()) | st.tuples(box)))
    payload = data.draw(st.just(payload) | damaged(payload))
    good = tfrecord.Record(IMAGE, 1, "", "b.JPEG", 16, 16)
    frames = [tfrecord.build_frame(tfrecord.build_example(good, text="")), b""]
    frames[1] = tfrecord.build_frame(payload)
    (tmp_path / "index-train.npz").unlink(missing_ok=True)
    (tmp_path / "train-00000-of-00001").write_bytes(b"".join(frames))
    found = check.check_records(tmp_path, label_base=1)
    assert all(problem.offset == len(frames[0]) for problem in found.problems)
    try:
        manifest, index = open_index(tmp_path, "train", label_base=1)
    except DataError as error:
        assert "at byte" in str(error) and found.problems
        return
    reader = RecordReader(index, manifest, on_bad_record="skip", max_bad_records=1)
    images, _, _ = reader.read_with_boxes(np.array([1, 0]))
    for each in images:
        encoded.decode_image(each)
    with contextlib.suppress(DataError):
        strict = RecordReader(index, manifest)
        strict.read_with_boxes(np.array([0, 1]))
        strict.diagnose(np.array([0, 1]))


@FUZZ
@given(st.lists(st.lists(st.floats(width=32), max_size=3), min_size=4, max_size=4))
def test_any_boxes_are_in_the_image_or_bad(sides):
    keys = [f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")]
    features = {
        key: tf.train.Feature(float_list=tf.train.FloatList(value=values))
        for key, values in zip(keys, sides)
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    with contextlib.suppress(boxes.BadBoxes):
        found = boxes.parse_boxes(example.SerializeToString())
        assert found.shape == (len(sides[0]), 4) and ((found >= 0) & (found <= 1)).all()


# ------------------------------------------------------------------ sources of a build

PNG = tf.io.encode_png(picture(5, height_px=16, width_px=16)).numpy()
GIF = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"


@FUZZ
@given(st.binary(max_size=100) | damaged(IMAGE) | damaged(PNG) | damaged(GIF),
       st.booleans())  # fmt: skip
def test_any_image_file_becomes_a_record_or_is_bad(data, is_edited):
    with contextlib.suppress(jpeg.BadImage):
        made = jpeg.build_record_image(
            data, apply_exif=is_edited, max_side_px=8 if is_edited else None, full_colour=is_edited
        )
        assert encoded.decode_image(made.jpeg).shape == (made.height_px, made.width_px, 3)


@FUZZ
@given(content=damaged(b"path,label,split\na/0.jpg,a,train\na/1.jpg,b,val\n")
       | st.binary(max_size=60))  # fmt: skip
def test_any_csv_is_a_list_of_images_or_a_user_error(content, tmp_path):
    (tmp_path / "a").mkdir(exist_ok=True)
    for number in range(2):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(IMAGE)
    (tmp_path / "list.csv").write_bytes(content)
    with contextlib.suppress(UserError):
        for image in CsvSource(tmp_path / "list.csv").list_images():
            assert image.num_bytes >= 0 and image.class_name


@SLOW_FUZZ
@given(data=st.data(), is_packed=st.booleans())
def test_any_archive_is_a_source_or_a_data_error(data, is_packed, tmp_path):
    folder = tmp_path / "images" / "train" / "a"
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / "0.jpg").write_bytes(IMAGE)
        with tarfile.open(tmp_path / "whole.tar", "w") as tar:
            tar.add(tmp_path / "images", arcname=".")
    whole = (tmp_path / "whole.tar").read_bytes()
    whole = gzip.compress(whole, mtime=0) if is_packed else whole
    (tmp_path / "images.tar").write_bytes(data.draw(damaged(whole)))
    with contextlib.suppress(UserError):
        with open_source(tmp_path / "images.tar", spool_dir=tmp_path / "out") as source:
            for image in source.list_images():
                source.read(image)
    assert not list(tmp_path.glob("out/*"))
