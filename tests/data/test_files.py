"""Records in places with a scheme, on TensorFlow's file system in memory (ram://)."""

import concurrent.futures
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import directory
from inception_tf.data import files
from inception_tf.data.manifest import find_data_dir
from inception_tf.data.manifest import open_index
from inception_tf.data.records import RecordReader
from inception_tf.errors import DataError
from tests.data import prepared

_numbers = itertools.count()


@pytest.fixture
def remote():
    """An empty place; what lies in memory lives as long as the process."""
    place = f"ram://test_files/{next(_numbers)}"
    tf.io.gfile.makedirs(place)
    return place


def upload(folder, place):
    for path in sorted(folder.rglob("*")):
        target = f"{place}/{path.relative_to(folder).as_posix()}"
        if path.is_dir():
            tf.io.gfile.makedirs(target)
        elif path.suffix != ".npz":
            tf.io.gfile.makedirs(target.rpartition("/")[0])
            if tf.io.gfile.exists(target):  # in memory, writing to a file again appends
                tf.io.gfile.remove(target)
            with tf.io.gfile.GFile(target, "wb") as stream:
                stream.write(path.read_bytes())
    return place


def read_all(data_dir, split="train", **options):
    manifest, index = open_index(data_dir, split, **options)
    reader = RecordReader(index, manifest)
    images, labels = reader.read(np.arange(reader.num_examples))
    reader.close()
    return images.tolist(), labels.tolist()


def test_remote_records_are_those_of_the_disk(built_records, remote, tmp_path):
    place = upload(built_records, remote)
    assert find_data_dir([("--data_dir", place + "/")], "train") == (place, "--data_dir")
    for _ in range(2):  # scanned, then from the index
        assert read_all(place, cache_dir=tmp_path) == read_all(built_records)
    assert (tmp_path / "index-train.npz").exists()
    assert not any("index" in name for name in tf.io.gfile.listdir(place))


def test_many_threads_share_a_remote_shard(built_records, remote):
    manifest, index = open_index(upload(built_records, remote), "train")
    reader = RecordReader(index, manifest)
    expected = read_all(built_records)[1]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        batches = [np.random.default_rng(n).permutation(14) for n in range(40)]
        for ids, (_, labels) in zip(batches, pool.map(reader.read, batches)):
            assert labels.tolist() == [expected[k] for k in ids]


def test_reads_of_one_remote_file_do_not_disturb_each_other(remote, tmp_path):
    content = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "file").write_bytes(content)
    file = files.open_file(f"{upload(tmp_path, remote)}/file")
    places = np.random.default_rng(1).integers(0, len(content) - 5000, 2000).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for place, found in zip(places, pool.map(lambda p: file.read_at(p, 5000), places)):
            assert found == content[place : place + 5000]


def test_remote_shards_in_folders_of_their_splits_are_listed(remote, tmp_path):
    for name in ("train/train-00000-of-00001", "validation/validation-00000-of-00001", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    upload(tmp_path, remote)
    assert directory.list_shards(remote) == {
        "train": ("train/train-00000-of-00001",),
        "validation": ("validation/validation-00000-of-00001",),
    }


def test_a_remote_data_set_of_tfds_is_read(remote, tmp_path):
    written = prepared.write_cifar_batches(tmp_path / "source")
    prepared.prepare_cifar(tmp_path / "tfds", tmp_path / "source")
    place = upload(tmp_path / "tfds", remote)
    _, labels = read_all(f"{place}/cifar10")
    assert sorted(labels) == sorted(written["train"][1])


def test_faults_of_remote_shards_are_named_as_on_a_disk(records, remote):
    manifest = json.loads((records / "manifest.json").read_text())
    name = manifest["splits"]["train"][1]["file"]
    data = (records / name).read_bytes()
    for fault, change in (("truncated", data[:-7]), ("length fails", b"\1" + data[1:])):
        (records / name).write_bytes(change)
        with pytest.raises(DataError, match=f"{fault}.*{remote}/{name}"):
            open_index(upload(records, remote), "train")
    tf.io.gfile.remove(f"{remote}/{name}")
    with pytest.raises(DataError, match=f"missing.*{remote}/{name}"):
        open_index(remote, "train")


def test_a_remote_shard_that_vanishes_is_an_error(built_records, remote):
    manifest, index = open_index(upload(built_records, remote), "train")
    tf.io.gfile.rmtree(remote)
    with pytest.raises(DataError, match=f"A shard must be readable.*{remote}/train-0000"):
        RecordReader(index, manifest).read(np.array([0]))


def test_a_scheme_that_tensorflow_cannot_read_is_refused_with_its_reason():
    with pytest.raises(DataError, match="tf.io.gfile.*'nowhere' not implemented"):
        find_data_dir([("--data_dir", "nowhere://bucket/records")], "train")
    with pytest.raises(DataError, match="ram://test_files/none is no directory"):
        find_data_dir([("--data_dir", "ram://test_files/none")], "train")


def test_reading_at_a_place_gives_what_is_there(remote, tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(200)))
    upload(tmp_path, remote)
    for path in (tmp_path / "file", f"{remote}/file"):
        file = files.open_file(path)
        for offset, num_bytes in ((5, 3), (0, 200), (198, 9), (200, 1), (999, 1), (3, 0)):
            expected = bytes(range(200))[offset : offset + num_bytes]
            assert file.read_at(offset, num_bytes) == expected
        file.close()
        assert files.identify(path).num_bytes == 200
        assert files.is_file(path) and not files.is_directory(path)
    for absent in (tmp_path / "none", f"{remote}/none"):
        assert not files.is_file(absent) and not files.is_directory(absent)
        with pytest.raises(FileNotFoundError):
            files.open_file(absent)
        with pytest.raises(FileNotFoundError):
            files.identify(absent)


@pytest.mark.parametrize("path, is_remote, absolute", [
    ("gs://b/c/", True, "gs://b/c"),
    ("s3://b", True, "s3://b"),
    ("/data//x/", False, "/data/x"),
    ("/data/a:b", False, "/data/a:b"),
])  # fmt: skip
def test_what_has_a_scheme_stays_as_it_is(path, is_remote, absolute):
    assert files.is_remote(path) is is_remote
    assert files.absolute(path) == absolute
