"""The fields of manifest.json: what each of them may be.

Everything is looked at when the file is read: a wrong type would otherwise be a traceback in the
middle of a run, or silently another number.
"""

from inception_tf.data.description import Manifest
from inception_tf.data.description import ShardEntry

FORMAT = 1

_MOST_CLASSES = 2**20  # as the index allows of labels
_SHARD_FIELDS = ("file", "num_records", "num_bytes", "crc32c")


def parse_manifest(stored) -> Manifest:
    """The Manifest of what manifest.json holds as JSON.

    Raises:
      ValueError: names the first field that is missing or not what it must be, and its value.
    """
    _check(isinstance(stored, dict), "the file", stored, "one JSON object")
    _check(_is_int(_need(stored, "format")) and stored["format"] == FORMAT,
           "format", stored["format"], f"{FORMAT}, which this version reads")  # fmt: skip
    label_base = _need(stored, "label_base")
    _check(_is_int(label_base) and label_base in (0, 1), "label_base", label_base, "0 or 1")
    num_classes = _need(stored, "num_classes")
    _check(_is_int(num_classes, 1, _MOST_CLASSES),
           "num_classes", num_classes, f"a whole number from 1 to {_MOST_CLASSES:,}")  # fmt: skip
    for field in ("source", "options"):
        _check(isinstance(_need(stored, field), dict), field, stored[field], "a JSON object")
    _check_source(stored["source"])
    _check_options(stored["options"])
    return Manifest(
        label_base=label_base,
        num_classes=num_classes,
        class_names=_parse_names(_need(stored, "class_names"), num_classes),
        splits=_parse_splits(_need(stored, "splits")),
        class_counts=_parse_counts(_need(stored, "class_counts"), stored["splits"], num_classes),
        source=stored["source"],
        options=stored["options"],
    )


def parse_shard(stored, field: str = "entry") -> ShardEntry:
    """One shard's entry, of the manifest or of the builder's journal; raises as above."""
    _check(isinstance(stored, dict), field, stored, "a JSON object")
    _check(set(stored) == set(_SHARD_FIELDS), field, sorted(stored),
           f"an object of {', '.join(_SHARD_FIELDS)}")  # fmt: skip
    file = stored["file"]
    # Below the directory: a manifest must not lead to files elsewhere.
    is_inside = _is_text(file) and not {"", ".", ".."} & set(file.split("/"))
    _check(is_inside and "\0" not in file, f"{field}.file", file, "a path in the directory")
    for name in ("num_records", "num_bytes"):
        _check(_is_int(stored[name], 0, 2**63 - 1), f"{field}.{name}", stored[name],
               "a whole number, 0 or more")  # fmt: skip
    _check(stored["crc32c"] is None or _is_int(stored["crc32c"], 0, 2**32 - 1),
           f"{field}.crc32c", stored["crc32c"], "a whole number below 2**32, or null")  # fmt: skip
    return ShardEntry(**stored)


def _parse_names(names, num_classes):
    _check(isinstance(names, list) and len(names) == num_classes, "class_names", names,
           f"a list of num_classes = {num_classes:,} names")  # fmt: skip
    for number, name in enumerate(names):
        _check(_is_text(name), f"class_names[{number}]", name, "text")
    return tuple(names)


def _parse_splits(stored):
    _check(isinstance(stored, dict) and stored, "splits", stored, "an object of lists of shards")
    splits, seen = {}, {}
    for split, shards in stored.items():
        # It becomes a part of file names.
        _check(_is_text(split) and split and not {"/", "\0"} & set(split) and split[0] != ".",
               "splits", split, "an object of words such as train")  # fmt: skip
        field = f"splits.{split}"
        _check(isinstance(shards, list) and shards, field, shards, "a list of shards")
        splits[split] = tuple(
            parse_shard(shard, f"{field}[{number}]") for number, shard in enumerate(shards)
        )
        for number, shard in enumerate(splits[split]):
            # Twice in a list, its records would be seen twice in every epoch.
            earlier = seen.setdefault(shard.file, f"{field}[{number}]")
            _check(earlier == f"{field}[{number}]", f"{field}[{number}].file", shard.file,
                   f"another file than that of {earlier}")  # fmt: skip
    return splits


def _parse_counts(stored, splits, num_classes):
    if stored is None:
        return None
    _check(isinstance(stored, dict) and stored.keys() <= splits.keys(), "class_counts", stored,
           "null, or an object of lists for splits of `splits`")  # fmt: skip
    for split, counts in stored.items():
        is_right = isinstance(counts, list) and len(counts) == num_classes
        _check(is_right and all(_is_int(count, 0, 2**63 - 1) for count in counts),
               f"class_counts.{split}", counts,
               f"a list of num_classes = {num_classes:,} whole numbers, 0 or more")  # fmt: skip
    return {split: tuple(counts) for split, counts in stored.items()}


def _check_source(source):
    """What is known of `source`; the facts of other builders are theirs."""
    for name, value in source.items():
        if name.startswith("num_"):
            _check(_is_int(value, 0, 2**63 - 1), f"source.{name}", value, "a whole number")
        elif name in ("kind", "name"):
            _check(_is_text(value), f"source.{name}", value, "text")


def _check_options(options):
    """What is known of `options`: what a run does to a user's own pictures hangs on some."""
    rules = {
        "seed": (lambda v: _is_int(v, 0, 2**32 - 1), "a whole number below 2**32"),
        "split_seed": (lambda v: v is None or _is_int(v), "a whole number or null"),
        "on_bad_image": (lambda v: v in ("raise", "report"), "'raise' or 'report'"),
        "exif_rotation": (lambda v: v in ("applied", "not applied"), "'applied' or 'not applied'"),
        "max_side_px": (lambda v: v is None or _is_int(v, 1, 2**31), "1 or more, or null"),
        "validation_share": (lambda v: v is None or _is_share(v), "a share in [0, 1) or null"),
        "bounding_boxes": (lambda v: isinstance(v, bool), "true or false"),
        "class_text": (lambda v: isinstance(v, bool), "true or false"),
        "plan_sha256": (_is_text, "text"),
    }
    for name, (is_right, rule) in rules.items():
        if name in options:
            _check(is_right(options[name]), f"options.{name}", options[name], rule)


def _need(stored, field):
    if field not in stored:
        raise ValueError(f"field {field} is missing")
    return stored[field]


def _check(is_right, field, value, rule):
    if not is_right:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
        raise ValueError(f"field {field} must be {rule}, not {shown}")


def _is_int(value, low=-(2**63), high=2**63 - 1):
    return type(value) is int and low <= value <= high  # True and False are ints to isinstance


def _is_text(value):
    """Whether it can be printed and be a file's name: JSON can spell halves of a character."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _is_share(value):
    return type(value) in (int, float) and 0 <= value < 1  # false for NaN
