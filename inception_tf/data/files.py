"""Files of a data set: on this machine, or wherever tf.io.gfile reaches (gs://bucket/...).

Local files are read with pread, which needs no lock and costs a tenth of TensorFlow's own files.
An address with a scheme goes through tf.io.gfile, of which every call here is a request.
"""

import contextlib
import dataclasses
import os
import re
import threading

import tensorflow as tf

from inception_tf.errors import DataError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclasses.dataclass(frozen=True)
class Identity:
    """What changes when a file does."""

    num_bytes: int
    mtime_ns: int


def is_remote(path) -> bool:
    """Whether a path has a scheme, such as gs://."""
    return _SCHEME.match(os.fspath(path)) is not None


def absolute(path) -> str:
    """A path that holds from every working directory; '~' is the home directory."""
    path = os.fspath(path)
    return path.rstrip("/") if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def join(directory, *names) -> str:
    """The path of a file below a directory."""
    return "/".join((os.fspath(directory).rstrip("/"), *names))


def is_directory(path) -> bool:
    """Whether a directory is there.

    Raises:
      DataError: a remote place that cannot be asked.
    """
    if not is_remote(path):
        return os.path.isdir(path)
    with _as_data_error(path):
        # Of a scheme that TensorFlow does not know, `isdir` says False and `exists` says why.
        return tf.io.gfile.exists(path) and tf.io.gfile.isdir(path)


def is_file(path) -> bool:
    """Whether a file is there; raises as `is_directory`."""
    if not is_remote(path):
        return os.path.isfile(path)
    with _as_data_error(path):
        return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)


def list_names(directory) -> list[str]:
    """Names of the files and directories in a directory, sorted; raises as `is_directory`."""
    if not is_remote(directory):
        return sorted(os.listdir(directory))
    with _as_data_error(directory):
        return sorted({name.rstrip("/") for name in tf.io.gfile.listdir(directory)})


def identify(path) -> Identity:
    """Size and time of a file.

    Raises:
      OSError: it is not there.
      DataError: a remote place that cannot be asked.
    """
    if not is_remote(path):
        stat = os.stat(path)
        return Identity(stat.st_size, stat.st_mtime_ns)
    with _as_data_error(path):
        stat = tf.io.gfile.stat(path)
        return Identity(stat.length, stat.mtime_nsec)


def read_text(path) -> str:
    """A whole file, UTF-8.

    Raises:
      OSError: it is not there or cannot be read.
      UnicodeDecodeError: it is no UTF-8.
      DataError: a remote place that cannot be asked.
    """
    file = open_file(path)
    try:
        return file.read_at(0, identify(path).num_bytes).decode("utf-8")
    finally:
        file.close()


def open_file(path):
    """A file to read from at any place, by any number of threads.

    Returns:
      An object with `read_at(offset, num_bytes)`, which gives fewer bytes only where the file
      ends, and `close()`.

    Raises:
      OSError: it is not there or cannot be read; `read_at` too.
      DataError: a remote place that cannot be asked; `read_at` too.
    """
    return _RemoteFile(os.fspath(path)) if is_remote(path) else _LocalFile(os.fspath(path))


class _LocalFile:
    def __init__(self, path):
        self._fd = os.open(path, os.O_RDONLY)

    def read_at(self, offset, num_bytes):
        return os.pread(self._fd, num_bytes, offset)

    def close(self):
        os.close(self._fd)


class _RemoteFile:
    """TensorFlow's file is a stream with one position, so threads take turns."""

    def __init__(self, path):
        self._path = path
        self._stream = tf.io.gfile.GFile(path, "rb")
        self._lock = threading.Lock()
        with _as_data_error(path):
            self._num_bytes = self._stream.size()

    def read_at(self, offset, num_bytes):
        if offset >= self._num_bytes:  # seeking there is an error
            return b""
        with self._lock, _as_data_error(self._path):
            self._stream.seek(offset)
            return self._stream.read(num_bytes)

    def close(self):
        with self._lock:
            self._stream.close()


@contextlib.contextmanager
def _as_data_error(path):
    """TensorFlow's errors as the ones that local files raise, or as what the user can mend."""
    try:
        yield
    except tf.errors.NotFoundError:
        raise FileNotFoundError(2, os.strerror(2), path) from None
    except tf.errors.OpError as error:
        raise DataError(
            "A place with a scheme must be one that TensorFlow can read (tf.io.gfile).",
            received=f"{path}: {error.message}".rstrip(".\n "),
            remedy="Check the address, the network and the credentials, or copy the records to a"
            " local disk.",
        ) from None
