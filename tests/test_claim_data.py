"""The images of the claims: every training image, every fifth test image, built once."""

import io
import json
import tarfile

import pytest
from PIL import Image

from inception_tf import claim_data
from inception_tf.errors import DataError


def jpeg(level):
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (level, 255 - level, 90)).save(stream, "JPEG")
    return stream.getvalue()


def write_archive(path, *, num_train=6, num_test=10, prefix=""):
    with tarfile.open(path, "w:gz") as tar:
        for split, count in (("train", num_train), ("test", num_test)):
            for label, name in enumerate(("cat", "dog")):
                for number in range(count):
                    content = jpeg(20 * number + 100 * label)
                    member = tarfile.TarInfo(f"{prefix}{split}/{name}/{number:04}.jpg")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def test_the_subset_has_every_training_image_and_every_fifth_test_image(tmp_path):
    write_archive(tmp_path / "cifar10.tar.gz", prefix="./")
    work = tmp_path / "work"
    place = claim_data.records_of("cifar10", data_dir=tmp_path, work_dir=work)
    counts = json.loads((place / "manifest.json").read_text())["class_counts"]
    assert counts == {"train": [6, 6], "validation": [2, 2]}
    with tarfile.open(work / "cifar10_claims.tar") as tar:
        names = sorted(name for name in tar.getnames() if name.startswith("validation"))
    assert names == [f"validation/{c}/{n}.jpg" for c in ("cat", "dog") for n in ("0000", "0005")]
    assert claim_data.eval_params(place) == []
    built = (place / "manifest.json").stat().st_mtime_ns
    assert claim_data.records_of("cifar10", data_dir=tmp_path, work_dir=work) == place
    assert (place / "manifest.json").stat().st_mtime_ns == built  # built once


def test_records_that_are_there_are_taken_as_they_are(tmp_path):
    for place in (tmp_path / "own" / "cifar10", tmp_path / "tfds" / "cifar10" / "3.0.2"):
        place.mkdir(parents=True)
    (tmp_path / "own" / "cifar10" / "manifest.json").write_text("{}")
    (tmp_path / "tfds" / "cifar10" / "3.0.2" / "dataset_info.json").write_text("{}")
    (tmp_path / "tfds" / "cifar10" / "3.0.2" / "cifar10-test.tfrecord-00000-of-00001").touch()
    for data_dir, wanted in (
        (tmp_path / "own", tmp_path / "own" / "cifar10"),
        (tmp_path / "tfds", tmp_path / "tfds" / "cifar10"),
        (tmp_path / "tfds" / "cifar10", tmp_path / "tfds" / "cifar10"),
    ):
        found = claim_data.records_of("cifar10", data_dir=data_dir, work_dir=tmp_path / "w")
        assert found == wanted
    assert claim_data.eval_params(tmp_path / "tfds" / "cifar10") == ["data.eval_split = 'test'"]
    with pytest.raises(DataError, match="of imagenette"):  # records of another set
        claim_data.records_of(
            "imagenette", data_dir=tmp_path / "tfds" / "cifar10", work_dir=tmp_path / "w"
        )


def test_images_that_are_not_there_or_no_cifar10_are_named(tmp_path):
    with pytest.raises(DataError, match="docs/results.md"):
        claim_data.records_of("imagenette", data_dir=tmp_path, work_dir=tmp_path / "w")
    write_archive(tmp_path / "cifar10.tar.gz", num_test=0)
    with pytest.raises(DataError, match="'test': 0"):
        claim_data.records_of("cifar10", data_dir=tmp_path, work_dir=tmp_path / "w")
