"""The files of one checkpoint: a tensor bundle by name, and a sealed manifest over it.

    step-000000050/
      variables.index, variables.data-00000-of-00001    TensorFlow's tensor bundle
      manifest.json                                      what must be there, and its own checksum

The bundle is TensorFlow's own format and is read by `tf.train.load_checkpoint(prefix)`. Its tensors
carry checksums, its index file does not say what a whole checkpoint is: the manifest does.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping

import google_crc32c
import numpy as np
import tensorflow as tf

from inception_tf import durable
from inception_tf.errors import CheckpointError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
BUNDLE_NAME = "variables"
_SEAL = b',\n "manifest_crc32c": '


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """One checkpoint as its manifest describes it; nothing is verified by looking.

    Attributes:
      step: batches consumed when it was written.
      path: its directory.
      facts: what the run wrote beside the variables (epoch, recipe hash, best result ...).
      variables: name -> (shape, dtype name).
      num_bytes: of all files but the manifest.
      defect: why it cannot be used, where the manifest or a file's size already tells.
    """

    step: int
    path: pathlib.Path
    facts: dict = dataclasses.field(default_factory=dict)
    variables: dict[str, tuple[tuple[int, ...], str]] = dataclasses.field(default_factory=dict)
    num_bytes: int = 0
    defect: str | None = None


def save_files(
    directory: pathlib.Path, *, step: int, tensors: Mapping[str, tf.Tensor], facts: dict
) -> None:
    """A complete checkpoint in an empty directory, on the disk when the call returns.

    Equal variables and facts give equal bytes: names are written in sorted order.

    Raises:
      OSError, tf.errors.OpError: the disk did not take it; what was written stays behind.
    """
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=os.path.join(directory, BUNDLE_NAME),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tensors[name] for name in names],
    )
    bundle = sorted(directory.iterdir())
    manifest = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "facts": facts,
        "variables": {
            name: {"shape": tensors[name].shape.as_list(), "dtype": tensors[name].dtype.name}
            for name in names
        },
        "files": {
            path.name: {"bytes": path.stat().st_size, "crc32c": _crc32c_text(path)}
            for path in bundle
        },
    }
    (directory / MANIFEST_NAME).write_bytes(seal_manifest(manifest))
    for path in [*bundle, directory / MANIFEST_NAME, directory]:
        durable.flush_to_disk(path)


def _crc32c_text(path: pathlib.Path) -> str:
    """CRC-32C of a file as the manifest has it: 8 hexadecimal digits."""
    return f"{durable.crc32c_of_file(path):08x}"


def seal_manifest(manifest: dict) -> bytes:
    """The manifest as JSON text whose last entry is the CRC-32C of all bytes before it.

    Over the bytes and not over the parsed values, so that no flipped bit can hide: neither in a
    space nor in a key that JSON would let a later one override.
    """
    body = json.dumps(manifest, indent=1, sort_keys=True).removesuffix("\n}").encode("ascii")
    return body + _seal_of(body)


def _seal_of(body: bytes) -> bytes:
    return _SEAL + f'"{google_crc32c.value(body):08x}"\n}}\n'.encode("ascii")


def read_manifest(directory: pathlib.Path) -> dict:
    """The manifest of one checkpoint, with its own checksum tested.

    Raises:
      CheckpointError: missing, empty, unreadable, altered, of another format version, or of
        another step than the directory's name says.
    """
    path = directory / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise _damaged(path, "missing") from error
    except OSError as error:
        raise _damaged(path, f"unreadable ({error.strerror})") from error
    if not content:
        raise _damaged(path, "empty")
    body, _, _ = content.rpartition(_SEAL)
    if body + _seal_of(body) != content:
        raise _damaged(path, "truncated or altered: its own checksum differs")
    manifest = json.loads(content)
    if manifest["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"A checkpoint must have format version {FORMAT_VERSION}.",
            received=f"{path} with version {manifest['format_version']}",
            remedy="Read it with the release of inception_tf that wrote it.",
        )
    if directory.name.lstrip(".").split("-")[-1] != f"{manifest['step']:09d}":
        raise _damaged(path, f"of step {manifest['step']}: the directory was renamed or mixed up")
    return manifest


def check_sizes(directory: pathlib.Path, manifest: dict) -> None:
    """Tests, without reading them, that the files are there with the bytes of the manifest.

    Raises:
      CheckpointError: naming the file that is missing, empty, truncated or too long.
    """
    for name, entry in manifest["files"].items():
        path = directory / name
        if pathlib.PurePath(name).name != name:
            raise _damaged(path, "outside the checkpoint's directory")
        try:
            num_bytes = path.stat().st_size
        except FileNotFoundError as error:
            raise _damaged(path, "missing") from error
        except OSError as error:
            raise _damaged(path, f"unreadable ({error.strerror})") from error
        if num_bytes == entry["bytes"]:
            continue
        if num_bytes == 0:
            raise _damaged(path, "empty")
        if num_bytes < entry["bytes"]:
            raise _damaged(path, f"truncated to {num_bytes:,} of {entry['bytes']:,} bytes")
        raise _damaged(path, f"{num_bytes:,} bytes long instead of {entry['bytes']:,}")


def check_contents(directory: pathlib.Path, manifest: dict) -> None:
    """Tests every byte of the files against the checksums of the manifest.

    Raises:
      CheckpointError: naming the first file that is missing, cut or altered.
    """
    check_sizes(directory, manifest)
    for name, entry in manifest["files"].items():
        path = directory / name
        try:
            crc32c = _crc32c_text(path)
        except OSError as error:
            raise _damaged(path, f"unreadable ({error.strerror})") from error
        if crc32c != entry["crc32c"]:
            raise _damaged(path, f"altered: checksum {crc32c} instead of {entry['crc32c']}")


def read_info(step: int, path: pathlib.Path) -> CheckpointInfo:
    """What a checkpoint's directory says of itself, without reading its variables."""
    try:
        manifest = read_manifest(path)
    except CheckpointError as error:
        return CheckpointInfo(step=step, path=path, defect=str(error))
    defect = None
    try:
        check_sizes(path, manifest)
    except CheckpointError as error:
        defect = str(error)
    return CheckpointInfo(
        step=step,
        path=path,
        facts=manifest["facts"],
        variables={
            name: (tuple(entry["shape"]), entry["dtype"])
            for name, entry in manifest["variables"].items()
        },
        num_bytes=sum(entry["bytes"] for entry in manifest["files"].values()),
        defect=defect,
    )


def read_tensors(directory: pathlib.Path, manifest: dict) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of every variable of the manifest, in sorted order, one at a time.

    Raises:
      CheckpointError: the bundle cannot be read, or holds other variables than the manifest says.
    """
    prefix = os.path.join(directory, BUNDLE_NAME)
    try:
        reader = tf.train.load_checkpoint(prefix)
        found = set(reader.get_variable_to_shape_map())
        if found != set(manifest["variables"]):
            different = sorted(found ^ set(manifest["variables"]))
            raise _damaged(prefix, f"of other variables than its manifest: {different[:10]}")
        for name, entry in sorted(manifest["variables"].items()):
            value = np.asarray(reader.get_tensor(name))
            if list(value.shape) != entry["shape"] or value.dtype.name != entry["dtype"]:
                raise _damaged(
                    prefix, f"{name} as {value.dtype.name} {list(value.shape)}, not as {entry}"
                )
            yield name, value
    # The reader raises whatever the damage makes it stumble over, IndexError and ValueError too.
    except (tf.errors.OpError, OSError, RuntimeError, LookupError, ValueError) as error:
        raise _damaged(prefix, f"unreadable ({str(error).splitlines()[0]})") from error


def _damaged(path: object, what: str) -> CheckpointError:
    return CheckpointError(
        "A checkpoint must be whole.",
        received=f"{path}: {what}",
        remedy="Restore the file from a copy, or resume from an older checkpoint.",
    )


def form(variable: tuple[tuple[int, ...], str]) -> str:
    """Shape and dtype name of a variable in words."""
    shape, dtype = variable
    return f"{dtype} [{', '.join(str(size) for size in shape)}]"
