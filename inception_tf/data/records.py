"""Random access to records: bytes and labels of the images with given ids, checked."""

import contextlib
import os
import resource
import threading

import numpy as np

from inception_tf.data import jpeg
from inception_tf.data import tfrecord
from inception_tf.data.index import RecordIndex
from inception_tf.data.manifest import Manifest
from inception_tf.errors import DataError

_REMEDY = (
    "Find every bad record with `python -m inception_tf.records check DIR`; copy or build the"
    " shard again, or set data.on_bad_record = 'skip' with data.max_bad_records."
)


class _BadRecord(Exception):
    """One record cannot be used; `reason` comes without the record's place."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


class RecordReader:
    """Reads records of one split by id; any number of threads may share it.

    Every record is checked when it is read: both checksums, the message, the range of its
    label, and that its image is a complete JPEG.

    Args:
      index: where the records lie.
      manifest: label convention and number of classes.
      on_bad_record: 'raise', or 'skip': the next good record (id + 1, id + 2, ... modulo M)
        stands in for a bad one, a pure function of the data. 'skip' also decodes every image
        in full when it is first read.
      max_bad_records: with 'skip', how many different bad records are tolerated.
    """

    def __init__(
        self,
        index: RecordIndex,
        manifest: Manifest,
        *,
        on_bad_record: str = "raise",
        max_bad_records: int = 0,
    ):
        self.index = index
        self.manifest = manifest
        self.first_error: Exception | None = None
        self._skips = on_bad_record == "skip"
        self._max_bad_records = max_bad_records
        self._bad = {}
        self._decoded = np.zeros(len(index), bool)  # images known to decode, with 'skip'
        self._fds = {}
        # ImageNet's 1,024 shards alone would use up the usual limit of 1,024 open files.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_open = limit // 4 if limit != resource.RLIM_INFINITY else len(index.files)
        self._lock = threading.Lock()

    @property
    def num_examples(self) -> int:
        """Records of the split."""
        return len(self.index)

    @property
    def bad_records(self) -> list[tuple[int, str]]:
        """(record id, reason) of every bad record met so far, by id; only with 'skip'."""
        with self._lock:
            return sorted(self._bad.items())

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
        try:
            images = np.empty(len(record_ids), object)
            labels = np.empty(len(record_ids), np.int32)
            for position, record_id in enumerate(np.asarray(record_ids).tolist()):
                images[position], labels[position] = self._read_one(record_id)
            return images, labels
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
            try:
                self._load(record_id, decodes=True)
            except _BadRecord as bad:
                raise self._error(record_id, bad.reason) from None

    def close(self) -> None:
        """Closes the shards; a later read opens them again."""
        with self._lock:
            for fd in self._fds.values():
                os.close(fd)
            self._fds.clear()

    def _read_one(self, record_id):
        if not self._skips:
            try:
                return self._load(record_id, decodes=False)
            except _BadRecord as bad:
                raise self._error(record_id, bad.reason) from None
        for distance in range(len(self.index)):
            candidate = (record_id + distance) % len(self.index)
            if candidate in self._bad:
                continue
            try:
                return self._load(candidate, decodes=not self._decoded[candidate])
            except _BadRecord as bad:
                self._count_bad(candidate, bad.reason)
        raise DataError("At least one record must be good.", received=f"{len(self._bad):,} bad",
                        remedy=_REMEDY)  # fmt: skip

    def _load(self, record_id, *, decodes):
        """(JPEG bytes, zero-based label) of one record, or _BadRecord."""
        payload = self._read_payload(record_id)
        try:
            record = tfrecord.parse_example(payload)
        except tfrecord.BadFrame as bad:
            raise _BadRecord(str(bad)) from None
        of_file = f" (file {record.filename})" if record.filename else ""
        first, num_classes = self.manifest.label_base, self.manifest.num_classes
        label = record.label - first
        if not 0 <= label < num_classes:
            raise _BadRecord(
                f"label {record.label} is not in {first}..{first + num_classes - 1}{of_file}"
            )
        try:
            jpeg.check_start(record.jpeg)
            jpeg.check_complete(record.jpeg)
            if decodes:
                jpeg.decode_whole(record.jpeg)
                self._decoded[record_id] = True
        except jpeg.BadImage as bad:
            raise _BadRecord(f"{bad}{of_file}") from None
        return record.jpeg, label

    def _read_payload(self, record_id):
        if not 0 <= record_id < len(self.index):
            raise IndexError(f"record id {record_id} is not in [0, {len(self.index)})")
        index = self.index
        length = int(index.length[record_id])
        try:
            with self._shard(int(index.shard[record_id])) as fd:
                frame = os.pread(fd, length + tfrecord.FRAME_BYTES, int(index.offset[record_id]))
        except OSError as error:  # the machine's fault, not the record's: never skipped
            raise DataError(
                "A shard must be readable.",
                received=f"{error.strerror}: {index.place(record_id)}",
                remedy="Check the disk and that the shard is still there.",
            ) from error
        try:
            return tfrecord.read_payload(frame, length=length, crc=int(index.crc[record_id]))
        except tfrecord.BadFrame as bad:
            raise _BadRecord(str(bad)) from None

    @contextlib.contextmanager
    def _shard(self, shard):
        """Descriptor of an open shard; kept open as long as the process may hold so many."""
        fd = self._fds.get(shard)
        if fd is not None:
            yield fd
            return
        fd = os.open(self.index.files[shard], os.O_RDONLY)
        with self._lock:
            is_kept = shard not in self._fds and len(self._fds) < self._max_open
            if is_kept:
                self._fds[shard] = fd
        try:
            yield fd
        finally:
            if not is_kept:
                os.close(fd)

    def _count_bad(self, record_id, reason):
        with self._lock:
            self._bad[record_id] = f"{reason}, in {self.index.place(record_id)}"
            num_bad = len(self._bad)
        if num_bad > self._max_bad_records:
            raise DataError(
                f"At most max_bad_records = {self._max_bad_records:,} records may be bad.",
                received=f"{num_bad:,} bad ones, the last: {self._bad[record_id]}",
                remedy=_REMEDY,
            )

    def _error(self, record_id, reason):
        return DataError(
            "Every record must be whole and hold a JPEG of a known class.",
            received=f"{reason}, in {self.index.place(record_id)} (record {record_id:,})",
            remedy=_REMEDY,
        )
