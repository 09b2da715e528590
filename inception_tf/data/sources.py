"""Folders and tars of class folders, and the digits, as sources of records."""

import collections
import contextlib
import dataclasses
import errno
import functools
import gzip
import os
import pathlib
import shutil
import zlib

import numpy as np
import tensorflow as tf

from inception_tf.counts import count_of
from inception_tf.data import jpeg
from inception_tf.data import splits
from inception_tf.data import tars
from inception_tf.data.image_source import PhotoSource
from inception_tf.data.image_source import Source
from inception_tf.data.image_source import SourceImage
from inception_tf.data.image_source import read_file
from inception_tf.data.image_source import read_tar_image
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError

_SPLIT_LAYOUT = "<split>/<class>/<image>, with splits such as train and val"
_CLASS_LAYOUT = "<class>/<image>"
_LAYOUTS = f"{_SPLIT_LAYOUT}, or {_CLASS_LAYOUT} with --validation_share"
_SPOOL_NAME = ".source.tar.tmp"
_GZIP_MAGIC = b"\x1f\x8b"

DIGITS_IMAGE_PX = (75, 96)  # below, Inception's last grid vanishes; above, 8x8 px gain nothing
_DIGITS_TRAIN_EXAMPLES = 1437  # of 1,797
_DIGITS_QUALITY = 95


class FolderSource(PhotoSource):
    """Images in the folders DIR/<split>/<class>/; 'val' and 'valid' become 'validation'.

    With `validation_share` in DIR/<class>/. Hidden files are left out; other files at another
    depth are counted in `num_ignored`.
    """

    kind = "folder"

    def __init__(self, path, **options):
        self._root = pathlib.Path(path)
        super().__init__(self._root.resolve().name, **options)

    def list_images(self) -> list[SourceImage]:
        """Every image, sorted by split, class and file name.

        Raises:
          DataError: no image in the layout, or a class without training images.
        """
        sizes = {}
        train_depth = ("train",) if self.validation_share is None else ()
        for folder, subfolders, files in os.walk(
            self._root, followlinks=True, onerror=_raise_unreadable
        ):
            relative = pathlib.PurePath(folder).relative_to(self._root)
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            if relative.parts[:-1] == train_depth and relative.parts and not files:
                raise DataError("A class folder must hold images.", received=folder,
                                remedy=f"Remove or fill it; images lie as {_LAYOUTS}."
                                )  # fmt: skip
            for name in files:
                sizes[(relative / name).as_posix()] = _size_of(os.path.join(folder, name))
        images, self.num_ignored = _parse_layout(sizes, self._root, self)
        return images

    def read(self, image: SourceImage) -> bytes:
        """The bytes of one image file.

        Raises:
          DataError: the file cannot be read.
        """
        return read_file(self._root / image.where)


class TarSource(PhotoSource):
    """The same layouts inside an uncompressed tar file, read without unpacking."""

    kind = "tar"

    def __init__(self, path, *, name: str | None = None, **options):
        self._path = pathlib.Path(path)
        super().__init__(name or self._path.name, **options)

    def list_images(self) -> list[SourceImage]:
        """Every image, sorted by split, class and file name.

        Raises:
          DataError: no tar file, one that is cut short, or no image in the layout.
        """
        members = {member.path: member for member in tars.list_members(self._path)}
        depth = 2 if self.validation_share is None else 1
        tops = {path.split("/", 1)[0] for path in members}
        if len(tops) == 1 and all(path.count("/") > depth for path in members):
            (top,) = tops  # the archive of one folder that holds the splits
            members = {path.removeprefix(f"{top}/"): member for path, member in members.items()}
        sizes = {path: member.num_bytes for path, member in members.items()}
        images, self.num_ignored = _parse_layout(sizes, self._path, self)
        # The entry carries the offset: another process has the entry but not this listing.
        return [
            dataclasses.replace(image, where=f"{members[image.where].offset}:{image.where}")
            for image in images
        ]

    def read(self, image: SourceImage) -> bytes:
        """The bytes of one member.

        Raises:
          DataError: the archive ends inside the member.
        """
        return read_tar_image(self._path, image)


class CompressedTarSource(TarSource):
    """The same inside a tar.gz, which has no random access: listing it unpacks it.

    Args:
      path: of the archive.
      spool: file for the plain copy. A build lists its source once it has locked the directory
        that it writes, so that no other build's copy lies there.
    """

    def __init__(self, path, *, spool, **options):
        super().__init__(spool, name=pathlib.Path(path).name, **options)
        self._packed = pathlib.Path(path)
        self._has_spool = False

    def list_images(self) -> list[SourceImage]:
        """Every image, sorted by split, class and file name; raises as TarSource's."""
        if not self._has_spool:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._has_spool = True
            try:
                _unpack_gzip(self._packed, self._path)
            except BaseException:
                self.remove_spool()
                raise
        return super().list_images()

    def remove_spool(self) -> None:
        """Removes the copy, if this source has made it."""
        if self._has_spool:
            self._path.unlink(missing_ok=True)
            self._has_spool = False


class DigitsSource(Source):
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
def open_source(path, *, spool_dir, **options):
    """A folder, a tar or a tar.gz as source; for use in a `with` statement.

    A compressed archive has no random access: once it is listed, a plain copy lies in `spool_dir`
    until the `with` statement ends.

    Args:
      path: of the folder or file.
      spool_dir: for that copy; made if it is needed.
      **options: of `PhotoSource`.

    Raises:
      ConfigError: an option out of range.
      DataError: there is nothing at the path.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        yield FolderSource(path, **options)
        return
    if not path.is_file():
        raise DataError("The source of a build must exist.", received=str(path),
                        remedy=f"Give a folder or tar of {_LAYOUTS}.")  # fmt: skip
    with open(path, "rb") as stream:
        is_compressed = stream.read(2) == _GZIP_MAGIC
    if not is_compressed:
        yield TarSource(path, **options)
        return
    spool = pathlib.Path(spool_dir).expanduser() / _SPOOL_NAME
    source = CompressedTarSource(path, spool=spool, **options)
    try:
        yield source
    finally:
        source.remove_spool()


def _unpack_gzip(path, plain_path):
    try:
        with gzip.open(path) as packed, open(plain_path, "wb") as plain:
            shutil.copyfileobj(packed, plain, 2**20)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError("The source must be a whole tar.gz file.",
                        received=f"{path}: {error}") from None  # fmt: skip
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise DataError("A tar.gz must be readable, and be unpacked beside its records.",
                            received=f"{error.strerror}: {error.filename or path}"
                            ) from None  # fmt: skip
        free = shutil.disk_usage(plain_path.parent).free
        raise DataError(
            "A tar.gz is unpacked beside its records, which takes space for both.",
            received=f"{error.strerror}: {plain_path.parent} had {plain_path.stat().st_size:,}"
            f" bytes of {path} and has {free:,} bytes free",
            remedy="Make space, give another --out, or unpack it to a tar, which is read in place.",
        ) from None


def _size_of(path):
    try:
        return os.path.getsize(path)
    except OSError as error:
        _raise_unreadable(error)


def _raise_unreadable(error):
    raise DataError("Every file and folder of a source must be readable.",
                    received=f"{error.strerror}: {error.filename}") from error  # fmt: skip


def _parse_layout(sizes, origin, source):
    """Sorted images of a {relative path: bytes} listing, and how many files are none."""
    share = source.validation_share
    images, num_ignored = [], 0
    folders = collections.defaultdict(set)
    for path, num_bytes in sizes.items():
        parts = path.split("/")
        if any(part.startswith(".") for part in parts):
            continue
        if len(parts) != (3 if share is None else 2):
            num_ignored += 1
            continue
        if share is None:
            split = splits.standard_name(parts[0])
            folders[split].add(parts[0])
        else:
            split = splits.choose_split(path, share=share, seed=source.seed)
        images.append(SourceImage(split, *parts[-2:], num_bytes, path))
    if not images:
        raise DataError(f"A source must hold images as {_LAYOUTS}.",
                        received=f"{origin} with {count_of(len(sizes), 'file')} and none there",
                        remedy=_remedy_of_layout(sizes, share))  # fmt: skip
    for split, names in folders.items():
        if len(names) > 1:
            raise DataError(f"One folder of a source must be split {split!r}.",
                            received=f"{' and '.join(sorted(names))} in {origin}")  # fmt: skip
    if share is not None:
        splits.check_hash_split(images, share=share, origin=origin)
    images.sort(key=lambda image: (image.split, image.class_name, image.filename))
    return images, num_ignored


def _remedy_of_layout(sizes, share):
    """What to do where files lie as the other layout has them; None where they do not."""
    depths = {path.count("/") for path in sizes if not f"/{path}".count("/.")}
    if share is None and 1 in depths:
        return (
            f"Some lie as {_CLASS_LAYOUT}: give --validation_share 0.1 for a tenth of them to"
            " evaluate on, or 0 to train on all."
        )
    if share is not None and 2 in depths:
        return f"Some lie as {_SPLIT_LAYOUT}: leave --validation_share out."
    return None


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
