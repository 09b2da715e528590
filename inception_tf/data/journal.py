"""The builder's memory: which shards are finished, so that a killed build can go on."""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib

from inception_tf import durable
from inception_tf.data.directory import JOURNAL_NAME
from inception_tf.data.directory import MANIFEST_NAME
from inception_tf.data.directory import list_shards
from inception_tf.data.manifest import ShardEntry
from inception_tf.data.manifest import read_manifest
from inception_tf.data.manifest_fields import parse_shard
from inception_tf.data.near_duplicates import HashedImage
from inception_tf.errors import DataError


@dataclasses.dataclass(frozen=True)
class FinishedShard:
    """A shard on the disk.

    Attributes:
      entry: its line in the manifest.
      changes: images by what was done to them (see `jpeg.RecordImage`).
      bad: images left out, as dicts of split, class, file and reason.
      hashed: its images as they are compared across the splits; none where they are not.
    """

    entry: ShardEntry
    changes: dict[str, int]
    bad: tuple[dict, ...]
    hashed: tuple[HashedImage, ...] = ()


class Journal:
    """The open, locked journal of one build."""

    def __init__(self, directory: pathlib.Path, stream):
        self._directory = directory
        self._stream = stream

    def add(self, finished: FinishedShard) -> None:
        """Records one finished shard; on the disk when this returns."""
        self.append(dataclasses.asdict(finished))

    def append(self, value: dict) -> None:
        """Writes one line through to the disk."""
        self._stream.write(json.dumps(value, sort_keys=True) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def read_intact(self) -> dict[str, FinishedShard]:
        """Recorded shards by file name whose files still have the recorded bytes.

        A line that says nothing usable is passed over: its shard is written again.
        """
        self._stream.seek(0)
        intact = {}
        for line in self._stream.read().splitlines()[1:]:
            # A line that a kill cut short, or one that was damaged since.
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                finished = _parse_line(json.loads(line))
                entry = finished.entry
                path = self._directory / entry.file
                if path.is_file() and path.stat().st_size == entry.num_bytes:
                    if durable.crc32c_of_file(path) == entry.crc32c:
                        intact[entry.file] = finished
        return intact


def _parse_line(stored):
    """The FinishedShard of one line; ValueError, KeyError or TypeError where it is none."""
    changes, bad = stored["changes"], stored["bad"]
    hashed = tuple(HashedImage(**image) for image in stored.get("hashed", ()))
    texts = [text for image in hashed for text in (image.split, image.file, image.picture_hash)]
    texts += [image[name] for image in bad for name in ("split", "class", "file", "reason")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("names must be text")
    if not all(type(count) is int and count >= 0 for count in dict(changes).values()):
        raise ValueError("counts must be whole numbers")
    for image in hashed:
        int(image.picture_hash, 16)
    return FinishedShard(parse_shard(stored["entry"]), changes, tuple(bad), hashed)


class DirectoryLock:
    """A directory that this process alone builds in; `stream` is its open journal."""

    def __init__(self, directory: pathlib.Path, stream):
        self.directory = directory
        self.stream = stream


@contextlib.contextmanager
def lock_directory(directory):
    """A DirectoryLock, for use in a `with` statement; the directory is made if absent.

    Where nothing was written to the journal, neither it nor a directory that was made stays.

    Raises:
      DataError: the directory holds the records of others, is being built, or cannot be written.
    """
    directory = pathlib.Path(directory)
    path = directory / JOURNAL_NAME
    if not path.exists() and not (directory / MANIFEST_NAME).exists() and _has_shards(directory):
        # Before a journal lies beside them, which would make them look unfinished.
        raise _other_build(directory)
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(
            "Records must be built into a directory that can be written.",
            received=f"{error.strerror}: {error.filename}",
            remedy="Give another --out.",
        ) from None
    with stream:
        _lock(stream, path)
        try:
            yield DirectoryLock(directory, stream)
        finally:
            if os.fstat(stream.fileno()).st_size == 0:
                path.unlink(missing_ok=True)
                if is_new:
                    with contextlib.suppress(OSError):  # something else lies there by now
                        directory.rmdir()


def _lock(stream, path):
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # One that gave up may have removed the file between its opening and its locking here.
        is_held = path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except BlockingIOError:
        is_held = False
    if not is_held:
        raise DataError(
            "A directory can be built by one builder at a time.",
            received=str(path.parent),
            remedy="Wait for the other one.",
        )


def open_journal(lock: DirectoryLock, plan: dict) -> Journal:
    """The journal of the build with this plan.

    Raises:
      DataError: the directory holds records or a build of another plan, or a journal that does
        not say which build it is of.
    """
    directory, stream = lock.directory, lock.stream
    is_finished = (directory / MANIFEST_NAME).exists()
    if is_finished and read_manifest(directory).options != plan:
        raise _other_build(directory)
    stream.seek(0)
    text = stream.read()
    first, separator, rest = text.partition("\n")
    found = _parse_plan(first) if separator else None
    journal = Journal(directory, stream)
    if found is None and (rest or _has_shards(directory)):
        if not is_finished:
            raise _damaged(directory) if text else _other_build(directory)
        # The manifest says that it is this build: only the journal's first line is lost.
        stream.truncate(0)
        journal.append(plan)
        stream.write(rest)
    elif found != plan and not rest:
        # New, killed before its first line was whole, or given up before its first shard (by an
        # image that was bad, say, and has been mended or is to be left out now).
        stream.truncate(0)
        journal.append(plan)
    elif found != plan:
        raise _other_build(directory)
    if rest and not rest.endswith("\n"):
        stream.write("\n")  # keeps the next line apart from one that a kill cut short
    return journal


def _has_shards(directory):
    try:
        return bool(list_shards(directory))
    except DataError:  # some of a series, or two series
        return True


def _parse_plan(line):
    """The plan that a journal's first line says; None where it is damaged."""
    with contextlib.suppress(ValueError, RecursionError):
        plan = json.loads(line)
        return plan if isinstance(plan, dict) else None
    return None


def _damaged(directory):
    return DataError(
        "The first line of a build's journal must say which build it is of.",
        received=f"{directory / JOURNAL_NAME}, line 1, is damaged",
        remedy="The finished shards cannot be told from those of another build: remove that"
        " directory, or give another --out.",
    )


def _other_build(directory):
    return DataError(
        "A build must go to an empty directory or go on with the same source and options.",
        received=f"{directory} with other records or an unfinished build of others",
        remedy="Give another --out, or remove that directory.",
    )
