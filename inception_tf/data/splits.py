"""Which split an image belongs to where the source does not say: by a hash of its name."""

import collections
import hashlib

from inception_tf.counts import count_of
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError

TRAIN = "train"
VALIDATION = "validation"

_NAMES = {"val": VALIDATION, "valid": VALIDATION}


def standard_name(split: str) -> str:
    """'validation' for 'val' and 'valid', any other name as it is."""
    return _NAMES.get(split, split)


def check_share(share: float | None) -> None:
    """Raises ConfigError unless a share of validation images is None or in [0, 1)."""
    if share is not None and not 0 <= share < 1:
        raise ConfigError("validation_share must be in [0, 1).", received=share)


def choose_split(name: str, *, share: float, seed: int) -> str:
    """'validation' for about `share` of all names, else 'train'.

    A function of its arguments alone: images that are added or removed move no other one, and a
    larger share keeps the validation images of a smaller one.

    Args:
      name: of the image in its source, with its class where file names repeat.
      share: of validation images, in [0, 1).
      seed: another seed gives another split.
    """
    digest = hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogateescape")).digest()
    return VALIDATION if int.from_bytes(digest[:8], "big") < share * 2.0**64 else TRAIN


def check_hash_split(images, *, share: float, origin) -> None:
    """Raises DataError where chance left a class without training images, or no validation.

    Args:
      images: with `split` and `class_name`.
      share: that was asked for.
      origin: the source, for the message.
    """
    classes = collections.defaultdict(set)
    for image in images:
        classes[image.split].add(image.class_name)
    remedy = (
        "--validation_share 0 takes every image for training; else give more images, another"
        " --seed or another share."
    )
    lost = sorted(classes[VALIDATION] - classes[TRAIN])
    if lost:
        raise DataError("Every class must keep training images in a split by hash.",
                        received=f"{', '.join(lost[:5])} in {origin}", remedy=remedy)  # fmt: skip
    if share and not classes[VALIDATION]:
        raise DataError("A split by hash must give some images to validation.",
                        received=f"none of {count_of(len(images), 'image')} in {origin}",
                        remedy=remedy)  # fmt: skip
