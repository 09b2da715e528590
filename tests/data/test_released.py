"""Records of other programs without manifest.json: recognised by looking, named, contradicted."""

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data.manifest import open_index
from inception_tf.data.records import RecordReader
from inception_tf.errors import DataError

JPEG = tf.io.encode_jpeg(np.full((8, 9, 3), 40, np.uint8)).numpy()
PNG = tf.io.encode_png(np.full((8, 9, 3), 40, np.uint8)).numpy()
WNIDS = {1: b"n01440764", 2: b"n01443537", 3: b"n01484850"}


def model_garden(label):
    """The two keys that classification_input.py asks for."""
    return {"image/encoded": [JPEG], "image/class/label": [label]}


def cloud_tpu(label):
    """The nine keys of imagenet_to_gcs.py."""
    return model_garden(label) | {
        "image/height": [8], "image/width": [9], "image/colorspace": [b"RGB"],
        "image/channels": [3], "image/class/synset": [WNIDS.get(label, b"n00000000")],
        "image/format": [b"JPEG"], "image/filename": [b"a.JPEG"],
    }  # fmt: skip


def research(label):
    """The fifteen keys of build_imagenet_data.py."""
    sides = {f"image/object/bbox/{side}": [0.25] for side in ("xmin", "xmax", "ymin", "ymax")}
    return cloud_tpu(label) | sides | {
        "image/class/text": [b"a fish"], "image/object/bbox/label": [label],
    }  # fmt: skip


def to_feature(values):
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def write(root, examples, *, split="train", shards=2):
    """Shards as TensorFlow's own writer makes them."""
    for number in range(shards):
        root.mkdir(exist_ok=True)
        name = f"{root}/{split}-{number:05d}-of-{shards:05d}"
        with tf.io.TFRecordWriter(name) as writer:
            for values in examples[number::shards]:
                features = {key: to_feature(value) for key, value in values.items()}
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    return root


@pytest.mark.parametrize(
    "schema, origin", [(research, "research/inception"), (cloud_tpu, "Cloud TPU's imagenet_to_gcs")]
)
def test_a_known_writer_is_named_and_tells_the_label_base(tmp_path, schema, origin):
    write(tmp_path, [schema(label) for label in (2, 1, 3, 2)])
    manifest, index = open_index(tmp_path, "train")
    assert (manifest.origin, manifest.label_base, manifest.num_classes) == (origin, 1, 3)
    assert manifest.class_names == tuple(wnid.decode() for wnid in WNIDS.values())
    assert RecordReader(index, manifest).read(np.arange(4))[1].tolist() == [1, 2, 0, 1]


def test_records_with_the_two_keys_need_their_label_base(tmp_path):
    write(tmp_path, [model_garden(label) for label in (2, 1, 3, 2)])
    with pytest.raises(DataError, match="data.label_base.*two keys that Model Garden reads"):
        open_index(tmp_path, "train")
    manifest, _ = open_index(tmp_path, "train", label_base=1)
    assert manifest.origin == "the two keys that Model Garden reads"
    assert manifest.class_names == ("1", "2", "3")


def test_cloud_tpus_folders_and_two_writers_are_named_by_split(tmp_path):
    write(tmp_path / "train", [cloud_tpu(label) for label in (2, 1, 3)])
    write(tmp_path / "validation", [research(label) for label in (1, 2)], split="validation")
    manifest, index = open_index(tmp_path, "validation")
    assert manifest.origin == "Cloud TPU's imagenet_to_gcs (train), research/inception (validation)"
    assert (len(index), manifest.num_classes) == (2, 3)


@pytest.mark.parametrize("changes, message", [
    ({"image/class/label": None}, "no image/class/label in the first record of .*-00000-of-00002"),
    ({"image/encoded": None}, "no image/encoded in the first record of .*train-00000-of-00002"),
    ({"image/encoded": [3]}, r"one image/encoded \(bytes\).*train-00000-of-00002 at byte 0"),
    ({"image/class/label": [b"1"]}, r"one image/class/label \(int64\).*-00000-of-00002 at byte 0"),
    ({"image/class/label": [1, 2]}, r"one image/class/label \(int64\).*-00000-of-00002 at byte 0"),
    ({"image/encoded": [PNG]}, "image/format names.*JPEG for a file that begins with 89 50"),
    ({"image/format": [b"PNG"]}, "image/format names.*PNG for a file that begins with ff d8"),
    ({"image/class/label": [0]}, "image/class/label must be 1.*label 0 in .*-00000-of-00002 at"),
    ({"image/class/synset": [b"n09"]}, "synset n01440764 with image/class/label 1 in .*others say"),
])  # fmt: skip
def test_what_lacks_or_contradicts_is_named(tmp_path, changes, message):
    first = {key: value for key, value in (research(1) | changes).items() if value is not None}
    write(tmp_path, [first, research(2), research(1), research(3)])
    with pytest.raises(DataError, match=message):
        open_index(tmp_path, "train")


def test_two_names_of_a_class_are_found_in_two_shards_and_in_two_splits(tmp_path):
    other = research(2) | {"image/class/synset": [b"n09"]}
    write(tmp_path / "a", [research(2), other])
    with pytest.raises(DataError, match="n09 with .*label 2 in .*-00001-of-00002, where others"):
        open_index(tmp_path / "a", "train")
    write(tmp_path / "b", [research(2), research(1)])
    write(tmp_path / "b", [other], split="validation", shards=1)
    with pytest.raises(DataError, match="with image/class/label 2 in split"):
        open_index(tmp_path / "b", "train")


def test_labels_that_leave_out_0_contradict_label_base_0(tmp_path):
    write(tmp_path, [research(label) for label in (1, 3, 2, 2)])
    with pytest.raises(DataError, match="0 is the background"):
        open_index(tmp_path, "train", label_base=0)
    write(tmp_path, [research(label) for label in (1, 0)], split="validation", shards=1)
    assert open_index(tmp_path, "train", label_base=0)[0].num_classes == 4


@pytest.mark.parametrize("stated", [[b"PNG"], [b"png"], None])
def test_pngs_under_the_released_keys_are_read(tmp_path, stated):
    changes = {"image/encoded": [PNG]} | ({"image/format": stated} if stated else {})
    write(tmp_path, [model_garden(label) | changes for label in (0, 1)])
    manifest, index = open_index(tmp_path, "train", label_base=0)
    images, labels = RecordReader(index, manifest).read(np.arange(2))
    assert (images.tolist(), labels.tolist()) == ([PNG, PNG], [0, 1])


@pytest.mark.parametrize("schema", [research, cloud_tpu])
def test_a_writer_is_known_by_all_of_its_keys(tmp_path, schema):
    keys = set(schema(1)) - set(model_garden(1))
    for key in keys:
        folder = tmp_path / key.replace("/", "-")
        lacking = {name: value for name, value in schema(1).items() if name != key}
        write(folder, [lacking], shards=1)
        assert "two keys" in open_index(folder, "train", label_base=1)[0].origin


def test_no_record_at_all_is_an_empty_shard(tmp_path):
    write(tmp_path, [research(1)])
    (tmp_path / "train-00000-of-00002").write_bytes(b"")
    with pytest.raises(DataError, match="the shard is empty.*train-00000-of-00002"):
        open_index(tmp_path, "train")
    (tmp_path / "train-00000-of-00002").write_bytes(b"no record")
    with pytest.raises(DataError, match="ends inside the record's length.*train-00000-of-00002"):
        open_index(tmp_path, "train")
