"""Writes records: shards of the released schema, and last the manifest that makes them count.

A build that was killed goes on where it was: a journal beside the shards records every
finished one. The bytes depend on source, seed and options only, never on the number of
processes or on interruptions.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from inception_tf import durable
from inception_tf.counts import count_of
from inception_tf.data.directory import MANIFEST_NAME
from inception_tf.data.directory import shard_name
from inception_tf.data.journal import lock_directory
from inception_tf.data.journal import open_journal
from inception_tf.data.manifest import Manifest
from inception_tf.data.manifest import read_manifest
from inception_tf.data.manifest import save_manifest
from inception_tf.data.near_duplicates import find_near_duplicates
from inception_tf.data.process_pool import open_pool
from inception_tf.data.shard_writer import Shard
from inception_tf.data.shard_writer import write_shard
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError

BAD_IMAGES_NAME = "bad_images.json"
NEAR_DUPLICATES_NAME = "near_duplicates.json"

_FORMAT = 2  # of the bytes that a plan leads to: raise it when they change
_ONE_PROCESS_EXAMPLES = 4000  # below this, starting processes costs more than it saves
_SPARE_BYTES = 64 * 2**20


def build_records(
    source,
    out_dir,
    *,
    num_shards=None,
    label_base: int = 1,
    seed: int = 0,
    processes: int | None = None,
    on_bad_image: str = "raise",
    report: Callable[[str], None] = lambda line: None,
    report_shard: Callable[[str, int, int], None] | None = None,
) -> Manifest:
    """The manifest of a source's records, which are complete when this returns.

    Every image is decoded in full. RGB and greyscale JPEGs are stored as they are, others are
    re-encoded (`jpeg.build_record_image`). Called again with the same arguments it keeps the
    finished shards whose bytes still match and writes the others. Of a source that is edited,
    images that are nearly the same in two splits are listed in near_duplicates.json.

    Args:
      source: see `image_source.Source`.
      out_dir: made if absent; may hold an unfinished build of the same source and options.
      num_shards: shards by split; None, or a split left out, takes the source's size of shard.
      label_base: stored label of the first class; 1 leaves 0 to the background, as released.
      seed: of the order of the images within each split.
      processes: None takes one for small sources, else one per core.
      on_bad_image: 'raise', or 'report': images that cannot be decoded are left out and listed
        in bad_images.json.
      report: called with one line of news at a time.
      report_shard: called for each shard that was written with a line, the images that this call
        has written and all that it is to write; None gives the line to `report`.

    Raises:
      ConfigError: an option out of range.
      DataError: an image that cannot be decoded, a class unknown to the train split, too
        little space, or a directory that holds other records or is being built.
    """
    _check_options(label_base, seed, on_bad_image)
    out = pathlib.Path(out_dir).expanduser()
    # First the lock: listing may already write, as a compressed archive that is unpacked.
    with lock_directory(out) as lock:
        images = _list_images(source, report)
        class_names = _class_names(images, source)
        shards = _plan_shards(images, class_names, dict(num_shards or {}), source, label_base, seed)
        plan = {"seed": seed, "on_bad_image": on_bad_image, **source.options}
        plan["plan_sha256"] = _fingerprint(shards, source=source, on_bad_image=on_bad_image)
        journal = open_journal(lock, plan)
        tell = report_shard or (lambda line, num_done, num_images: report(line))
        written = _finish_shards(
            source, out, shards, journal, processes, on_bad_image, report, tell
        )
        if not (out / MANIFEST_NAME).exists():
            manifest = _build_manifest(shards, written, source, class_names, label_base, plan)
            _check_counts(manifest)
            manifest.source.update(_save_lists(out, written, source, on_bad_image))
            save_manifest(out, manifest)
    return read_manifest(out)


def _check_counts(manifest):
    """Raises DataError where leaving images out has emptied a class or a split."""
    for split, counts in manifest.class_counts.items():
        empty = [name for name, count in zip(manifest.class_names, counts) if count == 0]
        if not any(counts) or (split == "train" and empty):
            raise DataError(
                "Every split must keep images, and every class some to train on.",
                received=f"{split}: none left of {', '.join(empty[:5])}",
                remedy="Mend these images, or take the class out of the source.",
            )


def _check_options(label_base, seed, on_bad_image):
    if label_base not in (0, 1) or not 0 <= seed < 2**32 or on_bad_image not in ("raise", "report"):
        raise ConfigError(
            "label_base must be 0 or 1, seed in [0, 2**32), on_bad_image 'raise' or 'report'.",
            received=f"{label_base}, {seed}, {on_bad_image!r}",
        )


def _finish_shards(source, out, shards, journal, processes, on_bad_image, report, report_shard):
    """All shards in order, after writing those that are not there yet.

    A manifest stays only if nothing was missing.
    """
    written = journal.read_intact()
    if written:
        report(f"already there: {len(written):,} of {count_of(len(shards), 'shard')}")
    missing = [shard for shard in shards if shard.file not in written]
    if missing:
        (out / MANIFEST_NAME).unlink(missing_ok=True)
        _check_space(out, missing)
    num_images, num_done = {shard.file: len(shard.images) for shard in missing}, 0
    for finished in _write_shards(source, out, missing, processes, on_bad_image):
        journal.add(finished)
        entry = finished.entry
        written[entry.file] = finished
        num_done += num_images[entry.file]
        line = (f"{entry.file}: {count_of(entry.num_records, 'record')}, {entry.num_bytes:,} bytes;"
                f" {len(written):,} of {count_of(len(shards), 'shard')}")  # fmt: skip
        report_shard(line, num_done, sum(num_images.values()))
    return [written[shard.file] for shard in shards]


def _list_images(source, report):
    """The images of a source, with what it has to say about them."""
    images = source.list_images()
    if source.num_ignored:
        report(f"ignored: {count_of(source.num_ignored, 'file')} of the source, at another depth"
               " than its images or hidden")  # fmt: skip
    for note in source.notes:
        report(note)
    for image in images:
        try:
            (image.class_name + image.filename).encode()
        except UnicodeEncodeError:
            raise DataError("Names of classes and images must be UTF-8.",
                            received=repr(image.where), remedy="Rename the file.") from None
    return images


def _class_names(images, source):
    """Classes in the order of their labels, with training images each where there are any."""
    by_split = collections.defaultdict(set)
    for image in images:
        by_split[image.split].add(image.class_name)
    names = source.class_names or sorted(by_split.get("train") or set.union(*by_split.values()))
    for split, found in by_split.items():
        unknown = sorted(found - set(names))
        if unknown:
            raise DataError(
                f"Every class of split {split!r} must be one of the train split.",
                received=", ".join(unknown[:5]),
                remedy="Without training images a class cannot be learned: move or remove it.",
            )
    empty = [name for name in names if "train" in by_split and name not in by_split["train"]]
    if empty:
        raise DataError("Every class must have training images.",
                        received=f"none of {', '.join(empty[:5])}")  # fmt: skip
    return list(names)


def _plan_shards(images, class_names, num_shards, source, label_base, seed):
    """All shards with their images shuffled within the split, in the order of their names."""
    label_of = {name: label for label, name in enumerate(class_names, start=label_base)}
    by_split = collections.defaultdict(list)
    for image in images:
        by_split[image.split].append(image)
    unknown = sorted(set(num_shards) - set(by_split))
    if unknown:
        raise ConfigError("Shards can be asked for only where the source has images.",
                          received=", ".join(unknown),
                          remedy=f"Its splits: {', '.join(sorted(by_split))}.")  # fmt: skip
    shards = []
    for split, members in sorted(by_split.items()):
        by_size = -(-len(members) // source.images_per_shard)
        count = num_shards.get(split, source.default_shards.get(split, by_size))
        if not 1 <= count <= min(len(members), 99_999):
            raise ConfigError(
                f"Split {split!r} must have at least one shard and at most one for each of its"
                f" images ({len(members):,}).",
                received=count,
            )
        # RandomState's stream is frozen for good (NEP 19); Generator's is not.
        order = np.random.RandomState(seed).permutation(len(members))
        bounds = np.linspace(0, len(members), count + 1).astype(int)
        for number in range(count):
            chosen = [members[place] for place in order[bounds[number] : bounds[number + 1]]]
            shards.append(
                Shard(
                    file=shard_name(split, number, count),
                    split=split,
                    images=tuple(chosen),
                    labels=tuple(label_of[image.class_name] for image in chosen),
                )
            )
    return shards


def _fingerprint(shards, *, source, on_bad_image):
    """Hash of everything that decides the bytes, contents of the source's files excepted."""
    digest = hashlib.sha256(f"{_FORMAT} {source.kind} {on_bad_image}".encode())
    for shard in shards:
        digest.update(shard.file.encode())
        for image, label in zip(shard.images, shard.labels):
            line = f"\n{label} {image.class_name}/{image.filename} {image.num_bytes}"
            if image.text or image.boxes:
                line += f" {image.text!r} {image.boxes}"
            digest.update(line.encode())
    return digest.hexdigest()


def _check_space(out, shards):
    needed = sum(image.num_bytes for shard in shards for image in shard.images)
    needed = int(needed * 1.1) + _SPARE_BYTES
    free = shutil.disk_usage(out).free
    if shards and free < needed:
        raise DataError(
            "The records need free space before the build starts.",
            received=f"{free:,} bytes free on {out}, about {needed:,} needed",
            remedy="Make space or give another --out.",
        )


def _write_shards(source, out, shards, processes, on_bad_image):
    """Yields every shard when it is on the disk; the order may vary, the bytes do not."""
    if processes is None:
        num_images = sum(len(shard.images) for shard in shards)
        processes = 1 if num_images < _ONE_PROCESS_EXAMPLES else len(os.sched_getaffinity(0))
    processes = min(processes, len(shards))
    if processes <= 1:
        for shard in shards:
            yield write_shard(source, out, shard, on_bad_image)
        return
    pool = open_pool(processes)
    try:
        futures = [pool.submit(write_shard, source, out, shard, on_bad_image) for shard in shards]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _save_lists(out, written, source, on_bad_image):
    """Writes what the user should look through beside the records; its counts."""
    if on_bad_image == "report":
        bad = [image for finished in written for image in finished.bad]
        durable.save_text(out / BAD_IMAGES_NAME, json.dumps(bad, indent=1) + "\n")
    if not source.is_edited:
        return {}
    found = find_near_duplicates([image for finished in written for image in finished.hashed])
    listed = [dataclasses.asdict(pair) for pair in found]
    durable.save_text(out / NEAR_DUPLICATES_NAME, json.dumps(listed, indent=1) + "\n")
    return {"num_near_duplicates": len(found)}


def _build_manifest(shards, written, source, class_names, label_base, plan):
    splits = collections.defaultdict(list)
    counts = collections.defaultdict(lambda: [0] * len(class_names))
    changes = collections.Counter()
    for shard, finished in zip(shards, written, strict=True):
        splits[shard.split].append(finished.entry)
        changes.update(finished.changes)
        for label in shard.labels:
            counts[shard.split][label - label_base] += 1
        for image in finished.bad:
            counts[shard.split][class_names.index(image["class"])] -= 1
    facts = {
        "kind": source.kind,
        "name": source.name,
        "num_images": sum(len(shard.images) for shard in shards),
        "num_trimmed": changes["trimmed"],
        "num_reencoded": changes["re-encoded"],
        "num_left_out": sum(len(finished.bad) for finished in written),
    }
    if source.is_edited:
        facts["num_turned"] = changes["turned"] + changes["turned and shrunk"]
        facts["num_shrunk"] = changes["shrunk"] + changes["turned and shrunk"]
    num_boxes = sum(len(image.boxes) for shard in shards for image in shard.images)
    if num_boxes:
        facts["num_bounding_boxes"] = num_boxes
    return Manifest(
        label_base=label_base,
        num_classes=len(class_names),
        class_names=tuple(class_names),
        splits={split: tuple(entries) for split, entries in splits.items()},
        class_counts={split: tuple(values) for split, values in counts.items()},
        source=facts,
        options=plan,
    )
