"""Random access to records: bytes and labels of the images with given ids, checked."""

import contextlib
import dataclasses
import os
import resource
import threading

import numpy as np

from inception_tf.data import encoded, files, jpeg, tfrecord
from inception_tf.data.boxes import BadBoxes, parse_boxes
from inception_tf.data.index import RecordIndex
from inception_tf.data.manifest import Manifest
from inception_tf.errors import DataError

_REMEDY = (
    "Find every bad record with `python -m inception_tf.records check DIR`; copy or build the"
    " shard again, or set data.on_bad_record = 'skip' with data.max_bad_records."
)


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that was left out.

    Attributes:
      record_id: its id in the split.
      shard: file name of its shard.
      offset: first byte of its frame in the shard.
      key: file name of the source image, '' where the record cannot say it.
      reason: what is wrong with it, without its place.
    """

    record_id: int
    shard: str
    offset: int
    key: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where an image comes from; the fields of BadRecord but for the reason."""

    record_id: int
    shard: str
    offset: int
    key: str


class _Unusable(Exception):
    """One record cannot be used; `reason` and `key` as those of BadRecord."""

    def __init__(self, reason, key=""):
        super().__init__(reason)
        self.reason = str(reason)
        self.key = key

    def __str__(self):
        return self.reason + (f" (file {self.key})" if self.key else "")


class RecordReader:
    """Reads records of one split by id; any number of threads may share it.

    Every record is checked when it is read: both checksums, the message, the range of its
    label, and that its image is a complete JPEG of a size that may be allocated.

    With 'skip' the next good record (id + 1, id + 2, ... modulo M) stands in for a bad one. That
    is a pure function of the data: batches keep their sizes and their order, and the same records
    are left out on every topology and after every resume. The budget counts the different bad
    records that this process knows of: those it has met, reading ahead included, and those that
    `add_bad` tells it of; each stands in its budget once, however often it would be read.

    Args:
      index: where the records lie.
      manifest: label convention and number of classes.
      on_bad_record: 'raise', or 'skip', which also decodes every image in full when it is first
        read.
      max_bad_records: with 'skip', how many different bad records are tolerated.
      max_bad_share: with 'skip', which share of the M records is; the lower bound counts.
    """

    def __init__(
        self,
        index: RecordIndex,
        manifest: Manifest,
        *,
        on_bad_record: str = "raise",
        max_bad_records: int = 0,
        max_bad_share: float = 1.0,
    ):
        self.index = index
        self.manifest = manifest
        self.first_error: Exception | None = None
        self._skips = on_bad_record == "skip"
        self._max_bad_records = max_bad_records
        self._max_bad_share = max_bad_share
        self._bad = {}
        self._decoded = np.zeros(len(index), bool)  # images known to decode, with 'skip'
        self._files = {}
        # ImageNet's 1,024 shards alone would use up the usual limit of 1,024 open files.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_open = limit // 4 if limit != resource.RLIM_INFINITY else len(index.files)
        self._lock = threading.Lock()

    @property
    def num_examples(self) -> int:
        """Records of the split."""
        return len(self.index)

    @property
    def skips(self) -> bool:
        """Whether bad records are left out."""
        return self._skips

    @property
    def bad_records(self) -> list[BadRecord]:
        """Every bad record known so far, by id; only with 'skip'."""
        with self._lock:
            return [self._bad[record_id] for record_id in sorted(self._bad)]

    def add_bad(self, record: BadRecord) -> None:
        """Leaves out a record that an earlier process of the run, or another one, found bad.

        What was found first stands. The budget is left to `check_budget`.
        """
        with self._lock:
            self._bad.setdefault(record.record_id, record)

    def find_fault(self, record_id: int, *, has_boxes: bool = False) -> BadRecord | None:
        """Reads and decodes one record for what is wrong with it; None where nothing is.

        Args:
          record_id: in [0, num_examples).
          has_boxes: whether wrong boxes are a fault, as for `read_with_boxes`.
        """
        try:
            self._load(record_id, decodes=True, has_boxes=has_boxes)
        except _Unusable as fault:
            return self._describe(record_id, fault)
        return None

    def origin(self, record_id: int, *, has_boxes: bool = False) -> Origin:
        """Where the image comes from that a read of this id gives: of it, or of its stand-in.

        Args:
          record_id: in [0, num_examples).
          has_boxes: as for `find_fault`.

        Raises:
          DataError: as `read`.
        """
        self._read_one(record_id, has_boxes=has_boxes)  # what is bad on the way is known now
        while record_id in self._bad:
            record_id = (record_id + 1) % len(self.index)
        payload = self._read_payload(record_id)
        key = tfrecord.parse_example(payload, schema=self.manifest.schema).filename
        shard = os.path.basename(self.index.files[self.index.shard[record_id]])
        return Origin(record_id, shard, int(self.index.offset[record_id]), key)

    def check_budget(self) -> None:
        """Raises DataError if more records are known to be bad than tolerated."""
        bad = self.bad_records
        if len(bad) <= min(self._max_bad_records, self._max_bad_share * len(self.index)):
            return
        last = bad[-1]
        raise DataError(
            f"At most max_bad_records = {self._max_bad_records:,} records, and a share of"
            f" max_bad_share = {self._max_bad_share:g}, may be bad.",
            received=f"{len(bad):,} bad ones of {len(self.index):,}, such as: {last.reason}, in"
            f" {self.index.place(last.record_id)}",
            remedy=_REMEDY,
        )

    def read(self, record_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of n records.

        Args:
          record_ids: int64 [n], each in [0, num_examples); may repeat.

        Returns:
          (object [n] of JPEG bytes, int32 [n] of labels in [0, num_classes): zero-based,
          without background).

        Raises:
          DataError: a bad record, naming shard and byte offset; or more bad records than
            tolerated. Kept as `first_error` too: tf.data wraps what its callbacks raise.
        """
        images, labels, _, _ = self._read(record_ids, has_boxes=False)
        return images, labels

    def read_with_boxes(
        self, record_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `read`, and third the objects' boxes: object [n] of bytes, see boxes.py.

        A record whose boxes are wrong is a bad one.
        """
        return self._read(record_ids, has_boxes=True)[:3]

    def read_with_names(
        self, record_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `read`, and third the file names of the source images: object [n] of str.

        A name is '' where the record does not say it.
        """
        images, labels, _, names = self._read(record_ids, has_boxes=False)
        return images, labels, names

    def _read(self, record_ids, *, has_boxes):
        try:
            images = np.empty(len(record_ids), object)
            labels = np.empty(len(record_ids), np.int32)
            boxes = np.full(len(record_ids), b"", object)
            names = np.full(len(record_ids), "", object)
            for position, record_id in enumerate(np.asarray(record_ids).tolist()):
                read = self._read_one(record_id, has_boxes=has_boxes)
                images[position], labels[position], boxes[position], names[position] = read
            return images, labels, boxes, names
        except Exception as error:
            with self._lock:
                self.first_error = self.first_error or error
            raise

    def diagnose(self, record_ids: np.ndarray) -> None:
        """Raises DataError for the first of these records whose image cannot be decoded.

        Asked when decoding failed in a graph, where the image's origin is no longer known.

        Args:
          record_ids: int64 [n].

        Raises:
          DataError: names shard, byte offset and file name of the source image.
        """
        for record_id in np.asarray(record_ids).tolist():
            if record_id in self._bad:
                continue  # left out: it was never decoded in the graph
            try:
                self._load(record_id, decodes=True)
            except _Unusable as fault:
                raise self._error(record_id, fault) from None

    def close(self) -> None:
        """Closes the shards; a later read opens them again."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def _read_one(self, record_id, *, has_boxes):
        if not self._skips:
            try:
                return self._load(record_id, decodes=False, has_boxes=has_boxes)
            except _Unusable as fault:
                raise self._error(record_id, fault) from None
        for distance in range(len(self.index)):
            candidate = (record_id + distance) % len(self.index)
            if candidate in self._bad:
                continue
            try:
                decodes = not self._decoded[candidate]
                return self._load(candidate, decodes=decodes, has_boxes=has_boxes)
            except _Unusable as fault:
                self.add_bad(self._describe(candidate, fault))
                self.check_budget()
        raise DataError("At least one record must be good.", received=f"{len(self._bad):,} bad",
                        remedy=_REMEDY)  # fmt: skip

    def _load(self, record_id, *, decodes, has_boxes=False):
        """(JPEG bytes, zero-based label, boxes as bytes, file name) of one record, or _Unusable."""
        payload = self._read_payload(record_id)
        try:
            record = tfrecord.parse_example(payload, schema=self.manifest.schema)
        except tfrecord.BadFrame as bad:
            raise _Unusable(bad) from None
        first, num_classes = self.manifest.label_base, self.manifest.num_classes
        label = record.label - first
        if not 0 <= label < num_classes:
            reason = f"label {record.label} is not in {first}..{first + num_classes - 1}"
            raise _Unusable(reason, record.filename)
        try:
            encoded.check_image(record.jpeg, takes_png=self.manifest.schema.takes_png)
            if decodes:
                encoded.decode_image(record.jpeg)
                self._decoded[record_id] = True
            boxes = parse_boxes(payload).tobytes() if has_boxes else b""
        except (jpeg.BadImage, BadBoxes) as bad:
            raise _Unusable(bad, record.filename) from None
        return record.jpeg, label, boxes, record.filename

    def _read_payload(self, record_id):
        if not 0 <= record_id < len(self.index):
            raise IndexError(f"record id {record_id} is not in [0, {len(self.index)})")
        index = self.index
        length = int(index.length[record_id])
        try:
            with self._shard(int(index.shard[record_id])) as file:
                frame = file.read_at(
                    int(index.offset[record_id]), length + tfrecord.FRAME_BYTES
                )
        except OSError as error:  # the machine's fault, not the record's: never skipped
            raise DataError(
                "A shard must be readable.",
                received=f"{error.strerror}: {index.place(record_id)}",
                remedy="Check the disk and that the shard is still there.",
            ) from error
        try:
            return tfrecord.read_payload(frame, length=length, crc=int(index.crc[record_id]))
        except tfrecord.BadFrame as bad:
            raise _Unusable(bad) from None

    @contextlib.contextmanager
    def _shard(self, shard):
        """An open shard; kept open as long as the process may hold so many."""
        file = self._files.get(shard)
        if file is not None:
            yield file
            return
        file = files.open_file(self.index.files[shard])
        with self._lock:
            is_kept = shard not in self._files and len(self._files) < self._max_open
            if is_kept:
                self._files[shard] = file
        try:
            yield file
        finally:
            if not is_kept:
                file.close()

    def _describe(self, record_id, fault):
        index = self.index
        shard = os.path.basename(index.files[index.shard[record_id]])
        return BadRecord(record_id, shard, int(index.offset[record_id]), fault.key, fault.reason)

    def _error(self, record_id, fault):
        return DataError(
            "Every record must be whole and hold a JPEG of a known class.",
            received=f"{fault}, in {self.index.place(record_id)} (record {record_id:,})",
            remedy=_REMEDY,
        )
