"""ImageNet's official lists about its validation images, read from where the user has them.

The lists know an image by the number in its name, ILSVRC2012_val_00000001.JPEG up to 50000.
"""

import collections
import json
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from inception_tf.counts import count_of
from inception_tf.errors import ConfigError, DataError

NUM_VALIDATION = 50_000
NUM_BLACKLISTED = 1_762
NUM_WITHOUT_BLACKLIST = NUM_VALIDATION - NUM_BLACKLISTED  # 48,238
NUM_REAL = 46_837
NUM_REAL_CLASSES = 1000

_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_([0-9]{8})\.JPEG")
BLACKLIST_NAMES = (
    "ILSVRC2014_clsloc_validation_blacklist.txt",
    "ILSVRC2015_clsloc_validation_blacklist.txt",
    "ILSVRC2017_clsloc_validation_blacklist.txt",
    "ILSVRC2013_clsloc_validation_blacklist.txt",
    "ILSVRC2012_validation_blacklist.txt",
)
REAL_NAMES = ("real.json", "imagenet_real_labels.json")
BLACKLIST_ORIGIN = (
    "It is data/ILSVRC2014_clsloc_validation_blacklist.txt in the development kit of"
    " https://image-net.org/challenges/LSVRC/2014/2014-downloads.php (which wants an account)."
)
REAL_ORIGIN = (
    "It is real.json of https://github.com/google-research/reassessed-imagenet (Apache-2.0)."
)
NAMES_REMEDY = (
    "Build the records with names: python -m inception_tf.records build from ImageNet's own files,"
    " or TensorFlow Datasets' imagenet2012. A list of record ids needs no names."
)
_SHOWN = 3


def read_blacklist(path: str | os.PathLike) -> np.ndarray:
    """Which images stay, by number: bool [50,001], number 0 (no image has it) False.

    Raises:
      ConfigError: the file cannot be read.
      DataError: it does not hold 1,762 different numbers of images.
    """
    stays = np.ones(NUM_VALIDATION + 1, bool)
    stays[0] = False
    entries = read_text(path, BLACKLIST_ORIGIN).split()
    for place, entry in enumerate(entries, 1):
        is_number = entry.isascii() and entry.isdigit() and len(entry) <= 8
        if not is_number or int(entry) > NUM_VALIDATION or not stays[int(entry)]:
            raise DataError(
                f"The blacklist must hold different image numbers in 1..{NUM_VALIDATION}.",
                received=f"{entry!r} as entry {place:,} of {path}",
                remedy=BLACKLIST_ORIGIN,
            )
        stays[int(entry)] = False
    if len(entries) != NUM_BLACKLISTED:
        raise DataError(
            f"The official blacklist has {NUM_BLACKLISTED:,} images.",
            received=f"{len(entries):,} in {path}",
            remedy=f"{BLACKLIST_ORIGIN} A list of your own is a subset by its path.",
        )
    return stays


def read_real_labels(path: str | os.PathLike) -> tuple[tuple[int, ...], ...]:
    """The ReaL labels as released: labels in [0, 1000) of image 1, 2 ... 50,000; () for none.

    Raises:
      ConfigError: the file cannot be read.
      DataError: it does not hold 50,000 lists of different labels, 46,837 of them not empty.
    """
    try:
        lists = json.loads(read_text(path, REAL_ORIGIN))
    except (ValueError, RecursionError) as error:
        raise DataError(
            "ReaL labels must be JSON.", received=f"{error} in {path}", remedy=REAL_ORIGIN
        ) from None
    if not isinstance(lists, list) or len(lists) != NUM_VALIDATION:
        found = f"{len(lists):,} entries" if isinstance(lists, list) else type(lists).__name__
        raise DataError(
            f"ReaL labels must be one JSON list of {NUM_VALIDATION:,} lists.",
            received=f"{found} in {path}",
            remedy=REAL_ORIGIN,
        )
    for number, labels in enumerate(lists, 1):
        if not _are_labels(labels):
            raise DataError(
                f"ReaL labels of an image must be a list of different ones in"
                f" 0..{NUM_REAL_CLASSES - 1}.",
                received=f"{json.dumps(labels)[:80]} of image {number:,} in {path}",
                remedy=REAL_ORIGIN,
            )
    num_labelled = sum(map(bool, lists))
    if num_labelled != NUM_REAL:
        raise DataError(
            f"The released ReaL labels are of {NUM_REAL:,} images.",
            received=f"{num_labelled:,} lists that are not empty in {path}",
            remedy=REAL_ORIGIN,
        )
    return tuple(map(tuple, lists))


def _are_labels(labels):
    """Whether it is a list of different labels."""
    return (
        isinstance(labels, list)
        and all(type(label) is int and 0 <= label < NUM_REAL_CLASSES for label in labels)
        and len(set(labels)) == len(labels)
    )


def official_number(file_name: str) -> int:
    """The number in an official validation image's name; 0 for every other name."""
    match = _VALIDATION_NAME.fullmatch(file_name.rsplit("/", 1)[-1])
    number = int(match[1]) if match else 0
    return number if number <= NUM_VALIDATION else 0


def official_numbers(file_names: Sequence[str], subset_name: str) -> np.ndarray:
    """The numbers in official validation images' names, int64 [n], every one another.

    Raises:
      DataError: another name, or one number twice.
    """
    numbers = np.array([official_number(name) for name in file_names], np.int64)
    others = [name for name, number in zip(file_names, numbers.tolist()) if not number]
    if others:
        shown = ", ".join(repr(name) for name in others[:_SHOWN])
        raise DataError(
            f"The subset {subset_name} needs ImageNet's validation images under their official"
            " names, ILSVRC2012_val_00000001.JPEG up to 50000.",
            received=f"{count_of(len(others), 'other name')} of {len(numbers):,}, such as {shown}",
            remedy=NAMES_REMEDY,
        )
    twice = repeated(numbers.tolist())
    if twice:
        raise DataError(
            "Every official image must be in the data once.",
            received=f"{count_of(len(twice), 'image')} more than once, such as number {twice[0]}",
            remedy="Check the records: python -m inception_tf.records check.",
        )
    return numbers


def find_list(directory: str | None, candidates: Sequence[str], *, name: str, origin: str) -> str:
    """The path of an official list in a directory, under one of its names.

    Raises:
      ConfigError: no directory, or none of the names is in it.
    """
    if directory is None:
        raise ConfigError(
            f"The subset {name} needs its official list.",
            received="neither the file nor a directory with ImageNet's lists",
            remedy=origin,
        )
    for candidate in candidates:
        path = os.path.join(directory, candidate)
        if os.path.isfile(path):
            return path
    raise ConfigError(
        f"The subset {name} needs its official list, under one of the names"
        f" {', '.join(candidates)}.",
        received=f"none of them in {directory}",
        remedy=origin,
    )


def read_text(path: str | os.PathLike, origin: str | None = None) -> str:
    """The text of a list; ConfigError, with `origin` for the remedy, where there is none."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "The list of a subset must be a readable text file.",
            received=f"{path}: {error}",
            remedy=origin,
        ) from None


def repeated(entries: Sequence) -> list:
    """Entries that occur more than once, in order of their first one."""
    return [entry for entry, count in collections.Counter(entries).items() if count > 1]
