"""Finding image files and reading them in batches: which, in which order, and what is left out."""

import os

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import image_files
from inception_tf.errors import DataError

SIDE_PX = 8


def decode(data):
    """Pixels as they are; the files here are 8 x 8."""
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    return tf.ensure_shape(tf.cast(image, tf.float32), [SIDE_PX, SIDE_PX, 3])


def write_image(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(np.full([SIDE_PX, SIDE_PX, 3], level, np.uint8)).numpy())


@pytest.fixture
def folder(tmp_path):
    """Images at several depths among files that are none."""
    root = tmp_path / "images"
    for name in ("b.png", "a/2.PNG", "a/10.jpg", "a-1.jpeg", "c/d/x.webp"):
        write_image(root / name)
    for name in ("labels.csv", "a/notes.txt", ".hidden.png", ".thumbs/t.png"):
        write_image(root / name)
    return root


def below(listing, root):
    return [os.path.relpath(path, root) for path in listing.paths]


def test_a_folder_gives_its_images_at_any_depth_sorted_by_path(folder):
    listing = image_files.list_images([folder])
    assert below(listing, folder) == ["a-1.jpeg", "a/10.jpg", "a/2.PNG", "b.png", "c/d/x.webp"]
    assert listing.num_ignored == 2


def test_places_keep_their_order_and_a_named_file_is_taken_whatever_its_name(folder):
    listing = image_files.list_images([folder / "labels.csv", folder / "c", folder / "b.png"])
    assert below(listing, folder) == ["labels.csv", "c/d/x.webp", "b.png"]
    assert listing.num_ignored == 0


def test_links_are_followed_and_circles_end(folder, tmp_path):
    write_image(tmp_path / "elsewhere" / "e.png")
    (folder / "z").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (folder / "gone.png").symlink_to(tmp_path / "nothing.png")
    os.mkfifo(folder / "pipe.png")
    listing = image_files.list_images([folder])
    assert "z/e.png" in below(listing, folder) and "gone.png" in below(listing, folder)
    assert len(listing.paths) == 7


@pytest.mark.parametrize("content", [[], ["notes.txt"]])
def test_a_folder_without_an_image_is_an_error(tmp_path, content):
    for name in content:
        write_image(tmp_path / name)
    with pytest.raises(DataError, match="There must be an image to read"):
        image_files.list_images([tmp_path])


def test_a_place_that_does_not_exist_is_an_error_that_names_it(folder):
    with pytest.raises(DataError, match="nowhere"):
        image_files.list_images([folder, folder / "nowhere"])


@pytest.mark.parametrize("batch", [1, 3, 5, 64])
def test_batches_hold_the_good_images_in_order(tmp_path, batch):
    paths = [tmp_path / f"{level}.png" for level in range(7)]
    for level, path in enumerate(paths):
        write_image(path, level)
    paths[0].write_bytes(b"")
    paths[3].write_bytes(paths[3].read_bytes()[:40])
    paths[6].unlink()
    found, sizes = [], []
    for indices, images in image_files.image_batches(paths, decode=decode, batch=batch):
        assert images.shape == (len(indices), SIDE_PX, SIDE_PX, 3)
        found += [(int(i), float(image[0, 0, 0])) for i, image in zip(indices, images)]
        sizes.append(len(indices))
    assert found == [(i, float(i)) for i in (1, 2, 4, 5)]
    assert sizes[:-1] == [batch] * (len(sizes) - 1) and 0 < sizes[-1] <= batch


def test_a_name_that_is_no_utf8_is_read(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    write_image(tmp_path / "a.png", 5)
    os.rename(tmp_path / "a.png", path)
    ((indices, images),) = image_files.image_batches([path], decode=decode, batch=2)
    assert indices.tolist() == [0] and float(images[0, 0, 0, 0]) == 5.0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "the image is empty"),
        (b"<html>", "cannot be decoded; it begins with 3c 68"),
        (b"\xff\xd8\xff\xe0cut", "the JPEG"),
    ],
)
def test_why_bad_gives_the_reason(tmp_path, content, reason):
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    assert reason in image_files.why_bad(path, decode=decode)


def test_why_bad_tells_what_the_decoder_refuses(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(tf.io.encode_png(np.zeros([9, 9, 3], np.uint8)).numpy())
    assert "the image cannot be decoded" in image_files.why_bad(path, decode=decode)


def test_patterns_that_no_shell_expanded_give_what_they_match_sorted(folder):
    for pattern, expected in {
        "*.png": ["b.png"],
        "**/*.[pPj]*[gG]": ["a-1.jpeg", "a/10.jpg", "a/2.PNG", "b.png"],
        "[ac]/": ["a/10.jpg", "a/2.PNG", "c/d/x.webp"],
        "c/**": ["c/d/x.webp"],  # with its folders entered it would come three times
    }.items():
        assert below(image_files.list_images([folder / pattern]), folder) == expected, pattern
    write_image(folder / "x[1].png")
    write_image(folder / "x1.png")
    assert below(image_files.list_images([folder / "x[1].png"]), folder) == ["x[1].png"]
    with pytest.raises(DataError, match=r"exist.*\*\.tiff"):
        image_files.list_images([folder / "*.tiff"])


def test_a_dash_stands_for_a_list_whose_files_may_have_gone(folder):
    listed = [str(folder / "gone.jpg"), str(folder / "c"), str(folder / "b.png")]
    listing = image_files.list_images([folder / "a", "-", folder / "b.png"], listed=listed)
    assert below(listing, folder) == [
        "a/10.jpg", "a/2.PNG", "gone.jpg", "c/d/x.webp", "b.png", "b.png"
    ]  # fmt: skip
    with pytest.raises(DataError, match="exist. Received: -"):
        image_files.list_images(["-"])
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(DataError, match="pipe.png"):
        image_files.list_images(["-"], listed=[str(folder / "pipe.png")])


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_what_is_left_out_comes_with_its_reason_in_its_place(tmp_path, batch):
    paths = [tmp_path / f"{level}.png" for level in range(6)]
    for level, path in enumerate(paths):
        if level not in (0, 2, 5):
            write_image(path, level)
    told = []
    for indices, images, reasons in image_files.images_or_reasons(
        paths, decode=decode, batch=batch
    ):
        assert (images is None) == (len(indices) == 0)
        levels = [] if images is None else images[:, 0, 0, 0].numpy().tolist()
        told += sorted([*reasons, *zip(indices.tolist(), levels)])
    reason = "it cannot be read: No such file or directory"
    assert told == [(0, reason), (1, 1.0), (2, reason), (3, 3.0), (4, 4.0), (5, reason)]
