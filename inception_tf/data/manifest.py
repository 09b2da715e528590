"""Finding a directory of records and opening it, whoever wrote them.

Our builder writes manifest.json last, so its presence says that every shard is there. Data sets
of TensorFlow Datasets and released TFRecords without manifest.json are read in place.
"""

import dataclasses
import json
import pathlib

from absl import logging

from inception_tf import durable
from inception_tf.data import files
from inception_tf.data import manifest_fields
from inception_tf.data import released
from inception_tf.data import tfds
from inception_tf.data.description import Manifest
from inception_tf.data.description import ShardEntry
from inception_tf.data.directory import JOURNAL_NAME
from inception_tf.data.directory import MANIFEST_NAME
from inception_tf.data.directory import list_shards
from inception_tf.data.index import RecordIndex
from inception_tf.data.index import read_index
from inception_tf.errors import DataError

_BUILD_REMEDY = (
    "Build records with `python -m inception_tf.records build folder SOURCE --out DIR`"
    " (or `build digits --out DIR`) and give their directory with --data_dir."
)


def read_manifest(data_dir) -> Manifest:
    """The manifest of a data directory.

    Raises:
      DataError: there is none, or it cannot be understood.
    """
    path = files.join(files.absolute(data_dir), MANIFEST_NAME)
    try:
        return manifest_fields.parse_manifest(json.loads(files.read_text(path)))
    except FileNotFoundError:
        raise DataError(
            "A data directory must hold manifest.json.", received=path, remedy=_BUILD_REMEDY
        ) from None
    except OSError as error:
        raise DataError(
            "manifest.json must be readable.",
            received=f"{error.strerror}: {path}",
            remedy="Check its permissions, or copy the records again.",
        ) from None
    except (ValueError, RecursionError) as error:  # the latter where brackets nest thousandfold
        raise DataError(
            "manifest.json must be one that the record builder wrote.",
            received=f"{path}: {error}",
            remedy="Copy or build the records again.",
        ) from None


def save_manifest(data_dir, manifest: Manifest) -> pathlib.Path:
    """Writes manifest.json whole or not at all; its path."""
    stored = {"format": manifest_fields.FORMAT, **dataclasses.asdict(manifest)}
    del stored["schema"], stored["origin"]  # always those of our own records
    path = pathlib.Path(data_dir) / MANIFEST_NAME
    durable.save_text(path, json.dumps(stored, indent=1, sort_keys=True) + "\n")
    return path


def find_data_dir(candidates, split: str) -> tuple[str, str]:
    """The first of several places that holds records of a split, and what named it.

    Records are in the place itself, or in the version of a data set of TensorFlow Datasets at or
    below it (`tfds.find_version`). A place that is named but does not hold them is passed over
    with a warning, so a caller that must not fall back to another place gives only that one.

    Args:
      candidates: (where the path comes from, path or None if not given), best first.
      split: name of the split.

    Returns:
      (absolute path of the directory, where it comes from).

    Raises:
      DataError: none does; lists every place looked at and how to build records.
    """
    looked = []
    for where_from, path in candidates:
        reason = "not given" if path is None else _why_without_split(path, split)
        if reason is None:
            for line in looked:
                logging.warning("No records of split %r from %s.", split, line)
            return locate(path), where_from
        looked.append(f"{where_from}: {reason}")
    raise DataError(
        f"Records of split {split!r} must be found in one of the places looked at.",
        received="\n  " + "\n  ".join(looked) + "\n",
        remedy=_BUILD_REMEDY,
    )


def read_description(data_dir) -> Manifest | None:
    """What a data directory declares; None of records that must be read for it.

    Raises:
      DataError: what it declares cannot be understood.
    """
    root = locate(data_dir)
    if files.is_file(files.join(root, MANIFEST_NAME)):
        return read_manifest(root)
    if files.is_file(files.join(root, tfds.INFO_NAME)):
        return tfds.read_description(root)
    return None


def locate(path):
    """The directory of the records that a place stands for."""
    root = files.absolute(path)
    names = (MANIFEST_NAME, JOURNAL_NAME, tfds.INFO_NAME)
    if any(files.is_file(files.join(root, name)) for name in names) or list_shards(root):
        return root
    return tfds.find_version(root) or root


def _why_without_split(path, split):
    """Why a directory does not hold a split; None if it does."""
    root = files.absolute(path)
    if not files.is_directory(root):
        return f"{root} is no directory"
    root = locate(root)
    described = read_description(root)
    if described is not None:
        splits = described.splits
        return None if split in splits else f"{root} holds only {', '.join(sorted(splits))}"
    if files.is_file(files.join(root, JOURNAL_NAME)):
        return f"{root} holds an unfinished build"
    return None if split in list_shards(root) else f"{root} holds no {split}-*-of-* shards"


def open_index(
    data_dir, split: str, *, cache_dir=None, label_base: int | None = None
) -> tuple[Manifest, RecordIndex]:
    """What a data directory holds and where every record of one split lies.

    Every shard's number of records, and of our own records its size, is checked against what the
    directory declares. Released records declare nothing: their classes and counts come from
    reading every record of every split once (cached).

    Args:
      data_dir: directory of the shards, or what `find_data_dir` takes for it.
      split: name of the split.
      cache_dir: keeps the index where the data directory is read-only or remote.
      label_base: stored label of the first class, 1 or 0; None takes what is declared or what the
        writer of the records is known for.

    Raises:
      DataError: empty directory, unknown split, missing, truncated or damaged shard, wrong
        count, unfinished build, label out of range, or a label convention that is unknown or
        contradicts the records.
    """
    root = locate(data_dir)
    # An index is written whole or not at all, which only a local disk promises.
    directories = [] if files.is_remote(root) else [pathlib.Path(root)]
    directories += [pathlib.Path(cache_dir)] if cache_dir is not None else []
    manifest = read_description(root)
    if manifest is None:
        return _open_released(root, split, directories, label_base)
    if label_base not in (None, manifest.label_base):
        raise DataError(
            f"label_base must be the one of {_name_description(manifest)}.",
            received=f"{label_base}, where {root} has {manifest.label_base}",
            remedy="Leave label_base out.",
        )
    _check_split(root, split, manifest.splits)
    shards = manifest.splits[split]
    for shard in shards:
        check_size(root, shard)
    index, _ = read_index([files.join(root, shard.file) for shard in shards], split=split,
                          directories=directories)  # fmt: skip
    for shard, num_records in zip(shards, index.num_records_by_shard, strict=True):
        if num_records != shard.num_records:
            raise DataError(
                f"A shard must hold as many records as {_name_description(manifest)} says.",
                received=f"{num_records:,} instead of {shard.num_records:,} in"
                f" {files.join(root, shard.file)}",
                remedy="Copy or build this shard again.",
            )
    return manifest, index


def check_size(data_dir, shard: ShardEntry) -> None:
    """Raises DataError unless a shard is there with the bytes that are declared, if any are."""
    path = files.join(files.absolute(data_dir), shard.file)
    remedy = "Copy this shard or build the records again."
    try:
        num_bytes = files.identify(path).num_bytes
    except FileNotFoundError:
        raise DataError(
            "A shard of the manifest is missing.", received=path, remedy=remedy
        ) from None
    if shard.num_bytes not in (None, num_bytes):
        fault = "is truncated" if num_bytes < shard.num_bytes else "is too long"
        raise DataError(
            f"A shard {fault}: it must have the bytes that the manifest says.",
            received=f"{num_bytes:,} instead of {shard.num_bytes:,} bytes in {path}",
            remedy=remedy,
        )


def _name_description(manifest):
    return tfds.INFO_NAME if manifest.origin else MANIFEST_NAME


def _check_split(root, split, splits):
    if split not in splits:
        raise DataError(
            f"The data directory must hold split {split!r}.",
            received=f"{root} with " + (", ".join(sorted(splits)) or "no shards at all"),
            remedy=_BUILD_REMEDY
            if not splits
            else "Name one of those splits: --gin_param=\"data.eval_split ="
            f" '{sorted(splits)[0]}'\" evaluates on it, data.train_split is trained on.",
        )


def _open_released(root, split, directories, label_base):
    """Manifest and index of released TFRecords without manifest.json."""
    if files.is_file(files.join(root, JOURNAL_NAME)):
        raise DataError(
            "The build of these records must be finished.",
            received=f"{root} without manifest.json",
            remedy="Give the same build command again: it goes on where it was.",
        )
    shards = list_shards(root)
    _check_split(root, split, shards)
    return released.open_released(
        root, split, shards, directories=directories, label_base=label_base
    )
