"""ILSVRC2012 as it is downloaded: two tars, read in place, and the released lists about them.

The train tar holds one tar for each class, `n01440764.tar`, and that one its images; the
validation tar holds `ILSVRC2012_val_00000001.JPEG` and so on. Labels and record content are those
of the released build_imagenet_data.py: label i is line i of the list of synsets.
"""

import collections
import pathlib
import re

from inception_tf.counts import count_of
from inception_tf.data import splits
from inception_tf.data import tars
from inception_tf.data.image_source import Source
from inception_tf.data.image_source import SourceImage
from inception_tf.data.image_source import read_tar_image
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError

_SYNSET = re.compile(r"n[0-9]{8}")
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_([0-9]{8})\.JPEG")
_BOX_FORM = "file.JPEG,xmin,ymin,xmax,ymax with 0 <= min <= max <= 1"


class ImagenetSource(Source):
    """The official tars with their lists.

    Args:
      train_tar, val_tar: ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar; one may be None.
      synsets: file of one synset a line, in the order of the labels
        (imagenet_lsvrc_2015_synsets.txt).
      val_labels: file of the validation images' synsets, line n for image n
        (imagenet_2012_validation_synset_labels.txt); for the validation tar only.
      metadata: file of lines synset, tab, words (imagenet_metadata.txt); None stores the synset
        in the place of the words.
      bounding_boxes: CSV of lines file.JPEG,xmin,ymin,xmax,ymax in shares of width and height
        (imagenet_2012_bounding_boxes.csv); for the train tar only.

    Raises:
      ConfigError: files that do not belong together.
      DataError: a list that cannot be read or is wrong, with the number of the line.
    """

    kind = "imagenet"
    default_shards = {"train": 1024, "validation": 128}  # as released

    def __init__(
        self, *, synsets, train_tar=None, val_tar=None, val_labels=None, metadata=None,
        bounding_boxes=None,
    ):  # fmt: skip
        if train_tar is None and val_tar is None:
            raise ConfigError("ImageNet needs --train_tar, --val_tar or both.")
        if (val_tar is None) != (val_labels is None):
            raise ConfigError("--val_tar and --val_labels must be given together.")
        if bounding_boxes is not None and train_tar is None:
            raise ConfigError("--bounding_boxes are of training images: give --train_tar.")
        self.name = " and ".join(pathlib.Path(tar).name for tar in (train_tar, val_tar) if tar)
        self.class_names = _read_synsets(synsets)
        self.options = {
            "exif_rotation": "not applied",
            "bounding_boxes": bounding_boxes is not None,
            "class_text": metadata is not None,
        }
        self._tars = {splits.TRAIN: train_tar, splits.VALIDATION: val_tar}
        self._val_labels = val_labels
        self._metadata = metadata
        self._bounding_boxes = bounding_boxes

    def list_images(self) -> list[SourceImage]:
        """Every image: training images by class, validation images by number.

        Raises:
          DataError: a tar that is cut short or another one, a list that is wrong or does not fit.
        """
        texts = {} if self._metadata is None else _read_texts(self._metadata, self.class_names)
        self.num_ignored, self.notes = 0, ()
        images = []
        if self._tars[splits.TRAIN]:
            images += self._list_train(texts)
        if self._tars[splits.VALIDATION]:
            images += self._list_validation(texts)
        return images

    def read(self, image: SourceImage) -> bytes:
        """The bytes of one image.

        Raises:
          DataError: the tar cannot be read, or ends inside the image.
        """
        return read_tar_image(self._tars[image.split], image)

    def _list_train(self, texts):
        path = self._tars[splits.TRAIN]
        classes = {}
        for member in tars.list_members(path):
            synset = member.path.removesuffix(".tar")
            if synset == member.path or synset not in self.class_names or synset in classes:
                raise DataError(
                    "The train tar must hold one tar for each synset of the list.",
                    received=f"{member.path} in {path}",
                    remedy="Give ILSVRC2012_img_train.tar as downloaded, and its list of synsets.",
                )
            classes[synset] = member
        absent = [synset for synset in self.class_names if synset not in classes]
        if absent:
            raise DataError(
                "The train tar must hold one tar for each synset of the list.",
                received=f"none for {count_of(len(absent), 'synset')} of {len(self.class_names):,},"
                f" such as {absent[0]}, in {path}",
            )
        boxes = {} if self._bounding_boxes is None else _read_boxes(self._bounding_boxes)
        images = []
        for synset in self.class_names:
            for member in tars.list_members(path, within=classes[synset]):
                name = pathlib.PurePath(member.path).name
                if name.startswith("."):
                    self.num_ignored += 1
                    continue
                where = f"{member.offset}:{synset}.tar/{member.path}"
                images.append(
                    SourceImage("train", synset, name, member.num_bytes, where,
                                text=texts.get(synset, ""), boxes=boxes.pop(name, ()))
                )  # fmt: skip
        self._tell_unused_boxes(boxes, images)
        return images

    def _tell_unused_boxes(self, unused, images):
        """Notes boxes of images that are not there; refuses a file that has no others."""
        if not unused:
            return
        if not any(image.boxes for image in images):
            raise DataError(
                "The bounding boxes must be of images in the train tar.",
                received=f"{next(iter(unused))} and others in {self._bounding_boxes}, none of"
                f" {self._tars[splits.TRAIN]}",
            )
        num_boxes = sum(map(len, unused.values()))
        boxes = count_of(num_boxes, "bounding box", "bounding boxes")
        self.notes += (f"{boxes} not used, of {count_of(len(unused), 'image')} that the train tar"
                       f" does not hold, such as {next(iter(unused))}",)  # fmt: skip

    def _list_validation(self, texts):
        path = self._tars[splits.VALIDATION]
        labels = _read_validation_labels(self._val_labels, self.class_names)
        images = {}
        for member in tars.list_members(path):
            name = pathlib.PurePath(member.path).name
            match = _VALIDATION_NAME.fullmatch(name)
            number = int(match[1]) if match else 0
            if not 1 <= number <= len(labels) or number in images:
                raise DataError(
                    "The validation tar must hold each image ILSVRC2012_val_<number>.JPEG once,"
                    f" with numbers up to the {len(labels):,} lines of labels.",
                    received=f"{member.path} in {path}",
                    remedy="Give ILSVRC2012_img_val.tar as downloaded, and its list of labels.",
                )
            synset = labels[number - 1]
            images[number] = SourceImage(
                "validation", synset, name, member.num_bytes, f"{member.offset}:{member.path}",
                text=texts.get(synset, ""),
            )  # fmt: skip
        if len(images) != len(labels):
            raise DataError(
                "The validation tar must hold an image for every line of labels.",
                received=f"{len(images):,} in {path},"
                f" {count_of(len(labels), 'line')} in {self._val_labels}",
            )
        return [images[number] for number in sorted(images)]


def _read_lines(path):
    """Lines of a list, without empty ones at its end.

    Raises:
      DataError: it cannot be read.
    """
    try:
        text = pathlib.Path(path).expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError("Every list about ImageNet must be readable.",
                        received=f"{error.strerror}: {error.filename}") from None  # fmt: skip
    except UnicodeDecodeError as error:
        raise DataError("Every list about ImageNet must be text.",
                        received=f"{path}: {error}") from None  # fmt: skip
    return [line.strip(" \r") for line in text.rstrip().split("\n")]


def _read_synsets(path):
    synsets = _read_lines(path)
    for number, synset in enumerate(synsets, start=1):
        if not _SYNSET.fullmatch(synset) or synset in synsets[: number - 1]:
            raise DataError(
                "The list of synsets must have another one, such as n01440764, in every line.",
                received=f"{synset!r} in {path}, line {number:,}",
                remedy="Give imagenet_lsvrc_2015_synsets.txt.",
            )
    return tuple(synsets)


def _read_validation_labels(path, class_names):
    known = set(class_names)
    labels = _read_lines(path)
    for number, label in enumerate(labels, start=1):
        if label not in known:
            raise DataError(
                "Every validation label must be a synset of the list.",
                received=f"{label!r} in {path}, line {number:,}",
                remedy="Give imagenet_2012_validation_synset_labels.txt: the development kit's"
                " ground truth numbers the classes in an order of its own (ILSVRC ids).",
            )
    return labels


def _read_texts(path, class_names):
    """The words of every class; the released file has 20,000 synsets more."""
    texts = {}
    for number, line in enumerate(_read_lines(path), start=1):
        synset, separator, words = line.partition("\t")
        if not separator or not _SYNSET.fullmatch(synset) or not words:
            raise DataError("Every line of the metadata must be synset, tab, words.",
                            received=f"{line!r} in {path}, line {number:,}")  # fmt: skip
        texts[synset] = words
    absent = [synset for synset in class_names if synset not in texts]
    if absent:
        raise DataError("The metadata must name every synset of the list.",
                        received=f"no {absent[0]} in {path}")  # fmt: skip
    return texts


def _read_boxes(path):
    """Boxes (ymin, xmin, ymax, xmax) by file name, in the order of the file."""
    boxes = collections.defaultdict(list)
    for number, line in enumerate(_read_lines(path), start=1):
        name, *corners = line.split(",")
        try:
            xmin, ymin, xmax, ymax = map(float, corners)
            is_box = 0 <= xmin <= xmax <= 1 and 0 <= ymin <= ymax <= 1  # False for NaN
        except ValueError:
            is_box = False
        if not is_box:
            raise DataError(f"Every line of the bounding boxes must be {_BOX_FORM}.",
                            received=f"{line!r} in {path}, line {number:,}")  # fmt: skip
        boxes[name].append((ymin, xmin, ymax, xmax))
    return {name: tuple(found) for name, found in boxes.items()}
