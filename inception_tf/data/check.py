"""Reads every record once and says what is wrong with any of them."""

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Callable

from inception_tf.counts import count_of
from inception_tf.data import files, official, process_pool, released, tfrecord
from inception_tf.data.check_shard import UNLABELLED, Findings, Problem, ShardTask, check_shard
from inception_tf.data.check_synsets import SynsetTable
from inception_tf.data.description import ShardEntry
from inception_tf.data.directory import JOURNAL_NAME, MANIFEST_NAME, list_shards
from inception_tf.data.duplicates import Copy, find_duplicates
from inception_tf.data.manifest import locate, read_description
from inception_tf.errors import ConfigError, DataError

_THREADS_BYTES = 2**29  # below this, starting processes costs more than it saves
_REPORTS = 50  # lines of progress, at most


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """What was found of one split.

    Attributes:
      num_shards, num_records, num_bytes: of the files.
      num_images: records that were read and found good: all, or the sample of a quick check.
      mean_image_bytes, mean_height_px, mean_width_px: of those images; 0.0 where there is none.
      num_duplicates: of those, byte for byte equal to an earlier image of any split.
      num_problems: faults, listed or not.
      class_counts: records by stored label; empty after a quick check, and of a split without
        labels.
    """

    num_shards: int
    num_records: int
    num_bytes: int
    num_images: int
    mean_image_bytes: float
    mean_height_px: float
    mean_width_px: float
    num_duplicates: int
    num_problems: int
    class_counts: dict[int, int]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """Everything a check found.

    Attributes:
      data_dir: what was checked.
      is_quick: whether only headers and a sample of the records were read.
      label_base: stored label of the first class.
      class_names: by stored label.
      splits: a SplitSummary each.
      problems: every fault, of a shard at most its first hundred.
      duplicates: the places of every image that stands more than once. No fault by itself.
      official: how the data differ from official ImageNet, where they are meant to be it.
      notes: what else is to be known and is no fault, a line each.
    """

    data_dir: str
    is_quick: bool
    label_base: int
    class_names: dict[int, str]
    splits: dict[str, SplitSummary]
    problems: tuple[Problem, ...]
    duplicates: tuple[tuple[Copy, ...], ...]
    official: tuple[str, ...]
    notes: tuple[str, ...] = ()


def check_records(
    data_dir,
    *,
    label_base: int | None = None,
    quick: bool = False,
    processes: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> CheckResult:
    """What a data directory holds, and every fault in it.

    Reads each record once: checksums of length and payload, the message, the range of the
    label, the image decoded in full and compared with the size that the record claims; then
    bytes, checksum and number of records of each shard and the classes of each split against
    the manifest; and the names that records give their labels against it, or each other. Memory
    grows by 24 bytes a record, for the duplicates.

    Args:
      data_dir: directory of the shards, with a manifest or without.
      label_base: stored label of the first class, where neither a manifest nor the kind of the
        records says it.
      quick: read sizes, all headers, and 16 records of each shard.
      processes: None takes one per core, or the threads of this one for small data.
      report: called with one line of progress at a time.

    Raises:
      ConfigError: no process.
      DataError: nothing to check: no records, no readable manifest, or an unknown label base.
    """
    if processes is not None and processes < 1:
        raise ConfigError("processes must be at least 1.", received=processes)
    root = locate(data_dir)
    manifest = read_description(root)
    if manifest:
        splits, first, schema = manifest.splits, manifest.label_base, manifest.schema
    else:
        splits, first, schema = _look_at(root, label_base)
    tasks = [
        ShardTask(
            root=root,
            split=split,
            shard=shard,
            schema=schema,
            first_label=first,
            end_label=first + manifest.num_classes if manifest else None,
            quick=quick,
            may_lack_labels=bool(manifest and manifest.origin),
        )
        for split, shards in splits.items()
        for shard in shards
    ]
    class_names = dict(enumerate(manifest.class_names, first)) if manifest else {}
    # Of TensorFlow Datasets no record names its class.
    synsets = SynsetTable({} if manifest is None or manifest.origin else class_names)
    findings = _check_shards(tasks, processes, report, synsets)
    return _gather(findings, synsets, root=root, splits=splits, manifest=manifest, first=first,
                   class_names=class_names, quick=quick)  # fmt: skip


def _gather(findings, synsets, *, root, splits, manifest, first, class_names, quick):
    """The CheckResult of what was found of all shards together."""
    unlabelled = _find_unlabelled(findings, splits)
    counts = {split: _class_counts(findings, split) for split in splits}
    problems = [problem for found in findings for problem in found.problems]
    problems += [*_copied_shards(findings), *synsets.find_problems()]
    if manifest and manifest.class_counts and not quick:
        problems += _wrong_counts(manifest, counts)
    elif manifest is None:
        problems += _wrong_labels(synsets, first)
    seen = set().union(*counts.values()) - {UNLABELLED}
    num_classes = manifest.num_classes if manifest else len(seen)
    # A sample says which labels there are, not how many records each has.
    known = {split: {} if quick or split in unlabelled else counts[split] for split in splits}
    duplicates = find_duplicates(findings)
    summaries = {
        split: _summarize(split, findings, known[split], duplicates, problems) for split in splits
    }
    num_records = {split: summary.num_records for split, summary in summaries.items()}
    return CheckResult(
        data_dir=root,
        is_quick=quick,
        label_base=first,
        class_names=class_names,
        splits=summaries,
        problems=tuple(problems),
        duplicates=duplicates,
        official=official.compare(
            num_classes, num_records, known, names=class_names or synsets.names, first=first
        ),
        notes=tuple(
            f"{split}: {count_of(num_records[split], 'record')}, none with a label (all have"
            f" {UNLABELLED}): neither to be trained on nor to be evaluated"
            for split in unlabelled
        ),
    )


def _find_unlabelled(findings, splits):
    """The splits without any label; a record without one among labelled ones is a fault."""
    unlabelled = []
    for split in splits:
        own = [found for found in findings
               if found.task.split == split and found.task.may_lack_labels]  # fmt: skip
        num_lacking = sum(found.class_counts[UNLABELLED] for found in own)
        if num_lacking and num_lacking == sum(sum(found.class_counts.values()) for found in own):
            unlabelled.append(split)
            continue
        for found in own if num_lacking else ():
            for offset in found.offsets[found.labels == UNLABELLED].tolist():
                found.add_problem(f"label {UNLABELLED}, where other records have one", offset)
    return unlabelled


def _wrong_labels(synsets, first):
    """A problem where ImageNet's classes are not in its order, which nothing here declares."""
    names = synsets.names
    reason = official.are_names_of_imagenet(names) and official.find_wrong_label(names, first=first)
    if reason:
        split, file = synsets.place_of(next(iter(names)))
        yield Problem(split, file, None, f"the labels are not those of ImageNet: {reason}")


def _check_shards(tasks, processes, report, synsets) -> list[Findings]:
    """Findings of every shard, in order, their synsets apart; tells about every fiftieth part."""
    cores = len(os.sched_getaffinity(0))
    sizes = [_num_bytes(task) for task in tasks]
    if processes is None:
        processes = cores if sum(sizes) >= _THREADS_BYTES and not tasks[0].quick else 0
    # Decoding leaves the interpreter to other threads, the rest of a record (a tenth) does not.
    pool = (process_pool.open_pool(min(processes, len(tasks))) if processes
            else concurrent.futures.ThreadPoolExecutor(cores))  # fmt: skip
    try:
        futures = [pool.submit(check_shard, task) for task in tasks]
        findings, done_bytes, told = [], 0, 0
        for future, size in zip(futures, sizes, strict=True):
            findings.append(future.result())
            synsets.add(findings[-1])
            done_bytes += size
            part = _REPORTS * done_bytes // max(1, sum(sizes))
            if part > told or len(findings) == len(tasks):
                told = part
                report(f"{len(findings):,} of {count_of(len(tasks), 'shard')},"
                       f" {done_bytes / 1e6:,.1f} of {sum(sizes) / 1e6:,.1f} MB:"
                       f" {count_of(sum(found.num_records for found in findings), 'record')},"
                       f" {count_of(sum(found.num_problems for found in findings), 'problem')}"
                       )  # fmt: skip
        return findings
    finally:
        pool.shutdown(cancel_futures=True)


def _num_bytes(task):
    try:
        return files.identify(files.join(task.root, task.shard.file)).num_bytes
    except OSError:
        return 0


def _class_counts(findings, split):
    counts = collections.Counter()
    for found in findings:
        if found.task.split == split:
            counts.update(found.class_counts)
    return dict(sorted(counts.items()))


def _wrong_counts(manifest, counts):
    for split, stated in manifest.class_counts.items():
        stated = {label: n for label, n in enumerate(stated, manifest.label_base) if n}
        if stated != counts[split]:
            reason = "its class counts are not those of the records"
            yield Problem(split, MANIFEST_NAME, None, reason)


def _copied_shards(findings):
    """A problem for every shard that another one equals byte for byte."""
    seen = {}
    for found in findings:
        if found.crc32c is None or not found.num_records:
            continue
        task = found.task
        earlier = seen.setdefault((found.num_bytes, found.crc32c), task.shard.file)
        if earlier != task.shard.file:
            yield Problem(task.split, task.shard.file, None, f"the shard is a copy of {earlier}")


def _summarize(split, findings, class_counts, duplicates, problems):
    own = [found for found in findings if found.task.split == split]
    num_images = sum(found.num_images for found in own)
    unlisted = sum(found.num_problems - len(found.problems) for found in own)

    def mean(name):
        return sum(getattr(found, name) for found in own) / num_images if num_images else 0.0

    return SplitSummary(
        num_shards=len(own),
        num_records=sum(found.num_records for found in own),
        num_bytes=sum(found.num_bytes for found in own),
        num_images=num_images,
        mean_image_bytes=mean("image_bytes"),
        mean_height_px=mean("height_px"),
        mean_width_px=mean("width_px"),
        num_duplicates=sum(copy.split == split for group in duplicates for copy in group[1:]),
        num_problems=unlisted + sum(problem.split == split for problem in problems),
        class_counts=class_counts,
    )


def _look_at(root, label_base):
    """Splits, label base and schema of records that declare nothing."""
    is_unfinished = files.is_file(files.join(root, JOURNAL_NAME))
    shards = {} if is_unfinished else list_shards(root)
    if not shards:
        raise DataError("A directory to check must hold finished records.", received=root,
                        remedy="Build them, or give the same build command again.")  # fmt: skip
    splits = {
        split: tuple(ShardEntry(path, -1, None, None) for path in paths)
        for split, paths in sorted(shards.items())
    }
    try:
        return splits, *released.read_convention(root, shards, label_base=label_base)
    except DataError:  # a damaged first record is to be found, not to hide the others
        if label_base not in (0, 1):
            raise
        return splits, label_base, tfrecord.RELEASED
