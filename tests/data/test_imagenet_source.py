"""ImageNet's own tars: read in place, labelled by the released lists, and refused when wrong."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import records as door
from inception_tf.data import build
from inception_tf.data import check
from inception_tf.data import jpeg
from inception_tf.data import tars
from inception_tf.data.imagenet_source import ImagenetSource
from inception_tf.data.manifest import read_manifest
from inception_tf.data.sources import FolderSource
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError
from tests.data.conftest import picture

PILLOW = pytest.importorskip("PIL.Image", reason="needs Pillow")
get_sampling = pytest.importorskip("PIL.JpegImagePlugin").get_sampling

SYNSETS = ("n01440764", "n01443537", "n02105855")
VAL_LABELS = ("n02105855", "n01440764", "n01443537", "n01440764")
SHARDS = {"train": 3, "validation": 2}
BOXES = """\
n01440764_10.JPEG,0.0060,0.2620,0.7545,0.9940
n01443537_11.JPEG,0.1000,0.0000,1.0000,0.5000
n01440764_10.JPEG,0.5000,0.5000,0.5000,0.7500
"""
METADATA = (
    "n00004475\torganism, being\nn01440764\ttench, Tinca tinca\nn01443537\tgoldfish\n"
    "n02105855\tShetland sheepdog, Shetland sheep dog, Shetland\n"
)


def tar_of(files):
    """The bytes of a tar of {path: bytes}."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def encoded(number):
    return tf.io.encode_jpeg(picture(number), quality=95).numpy()


def train_images():
    """{synset: {file name: bytes}}: 4 images a class, one of them a PNG named .JPEG."""
    images = {
        synset: {f"{synset}_{10 + i}.JPEG": encoded(10 * label + i) for i in range(4)}
        for label, synset in enumerate(SYNSETS)
    }
    images["n02105855"]["n02105855_2933.JPEG"] = tf.io.encode_png(picture(99)).numpy()
    return images


def write_imagenet(root, *, synsets=SYNSETS):
    """Small files in the official layout, by the name of the flag they are for."""
    images = train_images()
    val = {f"ILSVRC2012_val_{n:08d}.JPEG": encoded(50 + n) for n in (3, 1, 2, 4)}
    content = {
        "train_tar": tar_of({f"{synset}.tar": tar_of(images[synset]) for synset in synsets}),
        "val_tar": tar_of(val),
        "synsets": "\n".join(SYNSETS).encode() + b"\n",
        "val_labels": "\n".join(VAL_LABELS).encode() + b"\n",
        "metadata": METADATA.encode(),
        "bounding_boxes": BOXES.encode(),
    }
    for name, data in content.items():
        (root / name).write_bytes(data)
    return {name: root / name for name in content}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Paths of the files, by flag; not to be changed."""
    return write_imagenet(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="module")
def built(official, tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    build.build_records(ImagenetSource(**official), out, num_shards=SHARDS, processes=1)
    return out


def read_features(data_dir, split):
    """{file name: {key: list of values}} of one split, by TensorFlow's own message."""
    found = {}
    for path in sorted(data_dir.glob(f"{split}-*-of-*")):
        for raw in tf.data.TFRecordDataset(str(path)):
            features = tf.train.Example.FromString(raw.numpy()).features.feature
            values = {key: list(getattr(value, value.WhichOneof("kind")).value)
                      for key, value in features.items()}  # fmt: skip
            found[values["image/filename"][0].decode()] = values
    return found


def contents(data_dir):
    paths = [*data_dir.glob("*-of-*"), *data_dir.glob("*.json")]
    return {path.name: path.read_bytes() for path in paths}


def with_file(official, tmp_path, **changes):
    """The official files with the content of some replaced."""
    files = dict(official)
    for name, data in changes.items():
        files[name] = tmp_path / f"changed_{name}"
        files[name].write_bytes(data)
    return files


def test_every_image_keeps_its_bytes_and_gets_the_label_of_the_lists(built):
    expected = {name: (synset, data) for synset, images in train_images().items()
                for name, data in images.items()}  # fmt: skip
    found = read_features(built, "train")
    assert found.keys() == expected.keys() and len(found) == 13
    for name, (synset, data) in expected.items():
        assert found[name]["image/class/label"] == [SYNSETS.index(synset) + 1]
        assert found[name]["image/class/synset"] == [synset.encode()]
        if name != "n02105855_2933.JPEG":
            assert found[name]["image/encoded"] == [data]
    disguised = found["n02105855_2933.JPEG"]["image/encoded"][0]
    assert disguised.startswith(jpeg.START_MARKER)
    with PILLOW.open(io.BytesIO(disguised)) as image:  # what a viewer shows, colours smoothed
        difference = abs(np.asarray(image.convert("L")).astype(int)
                         - PILLOW.fromarray(picture(99)).convert("L"))  # fmt: skip
    assert difference.mean() < 4


def test_validation_labels_go_by_the_number_in_the_name_not_the_order_in_the_tar(built):
    found = read_features(built, "validation")
    for number, synset in enumerate(VAL_LABELS, start=1):
        values = found[f"ILSVRC2012_val_{number:08d}.JPEG"]
        assert values["image/class/synset"] == [synset.encode()]
        assert values["image/class/label"] == [SYNSETS.index(synset) + 1]
        assert values["image/encoded"] == [encoded(50 + number)]


def test_words_and_boxes_are_stored_as_released(built):
    found = read_features(built, "train")
    first = found["n01440764_10.JPEG"]
    assert first["image/class/text"] == [b"tench, Tinca tinca"]
    corners = {key: np.float32(first[f"image/object/bbox/{key}"]).tolist()
               for key in ("xmin", "ymin", "xmax", "ymax")}  # fmt: skip
    assert corners == {
        key: np.float32(values).tolist()
        for key, values in {"xmin": [0.006, 0.5], "ymin": [0.262, 0.5], "xmax": [0.7545, 0.5],
                            "ymax": [0.994, 0.75]}.items()
    }  # fmt: skip
    assert first["image/object/bbox/label"] == [1, 1]
    assert found["n01443537_11.JPEG"]["image/object/bbox/label"] == [2]
    assert found["n01440764_11.JPEG"]["image/object/bbox/label"] == []
    assert found["n01440764_11.JPEG"]["image/object/bbox/xmin"] == []


def test_the_manifest_says_what_was_built(built):
    manifest = read_manifest(built)
    assert manifest.class_names == SYNSETS
    assert manifest.class_counts == {"train": (4, 4, 5), "validation": (2, 1, 1)}
    assert manifest.source["kind"] == "imagenet"
    assert manifest.source["num_reencoded"] == 1
    assert manifest.source["num_bounding_boxes"] == 3
    assert manifest.options["exif_rotation"] == "not applied"
    assert check.check_records(built).problems == ()


def cmyk_jpeg(pixels):
    stream = io.BytesIO()
    PILLOW.fromarray(pixels).convert("CMYK").save(stream, "JPEG", quality=95)
    return stream.getvalue()


def sampling_of(data):
    """0 where every pixel of a JPEG has a colour, 2 where 2 x 2 pixels share one; by Pillow."""
    with PILLOW.open(io.BytesIO(data)) as image:
        return get_sampling(image)


def test_the_png_is_reencoded_as_the_released_script_does(built):
    found = read_features(built, "train")["n02105855_2933.JPEG"]["image/encoded"][0]
    # All that build_imagenet_data.py says of it, by TF1's name of the op.
    released = tf.compat.v1.image.encode_jpeg(picture(99), format="rgb", quality=100).numpy()
    assert found == released
    assert sampling_of(found) == 2


def test_a_cmyk_jpeg_is_reencoded_as_the_released_script_does(official, tmp_path):
    data = cmyk_jpeg(picture(98))
    inner = {f"{s}.tar": tar_of({f"{s}_1.JPEG": data}) for s in SYNSETS}
    (tmp_path / "train.tar").write_bytes(tar_of(inner))
    source = ImagenetSource(train_tar=tmp_path / "train.tar", synsets=official["synsets"])
    build.build_records(source, tmp_path / "out", num_shards={"train": 1}, processes=1)
    pixels = tf.io.decode_jpeg(data, channels=3)
    released = tf.compat.v1.image.encode_jpeg(pixels, format="rgb", quality=100).numpy()
    for features in read_features(tmp_path / "out", "train").values():
        assert features["image/encoded"] == [released]


def test_images_of_ones_own_keep_a_colour_for_every_pixel(tmp_path):
    folder = tmp_path / "in" / "train" / "a"
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(tf.io.encode_png(picture(97)).numpy())
    (folder / "1.jpg").write_bytes(cmyk_jpeg(picture(96)))
    build.build_records(FolderSource(tmp_path / "in"), tmp_path / "out", processes=1)
    for features in read_features(tmp_path / "out", "train").values():
        assert sampling_of(features["image/encoded"][0]) == 0


def test_the_released_numbers_of_shards_are_the_default(official):
    with pytest.raises(ConfigError, match="one for each of its images .13.*1024"):
        build.build_records(ImagenetSource(**official), official["train_tar"].parent / "none")
    with pytest.raises(ConfigError, match="one for each of its images .4.*128"):
        build.build_records(ImagenetSource(**official), official["train_tar"].parent / "none",
                            num_shards={"train": 1})  # fmt: skip


def test_one_tar_alone_keeps_the_labels_of_both(official, tmp_path):
    files = {name: official[name] for name in ("val_tar", "val_labels", "synsets")}
    manifest = build.build_records(
        ImagenetSource(**files), tmp_path, num_shards={"validation": 1}, processes=1
    )
    assert manifest.class_names == SYNSETS and set(manifest.splits) == {"validation"}
    found = read_features(tmp_path, "validation")
    assert found["ILSVRC2012_val_00000003.JPEG"]["image/class/label"] == [2]
    assert found["ILSVRC2012_val_00000003.JPEG"]["image/class/text"] == [b"n01443537"]


def test_labels_are_those_of_the_lists_that_came_with_the_released_records(shared_images):
    meta = shared_images / "imagenet_meta"
    source = ImagenetSource(train_tar="absent", synsets=meta / "imagenet_lsvrc_2015_synsets.txt")
    index = json.loads((meta / "imagenet_class_index.json").read_text())
    assert source.class_names == tuple(index[str(k)][0] for k in range(1000))


def test_the_released_lists_are_read_and_the_development_kits_numbers_refused(
    shared_images, official
):
    meta = shared_images / "imagenet_meta"
    lists = {"val_tar": official["val_tar"], "synsets": meta / "imagenet_lsvrc_2015_synsets.txt",
             "metadata": meta / "imagenet_metadata.txt"}  # fmt: skip
    released = meta / "imagenet_2012_validation_synset_labels.txt"
    with pytest.raises(DataError, match="4 in .*50,000 lines"):  # all lines are good, images lack
        ImagenetSource(val_labels=released, **lists).list_images()
    kit = meta / "ILSVRC2014_clsloc_validation_ground_truth.txt"
    with pytest.raises(DataError, match="'490' in .*line 1[.].*ILSVRC ids"):
        ImagenetSource(val_labels=kit, **lists).list_images()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"synsets": b"n01440764\nn01443537\nn01440764\n"}, "synsets.*line 3"),
        ({"synsets": b"tench\n"}, "'tench' in .*line 1"),
        ({"val_labels": b"n01440764\nn09999999\n"}, "n09999999.*line 2"),
        ({"val_labels": b"n01440764\n" * 5}, "4 in .*5 lines"),
        ({"val_labels": b"n01440764\n" * 3}, "up to the 3 lines"),
        ({"metadata": b"n01440764 tench\n"}, "synset, tab, words.*line 1"),
        ({"metadata": b"n01440764\ttench\n"}, "no n01443537"),
        ({"bounding_boxes": BOXES.encode() + b"n01440764_10.JPEG,0.6,0.1,0.5,0.2\n"}, "line 4"),
        ({"bounding_boxes": b"n01440764_10.JPEG,0.1,0.1,1.01,0.2\n"}, "line 1"),
        ({"bounding_boxes": b"n01440764_10.JPEG,0.1,nan,0.5,0.2\n"}, "line 1"),
        ({"bounding_boxes": b"n01440764_10.JPEG,0.1,0.1,0.5\n"}, "line 1"),
        ({"bounding_boxes": b"n07777777_1.JPEG,0.1,0.1,0.5,0.5\n"}, "boxes must be of images"),
        ({"train_tar": tar_of({"n01440764.tar": tar_of({})})}, "none for 2 synsets of 3"),
        ({"train_tar": tar_of({"n09999999.tar": b""})}, "n09999999.tar in"),
        ({"train_tar": tar_of({"ILSVRC2012_val_00000001.JPEG": b""})}, "one tar for each synset"),
        ({"val_tar": tar_of({"n01440764.tar": b""})}, "ILSVRC2012_val_<number>"),
        ({"val_tar": b"no tar at all" * 100}, "whole tar"),
        ({"train_tar": tar_of({f"{s}.tar": tar_of({}) for s in SYNSETS})}, "training images|boxes"),
    ],
)
def test_files_that_are_wrong_are_refused_by_place(official, tmp_path, changes, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        build.build_records(
            ImagenetSource(**with_file(official, tmp_path, **changes)), tmp_path / "out",
            num_shards={"train": 1, "validation": 1},
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_files_that_do_not_belong_together_are_refused(official):
    for names in (("synsets",), ("synsets", "val_tar"), ("synsets", "train_tar", "val_labels"),
                  ("synsets", "val_tar", "val_labels", "bounding_boxes")):  # fmt: skip
        with pytest.raises(ConfigError):
            ImagenetSource(**{name: official[name] for name in names})
    for name in ("synsets", "train_tar", "val_tar", "val_labels", "metadata", "bounding_boxes"):
        with pytest.raises(DataError, match="No such file.*nothing here"):
            ImagenetSource(**{**official, name: "nothing here"}).list_images()


def lengths_of_cut_downloads(data):
    """Around the start, data and end of every member, up to the mark of the tar's end."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        places = {archive.offset}
        for member in members:
            places |= {member.offset, member.offset_data, member.offset_data + member.size}
        lengths = {place + step for place in places for step in (-1, 0, 1)}
        return sorted(length for length in lengths if 0 < length <= archive.offset)


@pytest.mark.parametrize("name", ["train_tar", "val_tar"])
def test_a_tar_that_is_cut_anywhere_is_refused(official, tmp_path, name):
    data = official[name].read_bytes()
    for length in lengths_of_cut_downloads(data):
        files = with_file(official, tmp_path, **{name: data[:length]})
        with pytest.raises(DataError, match="whole tar"):
            ImagenetSource(**files).list_images()


def test_a_class_whose_tar_is_cut_is_refused_by_name(official, tmp_path):
    classes = {f"{synset}.tar": tar_of(images) for synset, images in train_images().items()}
    whole = classes["n01443537.tar"]
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        last = archive.getmembers()[-1].offset
    classes["n01443537.tar"] = whole[:last]  # between two images: tarfile itself sees nothing
    files = with_file(official, tmp_path, train_tar=tar_of(classes))
    with pytest.raises(DataError, match="n01443537.tar in .*end-of-archive"):
        ImagenetSource(**files).list_images()


def test_a_damaged_header_inside_a_class_is_refused(official, tmp_path):
    classes = {f"{synset}.tar": tar_of(images) for synset, images in train_images().items()}
    damaged = bytearray(classes["n01443537.tar"])
    with tarfile.open(fileobj=io.BytesIO(damaged)) as archive:
        damaged[archive.getmembers()[2].offset] ^= 1  # of a name: the header's checksum fails
    files = with_file(
        official, tmp_path, train_tar=tar_of({**classes, "n01443537.tar": bytes(damaged)})
    )
    with pytest.raises(DataError, match="n01443537.tar in"):
        ImagenetSource(**files).list_images()


def test_boxes_of_images_that_are_not_there_are_told(official, tmp_path):
    more = BOXES.encode() + b"n07777777_1.JPEG,0.1,0.1,0.5,0.5\n"
    lines = []
    build.build_records(ImagenetSource(**with_file(official, tmp_path, bounding_boxes=more)),
                        tmp_path / "out", num_shards=SHARDS, report=lines.append,
                        processes=1)  # fmt: skip
    assert any("1 bounding box not used" in line and "n07777777_1" in line for line in lines)


def command(official, out, *, processes):
    flags = [text for name, path in official.items() for text in (f"--{name}", str(path))]
    return ["build", "imagenet", *flags, "--out", str(out), "--shards", "train=3,validation=2",
            "--processes", str(processes)]  # fmt: skip


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(official, built, tmp_path):
    assert door.main(command(official, tmp_path, processes=2)) == 0
    assert contents(tmp_path) == contents(built)


def test_the_door_builds_with_the_time_left_and_says_what_there_is(
    official, built, tmp_path, capsys
):
    assert door.main(command(official, tmp_path, processes=1)) == 0
    output = capsys.readouterr()
    assert "train: 13 records in 3 shards" in output.out
    assert "3 bounding boxes" in output.out
    assert "images/s, 0:00:00 left" in output.err
    assert contents(tmp_path) == contents(built)


def test_other_boxes_are_another_build(official, tmp_path):
    files = {**official, "metadata": None}
    build.build_records(ImagenetSource(**files), tmp_path / "out", num_shards=SHARDS, processes=1)
    files = with_file(files, tmp_path, bounding_boxes=BOXES.replace("0.2620", "0.2621").encode())
    with pytest.raises(DataError, match="same source and options"):
        build.build_records(ImagenetSource(**files), tmp_path / "out", num_shards=SHARDS)


@pytest.mark.slow
def test_a_killed_build_goes_on_to_the_same_bytes(official, tmp_path):
    noise = np.random.RandomState(0).randint(0, 255, (48, 400, 400, 3)).astype(np.uint8)
    val = {f"ILSVRC2012_val_{n:08d}.JPEG": tf.io.encode_png(noise[n - 1]).numpy()
           for n in range(1, 49)}  # fmt: skip
    files = with_file(official, tmp_path, val_tar=tar_of(val), val_labels=b"n01440764\n" * 48)
    shards = {"train": 1, "validation": 24}
    build.build_records(ImagenetSource(**files), tmp_path / "straight", num_shards=shards)
    out = tmp_path / "killed"
    arguments = command(files, out, processes=1)
    arguments[arguments.index("train=3,validation=2")] = "train=1,validation=24"
    root = os.path.dirname(os.path.dirname(door.__file__))
    process = subprocess.Popen([sys.executable, "-m", "inception_tf.records", *arguments],
                               stderr=subprocess.DEVNULL, cwd=root)  # fmt: skip
    while len(list(out.glob("validation-*"))) < 2 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    assert len(list(out.glob("*-of-*"))) < 25
    lines = []
    build.build_records(ImagenetSource(**files), out, num_shards=shards, report=lines.append)
    assert any("already there: " in line for line in lines)
    assert contents(out) == contents(tmp_path / "straight")


def test_a_tar_with_links_is_refused(tmp_path):
    """A link has no bytes of its own: passed over, its image would be missing."""
    (tmp_path / "a.JPEG").write_bytes(b"one")
    for kind, make in (("hard", os.link), ("soft", os.symlink)):
        make(tmp_path / "a.JPEG", tmp_path / f"{kind}.JPEG")
        with tarfile.open(tmp_path / "images.tar", "w") as archive:
            archive.add(tmp_path / "a.JPEG", "train/b/a.JPEG")
            archive.add(tmp_path / f"{kind}.JPEG", f"train/b/{kind}.JPEG")
        with pytest.raises(DataError, match=f"{kind}.JPEG.*dereference"):
            tars.list_members(tmp_path / "images.tar")
