"""Sources of one's own: a CSV with its faults by line, and a split by hash that stays."""

import collections
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import records as door
from inception_tf.data import build
from inception_tf.data import check
from inception_tf.data import splits
from inception_tf.data import tfrecord
from inception_tf.data.csv_source import CsvSource
from inception_tf.data.manifest import open_index
from inception_tf.data.manifest import read_manifest
from inception_tf.data.sources import FolderSource
from inception_tf.data.sources import open_source
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError
from tests.data.conftest import picture


def write_images(root, *, classes=("ant", "bee"), per_class=12):
    """Images as <class>/<image>."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            data = tf.io.encode_jpeg(picture(100 * label + number)).numpy()
            (root / name / f"{number}.jpg").write_bytes(data)
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def folder(images, tmp_path):
    """A copy of `images` that a test may change."""
    return pathlib.Path(shutil.copytree(images, tmp_path / "images"))


def split_of(source):
    return {image.where: image.split for image in source.list_images()}


def contents(data_dir):
    paths = [*data_dir.glob("*-of-*"), *data_dir.glob("*.json")]
    return {path.name: path.read_bytes() for path in paths}


def read_labels(data_dir):
    """{file name or path's end: (split, stored label, class)} of every record."""
    found = {}
    for path in sorted(data_dir.glob("*-of-*")):
        for raw in tf.data.TFRecordDataset(str(path)):
            record = tfrecord.parse_example(raw.numpy())
            split = path.name.split("-")[0]
            found[record.synset, record.filename] = (split, record.label)
    return found


def test_the_split_is_a_fixed_function_of_name_share_and_seed():
    names = [f"class/{number}" for number in range(12)]
    chosen = [splits.choose_split(name, share=0.3, seed=5) for name in names]
    assert "".join(name[0] for name in chosen) == "vtvttvttvtvt"  # by sha256sum


def test_the_share_is_kept_and_a_larger_one_keeps_the_images_of_a_smaller():
    names = [f"n/{number}" for number in range(20_000)]
    taken = {
        share: {name for name in names if splits.choose_split(name, share=share, seed=0) != "train"}
        for share in (0.0, 0.1, 0.25)
    }
    assert taken[0.0] == set() and taken[0.1] < taken[0.25]
    for share in (0.1, 0.25):  # 4 standard deviations of a binomial
        assert abs(len(taken[share]) / 20_000 - share) < 4 * (share * (1 - share) / 20_000) ** 0.5
    other = {name for name in names if splits.choose_split(name, share=0.1, seed=1) != "train"}
    assert abs(len(other & taken[0.1]) / 20_000 - 0.01) < 4 * (0.01 / 20_000) ** 0.5


def test_images_that_come_or_go_move_no_other_one(folder):
    before = split_of(FolderSource(folder, validation_share=0.3))
    assert set(before.values()) == {"train", "validation"}
    (folder / "ant" / "3.jpg").unlink()
    (folder / "bee" / "new.jpg").write_bytes((folder / "bee" / "1.jpg").read_bytes())
    (folder / "bee" / "5.jpg").write_bytes((folder / "bee" / "6.jpg").read_bytes())
    after = split_of(FolderSource(folder, validation_share=0.3))
    assert {name: after[name] for name in before if name in after} == {
        name: split for name, split in before.items() if name != "ant/3.jpg"
    }


def test_a_tar_and_a_csv_are_split_as_their_folder(images, tmp_path):
    expected = split_of(FolderSource(images, validation_share=0.3, seed=2))
    archive = tmp_path / "images.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(images, arcname="top")
    with open_source(archive, spool_dir=tmp_path, validation_share=0.3, seed=2) as source:
        found = split_of(source)
    assert {name.split(":")[1]: split for name, split in found.items()} == expected
    lines = ["path,label"] + [f"{path},{path.split('/')[0]}" for path in expected]
    copy = pathlib.Path(shutil.copytree(images, tmp_path / "copy"))
    (copy / "list.csv").write_text("\n".join(lines))
    assert split_of(CsvSource(copy / "list.csv", validation_share=0.3, seed=2)) == expected


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_door_splits_and_records_how(images, tmp_path, processes):
    arguments = ["build", "folder", str(images), "--validation_share", "0.3", "--seed", "4",
                 "--max_side_px", "32", "--shards", "train=3,validation=2"]  # fmt: skip
    assert door.main([*arguments, "--out", str(tmp_path / "one"), "--processes", "1"]) == 0
    other = str(tmp_path / "other")
    assert door.main([*arguments, "--out", other, "--processes", str(processes)]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    options = read_manifest(tmp_path / "one").options
    assert {key: options[key] for key in
            ("validation_share", "split_seed", "max_side_px", "exif_rotation")} == {
        "validation_share": 0.3, "split_seed": 4, "max_side_px": 32, "exif_rotation": "applied"
    }  # fmt: skip
    found = read_labels(tmp_path / "one")
    expected = split_of(FolderSource(images, validation_share=0.3, seed=4))
    assert {f"{name}/{file}": split for (name, file), (split, _) in found.items()} == expected
    assert check.check_records(tmp_path / "one").problems == ()
    changed = [*arguments, "--out", str(tmp_path / "one")]
    changed[changed.index("0.3")] = "0.31"
    assert door.main(changed) == 2


def test_a_layout_that_does_not_fit_the_split_is_refused(images, image_folder):
    with pytest.raises(DataError, match="lie as <class>/<image>: give --validation_share 0.1"):
        FolderSource(images).list_images()
    with pytest.raises(DataError, match="class folder must hold images.*train.*<class>/<image>"):
        FolderSource(image_folder, validation_share=0.1).list_images()


def test_a_tar_in_splits_is_not_split_again(image_folder, tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(image_folder, arcname=".")
    with open_source(tmp_path / "images.tar", spool_dir=tmp_path, validation_share=0.1) as source:
        with pytest.raises(DataError, match="<split>/.*: leave --validation_share out"):
            source.list_images()


def test_one_image_a_class_builds_as_its_errors_say(tmp_path, capsys):
    single = write_images(tmp_path / "single", classes=("ant", "bee", "cat"), per_class=1)
    out = tmp_path / "out"
    arguments = ["build", "folder", str(single), "--out", str(out)]
    assert door.main([*arguments, "--validation_share", "0.5"]) == 2
    assert "--validation_share 0 takes every image for training" in capsys.readouterr().err
    assert door.main([*arguments, "--validation_share", "0"]) == 0
    printed = capsys.readouterr()
    assert "train: 3 records in 1 shard\n" in printed.out
    assert "no split to evaluate" in printed.out and "data.eval_split = 'train'" in printed.out
    assert "train-00000-of-00001: 3 records" in printed.err and "1 of 1 shard;" in printed.err
    with pytest.raises(DataError, match="Name one of those splits.*data.eval_split = 'train'"):
        open_index(out, "validation")
    assert door.main(["check", str(out)]) == 0
    assert "train: 3 classes of 1 record\n" in capsys.readouterr().out


def test_chance_that_leaves_a_class_or_a_split_empty_is_refused(tmp_path):
    few = write_images(tmp_path / "few", per_class=1)
    with pytest.raises(DataError, match="must keep training images.*ant.*validation_share 0 takes"):
        FolderSource(few, validation_share=0.999).list_images()
    with pytest.raises(DataError, match="some images to validation.*none of 2"):
        FolderSource(few, validation_share=1e-9).list_images()
    assert set(split_of(FolderSource(few, validation_share=0.0)).values()) == {"train"}
    (few / "none").mkdir()
    with pytest.raises(DataError, match="class folder must hold images.*none"):
        FolderSource(few, validation_share=0.0).list_images()


@pytest.mark.parametrize(
    "options", [{"validation_share": 1.0}, {"validation_share": -0.1}, {"max_side_px": 0},
                {"validation_share": float("nan")}]
)  # fmt: skip
def test_options_out_of_range_are_refused(images, options):
    with pytest.raises(ConfigError):
        FolderSource(images, **options)
    with pytest.raises(ConfigError):
        CsvSource(images / "list.csv", **options)


def write_csv(folder, text, *, encoding="utf-8"):
    path = folder / "list.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_csv_with_splits_is_built_as_it_says(folder, tmp_path):
    (folder / "bee" / "a, b.jpg").write_bytes((folder / "bee" / "1.jpg").read_bytes())
    path = write_csv(folder, "\ufeffpath,split,label\r\n"
                     "ant/0.jpg, train, wasp nest \r\n\r\n"
                     f"{folder}/bee/0.jpg,train,hive\r\n"
                     'ant/1.jpg,val,hive\r\n"bee/a, b.jpg",test,hive\r\n')  # fmt: skip
    assert door.main(["build", "csv", str(path), "--out", str(tmp_path / "out")]) == 0
    assert read_labels(tmp_path / "out") == {
        ("wasp nest", "0.jpg"): ("train", 2),
        ("hive", "0.jpg"): ("train", 1),
        ("hive", "1.jpg"): ("validation", 1),
        ("hive", "a, b.jpg"): ("test", 1),
    }
    manifest = read_manifest(tmp_path / "out")
    assert manifest.class_names == ("hive", "wasp nest")
    assert (manifest.source["kind"], manifest.source["name"]) == ("csv", "list.csv")
    assert check.check_records(tmp_path / "out").problems == ()


def test_labels_that_are_numbers_are_put_in_their_order(folder, tmp_path):
    numbers = [0, 2, 10, 1, 9, 3, 4, 5, 6, 7, 8]
    lines = ["path,label"] + [f"ant/{i}.jpg,{label}" for i, label in enumerate(numbers)]
    source = CsvSource(write_csv(folder, "\n".join(lines)), validation_share=0.0)
    build.build_records(source, tmp_path / "out", label_base=0, processes=1)
    stored = read_labels(tmp_path / "out")
    assert all(label == int(name) for (name, _), (_, label) in stored.items()) and len(stored) == 11
    assert source.notes == ()
    lines[1] = "ant/0.jpg,77"
    source = CsvSource(write_csv(folder, "\n".join(lines)), validation_share=0.0)
    source.list_images()
    assert source.notes == (
        "the labels are not 0..10: 1 is the first class and 77 the last of 11",
    )


def test_columns_that_are_not_used_are_told(folder, tmp_path):
    path = write_csv(folder, "path,label,photographer\nant/0.jpg,a,x\nbee/0.jpg,b,y\n")
    lines = []
    build.build_records(CsvSource(path, validation_share=0.0), tmp_path / "out", processes=1,
                        report=lines.append)  # fmt: skip
    assert "columns not used: photographer" in lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name the columns"),
        ("ant/0.jpg,a\n", "path and label.*line 1"),
        ("path,label,label\n", "each once.*line 1"),
        ("path,label\n", "must list images"),
        ("path,label\nant/0.jpg,a\nant/1.jpg\n", "2 values.*1 in .*line 3"),
        ("path,label\n\nant/0.jpg,a,b\n", "3 in .*line 3"),
        ("path,label\nant/0.jpg,a\nbee/77.jpg,b\n", "'bee/77.jpg' in .*line 3: No such file"),
        ("path,label\nant/0.jpg, \n", "must have a label.*line 2"),
        ("path,label\n,a\n", "must have a path.*line 2"),
        ("path,label\nant/0.jpg,a\nant/1.jpg,a\nant/0.jpg,b\n", "ant/0.jpg.*line 4 and.*line 2"),
        ('path,label\n"ant/0.jpg,a\n', "must be a CSV"),
        ("path,label\nant/\0.jpg,a\n", "must lead to a file|must be a CSV"),
    ],
)
def test_faults_of_a_csv_are_told_by_line(folder, text, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        CsvSource(write_csv(folder, text), validation_share=0.0).list_images()


def test_faults_of_a_csv_with_splits_are_told_by_line(folder):
    for value, message in (("", "must have a split.*line 3"), ("a/b", "word such as.*line 3")):
        path = write_csv(folder, f"path,label,split\nant/0.jpg,a,train\nant/1.jpg,a,{value}\n")
        with pytest.raises(DataError, match=message):
            CsvSource(path).list_images()
    path = write_csv(folder, "path,label,split\nant/0.jpg,a,train\nant/1.jpg,b,val\n")
    with pytest.raises(DataError, match="'validation' must be one of the train split.*b"):
        build.build_records(CsvSource(path), folder / "out")


def test_a_csv_needs_one_way_to_split(folder):
    with pytest.raises(ConfigError, match="neither"):
        CsvSource(write_csv(folder, "path,label\nant/0.jpg,a\n")).list_images()
    path = write_csv(folder, "path,label,split\nant/0.jpg,a,train\n")
    with pytest.raises(ConfigError, match="both"):
        CsvSource(path, validation_share=0.1).list_images()


def test_a_file_that_is_no_csv_is_refused(folder):
    path = write_csv(folder, "path,label\nant/0.jpg,caf\xe9\n", encoding="latin-1")
    with pytest.raises(DataError, match="CSV file in UTF-8"):
        CsvSource(path, validation_share=0.0).list_images()
    with pytest.raises(DataError, match="No such file.*absent.csv"):
        CsvSource(folder / "absent.csv", validation_share=0.0).list_images()


def test_a_csv_that_goes_on_writes_the_same_bytes(folder, tmp_path):
    lines = ["path,label"] + [f"{name}/{i}.jpg,{name}" for name in ("ant", "bee") for i in range(9)]
    path = write_csv(folder, "\n".join(lines))
    arguments = ["build", "csv", str(path), "--validation_share", "0.3", "--out",
                 str(tmp_path / "out"), "--shards", "train=3"]  # fmt: skip
    assert door.main(arguments) == 0
    expected = contents(tmp_path / "out")
    (tmp_path / "out" / "train-00002-of-00003").unlink()
    (tmp_path / "out" / "manifest.json").unlink()
    assert door.main(arguments) == 0
    assert contents(tmp_path / "out") == expected


def test_a_csv_that_names_other_files_of_equal_names_and_sizes_is_another_build(folder, tmp_path):
    other = pathlib.Path(shutil.copytree(folder / "ant", folder / "old"))
    for path in other.iterdir():
        data = bytearray(path.read_bytes())
        data[-20] ^= 1  # another picture of the same size
        path.write_bytes(data)
    text = "path,label\n" + "".join(f"ant/{i}.jpg,a\n" for i in range(6))
    arguments = ["build", "csv", str(write_csv(folder, text)), "--validation_share", "0",
                 "--out", str(tmp_path / "out")]  # fmt: skip
    assert door.main(arguments) == 0
    expected = contents(tmp_path / "out")
    assert door.main(arguments) == 0 and contents(tmp_path / "out") == expected
    write_csv(folder, text.replace("ant/", "old/"))
    for _ in range(2):
        assert door.main(arguments) == 2
        (tmp_path / "out" / "manifest.json").unlink(missing_ok=True)  # killed before its end
    (tmp_path / "out" / "train-00000-of-00001").unlink()
    assert door.main(arguments) == 2
    write_csv(folder, text + "\n")  # what says the same is the same build
    assert door.main(arguments) == 0 and contents(tmp_path / "out") == expected


def test_every_class_is_in_both_splits_of_a_fair_size(tmp_path):
    names = [f"{name}/{i}" for name in "abcde" for i in range(400)]
    counts = collections.Counter(
        name[0] for name in names if splits.choose_split(name, share=0.2, seed=0) != "train"
    )
    assert len(counts) == 5 and np.ptp(list(counts.values())) < 50


def test_names_that_are_not_utf8_are_refused(folder, tmp_path):
    bad = bytes(folder / "ant") + b"/\xff.jpg"
    with open(bad, "wb") as stream:
        stream.write((folder / "ant" / "0.jpg").read_bytes())
    with pytest.raises(DataError, match="must be UTF-8"):
        build.build_records(FolderSource(folder, validation_share=0.3), tmp_path / "out")
