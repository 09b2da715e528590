"""Records of others without manifest.json: whose they are, by looking, and what they hold.

Three writers of ImageNet share the keys image/encoded and image/class/label:

  research/inception  build_imagenet_data.py: all 15 keys
  Cloud TPU           imagenet_to_gcs.py: neither image/class/text nor bounding boxes
  Model Garden        asks for no more than the two keys

The first two count labels from 1 and have nothing for 0, the background. Records with no more
than the two keys may count either way, and do not say which.
"""

import dataclasses

import numpy as np

from inception_tf.data import files
from inception_tf.data import jpeg
from inception_tf.data import png
from inception_tf.data import tfrecord
from inception_tf.data.description import Manifest
from inception_tf.data.description import ShardEntry
from inception_tf.data.index import RecordIndex
from inception_tf.data.index import add_synsets
from inception_tf.data.index import read_index
from inception_tf.errors import DataError

_NEEDED = frozenset({"image/encoded", "image/class/label"})
_CLOUD_TPU = _NEEDED | {
    f"image/{name}"
    for name in "height width colorspace channels format filename class/synset".split()
}
_RESEARCH = _CLOUD_TPU | {
    f"image/{name}"
    for name in "class/text object/bbox/xmin object/bbox/xmax object/bbox/ymin object/bbox/ymax"
    " object/bbox/label".split()
}


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What the first record of a split shows: its writer, label base (None: open) and formats."""

    name: str
    label_base: int | None
    takes_png: bool


def open_released(
    root: str, split: str, shards: dict[str, tuple[str, ...]], *, directories, label_base
) -> tuple[Manifest, RecordIndex]:
    """Manifest and index of a split; classes and counts from reading every record once.

    Args:
      root: directory of the shards.
      split: name of the split, one of `shards`.
      shards: files of every split, below `root`.
      directories: where an index may be kept.
      label_base: as the user gives it; None takes what the writer is known for.

    Raises:
      DataError: a shard is empty or damaged, a needed key is missing, or keys, labels and label
        base contradict each other; names file and key.
    """
    origins = {name: _look_at(files.join(root, paths[0])) for name, paths in shards.items()}
    base = _find_label_base(root, origins, label_base)
    indices, scans = {}, {}
    for name, paths in shards.items():
        indices[name], scans[name] = read_index(
            [files.join(root, path) for path in paths],
            split=name,
            directories=directories,
            with_labels=True,
        )
    _check_labels(indices, scans, base)
    # All splits together: a split of its own may lack the last classes.
    num_classes = max(int(scan.labels.max()) for scan in scans.values()) + 1 - base
    synsets = {}
    for name, scan in scans.items():
        add_synsets(synsets, dict(scan.synsets), where=f"split {name!r} of {root}")
    takes_png = any(origin.takes_png for origin in origins.values())
    manifest = Manifest(
        label_base=base,
        num_classes=num_classes,
        class_names=tuple(
            synsets.get(label, str(label)) for label in range(base, num_classes + base)
        ),
        splits={
            name: _list_entries(root, shards[name], index) for name, index in indices.items()
        },
        class_counts={
            name: tuple(np.bincount(scan.labels - base, minlength=num_classes).tolist())
            for name, scan in scans.items()
        },
        source={"kind": "released schema without manifest.json"},
        options={},
        schema=dataclasses.replace(tfrecord.RELEASED, takes_png=takes_png),
        origin=_name_origins(origins),
    )
    return manifest, indices[split]


def read_convention(
    root: str, shards: dict[str, tuple[str, ...]], *, label_base: int | None
) -> tuple[int, tfrecord.Schema]:
    """Label base and schema, by the first record of every split; raises as `open_released`."""
    origins = {name: _look_at(files.join(root, paths[0])) for name, paths in shards.items()}
    takes_png = any(origin.takes_png for origin in origins.values())
    schema = dataclasses.replace(tfrecord.RELEASED, takes_png=takes_png)
    return _find_label_base(root, origins, label_base), schema


def _look_at(path):
    """What the first record of a shard shows.

    Raises:
      DataError: the shard is empty, or the record lacks a needed key or contradicts itself.
    """
    features = _read_first(path)
    keys = set(features)
    lacking = sorted(_NEEDED - keys)
    if lacking:
        raise DataError(
            "Records without manifest.json must have the released keys.",
            received=f"no {' and no '.join(lacking)} in the first record of {path}; its keys: "
            + (", ".join(sorted(keys)) or "none"),
            remedy="Records of TensorFlow Datasets need their dataset_info.json and features.json"
            " beside them; convert others.",
        )
    image = (*features["image/encoded"].bytes_list.value, b"")[0]
    stated = features["image/format"].bytes_list.value if "image/format" in keys else ()
    stated = stated[0].decode("utf-8", "replace").upper() if stated else ""
    for name, begins in (("PNG", image.startswith(jpeg.START_MARKER)), ("JPEG", png.is_png(image))):
        if begins and stated == name:
            raise DataError(
                "image/encoded must be of the format that image/format names.",
                received=f"{name} for a file that begins with {image[:4].hex(' ')}, in the first"
                f" record of {path}",
                remedy="Build these records again.",
            )
    takes_png = png.is_png(image)
    if keys >= _RESEARCH:
        return _Origin("research/inception", 1, takes_png)
    if keys >= _CLOUD_TPU and not keys & (_RESEARCH - _CLOUD_TPU):
        return _Origin("Cloud TPU's imagenet_to_gcs", 1, takes_png)
    return _Origin("the two keys that Model Garden reads", None, takes_png)


def _read_first(path):
    """The features of a shard's first record."""
    try:
        shard = files.open_file(path)
        try:
            header = shard.read_at(0, tfrecord.HEADER_BYTES)
            if not header:
                raise tfrecord.BadFrame("the shard is empty")
            length = tfrecord.parse_header(header)
            frame = shard.read_at(0, length + tfrecord.FRAME_BYTES)
        finally:
            shard.close()
        crc = int.from_bytes(frame[-tfrecord.FOOTER_BYTES :], "little")
        return tfrecord.parse_features(tfrecord.read_payload(frame, length=length, crc=crc))
    except tfrecord.BadFrame as bad:
        raise DataError(
            "Without manifest.json every record must be readable.",
            received=f"{bad}, in {path} at byte 0",
            remedy="Copy or build this shard again.",
        ) from None


def _find_label_base(root, origins, given):
    """The label of the first class: as given, else as the writers of all splits are known for."""
    if given is not None:
        return given
    known = {origin.label_base for origin in origins.values()}
    if known == {1}:
        return 1
    raise DataError(
        "Records without manifest.json need data.label_base where their keys do not tell their"
        " writer: 1 for the released records (labels 1..K, 0 is the background), 0 for 0..K-1.",
        received=f"{root} with {_name_origins(origins)}",
        remedy="Set data.label_base.",
    )


def _check_labels(indices, scans, base):
    """Raises DataError where a split is empty or the labels contradict the label base."""
    for name, scan in scans.items():
        counts = indices[name].num_records_by_shard
        if 0 in counts:
            raise DataError("A shard must not be empty.", remedy="Copy this shard again.",
                            received=indices[name].files[counts.index(0)])  # fmt: skip
        low = np.flatnonzero(scan.labels < base)
        if low.size:
            raise DataError(
                f"With label_base {base} every image/class/label must be {base} or more.",
                received=f"label {scan.labels[low[0]]} in {indices[name].place(low[0])}",
                remedy="Check data.label_base and the origin of these records.",
            )
    if base == 0 and min(int(scan.labels.min()) for scan in scans.values()) > 0:
        raise DataError(
            "With label_base 0 a record must have the image/class/label 0.",
            received="labels from 1 on in every split: 0 is the background",
            remedy="Set data.label_base = 1.",
        )


def _list_entries(root, paths, index):
    return tuple(
        ShardEntry(path, num_records, files.identify(files.join(root, path)).num_bytes, None)
        for path, num_records in zip(paths, index.num_records_by_shard, strict=True)
    )


def _name_origins(origins):
    """'research/inception', or each writer with its splits where there are several."""
    names = {}
    for split, origin in origins.items():
        names.setdefault(origin.name, []).append(split)
    if len(names) == 1:
        return next(iter(names))
    return ", ".join(f"{name} ({', '.join(splits)})" for name, splits in names.items())
