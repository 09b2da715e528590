"""Files that are on the disk whole or not at all, and the checksums that prove it."""

import contextlib
import errno
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

_CHUNK_BYTES = 4 * 2**20


@contextlib.contextmanager
def open_whole(
    path: str | os.PathLike, *, has_other_writers: bool = False
) -> Iterator[BinaryIO]:
    """A binary file to write that has its name only once all of its bytes are on the disk.

    Readers, and whoever comes after a kill or a power cut, find the old file or the new one.

    Args:
      path: its name, in a directory that exists.
      has_other_writers: several processes may write it at the same moment: each fills a hidden
        file of its own. Otherwise what a killed writer left is written over.

    Raises:
      OSError: the disk did not take it; nothing is left of the attempt.
    """
    path = pathlib.Path(path)
    mark = f"{secrets.token_hex(4)}." if has_other_writers else ""
    unfinished = path.with_name(f".{path.name}.{mark}tmp")
    try:
        with open(unfinished, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


def save_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file whole or not at all (see `open_whole`)."""
    with open_whole(path) as stream:
        stream.write(content)


def save_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file, UTF-8, whole or not at all (see `open_whole`)."""
    save_bytes(path, text.encode("utf-8"))


def make_directory(path: pathlib.Path) -> list[pathlib.Path]:
    """Makes a directory; the ones that were missing, deepest first, for `remove_empty`."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(directories: list[pathlib.Path]) -> None:
    """Removes directories, the deepest first, as far as they are empty."""
    with contextlib.suppress(OSError):
        for path in directories:
            path.rmdir()


def flush_to_disk(path: str | os.PathLike) -> None:
    """Returns when a file, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no fsync of a directory; they order renames themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not os.path.isdir(path):
            raise
    finally:
        os.close(descriptor)


def crc32c_of_file(path: str | os.PathLike) -> int:
    """CRC-32C of a whole file, unmasked."""
    checksum = 0
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            checksum = google_crc32c.extend(checksum, chunk)
    return checksum
