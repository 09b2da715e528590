"""Reads one shard from its first byte to its last and says what is wrong with it."""

import collections
import dataclasses
import hashlib

import google_crc32c
import numpy as np

from inception_tf.counts import count_of
from inception_tf.data import boxes, encoded, files, jpeg, tfrecord
from inception_tf.data.description import ShardEntry
from inception_tf.data.manifest import check_size
from inception_tf.errors import DataError

UNLABELLED = -1  # the label that TensorFlow Datasets stores where there is none

_SAMPLES = 16  # records of a shard that a quick check reads
_KEPT_PROBLEMS = 100  # per shard; records of a foreign kind are bad one and all


@dataclasses.dataclass(frozen=True)
class Problem:
    """One fault; `offset` is a byte offset in the shard, None if it concerns the whole file."""

    split: str
    file: str
    offset: int | None
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardTask:
    """What is to be read.

    Attributes:
      root: directory of the data set.
      split, shard: the file, as manifest or directory say it; num_records -1 if unknown.
      schema: under which keys an Example holds what.
      first_label, end_label: stored labels lie in [first_label, end_label); end None if unknown.
      quick: read headers and a few records only.
      may_lack_labels: the records' writer gives -1 to images without a label.
    """

    root: str
    split: str
    shard: ShardEntry
    schema: tfrecord.Schema
    first_label: int
    end_label: int | None
    quick: bool
    may_lack_labels: bool = False


@dataclasses.dataclass
class Findings:
    """What was found of one shard, gathered on the way.

    Attributes:
      task: what was read.
      num_records, num_bytes: whole records in the file, and its size.
      crc32c: of the whole file, unmasked; None unless every byte was read.
      class_counts: by stored label.
      num_images, image_bytes, height_px, width_px: sums over the good images that were read.
      hashes: uint64 [num_images], of the encoded images; equal for equal bytes.
      offsets, labels: int64 [num_images], of their records.
      synsets: (label, name) -> [records, offset of the first], of good records that name it.
      problems, num_problems: the first faults, and how many there are.
    """

    task: ShardTask
    num_records: int = 0
    num_bytes: int = 0
    crc32c: int | None = None
    class_counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    num_images: int = 0
    image_bytes: int = 0
    height_px: int = 0
    width_px: int = 0
    hashes: list | np.ndarray = dataclasses.field(default_factory=list)
    offsets: list | np.ndarray = dataclasses.field(default_factory=list)
    labels: list | np.ndarray = dataclasses.field(default_factory=list)
    synsets: dict[tuple[int, str], list[int]] = dataclasses.field(default_factory=dict)
    problems: list[Problem] = dataclasses.field(default_factory=list)
    num_problems: int = 0

    def add_problem(self, reason, offset=None):
        """Counts a fault, and keeps it where there are not too many."""
        self.num_problems += 1
        if len(self.problems) < _KEPT_PROBLEMS:
            problem = Problem(self.task.split, self.task.shard.file, offset, str(reason))
            self.problems.append(problem)

    def add_image(self, record, offset, height_px, width_px):
        """Counts a good image."""
        digest = hashlib.blake2b(record.jpeg, digest_size=8).digest()
        self.num_images += 1
        self.image_bytes += len(record.jpeg)
        self.height_px += height_px
        self.width_px += width_px
        self.hashes.append(int.from_bytes(digest, "little"))
        self.offsets.append(offset)
        self.labels.append(record.label)
        if record.synset:
            self.synsets.setdefault((record.label, record.synset), [0, offset])[0] += 1

    def pack(self):
        """Lists become arrays: eight bytes a number, between processes and while all are kept."""
        self.hashes = np.array(self.hashes, np.uint64)
        self.offsets = np.array(self.offsets, np.int64)
        self.labels = np.array(self.labels, np.int64)


def check_shard(task: ShardTask) -> Findings:
    """What one shard holds, and every fault in it.

    Memory stays at one record's, whatever the shard's size.
    """
    findings, shard = Findings(task), task.shard
    path = files.join(task.root, shard.file)
    try:
        check_size(task.root, shard)
    except DataError as error:
        findings.add_problem(error)
        if not files.is_file(path):
            findings.pack()
            return findings
    findings.num_bytes = files.identify(path).num_bytes
    if not findings.num_bytes and shard.num_records:
        findings.add_problem("the shard is empty")
    try:
        (_sample if task.quick else _read_all)(findings, path)
        if shard.num_records not in (-1, findings.num_records):
            findings.add_problem(f"{count_of(findings.num_records, 'record')} instead of the"
                                 f" manifest's {shard.num_records:,}")  # fmt: skip
    except DataError as error:  # where the next record begins is unknown from here on
        findings.add_problem(error)
    except OSError as error:
        findings.add_problem(f"the file cannot be read: {error.strerror}")
    if findings.crc32c is not None and shard.crc32c not in (None, findings.crc32c):
        findings.add_problem("the file's checksum (CRC-32C) is not the manifest's")
    findings.pack()
    return findings


def _sample(findings, path):
    """Counts the records by their headers and reads a few that are evenly spread."""
    frames = tfrecord.scan_frames(path)
    findings.num_records = len(frames.offset)
    count = min(_SAMPLES, findings.num_records)
    file = files.open_file(path)
    try:
        for position in np.linspace(0, findings.num_records - 1, count).astype(int).tolist():
            offset, length = int(frames.offset[position]), int(frames.length[position])
            frame = file.read_at(offset, length + tfrecord.FRAME_BYTES)
            _check_frame(findings, frame, offset, length)
    finally:
        file.close()


def _read_all(findings, path):
    """Reads every byte once, in order; ends where the next record cannot be found."""
    file = files.open_file(path)
    try:
        crc = offset = 0
        header = file.read_at(0, tfrecord.HEADER_BYTES)
        while offset < findings.num_bytes:
            try:
                length = tfrecord.parse_header(header)
            except tfrecord.BadFrame as bad:
                findings.add_problem(f"{bad}; what follows cannot be read", offset)
                return
            end = length + tfrecord.FRAME_BYTES
            chunk = file.read_at(offset, end + tfrecord.HEADER_BYTES)
            frame, header = chunk[:end], chunk[end:]
            crc = google_crc32c.extend(crc, frame)
            _check_frame(findings, frame, offset, length)
            findings.num_records += len(frame) == end
            offset += end
        findings.crc32c = crc
    finally:
        file.close()


def _check_frame(findings, frame, offset, length):
    task = findings.task
    try:
        stated = int.from_bytes(frame[-tfrecord.FOOTER_BYTES :], "little")
        payload = tfrecord.read_payload(frame, length=length, crc=stated)
        record = tfrecord.parse_example(payload, schema=task.schema)
        findings.class_counts[record.label] += 1
        findings.add_image(record, offset, *_check_record(record, task))
        boxes.parse_boxes(payload)
    except (tfrecord.BadFrame, jpeg.BadImage, boxes.BadBoxes) as bad:
        findings.add_problem(bad, offset)


def _check_record(record, task):
    """Height and width in px of a record's image, decoded in full.

    Raises:
      BadFrame: its label is out of range.
      BadImage: the image cannot be decoded, or has not the size that the record claims.
    """
    first, end = task.first_label, task.end_label
    of_file = f" (file {record.filename})" if record.filename else ""
    is_labelled = record.label != UNLABELLED or not task.may_lack_labels
    if is_labelled and (record.label < first or (end is not None and record.label >= end)):
        allowed = f"{first} or more" if end is None else f"{first}..{end - 1}"
        raise tfrecord.BadFrame(f"label {record.label} is not {allowed}{of_file}")
    try:
        encoded.check_image(record.jpeg, takes_png=task.schema.takes_png)
        height_px, width_px = encoded.decode_image(record.jpeg).shape[:2]
    except jpeg.BadImage as bad:
        raise jpeg.BadImage(f"{bad}{of_file}") from None
    claimed = (record.height_px or height_px, record.width_px or width_px)
    if claimed != (height_px, width_px):
        raise jpeg.BadImage(
            f"the image has {height_px} x {width_px} px, the record says"
            f" {claimed[0]} x {claimed[1]}{of_file}"
        )
    return height_px, width_px
