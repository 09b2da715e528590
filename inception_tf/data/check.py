"""Reads every record once and says what is wrong with any of them."""

import collections
import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Callable

import google_crc32c

from inception_tf.data import jpeg
from inception_tf.data import tfrecord
from inception_tf.data.directory import JOURNAL_NAME
from inception_tf.data.directory import MANIFEST_NAME
from inception_tf.data.directory import list_shards
from inception_tf.data.manifest import ShardEntry
from inception_tf.data.manifest import check_size
from inception_tf.data.manifest import read_manifest
from inception_tf.errors import DataError

_THREADS = 4  # decoding and reading leave the interpreter to others


@dataclasses.dataclass(frozen=True)
class Problem:
    """One fault; `offset` is a byte offset in the shard, None if it concerns the whole file."""

    split: str
    file: str
    offset: int | None
    reason: str


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """What was found of one split; `class_counts` by stored label, empty after a quick check."""

    num_shards: int
    num_records: int
    num_bytes: int
    class_counts: dict[int, int]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """Everything a check found; `class_names` by stored label."""

    data_dir: str
    is_quick: bool
    label_base: int
    class_names: dict[int, str]
    splits: dict[str, SplitSummary]
    problems: tuple[Problem, ...]


def check_records(
    data_dir,
    *,
    label_base: int | None = None,
    quick: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> CheckResult:
    """What a data directory holds, and every fault in it.

    Reads each record once: checksums of length and payload, the message, the range of the
    label, the image decoded in full and compared with the size that the record claims; then
    bytes, checksum and number of records of each shard and the classes of each split against
    the manifest.

    Args:
      data_dir: directory of the shards, with a manifest or without.
      label_base: needed without a manifest: stored label of the first class.
      quick: only sizes, headers and counts; no payload is read.
      report: called with one line of progress at a time.

    Raises:
      DataError: nothing to check: no records, no readable manifest, or an unknown label base.
    """
    root = pathlib.Path(data_dir).expanduser()
    manifest = read_manifest(root) if (root / MANIFEST_NAME).exists() else None
    splits = manifest.splits if manifest else _foreign_splits(root, label_base)
    first = manifest.label_base if manifest else label_base
    end = first + manifest.num_classes if manifest else None
    summaries, problems = {}, []
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for split, shards in splits.items():
            futures = [pool.submit(_check_shard, root, split, shard, first, end, quick)
                       for shard in shards]  # fmt: skip
            counts, num_records, num_bytes = collections.Counter(), 0, 0
            for shard, future in zip(shards, futures, strict=True):
                found = future.result()
                counts.update(found.class_counts)
                num_records += found.num_records
                num_bytes += found.num_bytes
                problems += found.problems
                report(f"{shard.file}: {found.num_records:,} records,"
                       f" {len(found.problems):,} problems")  # fmt: skip
            summaries[split] = SplitSummary(len(shards), num_records, num_bytes,
                                            dict(sorted(counts.items())))  # fmt: skip
            if manifest and manifest.class_counts and not quick:
                stated = {first + k: n for k, n in enumerate(manifest.class_counts[split]) if n}
                if stated != summaries[split].class_counts:
                    reason = "its class counts are not those of the records"
                    problems.append(Problem(split, MANIFEST_NAME, None, reason))
    names = enumerate(manifest.class_names, first) if manifest else ()
    return CheckResult(str(root), quick, first, dict(names), summaries, tuple(problems))


@dataclasses.dataclass
class _Findings:
    """What was found of one shard, gathered on the way."""

    split: str
    file: str
    num_records: int = 0
    num_bytes: int = 0
    class_counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    problems: list[Problem] = dataclasses.field(default_factory=list)

    def add_problem(self, reason, offset=None):
        self.problems.append(Problem(self.split, self.file, offset, str(reason)))


def _foreign_splits(root, label_base):
    shards = {} if (root / JOURNAL_NAME).exists() else list_shards(root)
    if not shards:
        raise DataError("A directory to check must hold finished records.", received=str(root),
                        remedy="Build them, or give the same build command again.")  # fmt: skip
    if label_base not in (0, 1):
        raise DataError(
            "Records without manifest.json do not state their label convention.",
            received=str(root),
            remedy="Give --label_base: 1 for the released records (labels 1..K), 0 for 0..K-1.",
        )
    return {
        split: tuple(ShardEntry(file, -1, (root / file).stat().st_size, None) for file in files)
        for split, files in sorted(shards.items())
    }


def _check_shard(root, split, shard, first, end, quick):
    """Findings of one shard; stored labels must be in [first, end), end None if unknown."""
    findings = _Findings(split, shard.file)
    path = root / shard.file
    try:
        check_size(root, shard)
    except DataError as error:
        findings.add_problem(error)
        if not path.is_file():
            return findings
    findings.num_bytes = path.stat().st_size
    if not findings.num_bytes and shard.num_records:
        findings.add_problem("the shard is empty")
    try:
        frames = tfrecord.scan_frames(path)
    except DataError as error:  # where the next record begins is unknown from here on
        findings.add_problem(error)
        return findings
    findings.num_records = len(frames.offset)
    if shard.num_records not in (-1, findings.num_records):
        findings.add_problem(f"{findings.num_records:,} records instead of the manifest's"
                             f" {shard.num_records:,}")  # fmt: skip
    if not quick:
        crc = _check_payloads(path, frames, findings, first, end)
        if shard.crc32c not in (None, crc):
            findings.add_problem("the file's checksum (CRC-32C) is not the manifest's")
    return findings


def _check_payloads(path, frames, findings, first, end):
    """Checks every record of a shard; CRC-32C of the whole file."""
    crc = 0
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset, length, stated in zip(
            frames.offset.tolist(), frames.length.tolist(), frames.crc.tolist()
        ):
            frame = os.pread(fd, length + tfrecord.FRAME_BYTES, offset)
            crc = google_crc32c.extend(crc, frame)
            try:
                record = tfrecord.parse_example(
                    tfrecord.read_payload(frame, length=length, crc=stated)
                )
                findings.class_counts[record.label] += 1
                _check_record(record, first, end)
            except (tfrecord.BadFrame, jpeg.BadImage) as bad:
                findings.add_problem(bad, offset)
    finally:
        os.close(fd)
    return crc


def _check_record(record, first, end):
    of_file = f" (file {record.filename})" if record.filename else ""
    if record.label < first or (end is not None and record.label >= end):
        allowed = f"{first} or more" if end is None else f"{first}..{end - 1}"
        raise tfrecord.BadFrame(f"label {record.label} is not {allowed}{of_file}")
    try:
        jpeg.check_start(record.jpeg)
        jpeg.check_complete(record.jpeg)
        height, width = jpeg.decode_whole(record.jpeg).shape[:2]
    except jpeg.BadImage as bad:
        raise jpeg.BadImage(f"{bad}{of_file}") from None
    claimed = (record.height_px or height, record.width_px or width)
    if claimed != (height, width):
        raise jpeg.BadImage(
            f"the image has {height} x {width} px, the record says {claimed[0]} x {claimed[1]}"
            f"{of_file}"
        )
