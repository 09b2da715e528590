"""Which images of an evaluation count: all, ImageNet's official subsets, or a list.

The official lists know an image by the number in its name, ILSVRC2012_val_00000001.JPEG up to
50000. They are read from where the user has them and come with nothing here:

  without_blacklist  the 48,238 images of the papers' single-crop figures, without the 1,762 of
                     data/ILSVRC2014_clsloc_validation_blacklist.txt in the development kit of
                     ILSVRC 2014 (the kits of other years hold the same numbers)
  real               the 46,837 images with labels in real.json of "Are we done with ImageNet?"
                     (arXiv 2006.07159): list i of it belongs to image i + 1
"""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from inception_tf.counts import count_of
from inception_tf.errors import ConfigError, DataError
from inception_tf.evaluation import official_lists as lists

ALL = "all"
WITHOUT_BLACKLIST = "without_blacklist"
REAL = "real"

_ID = re.compile(r"[0-9]{1,18}")
_SHOWN = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subset:
    """The images that count.

    Attributes:
      name: 'all', 'without_blacklist', or the file name of a list.
      path: of the list that makes it; None for 'all'.
      numbers: bool [50,001]: whether the official image of a number counts; None for others.
      file_names: names that count; None for others.
      record_ids: ids that count; None for others.
    """

    name: str
    path: str | None = None
    numbers: np.ndarray | None = None
    file_names: frozenset[str] | None = None
    record_ids: frozenset[int] | None = None

    def mask(self, file_names: Sequence[str], record_ids: Sequence[int]) -> np.ndarray:
        """Bool [n]: which of n different images count.

        Args:
          file_names: of the source images; '' where the records do not say it.
          record_ids: in the split.

        Raises:
          DataError: the list cannot be about these images, or leaves none of them.
        """
        if self.numbers is not None:
            mask = self.numbers[lists.official_numbers(file_names, self.name)]
        elif self.file_names is not None:
            mask = _mask_of_list(self, self.file_names, list(file_names), "file name")
        elif self.record_ids is not None:
            mask = _mask_of_list(self, self.record_ids, [*map(int, record_ids)], "record id")
        else:
            mask = np.ones(len(record_ids), bool)
        if not mask.any():
            raise DataError(
                f"At least one image of the data must be in the subset {self.name}.",
                received=f"none of {len(mask):,}" + (f" ({self.path})" if self.path else ""),
            )
        return mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealLabels:
    """The ReaL labels.

    Attributes:
      name: 'real'.
      path: of the file.
      labels: 50,000 lists of labels in [0, 1000), of image 1, 2 and so on; () counts not.
    """

    name: str = REAL
    path: str
    labels: tuple[tuple[int, ...], ...]

    def labels_of(self, file_names: Sequence[str]) -> list[tuple[int, ...]]:
        """The labels of each image, zero-based in the order of the synsets; () for none.

        Raises:
          DataError: names that are not official ones.
        """
        numbers = lists.official_numbers(file_names, self.name)
        return [self.labels[number - 1] for number in numbers.tolist()]


def open_subsets(
    wanted: Sequence[str],
    *,
    imagenet_meta_dir: str | None = None,
    blacklist: str | None = None,
    real_labels: str | None = None,
) -> list[Subset | RealLabels]:
    """Reads the lists of the subsets that are wanted, in their order.

    Args:
      wanted: 'all', 'without_blacklist', 'real', or the path of a list (see `read_list`).
      imagenet_meta_dir: where the official lists lie under one of their names.
      blacklist, real_labels: single files; each goes before `imagenet_meta_dir`.

    Raises:
      ConfigError: no such subset or file, one given twice, two of the same name, or a list of
        which no subset is wanted.
      DataError: a file that is not what it is taken for.
    """
    for path, of in (
        (blacklist, {WITHOUT_BLACKLIST}),
        (real_labels, {REAL}),
        (imagenet_meta_dir, {WITHOUT_BLACKLIST, REAL}),
    ):
        if path is not None and not of & set(wanted):
            raise ConfigError(
                "An official list must be of a subset that is wanted.",
                received=f"{path} with the subsets {', '.join(wanted)}",
                remedy=f"Add it: --subsets=all,{','.join(sorted(of))}.",
            )
    subsets = []
    for one in wanted:
        if one == ALL:
            subsets.append(Subset(name=ALL))
        elif one == WITHOUT_BLACKLIST:
            path = blacklist or lists.find_list(
                imagenet_meta_dir, lists.BLACKLIST_NAMES, name=one, origin=lists.BLACKLIST_ORIGIN
            )
            subsets.append(Subset(name=one, path=str(path), numbers=lists.read_blacklist(path)))
        elif one == REAL:
            path = real_labels or lists.find_list(
                imagenet_meta_dir, lists.REAL_NAMES, name=one, origin=lists.REAL_ORIGIN
            )
            subsets.append(RealLabels(path=str(path), labels=lists.read_real_labels(path)))
        elif os.path.isfile(one):
            subsets.append(read_list(one))
        else:
            raise ConfigError(
                f"A subset must be {ALL}, {WITHOUT_BLACKLIST}, {REAL} or the path of a list.",
                received=repr(one),
                remedy="A list holds one file name, or one record id, in each line.",
            )
    twice = lists.repeated([subset.name for subset in subsets])
    if twice:
        raise ConfigError("Every subset must have a name of its own.", received=f"{twice[0]} twice")
    return subsets


def read_list(path: str | os.PathLike) -> Subset:
    """A subset from a text file: a file name, or a record id, in each line.

    Where every line is a whole number they are record ids. Blank lines, and lines that begin with
    #, say nothing. The subset is named for the file.

    Raises:
      ConfigError: the file cannot be read, or is called like another subset.
      DataError: nothing in it, or a line twice.
    """
    lines = [line.strip() for line in lists.read_text(path).splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise DataError("A list of images must name at least one.", received=f"none in {path}")
    are_ids = all(_ID.fullmatch(entry) for entry in entries)
    entries = [int(entry) for entry in entries] if are_ids else entries
    twice = lists.repeated(entries)
    if twice:
        raise DataError(
            "A list must name every image once.",
            received=f"{count_of(len(twice), 'entry', 'entries')} more than once, such as"
            f" {twice[0]}, in {path}",
        )
    name = pathlib.Path(path).name
    if name in (ALL, WITHOUT_BLACKLIST, REAL):
        raise ConfigError("A list must not be called like another subset.", received=str(path))
    kind = {"record_ids" if are_ids else "file_names": frozenset(entries)}
    return Subset(name=name, path=str(path), **kind)


def _mask_of_list(subset, listed, found, noun):
    """Bool [n]: which of `found` are listed; each that is listed must be there once."""
    if noun == "file name" and not any(found):
        raise DataError(
            f"The list {subset.path} names files, and the records must say of which they are.",
            received=f"{len(found):,} records without a file name",
            remedy=lists.NAMES_REMEDY,
        )
    numbers = collections.Counter(found)
    absent = sorted(entry for entry in listed if entry not in numbers)
    if absent:
        shown = ", ".join(map(str, absent[:_SHOWN]))
        raise DataError(
            f"The data must hold every {noun} of a list.",
            received=f"{count_of(len(absent), 'entry', 'entries')} of {subset.path} without a"
            f" record, such as {shown}",
            remedy="Take them out of the list, or evaluate the records that it was made for.",
        )
    twice = sorted(entry for entry in listed if numbers[entry] > 1)
    if twice:
        raise DataError(
            f"A {noun} of a list must be that of one image.",
            received=f"{numbers[twice[0]]} records for {twice[0]} of {subset.path}",
            remedy="List record ids instead.",
        )
    return np.array([entry in listed for entry in found], bool)


