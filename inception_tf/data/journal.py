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
        """Recorded shards by file name whose files still have the recorded bytes."""
        self._stream.seek(0)
        intact = {}
        for line in self._stream.read().splitlines()[1:]:
            with contextlib.suppress(ValueError):  # a line that a kill cut short
                stored = json.loads(line)
                entry = ShardEntry(**stored["entry"])
                path = self._directory / entry.file
                if path.is_file() and path.stat().st_size == entry.num_bytes:
                    if durable.crc32c_of_file(path) == entry.crc32c:
                        hashed = [HashedImage(**image) for image in stored.get("hashed", ())]
                        intact[entry.file] = FinishedShard(
                            entry, stored["changes"], tuple(stored["bad"]), tuple(hashed)
                        )
        return intact


@contextlib.contextmanager
def open_journal(directory, plan: dict):
    """The journal of the build with this plan, locked; for use in a `with` statement.

    Raises:
      DataError: the directory holds records or a build of another plan, or is being built.
    """
    directory = pathlib.Path(directory)
    path = directory / JOURNAL_NAME
    if (directory / MANIFEST_NAME).exists():
        holds_others = read_manifest(directory).options != plan
    else:
        holds_others = not path.exists() and bool(list_shards(directory))
    if holds_others:
        raise _other_build(directory)
    with open(path, "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                "A directory can be built by one builder at a time.",
                received=str(directory),
                remedy="Wait for the other one.",
            ) from None
        journal = Journal(directory, stream)
        stream.seek(0)
        text = stream.read()
        first, separator, _ = text.partition("\n")
        # New, killed before its first line was whole, or given up before its first shard (by an
        # image that was bad, say, and has been mended or is to be left out now).
        if not separator or text == first + separator and json.loads(first) != plan:
            stream.truncate(0)
            journal.append(plan)
        elif json.loads(first) != plan:
            raise _other_build(directory)
        elif not text.endswith("\n"):
            stream.write("\n")  # keeps the next line apart from one that a kill cut short
        yield journal


def _other_build(directory):
    return DataError(
        "A build must go to an empty directory or go on with the same source and options.",
        received=f"{directory} with other records or an unfinished build of others",
        remedy="Give another --out, or remove that directory.",
    )
