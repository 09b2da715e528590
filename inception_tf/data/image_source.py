"""Where images and their classes come from before they are records.

A source lists its images once and then reads any of them by its entry, so that shards can be
written by several processes. It is small and picklable: the entries travel, not the listing.
"""

import dataclasses
import pathlib

from inception_tf.data import splits
from inception_tf.data import tars
from inception_tf.data import tfrecord
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError


@dataclasses.dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a source.

    Attributes:
      split: e.g. 'train' or 'validation'.
      class_name: e.g. a wnid.
      filename: base name.
      num_bytes: size of the file, or an estimate where there is none.
      where: how the source finds it again; named in errors.
      text: the class in words; '' takes its name.
      boxes: bounding boxes of the labelled object.
    """

    split: str
    class_name: str
    filename: str
    num_bytes: int
    where: str | int
    text: str = ""
    boxes: tuple[tfrecord.Box, ...] = ()


class Source:
    """What every source has; the methods are for a source to write.

    Attributes:
      kind: of source, for the manifest.
      name: for messages and the manifest.
      images_per_shard: where `default_shards` says nothing.
      default_shards: shards by split.
      class_names: in the order of the labels; None takes the sorted classes of the train split.
      num_ignored: files that `list_images` met and took for no images.
      notes: what else it found that the user should know, a line each.
      is_edited: images are turned as their EXIF data say, shrunk to `max_side_px`, and compared
        across the splits; otherwise they are stored as in the released records.
      max_side_px: of the longer side of a stored image; None for no limit.
      options: what else of the above decides the records, for the manifest.
    """

    kind = ""
    name = ""
    images_per_shard = 1250  # as in the released ImageNet records
    default_shards: dict[str, int] = {}
    class_names: tuple[str, ...] | None = None
    num_ignored = 0
    notes: tuple[str, ...] = ()
    is_edited = False
    max_side_px: int | None = None
    options: dict = {}

    def list_images(self) -> list[SourceImage]:
        """Every image, in an order of the source's own that never changes."""
        raise NotImplementedError

    def read(self, image: SourceImage) -> bytes:
        """The bytes of one image file."""
        raise NotImplementedError


class PhotoSource(Source):
    """Somebody's own photographs: edited, and split by their place or by a hash of their name.

    Args:
      name: of the source.
      validation_share: None where the source names the splits, else the share of images that a
        hash of class and file name gives to validation.
      seed: of that hash.
      max_side_px: see `Source`; 1 or more.

    Raises:
      ConfigError: an argument out of range.
    """

    is_edited = True

    def __init__(self, name, *, validation_share=None, seed=0, max_side_px=None):
        splits.check_share(validation_share)
        if max_side_px is not None and max_side_px < 1:
            raise ConfigError("max_side_px must be 1 or more.", received=max_side_px)
        self.name = name
        self.validation_share = validation_share
        self.seed = seed
        self.max_side_px = max_side_px

    @property
    def options(self):
        """For the manifest."""
        return {
            "exif_rotation": "applied",
            "max_side_px": self.max_side_px,
            "validation_share": self.validation_share,
            "split_seed": None if self.validation_share is None else self.seed,
        }


def read_file(path) -> bytes:
    """The bytes of one image file.

    Raises:
      DataError: the file cannot be read.
    """
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise DataError("Every image file of a source must be readable.",
                        received=f"{error.strerror}: {error.filename}") from None  # fmt: skip


def read_tar_image(path, image: SourceImage) -> bytes:
    """The bytes of an image whose `where` is '<offset>:<path in the tar>'.

    Raises:
      DataError: the tar cannot be read, or ends inside the member.
    """
    offset, name = image.where.split(":", 1)
    return tars.read_member(path, offset=int(offset), num_bytes=image.num_bytes, name=name)
