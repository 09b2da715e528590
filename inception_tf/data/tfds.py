"""Data sets for image classification as TensorFlow Datasets prepares them, read in place.

A prepared version is a directory such as imagenet2012/5.1.0 with

  dataset_info.json                              splits and the records of every shard
  features.json                                  the keys of the records and what they hold
  label.labels.txt                               the names of the classes, line k + 1 of label k
  imagenet2012-train.tfrecord-00000-of-01024 ... the shards

Labels count from 0 and there is no background. TensorFlow Datasets itself is not needed.
"""

import json
import re

from inception_tf.data import files
from inception_tf.data import tfrecord
from inception_tf.data.description import Manifest
from inception_tf.data.description import ShardEntry
from inception_tf.errors import DataError

INFO_NAME = "dataset_info.json"
FEATURES_NAME = "features.json"

_FOUND_BELOW = "imagenet2012"  # looked for in a directory of data sets that is not told which
_MOST_CLASSES = 2**20  # as the index allows of labels; a wild number must not size a list
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_FILENAME_KEYS = ("file_name", "filename", "image/filename", "image_id", "id")
_REMEDY = "Prepare the data set again with TensorFlow Datasets, or copy all of its files."


def find_version(root: str) -> str | None:
    """The directory of a prepared version at or below a place; None where there is none.

    That is the place itself, or the highest version in it, as TensorFlow Datasets chooses, or
    the highest version of imagenet2012 in it.
    """
    if files.is_file(files.join(root, INFO_NAME)):
        return root
    for folder in (root, files.join(root, _FOUND_BELOW)):
        if not files.is_directory(folder):
            continue
        numbers = [name for name in files.list_names(folder) if _VERSION.fullmatch(name)]
        for name in sorted(numbers, key=lambda n: [*map(int, n.split("."))], reverse=True):
            if files.is_file(files.join(folder, name, INFO_NAME)):
                return files.join(folder, name)
    return None


def read_description(root: str) -> Manifest:
    """What dataset_info.json, features.json and the labels' names say of a prepared version.

    Raises:
      DataError: a file is missing or cannot be understood, the shards are no TFRecords, or the
        data set does not have one image and one class label; names the file and the key.
    """
    path = files.join(root, INFO_NAME)
    info = _read_json(path)
    file_format = info.get("fileFormat", "tfrecord")  # older versions knew only this one
    if file_format != "tfrecord":
        raise DataError(
            "A data set of TensorFlow Datasets must be prepared as TFRecord.",
            received=f"fileFormat {file_format!r} in {path}",
            remedy="Prepare it with download_and_prepare(file_format='tfrecord').",
        )
    try:
        name, version = str(info["name"]), str(info["version"])
        splits = {split["name"]: _name_shards(split, name) for split in info["splits"]}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _misunderstood(path, error) from None
    schema, num_classes = _read_schema(files.join(root, FEATURES_NAME), info)
    return Manifest(
        label_base=0,
        num_classes=num_classes,
        class_names=_read_names(files.join(root, f"{schema.label}.labels.txt"), num_classes),
        splits={split: shards for split, shards in splits.items() if shards},
        class_counts=None,
        source={"kind": "tensorflow_datasets", "name": name, "version": version},
        options={},
        schema=schema,
        origin=f"TensorFlow Datasets {name}/{version}",
    )


def _name_shards(split, dataset):
    """The shards of one entry of `splits`; none of a split without records."""
    counts = [int(count) for count in split.get("shardLengths", ())]
    if min(counts, default=0) < 0:
        raise ValueError("a split with negative shardLengths")
    if not split["name"] or not _is_below(split["name"]) or "/" in split["name"]:
        raise ValueError(f"a split whose name is no word: {split['name']!r}")
    if not counts and int(split.get("numShards", 0)):
        raise ValueError("a split with numShards but without shardLengths")
    shards = []
    for number, count in enumerate(counts):
        fields = {
            "DATASET": dataset,
            "SPLIT": split["name"],
            "FILEFORMAT": "tfrecord",
            "SHARD_INDEX": f"{number:05d}",
            "NUM_SHARDS": f"{len(counts):05d}",
            "SHARD_X_OF_Y": f"{number:05d}-of-{len(counts):05d}",
        }
        template = split.get("filepathTemplate") or _DEFAULT_TEMPLATE
        file = re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], template)
        if not _is_below(file):
            raise ValueError(f"a shard outside of the directory: {file!r}")
        shards.append(ShardEntry(file, count, None, None))
    if len({shard.file for shard in shards}) < len(shards):
        raise ValueError(f"a filepathTemplate that names one file twice: {shards[0].file!r}")
    return tuple(shards)


def _is_below(file):
    """Whether a name leads nowhere but into the directory of the data set."""
    return "\0" not in file and not {"", ".", ".."} & set(file.split("/"))


def _read_schema(path, info):
    """The keys of image, label and file name, and the number of classes."""
    try:
        features = _features_of(_read_json(path))
        image, label = _choose_keys(features, info.get("supervisedKeys") or {})
        settings = features[label][1]
        num_classes = int(settings.get("numClasses", settings.get("num_classes", 0)))
        dtype = features[image][1].get("dtype", "uint8")
    except _NoClassification as listed:
        raise DataError(
            "A data set for classification must have one image and one class label, or name them"
            f" as supervisedKeys in {INFO_NAME}.",
            received=f"{path} with {listed}",
            remedy="Give a data set of TensorFlow Datasets for image classification.",
        ) from None
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _misunderstood(path, error) from None
    if not 1 <= num_classes <= _MOST_CLASSES or dtype != "uint8":
        raise DataError(
            "The image must be of uint8 and the label must have classes.",
            received=f"{image!r} of {dtype} and {label!r} of {num_classes} classes in {path}",
            remedy="Give a data set of TensorFlow Datasets for image classification.",
        )
    texts = [name for name in _FILENAME_KEYS if features.get(name, ("",))[0] == "Text"]
    filename = texts[0] if texts else ""
    return (
        tfrecord.Schema(image=image, label=label, filename=filename, takes_png=True),
        num_classes,
    )


class _NoClassification(Exception):
    """The features are not one image and one class label; the argument lists them."""


def _features_of(stored):
    """{key: (class of the feature, its settings)} from either form of features.json."""
    if "featuresDict" in stored:
        listed = stored["featuresDict"]["features"]
    else:  # before TFDS 4.6: {"type": ..., "content": ...}, of which content may be JSON in JSON
        listed = stored["content"]
        listed = json.loads(listed) if isinstance(listed, str) else listed
        listed = listed.get("features", listed) if stored.get("proto_cls") else listed
    features = {}
    for key, feature in listed.items():
        kind = feature.get("pythonClassName", feature.get("type", "")).rpartition(".")[2]
        settings = feature.get(kind[:1].lower() + kind[1:], feature.get("content", {}))
        features[key] = kind, json.loads(settings) if isinstance(settings, str) else settings
    return features


def _choose_keys(features, supervised):
    """Keys of the image and of the label: the supervised ones, else the only ones."""
    items = supervised.get("tuple", {}).get("items", ())
    given = [item.get("featureKey") for item in items]
    given = given or [supervised.get("input"), supervised.get("output")]
    if [features.get(key, ("",))[0] for key in given] == ["Image", "ClassLabel"]:
        return given
    chosen = []
    for wanted in ("Image", "ClassLabel"):
        found = [key for key, (kind, _) in features.items() if kind == wanted]
        if len(found) != 1:
            listed = ", ".join(f"{key}: {kind}" for key, (kind, _) in sorted(features.items()))
            raise _NoClassification(listed or "no features")
        chosen += found
    return chosen


def _read_names(path, num_classes):
    """The classes' names; their labels as text where the data set has none."""
    try:
        names = files.read_text(path).splitlines()
    except FileNotFoundError:
        return tuple(map(str, range(num_classes)))
    except (OSError, UnicodeDecodeError) as error:
        raise _misunderstood(path, error) from None
    if len(names) != num_classes:
        raise DataError(
            f"Every one of the {num_classes:,} classes of {FEATURES_NAME} must have one name.",
            received=f"{len(names):,} lines in {path}",
            remedy=_REMEDY,
        )
    return tuple(names)


def _read_json(path):
    try:
        stored = json.loads(files.read_text(path))
        if not isinstance(stored, dict):
            raise ValueError("no JSON object")
        return stored
    except FileNotFoundError:
        raise DataError(
            f"Records of TensorFlow Datasets need their {INFO_NAME} and {FEATURES_NAME} beside"
            " them.",
            received=f"no {path}",
            remedy=_REMEDY,
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _misunderstood(path, error) from None


def _misunderstood(path, error):
    # str() of a KeyError is the key alone, in quotes.
    reason = f"no key {error}" if isinstance(error, KeyError) else f"{error}"
    return DataError(
        "The files of a data set must be as TensorFlow Datasets wrote them.",
        received=f"{path}: {reason}",
        remedy=_REMEDY,
    )
