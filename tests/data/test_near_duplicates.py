"""Pictures that stand in two splits are found, and different ones are not taken for the same."""

import itertools
import json
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import records as door
from inception_tf.data import near_duplicates
from inception_tf.data.near_duplicates import HashedImage
from inception_tf.data.near_duplicates import find_near_duplicates
from inception_tf.data.near_duplicates import hash_picture


def bits_between(first, second):
    return (int(first, 16) ^ int(second, 16)).bit_count()


def scene(number, *, height_px=120, width_px=160):
    """Blobs of light at random places: as different from one another as photographs."""
    random = np.random.RandomState(number)
    y, x = np.mgrid[0 : 1 : height_px * 1j, 0 : 1 : width_px * 1j]
    picture = np.zeros((height_px, width_px, 3))
    for _ in range(12):
        blob = np.exp(-((y - random.rand()) ** 2 + (x - random.rand()) ** 2) / 0.03)
        picture += blob[..., None] * random.uniform(-120, 120, 3)
    return np.clip(picture + 128, 0, 255).astype(np.uint8)


def test_the_hash_is_what_its_description_says():
    pixels = scene(1, height_px=90, width_px=180)  # cells of 10 x 20
    grey = pixels.astype(float) @ [0.299, 0.587, 0.114]
    cells = np.array([[grey[10 * i : 10 * i + 10, 20 * j : 20 * j + 20].mean() for j in range(9)]
                      for i in range(9)])  # fmt: skip
    bits = [cells[i, j + 1] > cells[i, j] + 0.5 for i in range(8) for j in range(8)]
    bits += [cells[i + 1, j] > cells[i, j] + 0.5 for i in range(8) for j in range(8)]
    assert int(hash_picture(pixels), 16) == int("".join(str(int(bit)) for bit in bits), 2)


def test_copies_are_near_and_other_scenes_far():
    far, near = [], []
    hashes = [hash_picture(scene(number)) for number in range(20)]
    for number, first in enumerate(hashes):
        pixels = scene(number)
        half = tf.image.resize(pixels, (60, 80), antialias=True).numpy().round().astype(np.uint8)
        poor = tf.io.decode_jpeg(tf.io.encode_jpeg(pixels, quality=30)).numpy()
        brighter = np.minimum(255, pixels * 1.05 + 3).astype(np.uint8)
        near += [bits_between(first, hash_picture(copy)) for copy in (half, poor, brighter)]
        far += [bits_between(first, other) for other in hashes[:number]]
    assert max(near) <= near_duplicates.NEAR_BITS < 25 < min(far)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (8, 9), (10, 3), (2000, 3)])
def test_any_size_has_a_hash(shape):
    hashes = {hash_picture(np.full((*shape, 3), level, np.uint8)) for level in (0, 128, 255)}
    assert hashes == {"0" * 32}  # nothing is brighter than anything


def test_every_pair_of_splits_is_searched_exactly():
    random = np.random.RandomState(3)
    images = []
    for split, count in (("train", 25), ("validation", 30), ("test", 20)):
        for number in range(count):
            value = int.from_bytes(random.bytes(2), "big") << 40  # many are near
            images.append(HashedImage(split, f"{split}/{number:03d}", f"{value:032x}"))
    found = find_near_duplicates(images[::-1])
    order = ["test", "validation", "train"]
    expected = {}
    for small, large in itertools.combinations(order, 2):
        for image in images:
            if image.split == small:
                distances = [(bits_between(image.picture_hash, other.picture_hash), other.file)
                             for other in images if other.split == large]  # fmt: skip
                near = [pair for pair in distances if pair[0] <= near_duplicates.NEAR_BITS]
                if near:
                    expected[image.file, large] = (*min(near), len(near))
    assert len(expected) > 20
    assert {(pair.file, pair.near_split): (pair.differing_bits, pair.near_file, pair.num_near)
            for pair in found} == expected  # fmt: skip
    assert found == sorted(found, key=lambda pair: (pair.split, pair.file, pair.near_split))


def test_the_limit_is_the_stated_one():
    for bits, count in ((near_duplicates.NEAR_BITS, 1), (near_duplicates.NEAR_BITS + 1, 0)):
        value = sum(1 << (9 * bit) for bit in range(bits))  # in both halves
        images = [HashedImage("train", "a", "0" * 32), HashedImage("test", "b", f"{value:032x}")]
        assert len(find_near_duplicates(images)) == count
    assert find_near_duplicates([HashedImage("train", name, "0" * 32) for name in "ab"]) == []
    assert find_near_duplicates([]) == []


def write_splits(root, *, with_copies):
    for split, first in (("train", 0), ("val", 100)):
        folder = root / split / "blobs"
        folder.mkdir(parents=True)
        for number in range(4):
            data = tf.io.encode_jpeg(scene(first + number), quality=95).numpy()
            (folder / f"{split}_{number}.jpg").write_bytes(data)
    if with_copies:
        small = tf.image.resize(scene(2), (75, 100), antialias=True).numpy().round()
        data = tf.io.encode_jpeg(small.astype(np.uint8), quality=60).numpy()
        (root / "val" / "blobs" / "copy.jpg").write_bytes(data)
    return root


def test_the_door_lists_them_and_gives_their_number(tmp_path, capsys):
    folder = write_splits(tmp_path / "in", with_copies=True)
    out = tmp_path / "out"
    assert door.main(["build", "folder", str(folder), "--out", str(out)]) == 0
    assert f"1 image nearly the same as one of another split: {out}" in capsys.readouterr().out
    (pair,) = json.loads((out / "near_duplicates.json").read_text())
    assert (pair["file"], pair["near_file"]) == ("val/blobs/copy.jpg", "train/blobs/train_2.jpg")
    assert (pair["split"], pair["near_split"], pair["num_near"]) == ("validation", "train", 1)


def test_a_source_without_any_says_so(tmp_path, capsys):
    folder = write_splits(tmp_path / "in", with_copies=False)
    assert door.main(["build", "folder", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "0 images nearly the same" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "near_duplicates.json").read_text()) == []


def test_a_build_that_goes_on_lists_those_of_the_shards_that_were_there(tmp_path):
    folder = write_splits(tmp_path / "in", with_copies=True)
    out = tmp_path / "out"
    arguments = ["build", "folder", str(folder), "--out", str(out), "--shards", "train=4"]
    assert door.main(arguments) == 0
    listed = (out / "near_duplicates.json").read_bytes()
    manifest = (out / "manifest.json").read_bytes()
    (out / "train-00001-of-00004").unlink()
    (out / "near_duplicates.json").unlink()
    assert door.main(arguments) == 0
    assert (out / "near_duplicates.json").read_bytes() == listed
    assert (out / "manifest.json").read_bytes() == manifest


@pytest.mark.slow
def test_real_photographs_are_told_apart_and_their_copies_found(shared_images):
    hashed = []
    with tarfile.open(shared_images / "imagenet_natural.tar") as archive:
        members = [member for member in archive if member.name.endswith(".JPEG")][:100]
        for member in members:
            pixels = tf.io.decode_jpeg(archive.extractfile(member).read(), channels=3).numpy()
            height, width = pixels.shape[:2]
            half = tf.image.resize(pixels, (height // 2, width // 2), antialias=True).numpy()
            hashed.append(HashedImage("train", member.name, hash_picture(pixels)))
            copy = hash_picture(half.round().astype(np.uint8))
            hashed.append(HashedImage("validation", member.name, copy))
    found = find_near_duplicates(hashed)
    assert [pair.file for pair in found] == [pair.near_file for pair in found]
    assert len(found) == 100 and {pair.num_near for pair in found} == {1}
    assert {pair.split for pair in found} == {"validation"}
