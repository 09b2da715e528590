"""The records that a run leaves out: known to every worker, and kept in the run directory."""

import dataclasses
import json
import os
import pathlib

import numpy as np

from inception_tf import durable
from inception_tf.data.records import BadRecord
from inception_tf.errors import DataError

BAD_RECORDS_FILE = "bad_records.jsonl"
_NONE = -1  # in the place of a find where a worker has fewer to tell than another


class BadRecordLog:
    """What all workers have left out so far, one JSON line per record.

    The chief writes RUN_DIR/bad_records.jsonl, sorted by split and record id, whole or not at all:
    no record stands in it twice. Every worker reads it at its start, so that a resumed run leaves
    out the same records from its first step on, and the budget of `data.max_bad_records` and
    `data.max_bad_share` is the whole run's. Between two checkpoints each worker counts alone; at
    each checkpoint all of them learn what the others have found. Which records are listed when
    depends on how far the workers read ahead; which record stands at which position never does.

    Args:
      run_dir: of the run.
      readers: split -> RecordReader, over the same records on every worker.
      cluster: a Cluster.
    """

    def __init__(self, run_dir, readers, cluster):
        self.path = pathlib.Path(run_dir) / BAD_RECORDS_FILE
        self._readers = {split: reader for split, reader in readers.items() if reader.skips}
        self._cluster = cluster
        self._shared = set()  # (split, record id) that all workers know of
        self._kept = set()  # (split, record id) that stand in the file

    def restore(self) -> None:
        """Leaves out what the run has left out before; on every worker, before the first step.

        Raises:
          DataError: the file is not of these records, or names more than the budget.
        """
        if not self._readers or not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            split, record = self._parse(line, number)
            if split in self._readers:
                self._readers[split].add_bad(record)
                self._shared.add((split, record.record_id))
        self._kept |= self._shared
        for reader in self._readers.values():
            reader.check_budget()

    def exchange(self) -> list[str]:
        """Lets all workers know of all finds and keeps them; every worker calls it.

        Costs one collective of a number, and where anybody has a find one more of all finds,
        however many they are.

        Returns:
          One line per record that was not known before.
        """
        for split, reader in self._readers.items():
            for record_id in self._finds_of_others(split, reader):
                # The data is the same everywhere: what another worker met can be seen here. Boxes
                # come last in a record's check, so they are named only where the rest is good.
                fault = reader.find_fault(record_id, has_boxes=True)
                reader.add_bad(fault or _unseen(reader, record_id))
        return self.keep()

    def keep(self) -> list[str]:
        """Keeps what this process knows of, without asking the others; lines as `exchange`.

        Raises:
          OSError: the disk did not take the list; the next call tells and writes it again.
        """
        new = [
            (split, record)
            for split, reader in self._readers.items()
            for record in reader.bad_records
            if (split, record.record_id) not in self._kept
        ]
        if new and self._cluster.is_chief:
            durable.save_text(self.path, "".join(self._lines()))
        self._kept.update((split, record.record_id) for split, record in new)
        return [
            f"left out bad record {record.record_id:,} of {split!r}: {record.reason}"
            f" ({record.shard} at byte {record.offset:,})"
            for split, record in new
        ]

    def check_budget(self) -> None:
        """Raises DataError where all workers together have met more than tolerated."""
        for reader in self._readers.values():
            reader.check_budget()

    def summary(self) -> str:
        """How much was left out, for the end of a run; '' where nothing was."""
        parts = [
            f"{len(bad):,} of {reader.num_examples:,} records of {split!r}"
            f" ({len(bad) / reader.num_examples:.2g} of them)"
            for split, reader in self._readers.items()
            if (bad := reader.bad_records)
        ]
        return f"left out as bad: {', '.join(parts)}; see {self.path}" if parts else ""

    def _finds_of_others(self, split, reader):
        """Record ids that workers have met since the last exchange; collective."""
        if self._cluster.num_workers == 1:
            return []
        known = {record.record_id for record in reader.bad_records}
        own = sorted(i for i in known if (split, i) not in self._shared)
        most = max(self._cluster.gather(len(own)))
        if most == 0:
            return []
        padded = own + [_NONE] * (most - len(own))
        # `gather` multiplies the worker's own column of zeros and a one by what it is given: of a
        # column of numbers it gathers each, in one collective.
        rows = self._cluster.gather(np.array(padded, np.int64)[:, np.newaxis])
        found = {record_id for row in rows for record_id in row} - {_NONE}
        self._shared.update((split, record_id) for record_id in found)
        return sorted(found - known)

    def _lines(self):
        for split, reader in sorted(self._readers.items()):
            for record in reader.bad_records:
                yield json.dumps({"split": split, **dataclasses.asdict(record)}) + "\n"

    def _parse(self, line, number):
        try:
            stored = json.loads(line)
            split = stored.pop("split")
            record = BadRecord(**stored)
            if split in self._readers:
                index = self._readers[split].index
                if type(record.record_id) is not int or not 0 <= record.record_id < len(index):
                    raise ValueError(f"record {record.record_id} of {len(index):,}")
                there = index.files[index.shard[record.record_id]], index.offset[record.record_id]
                if (os.path.basename(there[0]), int(there[1])) != (record.shard, record.offset):
                    raise ValueError(f"record {record.record_id} begins elsewhere")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{BAD_RECORDS_FILE} of a run must name records of its data.",
                received=f"{self.path} line {number}: {type(error).__name__}: {error}",
                remedy="Give the records that the run began with, or remove the file: the run"
                " then finds its bad records again.",
            ) from None
        return split, record


def _unseen(reader, record_id):
    index = reader.index
    return BadRecord(
        record_id=record_id,
        shard=os.path.basename(index.files[index.shard[record_id]]),
        offset=int(index.offset[record_id]),
        key="",
        reason="another worker cannot use it",
    )
