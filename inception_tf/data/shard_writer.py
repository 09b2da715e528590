"""Writes one shard of records, in the builder's process or in a worker of its own."""

import collections
import dataclasses
import pathlib

import google_crc32c

from inception_tf.data import jpeg
from inception_tf.data import near_duplicates
from inception_tf.data import tfrecord
from inception_tf.data.directory import open_shard
from inception_tf.data.image_source import Source
from inception_tf.data.image_source import SourceImage
from inception_tf.data.journal import FinishedShard
from inception_tf.data.manifest import ShardEntry
from inception_tf.errors import DataError


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard to write: its images in their final order, with their stored labels."""

    file: str
    split: str
    images: tuple[SourceImage, ...]
    labels: tuple[int, ...]


def write_shard(
    source: Source, out: pathlib.Path, shard: Shard, on_bad_image: str
) -> FinishedShard:
    """Writes one shard; its line of the journal.

    Raises:
      DataError: an image that cannot be decoded, unless on_bad_image is 'report'.
    """
    num_records = num_bytes = crc = 0
    changes, bad, hashed = collections.Counter(), [], []
    with open_shard(out / shard.file) as stream:
        for image, label in zip(shard.images, shard.labels):
            try:
                stored = jpeg.build_record_image(
                    source.read(image),
                    apply_exif=source.is_edited,
                    max_side_px=source.max_side_px,
                    full_colour=source.is_edited,
                )
            except jpeg.BadImage as fault:
                if on_bad_image == "raise":
                    raise _bad_image(fault, image, source) from None
                bad.append({"split": image.split, "class": image.class_name,
                            "file": str(image.where), "reason": str(fault)})  # fmt: skip
                continue
            frame = tfrecord.build_frame(_build_payload(image, label, stored))
            stream.write(frame)
            crc = google_crc32c.extend(crc, frame)
            num_bytes += len(frame)
            num_records += 1
            changes[stored.change] += 1
            if source.is_edited:
                picture_hash = near_duplicates.hash_picture(stored.pixels)
                hashed.append(
                    near_duplicates.HashedImage(image.split, str(image.where), picture_hash)
                )
    entry = ShardEntry(shard.file, num_records, num_bytes, crc)
    return FinishedShard(entry, dict(sorted(changes.items())), tuple(bad), tuple(hashed))


def _bad_image(fault, image, source):
    return DataError(
        "Every image of a source must decode in full.",
        received=f"{fault}, in {image.where} of {source.name}",
        remedy="Repair or remove it, or leave out and list such images with"
        " --on_bad_image report.",
    )


def _build_payload(image, label, stored):
    record = tfrecord.Record(
        jpeg=stored.jpeg,
        label=label,
        synset=image.class_name,
        filename=image.filename,
        height_px=stored.height_px,
        width_px=stored.width_px,
    )
    return tfrecord.build_example(record, text=image.text or image.class_name, boxes=image.boxes)
