"""The files of a data directory: their names, and writing its shards."""

import contextlib
import errno
import pathlib
import re

from inception_tf import durable
from inception_tf.data import files
from inception_tf.errors import DataError

MANIFEST_NAME = "manifest.json"
JOURNAL_NAME = "build_journal.jsonl"  # of the builder; without a manifest: not finished

_SHARD_NAME = re.compile(r"(?P<split>[^/.][^/]*)-(?P<number>\d{5})-of-(?P<count>\d{5})")


def shard_name(split: str, number: int, count: int) -> str:
    """File name of shard `number` of `count`, as in the released ImageNet records."""
    return f"{split}-{number:05d}-of-{count:05d}"


def list_shards(data_dir) -> dict[str, tuple[str, ...]]:
    """Shard files by split, from their names, relative to the data directory.

    A split's shards lie in the directory itself or in a folder of the split's name.

    Raises:
      DataError: the directory cannot be read, a shard of a numbered series is missing, or two
        series are mixed.
    """
    root = files.absolute(data_dir)
    if not files.is_directory(root):
        return {}
    try:
        names = files.list_names(root)
    except PermissionError:
        raise DataError("A data directory must be readable.", received=root) from None
    found = {}
    for path in [*_list_folders(root, names), *names]:
        match = _SHARD_NAME.fullmatch(path.rpartition("/")[2])
        if match:
            series = found.setdefault(match["split"], {}).setdefault(int(match["count"]), {})
            series.setdefault(int(match["number"]), path)
    shards = {}
    for split, by_count in found.items():
        if len(by_count) > 1:
            raise DataError(
                f"The shards of split {split!r} must be one numbered series.",
                received=f"series of {' and of '.join(map(str, sorted(by_count)))} in {root}",
                remedy="Remove the series that does not belong there.",
            )
        ((count, series),) = by_count.items()
        absent = [number for number in range(count) if number not in series]
        if absent:
            raise DataError(
                f"All {count:,} shards of split {split!r} must be there.",
                received=f"{len(absent):,} missing in {root}, the first"
                f" {shard_name(split, absent[0], count)}",
                remedy="Copy the missing shards or build the records again.",
            )
        shards[split] = tuple(series[number] for number in range(count))
    return shards


def _list_folders(root, names):
    """Shards in folders that have the name of their split, as paths below the root."""
    for folder in names:
        if _SHARD_NAME.fullmatch(folder) or not files.is_directory(files.join(root, folder)):
            continue
        try:
            names_inside = files.list_names(files.join(root, folder))
        except PermissionError:  # somebody else's folder beside the data
            continue
        for name in names_inside:
            match = _SHARD_NAME.fullmatch(name)
            if match and match["split"] == folder:
                yield f"{folder}/{name}"


@contextlib.contextmanager
def open_shard(path: pathlib.Path):
    """A shard to write that has its name only once all of its bytes are on the disk.

    Raises:
      DataError: the disk is full.
    """
    try:
        with durable.open_whole(path) as stream:
            yield stream
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            "Records need more space on the disk.",
            received=f"{path.parent} is full",
            remedy="Make space and give the same command again.",
        ) from None
