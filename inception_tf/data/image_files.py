"""Image files that are no records: finding them in folders, and reading them in batches."""

import collections.abc
import dataclasses
import glob
import os
import pathlib

import numpy as np
import tensorflow as tf

from inception_tf.data import jpeg
from inception_tf.errors import DataError

# What TensorFlow decodes. The suffix only chooses the files of a folder; the bytes decide.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")

_BATCHES_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class ImageListing:
    """Image files to read.

    Attributes:
      paths: in the order in which they are read, each below the place that was given.
      num_ignored: files of folders that have no image's suffix.
    """

    paths: tuple[str, ...]
    num_ignored: int


def list_images(places, *, listed=None) -> ImageListing:
    """The image files of some files and folders, in the order of the places.

    A file is taken whatever its name. Of a folder every file at any depth that has an image's
    suffix is taken, sorted by path; hidden files and folders are left out, and a folder that links
    lead to again is entered once. A pattern that the shell has not expanded, such as
    'photos/**/*.jpg', stands for what it matches, sorted by path; with `**` for files alone, which
    are there with the folders that it matches too.

    Args:
      places: paths of files and folders, and patterns.
      listed: what the place '-' stands for, such as the lines of stdin: paths of files and
        folders. Whoever made the list may have seen a file that has gone since: it is taken for an
        image, which then cannot be read. None: '-' is a place as any other.

    Raises:
      DataError: nothing is at a place, or there is no image at all.
    """
    paths, num_ignored = [], 0
    for place in _concrete(places, listed):
        if not os.path.isdir(place):
            paths.append(place)
            continue
        found = sorted(_files_below(place, entered=set()))
        images = [path for path in found if path.lower().endswith(IMAGE_SUFFIXES)]
        paths += images
        num_ignored += len(found) - len(images)
    if not paths:
        raise DataError(
            "There must be an image to read.",
            received=f"{' '.join(map(str, places))}, with {num_ignored:,} other files",
            remedy=f"Folders are searched for {' '.join(IMAGE_SUFFIXES)}.",
        )
    return ImageListing(tuple(paths), num_ignored)


def _concrete(places, listed):
    """Paths of files and folders, for places that may be patterns or the list.

    Raises:
      DataError: nothing is at a place.
    """
    for place in map(os.fspath, places):
        if place == "-" and listed is not None:
            found = listed
        elif os.path.exists(place) or not glob.has_magic(place):
            found = [place]
        else:
            found = sorted(glob.glob(place, recursive=True)) or [place]
            if "**" in place:
                found = [match for match in found if not os.path.isdir(match)]
        may_be_gone = found != [place]
        for path in found:
            # A pipe or a device would keep its reader waiting.
            is_usable = os.path.isfile(path) or os.path.isdir(path)
            if not is_usable and (os.path.exists(path) or not may_be_gone):
                raise DataError("Images must be files and folders that exist.", received=path)
            yield path


def _files_below(folder, *, entered):
    """Paths of the files in a folder and its folders, in no order."""
    real = os.path.realpath(folder)
    if real in entered:
        return
    entered.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError("Every folder of images must be readable.",
                        received=f"{error.strerror}: {folder}") from None  # fmt: skip
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files_below(entry.path, entered=entered)
        elif entry.is_file() or not os.path.exists(entry.path):
            # A link that leads nowhere is an image that cannot be read, and is told of as one.
            yield entry.path


def image_batches(
    paths, *, decode: collections.abc.Callable, batch: int
) -> collections.abc.Iterator[tuple]:
    """Decoded images in order, several files being read and decoded at once.

    What cannot be read or decoded is left out: its index does not come. `why_bad` says why.

    Args:
      paths: of image files.
      decode: from a file's bytes, string scalar, to float32 [H, W, 3]; in TensorFlow operations.
      batch: images in a batch; the last one has what is left.

    Yields:
      (indices, images): NumPy int64 [n] in `paths`, ascending; float32 tensor [n, H, W, 3].
    """

    def read(index, path):
        return index, decode(tf.io.read_file(path))

    names = tf.constant([os.fsencode(path) for path in paths], tf.string)
    dataset = tf.data.Dataset.from_tensor_slices((tf.range(len(paths), dtype=tf.int64), names))
    num_cores = len(os.sched_getaffinity(0))
    dataset = dataset.map(read, num_parallel_calls=num_cores, deterministic=True)
    dataset = dataset.ignore_errors().batch(batch).prefetch(_BATCHES_AHEAD)
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1  # images are many; see data/pipeline.py
    # The thread that tunes sleeps longer and longer, up to a minute, and at the end of the images
    # their iterator sometimes waits until it wakes (TensorFlow 2.21).
    options.autotune.enabled = False
    for indices, images in dataset.with_options(options):
        yield indices.numpy(), images


def images_or_reasons(
    paths, *, decode: collections.abc.Callable, batch: int
) -> collections.abc.Iterator[tuple]:
    """`image_batches`, with the reasons for which the others were left out.

    Yields:
      (indices, images, reasons): the first two as of `image_batches`; reasons is a list of
      (index, text) of those that were left out before the last of the indices and not told of yet.
      Behind the last image there may be reasons alone: indices is empty then, and images None.
    """
    num_seen = 0

    def reasons_until(end):
        return [(index, why_bad(paths[index], decode=decode)) for index in range(num_seen, end)]

    for indices, images in image_batches(paths, decode=decode, batch=batch):
        reasons = []
        for index in indices.tolist():
            reasons += reasons_until(index)
            num_seen = index + 1
        yield indices, images, reasons
    if num_seen < len(paths):
        yield np.zeros([0], np.int64), None, reasons_until(len(paths))


def why_bad(path, *, decode: collections.abc.Callable) -> str:
    """The reason for which `image_batches` left out a file."""
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return why_undecodable(data, decode=decode)


def why_undecodable(data: bytes, *, decode: collections.abc.Callable) -> str:
    """The reason for which an image file's bytes cannot be decoded."""
    try:
        jpeg.build_record_image(data)
        decode(tf.constant(data))
    except jpeg.BadImage as error:
        return str(error)
    except tf.errors.OpError as error:
        return f"the image cannot be decoded: {error.message}"
    return "decoding it failed once and then succeeded; memory may be short"
