"""How an export lies on disk: whole or not at all.

SavedModels are OUT/1, OUT/2, ... as TensorFlow Serving expects them; other formats stand beside, as
OUT/onnx/1/model.onnx, where it does not look. One call gives all its formats the same number.
"""

import contextlib
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


def is_export_file(path) -> bool:
    """Whether a path has the name of an ONNX or TensorFlow Lite file."""
    return pathlib.Path(path).suffix in (".onnx", ".tflite")


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


def save_versions(out_dir, writers, *, places) -> dict[str, pathlib.Path]:
    """New versions, all of the same number, that `writers` have filled; none if one raised.

    Each writes in a sibling directory whose name no server reads as a version; all get their
    number when everything is on disk. A killed process leaves at most `.writing-*` behind, which
    may be deleted, or some of the versions, each of them whole.

    Args:
      out_dir: of the export.
      writers: name -> function of a directory, which fills it.
      places: name -> directory below `out_dir` whose version 1, 2, ... it is; '' for `out_dir`.

    Returns:
      name -> path of the version.

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
    homes = {name: out_dir / places[name] for name in writers}
    # Of formats that are not written now too: the same number is the same weights.
    known = {out_dir, *homes.values(), *(home for home in _subdirectories(out_dir))}
    version = max((max(versions(home), default=0) for home in known), default=0) + 1
    work = {name: home / f".writing-{version}-{os.getpid()}" for name, home in homes.items()}
    finished = {name: home / str(version) for name, home in homes.items()}
    try:
        for name, write in writers.items():
            homes[name].mkdir(parents=True, exist_ok=True)
            # The same process may have been stopped here before: what it left is of no use.
            shutil.rmtree(work[name], ignore_errors=True)
            work[name].mkdir()
            write(work[name])
            _flush(work[name])
        _rename_all(work, finished)
    except BaseException:
        for directory in work.values():
            shutil.rmtree(directory, ignore_errors=True)
        raise
    finally:
        _remove_empty(homes.values(), out_dir)
    return finished


def _subdirectories(directory):
    if not directory.is_dir():
        return []
    return [path for path in directory.iterdir() if path.is_dir() and not path.name.isdecimal()]


def _rename_all(work, finished):
    """Gives every version its number, or none of them."""
    renamed = []
    try:
        for name, directory in work.items():
            os.rename(directory, finished[name])
            renamed.append(finished[name])
            durable.flush_to_disk(finished[name].parent)
    except BaseException as error:
        for path in renamed:
            shutil.rmtree(path, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise ExportError(
            f"Version {finished[name].name} must be free when its export is complete.",
            received=f"{finished[name]}: {error.strerror}",
            remedy="Another export wrote it meanwhile: run this one again.",
        ) from error


def _remove_empty(directories, out_dir):
    """Removes what was made for versions that did not come; `out_dir` stays."""
    for directory in directories:
        if directory != out_dir:
            with contextlib.suppress(OSError):
                directory.rmdir()


def _flush(directory):
    """Brings every file and directory to disk: a rename may reach it before they do."""
    for path in directory.rglob("*"):
        durable.flush_to_disk(path)
    durable.flush_to_disk(directory)
