"""Where images and their classes come from before they are records.

A source lists its images once and then reads any of them by its entry, so that shards can be
written by several processes. It is small and picklable: the entries travel, not the listing.
"""

import collections
import contextlib
import dataclasses
import functools
import gzip
import os
import pathlib
import shutil
import tarfile
import zlib

import numpy as np
import tensorflow as tf

from inception_tf.data import jpeg
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError

_SPLIT_NAMES = {"val": "validation", "valid": "validation"}  # folder -> split
_LAYOUT = "<split>/<class>/<image>, with splits such as train and val"
_GZIP_MAGIC = b"\x1f\x8b"

DIGITS_IMAGE_PX = (75, 96)  # below, Inception's last grid vanishes; above, 8x8 px gain nothing
_DIGITS_TRAIN_EXAMPLES = 1437  # of 1,797
_DIGITS_QUALITY = 95


@dataclasses.dataclass(frozen=True)
class SourceImage:
    """One image of a source.

    Attributes:
      split: e.g. 'train' or 'validation'.
      class_name: e.g. a wnid.
      filename: base name.
      num_bytes: size of the file, or an estimate where there is none.
      where: how the source finds it again; named in errors.
    """

    split: str
    class_name: str
    filename: str
    num_bytes: int
    where: str | int


class FolderSource:
    """Images in the folders DIR/<split>/<class>/; 'val' and 'valid' become 'validation'.

    Hidden files are left out; other files at another depth are counted in `num_ignored`.
    """

    kind = "folder"
    images_per_shard = 1250  # as in the released ImageNet records

    def __init__(self, path):
        self._root = pathlib.Path(path)
        self.name = self._root.resolve().name
        self.num_ignored = 0

    def list_images(self) -> list[SourceImage]:
        """Every image, sorted by split, class and file name.

        Raises:
          DataError: no image in the layout, or a class without training images.
        """
        sizes = {}
        for folder, subfolders, files in os.walk(self._root, followlinks=True):
            relative = pathlib.PurePath(folder).relative_to(self._root)
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            if len(relative.parts) == 2 and relative.parts[0] == "train" and not files:
                raise DataError("A class folder must hold images.", received=folder,
                                remedy="Remove the folder or fill it.")  # fmt: skip
            for name in files:
                sizes[(relative / name).as_posix()] = os.path.getsize(os.path.join(folder, name))
        images, self.num_ignored = _parse_layout(sizes, self._root)
        return images

    def read(self, image: SourceImage) -> bytes:
        """The bytes of one image file.

        Raises:
          DataError: the file cannot be read.
        """
        try:
            return (self._root / image.where).read_bytes()
        except OSError as error:
            raise DataError("Every image file of a source must be readable.",
                            received=f"{error.strerror}: {error.filename}") from None  # fmt: skip


class TarSource:
    """The same layout inside an uncompressed tar file, read without unpacking."""

    kind = "tar"
    images_per_shard = 1250

    def __init__(self, path, *, name: str | None = None):
        self._path = pathlib.Path(path)
        self.name = name or self._path.name
        self.num_ignored = 0

    def list_images(self) -> list[SourceImage]:
        """Every image, sorted by split, class and file name.

        Raises:
          DataError: no tar file, one that is cut short, or no image in the layout.
        """
        sizes, places = {}, {}
        try:
            with tarfile.open(self._path, "r:") as archive:
                for member in archive:
                    if member.isreg():
                        path = member.name.removeprefix("./")
                        sizes[path] = member.size
                        places[path] = member.offset_data
        except tarfile.TarError as error:
            raise DataError("The source must be a folder or a whole tar file.",
                            received=f"{self._path}: {error}") from None  # fmt: skip
        tops = {path.split("/", 1)[0] for path in sizes}
        if len(tops) == 1 and all(path.count("/") >= 3 for path in sizes):
            (top,) = tops  # the archive of one folder that holds the splits
            sizes = {path.removeprefix(f"{top}/"): size for path, size in sizes.items()}
            places = {path.removeprefix(f"{top}/"): place for path, place in places.items()}
        images, self.num_ignored = _parse_layout(sizes, self._path)
        # The entry carries the offset: another process has the entry but not this listing.
        return [
            dataclasses.replace(image, where=f"{places[image.where]}:{image.where}")
            for image in images
        ]

    def read(self, image: SourceImage) -> bytes:
        """The bytes of one member.

        Raises:
          DataError: the archive ends inside the member.
        """
        with open(self._path, "rb") as stream:
            stream.seek(int(image.where.split(":", 1)[0]))
            data = stream.read(image.num_bytes)
        if len(data) != image.num_bytes:
            raise DataError("The tar file must be whole.",
                            received=f"{self._path} ends inside {image.where}")  # fmt: skip
        return data


class DigitsSource:
    """scikit-learn's 1,797 handwritten digits (8 x 8 px, values 0..16), enlarged, as JPEG.

    1,437 train and 360 validation images: the first and the rest of
    `numpy.random.RandomState(0).permutation(1797)`, whatever the builder's seed.

    Args:
      image_px: side of the enlarged image, 75 to 96, by bicubic interpolation.

    Raises:
      ConfigError: image_px out of that range.
    """

    kind = "digits"
    images_per_shard = 180

    def __init__(self, *, image_px: int = 96):
        low, high = DIGITS_IMAGE_PX
        if not low <= image_px <= high:
            raise ConfigError(f"image_px must be {low} to {high}.", received=image_px)
        self._image_px = image_px
        self.name = f"scikit-learn digits at {image_px} px"
        self.num_ignored = 0

    def list_images(self) -> list[SourceImage]:
        """Every digit, in the order of the data set.

        Raises:
          DataError: scikit-learn is not installed.
        """
        _, classes = _read_digits()
        order = np.random.RandomState(0).permutation(len(classes))
        train = set(order[:_DIGITS_TRAIN_EXAMPLES].tolist())
        return [
            SourceImage(
                split="train" if number in train else "validation",
                class_name=str(digit),
                filename=f"digit_{number:04d}.JPEG",
                num_bytes=self._image_px**2 // 2,  # measured: 1.4 to 2.9 kB at 96 px
                where=number,
            )
            for number, digit in enumerate(classes.tolist())
        ]

    def read(self, image: SourceImage) -> bytes:
        """A digit as RGB JPEG of quality 95."""
        pixels, _ = _read_digits()
        with tf.device("CPU:0"):
            enlarged = tf.image.resize(
                pixels[image.where][:, :, None] * (255.0 / 16.0),
                (self._image_px, self._image_px),
                method="bicubic",
            ).numpy()
        levels = np.rint(np.clip(enlarged, 0.0, 255.0)).astype(np.uint8)
        return jpeg.encode_jpeg(np.repeat(levels, 3, axis=2), quality=_DIGITS_QUALITY)


@contextlib.contextmanager
def open_source(path, *, spool_dir):
    """A folder, a tar or a tar.gz as source; for use in a `with` statement.

    A compressed archive has no random access, so a plain copy lies in `spool_dir` meanwhile.

    Raises:
      DataError: there is nothing at the path.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        yield FolderSource(path)
        return
    if not path.is_file():
        raise DataError("The source of a build must exist.", received=str(path),
                        remedy=f"Give a folder or tar of {_LAYOUT}.")  # fmt: skip
    with open(path, "rb") as stream:
        is_compressed = stream.read(2) == _GZIP_MAGIC
    if not is_compressed:
        yield TarSource(path)
        return
    spool = pathlib.Path(spool_dir) / ".source.tar.tmp"
    spool.parent.mkdir(parents=True, exist_ok=True)
    try:
        _unpack_gzip(path, spool)
        yield TarSource(spool, name=path.name)
    finally:
        spool.unlink(missing_ok=True)


def _unpack_gzip(path, plain_path):
    try:
        with gzip.open(path) as packed, open(plain_path, "wb") as plain:
            shutil.copyfileobj(packed, plain, 2**20)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError("The source must be a whole tar.gz file.",
                        received=f"{path}: {error}") from None  # fmt: skip


def _parse_layout(sizes, origin):
    """Sorted images of a {relative path: bytes} listing, and how many files are none."""
    images, num_ignored = [], 0
    folders = collections.defaultdict(set)
    for path, num_bytes in sizes.items():
        parts = path.split("/")
        if any(part.startswith(".") for part in parts):
            continue
        if len(parts) != 3:
            num_ignored += 1
            continue
        split = _SPLIT_NAMES.get(parts[0], parts[0])
        folders[split].add(parts[0])
        images.append(SourceImage(split, parts[1], parts[2], num_bytes, path))
    if not images:
        raise DataError(f"A source must hold images as {_LAYOUT}.",
                        received=f"{origin} with {len(sizes):,} files and none there")  # fmt: skip
    for split, names in folders.items():
        if len(names) > 1:
            raise DataError(f"One folder of a source must be split {split!r}.",
                            received=f"{' and '.join(sorted(names))} in {origin}")  # fmt: skip
    images.sort(key=lambda image: (image.split, image.class_name, image.filename))
    return images, num_ignored


@functools.cache
def _read_digits():
    try:
        from sklearn.datasets import load_digits  # an extra: not everybody wants scikit-learn
    except ImportError:
        raise DataError(
            "The digits come with scikit-learn, which is not installed.",
            remedy="Install it: pip install 'inception_tf[digits]'.",
        ) from None
    digits = load_digits()
    return digits.images.astype(np.float32), digits.target
