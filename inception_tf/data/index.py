"""Where every record of a split lies: scanned once from the shards, then cached."""

import concurrent.futures
import dataclasses
import os
import pathlib
import zipfile
import zlib

import numpy as np
from absl import logging

from inception_tf import durable
from inception_tf.data import files as data_files
from inception_tf.data import tfrecord
from inception_tf.errors import DataError

_FORMAT = 1  # of the cache file; another number means: scan again
_MAX_LABEL = 2**20  # far above ImageNet-21k; keeps a wild label from sizing the class counts
_SCAN_THREADS = 8  # a cold file system answers several shards at once
# What damage to a zip file raises; RuntimeError where a flag claims encryption or a version.
_CACHE_ERRORS = (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile,
                 zlib.error)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """Where the M records of one split lie; a record id is a position in these arrays.

    Attributes:
      shard: int32 [M], position in `files`.
      offset: int64 [M], first byte of the record's frame in its shard.
      length: int32 [M], payload bytes.
      crc: uint32 [M], masked CRC-32C of the payload, as the shard states it.
      files: absolute paths of the shards, in the order of their numbers.
    """

    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    crc: np.ndarray
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def num_records_by_shard(self) -> tuple[int, ...]:
        """Records of each shard."""
        return tuple(np.bincount(self.shard, minlength=len(self.files)).tolist())

    def place(self, record_id: int) -> str:
        """Shard and byte offset of one record, as errors name them."""
        return f"{self.files[self.shard[record_id]]} at byte {int(self.offset[record_id]):,}"


@dataclasses.dataclass(frozen=True)
class LabelScan:
    """What the records of a split say of their classes.

    Attributes:
      labels: int32 [M], as stored.
      synsets: (stored label, name) of every label seen whose records name their class.
    """

    labels: np.ndarray
    synsets: tuple[tuple[int, str], ...]


def read_index(
    files, *, split: str, directories, with_labels: bool = False
) -> tuple[RecordIndex, LabelScan | None]:
    """The index of one split's shards, from the cache where it still fits them.

    The cache is index-<split>.npz in the first of `directories` that holds a fitting one. It
    fits while names, sizes and modification times of all shards are unchanged. Otherwise the
    shards are scanned (headers only) and the cache is written, whole or not at all, to the
    first directory that can be written.

    Args:
      files: paths of all shards, in order.
      split: name of the split.
      directories: where the cache may lie, best first.
      with_labels: read every record once, so that its label is known too.

    Raises:
      DataError: a damaged or truncated shard; names the shard and the byte offset.
    """
    files = tuple(data_files.absolute(file) for file in files)
    caches = [pathlib.Path(directory) / f"index-{split}.npz" for directory in directories]
    identity = _identity(files)
    for cache in caches:
        arrays = _load_arrays(cache, identity, with_labels=with_labels)
        if arrays is not None:
            break
    else:
        if with_labels:
            _warn_of_reading(split, identity["sizes"].sum())
        arrays = _scan(files, with_labels=with_labels)
        _cache_arrays(caches, {**identity, **arrays})
    index = RecordIndex(*(arrays[name] for name in ("shard", "offset", "length", "crc")), files)
    if not with_labels:
        return index, None
    synsets = zip(arrays["synset_labels"].tolist(), arrays["synset_names"].tolist())
    return index, LabelScan(arrays["labels"], tuple(synsets))


def _identity(files):
    try:
        with concurrent.futures.ThreadPoolExecutor(_SCAN_THREADS) as pool:
            found = list(pool.map(data_files.identify, files))
    except FileNotFoundError as error:
        raise DataError(
            "Every shard must be there.",
            received=f"no {error.filename}",
            remedy="Copy the missing shards or build the records again.",
        ) from None
    return {
        "format": np.array(_FORMAT),
        "names": np.array([os.path.basename(file) for file in files], np.str_),
        "sizes": np.array([identity.num_bytes for identity in found], np.int64),
        "mtimes_ns": np.array([identity.mtime_ns for identity in found], np.int64),
    }


def _load_arrays(cache, identity, *, with_labels):
    """The cached arrays, or None where there are none that fit the shards."""
    wanted = ["shard", "offset", "length", "crc"]
    wanted += ["labels", "synset_labels", "synset_names"] if with_labels else []
    try:
        with np.load(cache, allow_pickle=False) as stored:
            if all(np.array_equal(stored[name], value) for name, value in identity.items()):
                return {name: stored[name] for name in wanted}
            logging.warning("The shards have changed since %s was written: scanning again.", cache)
    except FileNotFoundError:
        pass
    except _CACHE_ERRORS as error:
        logging.warning("%s cannot be used (%s): scanning the shards again.", cache, error)
    return None


def _cache_arrays(caches, arrays):
    failures = []
    for cache in caches:
        try:
            _save_arrays(cache, arrays)
            return
        except OSError as error:  # a read-only data directory, or a full disk
            failures.append(f"{cache} ({error.strerror})")
    logging.warning(
        "The index of the records could not be kept and is built again at the next start: %s.",
        ", ".join(failures),
    )


def _save_arrays(cache, arrays):
    cache.parent.mkdir(parents=True, exist_ok=True)
    # Several workers may build the same index at once.
    with durable.open_whole(cache, has_other_writers=True) as stream:
        np.savez(stream, **arrays)


def _warn_of_reading(split, num_bytes):
    logging.warning(
        "No manifest.json beside these records: reading all %.1f GB of %r once for their"
        " labels; the result is cached.",
        num_bytes / 1e9,
        split,
    )


def _scan(files, *, with_labels):
    # Work of the Python interpreter bounds the scan on a warm cache, the disk on a cold one.
    with concurrent.futures.ThreadPoolExecutor(_SCAN_THREADS) as pool:
        frames = list(pool.map(tfrecord.scan_frames, files))
        arrays = {
            "shard": np.repeat(
                np.arange(len(files), dtype=np.int32), [len(shard.offset) for shard in frames]
            ),
            "offset": np.concatenate([shard.offset for shard in frames]),
            "length": np.concatenate([shard.length for shard in frames]),
            "crc": np.concatenate([shard.crc for shard in frames]),
        }
        if with_labels:
            scans = list(pool.map(_scan_labels, files, frames))
            synsets = {}
            for file, (_, found) in zip(files, scans):
                add_synsets(synsets, found, where=file)
            arrays["labels"] = np.concatenate([labels for labels, _ in scans])
            arrays["synset_labels"] = np.array(sorted(synsets), np.int64)
            arrays["synset_names"] = np.array([synsets[key] for key in sorted(synsets)], np.str_)
    return arrays


def _scan_labels(file, frames):
    """The stored label of every record of one shard, and the names that records give them."""
    labels = np.empty(len(frames.offset), np.int32)
    synsets = {}
    shard = data_files.open_file(file)
    try:
        for position in range(len(labels)):
            offset, length = int(frames.offset[position]), int(frames.length[position])
            frame = shard.read_at(offset, length + tfrecord.FRAME_BYTES)
            try:
                payload = tfrecord.read_payload(
                    frame, length=length, crc=int(frames.crc[position])
                )
                record = tfrecord.parse_example(payload)
                if abs(record.label) > _MAX_LABEL:
                    raise tfrecord.BadFrame(f"label {record.label} is out of every range")
            except tfrecord.BadFrame as bad:
                raise DataError(
                    "Without manifest.json every record must be readable.",
                    received=f"{bad}, in {file} at byte {offset:,}",
                    remedy="Copy or build this shard again.",
                ) from None
            labels[position] = record.label
            if record.synset:
                add_synsets(synsets, {record.label: record.synset},
                            where=f"{file} at byte {offset:,}")  # fmt: skip
    finally:
        shard.close()
    return labels, synsets


def add_synsets(known: dict, found: dict, *, where: str) -> None:
    """Adds names of classes by label; `where` says which records named them.

    Raises:
      DataError: a label has another name already: the records count their classes in two ways.
    """
    for label, synset in found.items():
        if known.setdefault(label, synset) != synset:
            raise DataError(
                "Records must agree on the class of a label.",
                received=f"image/class/synset {synset} with image/class/label {label} in {where},"
                f" where others say {known[label]}",
                remedy="Build or convert all splits with one list of classes.",
            )
