"""Bounding boxes: from a record's image/object/bbox/* to the reader's answer."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import boxes
from inception_tf.data.manifest import open_index
from inception_tf.data.records import RecordReader
from inception_tf.errors import DataError

SIDES = ("ymin", "xmin", "ymax", "xmax")
TWO = np.array([[0.1, 0.2, 0.5, 0.6], [0.0, 0.25, 1.0, 0.75]], np.float32)


def example(number, *, sides=None):
    """A serialized Example of the released schema; `sides` maps a side to its coordinates."""
    jpeg = tf.io.encode_jpeg(np.full([8, 9, 3], 20 * number, np.uint8)).numpy()
    bytes_list = {"image/encoded": jpeg, "image/filename": f"n_{number}.JPEG".encode()}
    features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for key, value in bytes_list.items()
    }
    label = tf.train.Int64List(value=[1 + number % 3])
    features["image/class/label"] = tf.train.Feature(int64_list=label)
    for side, values in (sides or {}).items():
        floats = tf.train.FloatList(value=values)
        features[f"image/object/bbox/{side}"] = tf.train.Feature(float_list=floats)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def sides_of(array):
    return dict(zip(SIDES, np.asarray(array).T.tolist(), strict=True))


def test_boxes_come_in_tensorflows_order():
    parsed = boxes.parse_boxes(example(1, sides=sides_of(TWO)))
    assert parsed.dtype == np.float32
    np.testing.assert_array_equal(parsed, TWO)
    back = boxes.boxes_of_bytes(tf.constant(parsed.tobytes()))
    np.testing.assert_array_equal(back, TWO)


@pytest.mark.parametrize("sides", [None, dict.fromkeys(SIDES, ())])
def test_a_record_without_boxes_has_none(sides):
    parsed = boxes.parse_boxes(example(1, sides=sides))
    assert parsed.shape == (0, 4)
    assert boxes.boxes_of_bytes(tf.constant(parsed.tobytes())).shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xmax": [0.6]}, "2, 2, 2, 1 sides"),
        ({"ymax": [0.5, 1.5]}, "at 1.5, outside"),
        ({"xmin": [-0.25, 0.5]}, "at -0.25, outside"),
        ({"ymin": [0.1, float("nan")]}, "at nan, outside"),
    ],
)
def test_wrong_boxes_are_refused(changes, message):
    with pytest.raises(boxes.BadBoxes, match=message):
        boxes.parse_boxes(example(1, sides={**sides_of(TWO), **changes}))


@pytest.fixture
def reader_of(tmp_path):
    """A RecordReader over records with these sides."""

    def build(all_sides, **options):
        with tf.io.TFRecordWriter(str(tmp_path / "train-00000-of-00001")) as writer:
            for number, sides in enumerate(all_sides):
                writer.write(example(number, sides=sides))
        manifest, index = open_index(tmp_path, "train", cache_dir=tmp_path, label_base=1)
        return RecordReader(index, dataclasses.replace(manifest, num_classes=3), **options)

    return build


def test_the_reader_gives_each_record_its_boxes(reader_of):
    reader = reader_of([sides_of(TWO), None, sides_of(TWO[:1])])
    jpegs, labels, found = reader.read_with_boxes(np.array([2, 0, 1, 0]))
    for data, expected in zip(found, [TWO[:1], TWO, TWO[:0], TWO], strict=True):
        np.testing.assert_array_equal(np.frombuffer(data, np.float32).reshape(-1, 4), expected)
    plain = reader.read(np.array([2, 0, 1, 0]))
    np.testing.assert_array_equal(plain[0], jpegs)
    np.testing.assert_array_equal(plain[1], labels)


def test_wrong_boxes_make_a_bad_record_only_where_boxes_are_read(reader_of):
    wrong = {**sides_of(TWO), "xmax": [0.6]}
    reader = reader_of([None, wrong, sides_of(TWO[:1])])
    reader.read(np.array([1]))
    with pytest.raises(DataError, match=r"2, 2, 2, 1 sides.*n_1.JPEG.*train-00000-of-00001"):
        reader.read_with_boxes(np.array([0, 1]))


def test_a_stand_in_brings_its_own_boxes(reader_of):
    wrong = {**sides_of(TWO), "xmax": [0.6]}
    all_sides = [None, wrong, sides_of(TWO[:1])]
    reader = reader_of(all_sides, on_bad_record="skip", max_bad_records=1)
    _, labels, found = reader.read_with_boxes(np.array([0, 1]))
    np.testing.assert_array_equal(np.frombuffer(found[1], np.float32), TWO[0])
    assert labels.tolist() == [0, 2]
