"""Images that a CSV file lists with their labels, as a source of records."""

import csv
import hashlib
import os
import pathlib
import re

from inception_tf.data import splits
from inception_tf.data.image_source import PhotoSource
from inception_tf.data.image_source import SourceImage
from inception_tf.data.image_source import read_file
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError

_COLUMNS = ("path", "label")
_SPLIT_COLUMN = "split"
_NUMBER = re.compile(r"0|[1-9][0-9]*")


class CsvSource(PhotoSource):
    """A CSV (UTF-8) whose first line names the columns path, label and, it may be, split.

    Paths are absolute or relative to the CSV's folder. A label is the class's name; labels that
    are all whole numbers are put in the order of numbers, others in that of letters. Without the
    column split `validation_share` must be given, with it it must not. Spaces around a value do
    not count; columns of other names are not used, and a note says so.
    """

    kind = "csv"

    def __init__(self, path, **options):
        self._path = pathlib.Path(path).expanduser()
        self._paths_sha256 = None
        super().__init__(self._path.name, **options)

    @property
    def options(self):
        """As of every source of photographs, and once it is listed a hash of the paths.

        Names of files and their sizes, which other sources are known by, stay the same where a
        CSV comes to name files of other folders.
        """
        return {**super().options, "paths_sha256": self._paths_sha256}

    def list_images(self) -> list[SourceImage]:
        """Every image, sorted by split, class and path.

        Raises:
          ConfigError: both a column split and a share of validation images, or neither.
          DataError: no CSV of that form, a line that is wrong, an image file that is not there;
            with the number of the line.
        """
        try:
            with open(self._path, newline="", encoding="utf-8-sig") as stream:
                images = self._read_lines(csv.reader(stream, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError("The source must be a CSV file in UTF-8.",
                            received=f"{self._path}: {error}") from None  # fmt: skip
        except OSError as error:
            raise DataError("The CSV must be readable.",
                            received=f"{error.strerror}: {error.filename}") from None  # fmt: skip
        if not images:
            raise DataError("The CSV must list images.", received=str(self._path))
        if self.validation_share is not None:
            splits.check_hash_split(images, share=self.validation_share, origin=self._path)
        self.class_names = _order_classes(images)
        numbers = tuple(map(str, range(len(self.class_names))))
        if _NUMBER.fullmatch(self.class_names[0]) and self.class_names != numbers:
            first, last = self.class_names[0], self.class_names[-1]
            self.notes += (f"the labels are not 0..{len(numbers) - 1}: {first} is the first class"
                           f" and {last} the last of {len(numbers):,}",)  # fmt: skip
        images.sort(key=lambda image: (image.split, image.class_name, image.where))
        paths = "\n".join(repr(image.where) for image in images)
        self._paths_sha256 = hashlib.sha256(paths.encode()).hexdigest()
        return images

    def read(self, image: SourceImage) -> bytes:
        """The bytes of one image file.

        Raises:
          DataError: the file cannot be read.
        """
        return read_file(self._path.parent / image.where)

    def _read_lines(self, reader):
        header = [name.strip() for name in next(reader, ())]
        self._check_header(header)
        others = [name for name in header if name not in (*_COLUMNS, _SPLIT_COLUMN)]
        self.notes = (f"columns not used: {', '.join(others)}",) if others else ()
        images, lines = [], {}
        for values in reader:
            if not values:
                continue
            line = f"{self._path}, line {reader.line_num:,}"
            if len(values) != len(header):
                raise DataError(
                    f"Every line of the CSV must have {len(header)} values, as its first one.",
                    received=f"{len(values)} in {line}",
                    remedy='A value that holds a comma must stand in quotes: "a, b".',
                )
            image = self._parse(dict(zip(header, map(str.strip, values))), line)
            if image.where in lines:
                raise DataError("The CSV must list an image once.",
                                received=f"{image.where} in {line} and in line"
                                f" {lines[image.where]:,}")  # fmt: skip
            lines[image.where] = reader.line_num
            images.append(image)
        return images

    def _check_header(self, header):
        absent = [name for name in _COLUMNS if name not in header]
        if absent or len(set(header)) != len(header):
            raise DataError(
                "The first line of the CSV must name the columns path and label, each once;"
                " split may be a third.",
                received=f"{','.join(header)!r} in {self._path}, line 1",
            )
        if (_SPLIT_COLUMN in header) == (self.validation_share is not None):
            given = "both" if _SPLIT_COLUMN in header else "neither"
            raise ConfigError(
                "A CSV needs a column split or --validation_share, not both.",
                received=f"{given} for {self._path}",
                remedy="--validation_share 0 takes every image for training.",
            )

    def _parse(self, row, line):
        for name in (*_COLUMNS, _SPLIT_COLUMN):
            if not row.get(name, "not asked for"):
                raise DataError(f"Every image of the CSV must have a {name}.",
                                received=f"an empty value in {line}")  # fmt: skip
        path = row["path"]
        try:
            num_bytes = os.path.getsize(self._path.parent / path)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise DataError(
                "Every path of the CSV must lead to a file.",
                received=f"{path!r} in {line}: {getattr(error, 'strerror', None) or error}",
                remedy=f"A path is absolute or relative to {self._path.parent}.",
            ) from None
        if self.validation_share is None:
            split = splits.standard_name(row[_SPLIT_COLUMN])
            if "/" in split or split.startswith("."):  # it becomes a part of file names
                raise DataError("A split must be a word such as train.",
                                received=f"{split!r} in {line}")  # fmt: skip
        else:
            split = splits.choose_split(path, share=self.validation_share, seed=self.seed)
        return SourceImage(split, row["label"], pathlib.PurePath(path).name, num_bytes, path)


def _order_classes(images):
    """Classes of the train split (of all, if there is none) in the order of their labels."""
    names = {image.class_name for image in images if image.split == splits.TRAIN}
    names = names or {image.class_name for image in images}
    are_numbers = all(_NUMBER.fullmatch(name) for name in names)
    return tuple(sorted(names, key=int if are_numbers else None))
