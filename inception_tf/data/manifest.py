"""What a directory of records holds: shards, counts, classes and the label convention.

The builder writes manifest.json last, so its presence says that every shard is there.
Directories of released TFRecords without one (train-00000-of-01024 ...) are read too.
"""

import dataclasses
import json
import os
import pathlib

import numpy as np
from absl import logging

from inception_tf import durable
from inception_tf.data.directory import JOURNAL_NAME
from inception_tf.data.directory import MANIFEST_NAME
from inception_tf.data.directory import list_shards
from inception_tf.data.index import RecordIndex
from inception_tf.data.index import read_index
from inception_tf.errors import DataError

_FORMAT = 1
_BUILD_REMEDY = (
    "Build records with `python -m inception_tf.records build folder SOURCE --out DIR`"
    " (or `build digits --out DIR`) and give their directory with --data_dir."
)


@dataclasses.dataclass(frozen=True)
class ShardEntry:
    """One shard, relative to the data directory; `crc32c` covers the whole file, unmasked.

    `crc32c` is None for records that come without a manifest.
    """

    file: str
    num_records: int
    num_bytes: int
    crc32c: int | None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a data directory declares.

    Attributes:
      label_base: stored label of the first class: 1 (0 is the background) or 0.
      num_classes: K, without background.
      class_names: K names in the order of the labels.
      splits: the shards of every split, in order.
      class_counts: records of each of the K classes by split; None if unknown.
      source: what the records were made from.
      options: how they were made.
    """

    label_base: int
    num_classes: int
    class_names: tuple[str, ...]
    splits: dict[str, tuple[ShardEntry, ...]]
    class_counts: dict[str, tuple[int, ...]] | None
    source: dict
    options: dict

    def num_records(self, split: str) -> int:
        """Records of one split."""
        return sum(shard.num_records for shard in self.splits[split])


def read_manifest(data_dir) -> Manifest:
    """The manifest of a data directory.

    Raises:
      DataError: there is none, or it cannot be understood.
    """
    path = pathlib.Path(data_dir) / MANIFEST_NAME
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != _FORMAT:
            raise ValueError(f"format {stored['format']!r}, this version reads {_FORMAT}")
        manifest = Manifest(
            label_base=stored["label_base"],
            num_classes=stored["num_classes"],
            class_names=tuple(stored["class_names"]),
            splits={
                split: tuple(ShardEntry(**shard) for shard in shards)
                for split, shards in stored["splits"].items()
            },
            class_counts=stored["class_counts"]
            and {split: tuple(counts) for split, counts in stored["class_counts"].items()},
            source=stored["source"],
            options=stored["options"],
        )
        if manifest.label_base not in (0, 1) or len(manifest.class_names) != manifest.num_classes:
            raise ValueError("label_base must be 0 or 1, and every class needs one name")
    except FileNotFoundError:
        raise DataError(
            "A data directory must hold manifest.json.", received=str(path), remedy=_BUILD_REMEDY
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "manifest.json must be one that the record builder wrote.",
            received=f"{path}: {type(error).__name__}: {error}",
            remedy="Copy or build the records again.",
        ) from None
    return manifest


def save_manifest(data_dir, manifest: Manifest) -> pathlib.Path:
    """Writes manifest.json whole or not at all; its path."""
    stored = {"format": _FORMAT, **dataclasses.asdict(manifest)}
    path = pathlib.Path(data_dir) / MANIFEST_NAME
    durable.save_text(path, json.dumps(stored, indent=1, sort_keys=True) + "\n")
    return path


def find_data_dir(candidates, split: str) -> str:
    """The first of several places that holds records of a split.

    A place that is named but does not hold them is passed over with a warning, so a caller
    that must not fall back to another place gives only that one.

    Args:
      candidates: (where the path comes from, path or None if not given), best first.
      split: name of the split.

    Raises:
      DataError: none does; lists every place looked at and how to build records.
    """
    looked = []
    for where_from, path in candidates:
        reason = "not given" if path is None else _why_without_split(path, split)
        if reason is None:
            for line in looked:
                logging.warning("No records of split %r from %s.", split, line)
            return os.path.abspath(os.path.expanduser(path))
        looked.append(f"{where_from}: {reason}")
    raise DataError(
        f"Records of split {split!r} must be found in one of the places looked at.",
        received="\n  " + "\n  ".join(looked) + "\n",
        remedy=_BUILD_REMEDY,
    )


def _why_without_split(path, split):
    """Why a directory does not hold a split; None if it does."""
    root = pathlib.Path(path).expanduser().absolute()
    if not root.is_dir():
        return f"{root} is no directory"
    if (root / MANIFEST_NAME).exists():
        splits = sorted(read_manifest(root).splits)
        return None if split in splits else f"{root} holds only {', '.join(splits)}"
    if (root / JOURNAL_NAME).exists():
        return f"{root} holds an unfinished build"
    return None if split in list_shards(root) else f"{root} holds no {split}-*-of-* shards"


def open_index(
    data_dir, split: str, *, cache_dir=None, label_base: int | None = None
) -> tuple[Manifest, RecordIndex]:
    """What a data directory holds and where every record of one split lies.

    Every shard's size and number of records is checked against the manifest. Without a
    manifest the label convention must be given, since records do not state it; then classes
    and counts come from reading every record of every split once (cached).

    Args:
      data_dir: directory of the shards.
      split: name of the split.
      cache_dir: keeps the index where the data directory is read-only.
      label_base: stored label of the first class, 1 or 0; None takes the manifest's.

    Raises:
      DataError: empty directory, unknown split, missing, truncated or damaged shard, wrong
        count, unfinished build, label out of range, or a label convention that is unknown or
        contradicts the manifest.
    """
    root = pathlib.Path(data_dir).expanduser()
    directories = [root] + ([pathlib.Path(cache_dir)] if cache_dir is not None else [])
    if not (root / MANIFEST_NAME).exists():
        return _open_foreign(root, split, directories, label_base)
    manifest = read_manifest(root)
    if label_base not in (None, manifest.label_base):
        raise DataError(
            "label_base must be the one of manifest.json.",
            received=f"{label_base}, where {root / MANIFEST_NAME} says {manifest.label_base}",
            remedy="Leave label_base out.",
        )
    _check_split(root, split, manifest.splits)
    shards = manifest.splits[split]
    for shard in shards:
        check_size(root, shard)
    index, _ = read_index([root / shard.file for shard in shards], split=split,
                          directories=directories)  # fmt: skip
    for shard, num_records in zip(shards, index.num_records_by_shard, strict=True):
        if num_records != shard.num_records:
            raise DataError(
                "A shard must hold as many records as the manifest says.",
                received=f"{num_records:,} instead of {shard.num_records:,} in {root / shard.file}",
                remedy="Copy or build this shard again.",
            )
    return manifest, index


def check_size(data_dir, shard: ShardEntry) -> None:
    """Raises DataError unless a shard is there with the bytes that the manifest says."""
    path = pathlib.Path(data_dir) / shard.file
    remedy = "Copy this shard or build the records again."
    if not path.is_file():
        raise DataError("A shard of the manifest is missing.", received=str(path), remedy=remedy)
    num_bytes = path.stat().st_size
    if num_bytes != shard.num_bytes:
        fault = "is truncated" if num_bytes < shard.num_bytes else "is too long"
        raise DataError(
            f"A shard {fault}: it must have the bytes that the manifest says.",
            received=f"{num_bytes:,} instead of {shard.num_bytes:,} bytes in {path}",
            remedy=remedy,
        )


def _check_split(root, split, splits):
    if split not in splits:
        raise DataError(
            f"The data directory must hold split {split!r}.",
            received=f"{root} with " + (", ".join(sorted(splits)) or "no shards at all"),
            remedy=_BUILD_REMEDY if not splits else "Name one of those splits.",
        )


def _open_foreign(root, split, directories, label_base):
    """Manifest and index of released TFRecords without manifest.json."""
    if (root / JOURNAL_NAME).exists():
        raise DataError(
            "The build of these records must be finished.",
            received=f"{root} without manifest.json",
            remedy="Give the same build command again: it goes on where it was.",
        )
    shards = list_shards(root)
    _check_split(root, split, shards)
    if label_base not in (0, 1):
        raise DataError(
            "Records without manifest.json need data.label_base, since they do not state it:"
            " 1 for the released records (labels 1..K, 0 is the background), 0 for 0..K-1.",
            received=f"label_base {label_base} for {root}",
            remedy="Set data.label_base.",
        )
    indices, scans = {}, {}
    for name, files in shards.items():
        empty = [file for file in files if (root / file).stat().st_size == 0]
        if empty:
            raise DataError("A shard must not be empty.", received=str(root / empty[0]),
                            remedy="Copy this shard again.")  # fmt: skip
        indices[name], scans[name] = read_index(
            [root / file for file in files], split=name, directories=directories, with_labels=True
        )
        low = np.flatnonzero(scans[name].labels < label_base)
        if low.size:
            raise DataError(
                f"With label_base {label_base} every label must be {label_base} or more.",
                received=f"label {scans[name].labels[low[0]]} in {indices[name].place(low[0])}",
                remedy="Check data.label_base and the origin of these records.",
            )
    # All splits together: a split of its own may lack the last classes.
    num_classes = max(int(scan.labels.max()) for scan in scans.values()) + 1 - label_base
    synsets = {}
    for scan in scans.values():
        synsets = {**dict(scan.synsets), **synsets}
    manifest = Manifest(
        label_base=label_base,
        num_classes=num_classes,
        class_names=tuple(
            synsets.get(label, str(label)) for label in range(label_base, num_classes + label_base)
        ),
        splits={
            name: tuple(
                ShardEntry(file, num_records, (root / file).stat().st_size, None)
                for file, num_records in zip(shards[name], index.num_records_by_shard)
            )
            for name, index in indices.items()
        },
        class_counts={
            name: tuple(np.bincount(scan.labels - label_base, minlength=num_classes).tolist())
            for name, scan in scans.items()
        },
        source={"kind": "released schema without manifest.json"},
        options={},
    )
    return manifest, indices[split]
