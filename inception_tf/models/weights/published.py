"""The weights that keras.applications publishes: fetched once, verified at every use."""

import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import pathlib
import urllib.request

from tqdm import tqdm

from inception_tf.durable import open_whole
from inception_tf.errors import ConfigError, DataError, did_you_mean

PREFIX = "keras:"
_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications"
_CHUNK_BYTES = 2**20
_TIMEOUT_SECS = 60  # without a single byte


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file of weights on the web.

    Attributes:
      url: its address, whose last part is its name in the cache.
      md5: its digest in hexadecimal, as the publisher prints it.
    """

    url: str
    md5: str

    @property
    def file_name(self):
        """Last part of the address."""
        return self.url.rpartition("/")[2]


def _of_keras(network, ending, md5):
    name = f"{network}_weights_tf_dim_ordering_tf_kernels{ending}.h5"
    return PublishedFile(url=f"{_ADDRESS}/{network}/{name}", md5=md5)


PUBLISHED = {
    "keras:inception_v3": _of_keras("inception_v3", "", "9a0d58056eeedaa3f26cb7ebd46da564"),
    "keras:inception_v3_notop": _of_keras(
        "inception_v3", "_notop", "bcbd6486424b2319ff4ef7d526e38f63"
    ),
    "keras:inception_resnet_v2": _of_keras(
        "inception_resnet_v2", "", "e693bd0210a403b3192acc6073ad2e96"
    ),
    "keras:inception_resnet_v2_notop": _of_keras(
        "inception_resnet_v2", "_notop", "d19885ff4a710c122648d3b5c3b684e4"
    ),
}


def fetch(name, *, cache_dir=None, files=PUBLISHED):
    """The path of a published file in the cache, fetched there first if it is not in it.

    Of several processes of a host one fetches and the others wait for it. The file has its name
    only once all of its bytes are on the disk and their digest is the published one.

    Args:
      name: such as 'keras:inception_v3_notop'.
      cache_dir: made where it is missing; None takes ~/.cache/inception_tf.
      files: name -> PublishedFile.

    Raises:
      ConfigError: an unknown name.
      DataError: the file cannot be fetched, or what is in the cache or came has another digest.
    """
    if name not in files:
        raise ConfigError(
            f"Published weights must be one of {sorted(files)}.",
            received=repr(name),
            remedy=did_you_mean(name, files) or None,
        )
    file = files[name]
    directory = pathlib.Path(cache_dir or "~/.cache/inception_tf").expanduser()
    path = directory / file.file_name
    if not path.is_file():
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with _alone(path):
                if not path.is_file():
                    _download(file, path)
        except (OSError, http.client.HTTPException) as error:
            raise _not_fetched(file, path, _cause(error)) from error
    digest = _md5_of(path)
    if digest != file.md5:
        raise DataError(
            "A published file in the cache must have the published digest.",
            received=f"{path} with md5 {digest}, not {file.md5}",
            remedy=f"Delete it to fetch it again from {file.url}, or put the right file there.",
        )
    return path


@contextlib.contextmanager
def _alone(path):
    """Waits until no other process of this host is fetching the file."""
    with open(path.with_name(f".{path.name}.lock"), "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # given back when the file is closed, or by a kill
        yield


def _download(file, path):
    digest = hashlib.md5(usedforsecurity=False)
    with (
        urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECS) as response,
        open_whole(path) as stream,
    ):
        expected_bytes = int(response.headers.get("Content-Length") or 0)
        num_bytes = 0
        with tqdm(
            total=expected_bytes or None, desc=path.name, unit="B", unit_scale=True, mininterval=1,
            disable=None,  # no line where there is no terminal: it would fill a log
        ) as bar:  # fmt: skip
            while chunk := response.read(_CHUNK_BYTES):
                stream.write(chunk)
                digest.update(chunk)
                num_bytes += len(chunk)
                bar.update(len(chunk))
        if num_bytes < expected_bytes:
            cause = f"the transfer ended after {num_bytes:,} of {expected_bytes:,} bytes"
            raise _not_fetched(file, path, cause)
        if digest.hexdigest() != file.md5:
            cause = f"{num_bytes:,} bytes with md5 {digest.hexdigest()} came"
            raise _not_fetched(file, path, cause)


def _not_fetched(file, path, cause):
    return DataError(
        "Published weights must be fetched, with the published digest, or be in the cache.",
        received=f"{file.url}: {cause}",
        remedy=f"Put the file with md5 {file.md5} at {path} yourself.",
    )


def _cause(error):
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def _md5_of(path):
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(
                stream, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
    except OSError as error:
        raise DataError(
            "A file in the cache must be readable.", received=f"{path}: {error}"
        ) from error
