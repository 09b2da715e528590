"""How an export lies on disk: OUT/1, OUT/2, ... as TensorFlow Serving expects, each one whole."""

import os
import pathlib
import shutil

from inception_tf import durable
from inception_tf.errors import UserError


class ExportError(UserError):
    """An export that cannot be written or read, or that answers other than the evaluator."""


def versions(out_dir) -> list[int]:
    """The version numbers under `out_dir`, ascending; empty where it is absent."""
    out_dir = pathlib.Path(out_dir)
    if not out_dir.is_dir():
        return []
    return sorted(int(p.name) for p in out_dir.iterdir() if p.name.isdecimal() and p.is_dir())


def is_export(path) -> bool:
    """Whether a SavedModel, or a directory of versions of one, lies there."""
    path = pathlib.Path(path)
    places = [path, *(path / str(version) for version in versions(path))]
    return any((place / "saved_model.pb").is_file() for place in places)


def newest_version(path) -> pathlib.Path:
    """The SavedModel at `path`: itself, or its newest version.

    Raises:
      ExportError: there is neither.
    """
    path = pathlib.Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    found = versions(path)
    if not found:
        raise ExportError(
            "An export holds saved_model.pb, or directories 1, 2, ... that do.",
            received=f"{path}, which " + ("holds neither" if path.is_dir() else "is no directory"),
            remedy="Write one: python -m inception_tf.export --run_dir=... --out=...",
        )
    return path / str(found[-1])


def save_version(out_dir, write) -> pathlib.Path:
    """Path of a new version that `write(directory)` has filled, and nothing if it raised.

    `write` works in a sibling directory whose name no server reads as a version; it gets its
    number when all of it is on disk. A killed process leaves at most `.writing-*` behind, which
    may be deleted.

    Raises:
      ExportError: `out_dir` cannot hold versions, or another export took the number meanwhile.
    """
    out_dir = pathlib.Path(out_dir)
    if (out_dir / "saved_model.pb").exists() or (out_dir.exists() and not out_dir.is_dir()):
        raise ExportError(
            "An export goes into a directory of versions 1, 2, ...",
            received=f"{out_dir}, which is " + ("a model" if out_dir.is_dir() else "a file"),
            remedy="Give another --out, for instance the directory above.",
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    version = max(versions(out_dir), default=0) + 1
    writing = out_dir / f".writing-{version}-{os.getpid()}"
    try:
        # The same process may have been stopped here before: what it left is of no use.
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir()
        write(writing)
        _flush(writing)
        try:
            os.rename(writing, out_dir / str(version))
        except OSError as error:
            raise ExportError(
                f"Version {version} must be free when its export is complete.",
                received=f"{out_dir / str(version)}: {error.strerror}",
                remedy="Another export wrote it meanwhile: run this one again.",
            ) from error
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    durable.flush_to_disk(out_dir)
    return out_dir / str(version)


def _flush(directory):
    """Brings every file and directory to disk: a rename may reach it before they do."""
    for path in directory.rglob("*"):
        durable.flush_to_disk(path)
    durable.flush_to_disk(directory)
