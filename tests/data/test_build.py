"""Building records: the same bytes however they come about, and nothing bad gets in."""

import errno
import gzip
import json
import os
import shutil
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
from inception_tf.data import sources
from inception_tf.data import tfrecord
from inception_tf.data.journal import lock_directory
from inception_tf.data.manifest import open_index
from inception_tf.data.manifest import read_manifest
from inception_tf.data.records import RecordReader
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError

SHARDS = {"train": 3, "validation": 1}


def contents(data_dir, *, pattern="*-of-*"):
    names = [*data_dir.glob(pattern), data_dir / "manifest.json"]
    return {path.name: path.read_bytes() for path in names}


def read_records(data_dir, split):
    found = {}
    for path in sorted(data_dir.glob(f"{split}-*-of-*")):
        for raw in tf.data.TFRecordDataset(str(path)):
            record = tfrecord.parse_example(raw.numpy())
            found[record.filename] = record
    return found


def pixels_of(data):
    return tf.io.decode_image(data, channels=3).numpy().astype(int)


def test_records_have_every_key_of_the_released_schema(built_records):
    (path,) = built_records.glob("validation-*")
    example = tf.train.Example.FromString(next(iter(tf.data.TFRecordDataset(str(path)))).numpy())
    features = example.features.feature
    strings = {key: list(features[key].bytes_list.value) for key in features}
    numbers = {key: list(features[key].int64_list.value) for key in features}
    name = strings["image/class/synset"][0]
    assert sorted(features) == sorted(
        "image/encoded image/height image/width image/colorspace image/channels image/format"
        " image/filename image/class/label image/class/synset image/class/text"
        " image/object/bbox/xmin image/object/bbox/xmax image/object/bbox/ymin"
        " image/object/bbox/ymax image/object/bbox/label".split()
    )
    assert (numbers["image/height"], numbers["image/width"]) == ([40], [48])
    assert (strings["image/colorspace"], numbers["image/channels"]) == ([b"RGB"], [3])
    assert strings["image/format"] == [b"JPEG"]
    assert numbers["image/class/label"] == [[b"ant", b"bee", b"cow"].index(name) + 1]
    assert strings["image/filename"][0].startswith(name)


def test_jpegs_are_copied_and_other_formats_reencoded(image_folder, built_records):
    records = read_records(built_records, "train")
    assert len(records) == 14
    for path in (image_folder / "train").glob("*/*"):
        data, stored = path.read_bytes(), records[path.name].jpeg
        if path.name == "ant_1.JPEG":  # the PNG
            assert stored.startswith(b"\xff\xd8\xff")
            change = abs(pixels_of(stored) - pixels_of(data))
            assert change.mean() < 2 and change.max() < 16  # quality 100 and a fast transform
        else:
            assert stored == data
    assert read_manifest(built_records).source["num_reencoded"] == 1


def test_the_released_order_is_by_seed(image_folder, built_records, tmp_path):
    source = sources.FolderSource(image_folder)
    build.build_records(source, tmp_path / "same", num_shards=SHARDS)
    build.build_records(source, tmp_path / "other", num_shards=SHARDS, seed=1)
    assert contents(tmp_path / "same") == contents(built_records)
    order = list(read_records(built_records, "train"))
    other = list(read_records(tmp_path / "other", "train"))
    assert order != other and sorted(order) == sorted(other) != order


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(image_folder, built_records, tmp_path):
    build.build_records(
        sources.FolderSource(image_folder), tmp_path, num_shards=SHARDS, processes=2
    )
    assert contents(tmp_path) == contents(built_records)


def test_label_base_0_leaves_no_background(image_folder, tmp_path):
    build.build_records(sources.FolderSource(image_folder), tmp_path, label_base=0)
    stored = {record.label for record in read_records(tmp_path, "train").values()}
    assert stored == {0, 1, 2}
    manifest, index = open_index(tmp_path, "train")
    images, labels = RecordReader(index, manifest).read(np.arange(14))
    assert np.bincount(labels).tolist() == [5, 5, 4]
    assert manifest.label_base == 0


@pytest.mark.parametrize("compressed", [False, True])
def test_a_tar_gives_the_records_of_its_folder(image_folder, built_records, tmp_path, compressed):
    archive = tmp_path / "images.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(image_folder, arcname="pictures")
    if compressed:
        archive.write_bytes(gzip.compress(archive.read_bytes()))
    with sources.open_source(archive, spool_dir=tmp_path / "out") as source:
        build.build_records(source, tmp_path / "out", num_shards=SHARDS, processes=1)
    built, expected = contents(tmp_path / "out"), contents(built_records)
    built.pop("manifest.json"), expected.pop("manifest.json")
    assert built == expected
    assert not list((tmp_path / "out").glob(".*"))


def test_a_source_in_another_layout_is_refused(image_folder, tmp_path):
    with pytest.raises(DataError, match="<split>/<class>/<image>"):
        sources.FolderSource(image_folder / "train").list_images()
    (tmp_path / "train" / "empty").mkdir(parents=True)
    with pytest.raises(DataError, match="class folder must hold images.*empty"):
        sources.FolderSource(tmp_path).list_images()
    with pytest.raises(DataError, match="nothing.here"):
        with sources.open_source(tmp_path / "nothing.here", spool_dir=tmp_path):
            pass


def test_a_class_without_training_images_is_refused(image_folder, tmp_path):
    (tmp_path / "train").symlink_to(image_folder / "train")
    (tmp_path / "val" / "dog").mkdir(parents=True)
    (tmp_path / "val" / "dog" / "dog.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match="'validation' must be one of the train split.*dog"):
        build.build_records(sources.FolderSource(tmp_path), tmp_path / "out")


def add_bad_image(image_folder, root):
    """A folder like `image_folder` with one training image cut short."""
    for path in image_folder.glob("*/*/*"):
        target = root / path.relative_to(image_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    data = (image_folder / "train" / "bee" / "bee_0.JPEG").read_bytes()
    (root / "train" / "bee" / "cut.JPEG").write_bytes(data[:-100])
    return root


def test_an_undecodable_image_stops_the_build_by_name(image_folder, tmp_path):
    source = sources.FolderSource(add_bad_image(image_folder, tmp_path / "in"))
    with pytest.raises(DataError, match="cannot be decoded, in train/bee/cut.JPEG"):
        build.build_records(source, tmp_path / "out")
    assert not list((tmp_path / "out").glob("train-*"))
    with pytest.raises(DataError, match="build.*must be finished"):
        open_index(tmp_path / "out", "train", label_base=1)


def test_a_reported_image_is_left_out_and_listed(image_folder, tmp_path):
    source = sources.FolderSource(add_bad_image(image_folder, tmp_path / "in"))
    manifest = build.build_records(source, tmp_path / "out", on_bad_image="report")
    (bad,) = json.loads((tmp_path / "out" / "bad_images.json").read_text())
    assert bad["file"] == "train/bee/cut.JPEG" and "cannot be decoded" in bad["reason"]
    assert manifest.class_counts["train"] == (5, 5, 4)
    assert manifest.source["num_left_out"] == 1
    assert check.check_records(tmp_path / "out").problems == ()


def test_the_door_says_where_the_images_left_out_are_listed(image_folder, tmp_path, capsys):
    folder, out = add_bad_image(image_folder, tmp_path / "in"), tmp_path / "out"
    arguments = ["build", "folder", str(folder), "--out", str(out), "--on_bad_image", "report"]
    assert door.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "1 left out" in printed and f"and why: {out / 'bad_images.json'}" in printed
    (folder / "train" / "bee" / "cut.JPEG").unlink()
    arguments[arguments.index(str(out))] = str(tmp_path / "whole")
    assert door.main(arguments) == 0
    assert "bad_images.json" not in capsys.readouterr().out


def test_a_class_that_bad_images_empty_is_refused(image_folder, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(image_folder, folder)
    for path in (folder / "train" / "bee").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="train: none left of bee"):
        build.build_records(sources.FolderSource(folder), tmp_path / "o", on_bad_image="report")
    assert not (tmp_path / "o" / "manifest.json").exists()


def test_a_folder_that_cannot_be_listed_is_no_empty_one(image_folder, tmp_path, monkeypatch):
    real = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(DataError, match="readable.*Permission denied.*bee"):
        sources.FolderSource(image_folder).list_images()


def test_a_finished_build_is_kept_and_a_damaged_shard_of_it_mended(image_folder, records):
    expected = contents(records)
    times = {path: path.stat().st_mtime_ns for path in records.glob("*-of-*")}
    damaged = records / "train-00001-of-00003"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    build.build_records(sources.FolderSource(image_folder), records, num_shards=SHARDS)
    assert contents(records) == expected
    changed = [path for path in times if path.stat().st_mtime_ns != times[path]]
    assert changed == [damaged]


def test_another_build_does_not_go_into_the_same_directory(image_folder, records, tmp_path):
    source = sources.FolderSource(image_folder)
    with pytest.raises(DataError, match="empty directory"):
        build.build_records(source, records, num_shards=SHARDS, seed=1)
    (records / "manifest.json").unlink()
    with pytest.raises(DataError, match="empty directory"):
        build.build_records(source, records, num_shards=SHARDS, seed=1)
    (records / "build_journal.jsonl").unlink()
    with pytest.raises(DataError, match="empty directory"):
        build.build_records(source, records, num_shards=SHARDS)
    assert not (records / "build_journal.jsonl").exists()


@pytest.mark.parametrize("change", [{"max_side_px": 24}, {"validation_share": 0.5}])
def test_an_unfinished_build_does_not_go_on_with_other_options(image_folder, tmp_path, change):
    """The shards that are there hold images of another size, or other ones."""
    folder, out = image_folder / "train", tmp_path / "out"
    options = {"max_side_px": 32, "validation_share": 0.3}
    build.build_records(sources.FolderSource(folder, **options), out, num_shards={"train": 2})
    (out / "manifest.json").unlink()
    next(out.glob("train-00001-*")).unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = sources.FolderSource(folder, **{**options, **change})
    with pytest.raises(DataError, match="same source and options"):
        build.build_records(other, out, num_shards={"train": 2})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    build.build_records(sources.FolderSource(folder, **options), out, num_shards={"train": 2})


def test_two_builders_do_not_share_a_directory(image_folder, records):
    with lock_directory(records):
        with pytest.raises(DataError, match="one builder at a time"):
            build.build_records(sources.FolderSource(image_folder), records, num_shards=SHARDS)


def test_too_little_space_is_said_before_the_build(image_folder, tmp_path, monkeypatch):
    usage = build.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DataError, match="1,000 bytes free"):
        build.build_records(sources.FolderSource(image_folder), tmp_path)


@pytest.mark.parametrize(
    "options", [{"label_base": 2}, {"seed": -1}, {"on_bad_image": "skip"},
                {"num_shards": {"train": 15}}, {"num_shards": {"test": 1}}]
)  # fmt: skip
def test_options_out_of_range_are_refused(image_folder, tmp_path, options):
    with pytest.raises(ConfigError):
        build.build_records(sources.FolderSource(image_folder), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_build_reads_as_unfinished_and_goes_on_to_the_same_bytes(tmp_path, processes):
    folder = tmp_path / "in" / "train" / "noise"
    folder.mkdir(parents=True)
    for number in range(48):
        noise = np.random.RandomState(number).randint(0, 255, (300, 300, 3)).astype(np.uint8)
        (folder / f"{number}.png").write_bytes(tf.io.encode_png(noise).numpy())
    source = sources.FolderSource(tmp_path / "in")
    build.build_records(source, tmp_path / "straight", num_shards={"train": 24})
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "inception_tf.records", "build", "folder",
               str(tmp_path / "in"), "--out", str(out), "--shards", "train=24",
               "--processes", str(processes)]  # fmt: skip
    root = os.path.dirname(os.path.dirname(door.__file__))
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=root)
    while not list(out.glob("train-*")) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(list(out.glob("train-*"))) < 24
    with pytest.raises(DataError, match="build.*must be finished"):
        open_index(out, "train", label_base=1)
    with pytest.raises(DataError, match="finished"):
        check.check_records(out, label_base=1)
    (out / ".train-00023-of-00024.tmp").write_bytes(b"half a shard")
    time.sleep(0.5 * (processes - 1))  # its workers end by themselves
    lines = []
    build.build_records(source, out, num_shards={"train": 24}, report=lines.append)
    assert contents(out) == contents(tmp_path / "straight")
    assert not list(out.glob(".*"))


def test_bytes_after_the_end_marker_are_trimmed(image_folder):
    data = (image_folder / "train" / "bee" / "bee_0.JPEG").read_bytes()
    image = jpeg.build_record_image(data + b"\0" * 100)
    assert (image.change, image.jpeg) == ("trimmed", data)


def test_odd_images_are_copied_reencoded_or_refused(shared_images):
    odd = shared_images / "odd_images"
    found = {}
    for name in ("crafted/cmyk_500x375.JPEG", "crafted/gray_500x375.JPEG",
                 "crafted/progressive_500x375.JPEG", "crafted/png_named_jpeg.JPEG",
                 "crafted/gif_named_jpeg.JPEG", "pillow/hopper.bmp", "crafted/no_eoi.JPEG",
                 "crafted/empty.JPEG", "crafted/text_named_jpeg.JPEG", "crafted/zero_height.JPEG",
                 "crafted/huge_dimensions_65500.JPEG", "pillow/decompression_bomb.gif",
                 "pillow/truncated_jpeg.jpg", "crafted/one_pixel.JPEG"):  # fmt: skip
        try:
            image = jpeg.build_record_image((odd / name).read_bytes())
            found[name.split("/")[1]] = image.change
            assert image.jpeg.endswith(jpeg.END_MARKER)
            assert jpeg.decode_whole(image.jpeg).shape == (image.height_px, image.width_px, 3)
            assert jpeg.read_jpeg_shape(image.jpeg)[2] in (1, 3)
        except jpeg.BadImage:
            found[name.split("/")[1]] = "refused"
    copied = ("gray_500x375.JPEG", "progressive_500x375.JPEG", "one_pixel.JPEG")
    reencoded = ("cmyk_500x375.JPEG", "png_named_jpeg.JPEG", "gif_named_jpeg.JPEG", "hopper.bmp")
    expected = {**dict.fromkeys(copied, "copied"), **dict.fromkeys(reencoded, "re-encoded")}
    assert found == {name: expected.get(name, "refused") for name in found}


def test_real_images_go_through_unchanged(shared_images, tmp_path):
    with tarfile.open(shared_images / "imagenette_small.tar") as tar, tarfile.open(
        tmp_path / "few.tar", "w"
    ) as few:
        members = [member for member in tar if member.isreg()]
        chosen = {member.name: tar.extractfile(member).read() for member in members[::100]}
        for member in members[::100]:
            few.addfile(member, tar.extractfile(member))
    build.build_records(sources.TarSource(tmp_path / "few.tar"), tmp_path / "out")
    for split, folder in (("train", "train"), ("validation", "val")):
        expected = {name.split("/")[2]: data for name, data in chosen.items() if
                    name.startswith(folder)}  # fmt: skip
        built = read_records(tmp_path / "out", split)
        assert {name: record.jpeg for name, record in built.items()} == expected
    assert check.check_records(tmp_path / "out").problems == ()


@pytest.fixture(scope="module")
def digit_records(tmp_path_factory):
    pytest.importorskip("sklearn", reason="needs the extra [digits]")
    out = tmp_path_factory.mktemp("digits")
    assert door.main(["build", "digits", "--out", str(out), "--image_px", "75"]) == 0
    return out


def test_digits_are_split_1437_to_360_and_every_one_is_itself(digit_records):
    from sklearn.datasets import load_digits

    digits = load_digits()
    seen = []
    for split, count in (("train", 1437), ("validation", 360)):
        manifest, index = open_index(digit_records, split)
        assert len(index) == manifest.num_records(split) == count
        assert manifest.class_names == tuple("0123456789")
        records = read_records(digit_records, split)
        seen += records
        for filename, record in records.items():
            number = int(filename[6:10])
            assert record.label == digits.target[number] + 1
            pixels = pixels_of(record.jpeg)
            assert pixels.shape == (75, 75, 3)
            # The middle of each original pixel; 75 / 8 px apart. Bicubic interpolation passes
            # through the values at the middles; JPEG and the grid leave a few of 255 levels.
            middles = np.floor((np.arange(8) + 0.5) * 75 / 8).astype(int)
            error = pixels[np.ix_(middles, middles)][..., 0] - digits.images[number] * 255 / 16
            assert np.abs(error).mean() < 6 and np.abs(error).max() < 60
    assert len(set(seen)) == 1797


def test_digits_are_split_the_same_whatever_the_seed():
    pytest.importorskip("sklearn", reason="needs the extra [digits]")
    images = sources.DigitsSource(image_px=96).list_images()
    numbers = np.random.RandomState(0).permutation(1797)
    assert {i.where for i in images if i.split == "train"} == set(numbers[:1437].tolist())
    for image_px in (74, 97):
        with pytest.raises(ConfigError, match="75 to 96"):
            sources.DigitsSource(image_px=image_px)


def test_a_tar_that_is_cut_short_is_refused(image_folder, tmp_path):
    archive = tmp_path / "images.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(image_folder, arcname=".")
    archive.write_bytes(archive.read_bytes()[:-500])
    with pytest.raises(DataError, match="whole tar.gz file"):
        with sources.open_source(archive, spool_dir=tmp_path / "out") as source:
            build.build_records(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_a_compressed_tar_fills_is_named_and_left_as_it_was(
    image_folder, tmp_path, monkeypatch
):
    def fill(packed, plain, length):
        plain.write(packed.read(1000))
        plain.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    archive = write_tar_gz(image_folder, tmp_path / "images.tar.gz")
    monkeypatch.setattr(sources.shutil, "copyfileobj", fill)
    with pytest.raises(DataError, match=r"No space left.*had 1,000 bytes of .*free.*unpack it"):
        with sources.open_source(archive, spool_dir=tmp_path / "out") as source:
            build.build_records(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_compressed_tar_that_is_not_there_is_named(tmp_path):
    absent = sources.CompressedTarSource(tmp_path / "no.tar.gz", spool=tmp_path / "out" / "spool")
    with pytest.raises(DataError, match="No such file.*no.tar.gz"):
        absent.list_images()


def test_a_build_given_up_before_its_first_shard_does_not_hold_up_another(image_folder, tmp_path):
    folder = shutil.copytree(image_folder, tmp_path / "images")
    bad = next(path for path in folder.rglob("*") if path.is_file()).with_name("bad.jpg")
    bad.write_bytes(b"no image")
    out = tmp_path / "out"
    with pytest.raises(DataError, match="bad.jpg"):
        build.build_records(sources.FolderSource(folder), out, processes=1)
    bad.unlink()
    manifest = build.build_records(sources.FolderSource(folder), out, processes=1)
    assert manifest.num_records("train") > 0


def write_tar_gz(image_folder, path):
    with tarfile.open(path, "w:gz") as tar:
        tar.add(image_folder, arcname=".")
    return path


def test_an_archive_is_not_unpacked_into_a_directory_that_is_being_built(image_folder, tmp_path):
    archive, out = write_tar_gz(image_folder, tmp_path / "images.tar.gz"), tmp_path / "out"
    spool = out / ".source.tar.tmp"
    with lock_directory(out):
        spool.write_bytes(b"of the other builder")
        with pytest.raises(DataError, match="one builder at a time"):
            with sources.open_source(archive, spool_dir=out) as source:
                build.build_records(source, out)
        assert spool.read_bytes() == b"of the other builder"
        spool.unlink()


def test_an_archive_is_not_unpacked_beside_the_records_of_others(image_folder, records, tmp_path):
    archive = write_tar_gz(image_folder, tmp_path / "images.tar.gz")
    (records / "manifest.json").unlink()
    (records / "build_journal.jsonl").unlink()
    before = sorted(path.name for path in records.iterdir())
    with pytest.raises(DataError, match="empty directory"):
        with sources.open_source(archive, spool_dir=records) as source:
            source.list_images = None  # not even listed
            build.build_records(source, records)
    assert sorted(path.name for path in records.iterdir()) == before


@pytest.mark.parametrize(
    "first", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000],
    ids=["empty", "open", "list", "no text", "null", "deep"],
)  # fmt: skip
def test_a_journal_whose_first_line_is_damaged_is_an_error_or_starts_afresh(
    image_folder, records, tmp_path, first
):
    source = sources.FolderSource(image_folder)
    expected = contents(records)
    journal = records / "build_journal.jsonl"
    _, _, rest = journal.read_bytes().partition(b"\n")
    journal.write_bytes(first + b"\n" + rest)
    lines = []  # with its manifest it is known to be this build
    build.build_records(source, records, num_shards=SHARDS, report=lines.append)
    assert "already there: 4 of 4 shards" in lines and contents(records) == expected
    for text in (first + b"\n" + rest, first + b"\n", first):
        journal.write_bytes(text)
        (records / "manifest.json").unlink(missing_ok=True)
        with pytest.raises(DataError, match="journal must say|empty directory") as error:
            build.build_records(source, records, num_shards=SHARDS)
        assert str(records) in str(error.value) and "--out" in str(error.value)
        assert not text or journal.read_bytes() == text
        alone = tmp_path / "alone"
        alone.mkdir()
        (alone / "build_journal.jsonl").write_bytes(text.removesuffix(rest) if rest else text)
        build.build_records(source, alone, num_shards=SHARDS)
        assert contents(alone) == expected
        shutil.rmtree(alone)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: b"\xff" * 20,
        lambda line: b"[]",
        lambda line: b"7",
        lambda line: b"{" * 100_000,
        lambda line: line.replace(b'"entry"', b'"entrx"'),
        lambda line: line.replace(b'"file"', b'"fill"', 1),
        lambda line: line.replace(b'"num_records": ', b'"num_records": -'),
        lambda line: line.replace(b'"num_bytes": ', b'"num_bytes": "7", "x": '),
        lambda line: line.replace(b'"bad": []', b'"bad": [7]'),
        lambda line: line.replace(b'"bad": []', b'"bad": null'),
        lambda line: line.replace(b'"changes": {', b'"changes": {"more": "x", '),
        lambda line: line.replace(b'"picture_hash": "', b'"picture_hash": "x'),
        lambda line: line.replace(b'"hashed": [', b'"hashed": [7, '),
    ],
)
def test_a_damaged_line_of_the_journal_writes_its_shard_again(image_folder, records, change):
    source = sources.FolderSource(image_folder)
    expected = contents(records)
    journal = records / "build_journal.jsonl"
    lines = journal.read_bytes().splitlines()
    changed = change(lines[2])
    assert changed != lines[2]
    journal.write_bytes(b"\n".join([lines[0], lines[1], changed, *lines[3:]]) + b"\n")
    news = []
    build.build_records(source, records, num_shards=SHARDS, report=news.append)
    assert "already there: 3 of 4 shards" in news
    assert contents(records) == expected


def test_a_directory_that_cannot_be_made_is_an_error(image_folder, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match="directory that can be written.*file"):
            build.build_records(sources.FolderSource(image_folder), out)
