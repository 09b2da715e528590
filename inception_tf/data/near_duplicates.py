"""Pictures that are nearly the same in two splits, which make an evaluation look too good.

Every picture gets a difference hash of 128 bits: of its grey thumbnail, whether each cell is
brighter than its right and than its lower neighbour. Another size, another JPEG quality or slightly
other colours change a few bits; two different photographs differ in about half of them.
"""

import dataclasses

import numpy as np

from inception_tf.data.splits import TRAIN

# Measured: copies at half the size or at JPEG quality 30 differ in up to 8 bits, at 64 px in up to
# 16; of the 172 pairs of CIFAR-10's splits that differ in no more than 14, all but one are of the
# same class, and from 19 on chance sets in. Different photographs of ImageNet: 39 and more.
NEAR_BITS = 14

_CELLS = 8
_WEIGHTS = np.array([299, 587, 114])  # luma in thousandths of a level, ITU-R BT.601
_LEAST_STEP = 500  # half a level: noise in an even sky is no difference


@dataclasses.dataclass(frozen=True)
class HashedImage:
    """One image of a build; `file` says where the source has it, `picture_hash` is in hex."""

    split: str
    file: str
    picture_hash: str


@dataclasses.dataclass(frozen=True)
class NearDuplicate:
    """An image that is nearly another split's, and the nearest one there.

    Attributes:
      split, file: the image; of two splits the one that is not train, else the smaller.
      near_split, near_file: the nearest image of the other split.
      differing_bits: of 128.
      num_near: images of the other split that are as near as to be reported.
    """

    split: str
    file: str
    near_split: str
    near_file: str
    differing_bits: int
    num_near: int


def hash_picture(pixels: np.ndarray) -> str:
    """The difference hash of uint8 [H, W, 3] pixels, as 32 hexadecimal digits."""
    cells = _average_cells(pixels)
    right = cells[:-1, 1:] > cells[:-1, :-1] + _LEAST_STEP
    below = cells[1:, :-1] > cells[:-1, :-1] + _LEAST_STEP
    return np.packbits(np.concatenate([right.ravel(), below.ravel()])).tobytes().hex()


def find_near_duplicates(images: list[HashedImage]) -> list[NearDuplicate]:
    """Every image that is nearly one of another split, once for two splits; sorted by name.

    Every pair of images in two splits is compared: 128-bit words, about 2 s for 10,000 images
    against 100,000.
    """
    by_split = {}
    for image in sorted(images, key=lambda image: (image.split, image.file)):
        by_split.setdefault(image.split, []).append(image)
    splits = sorted(by_split, key=lambda name: (name == TRAIN, len(by_split[name]), name))
    words = {split: _as_words(members) for split, members in by_split.items()}
    found = []
    for place, split in enumerate(splits):
        for other in splits[place + 1 :]:
            upper, lower = words[other]
            for image, high, low in zip(by_split[split], *words[split], strict=True):
                differing = np.bitwise_count(upper ^ high) + np.bitwise_count(lower ^ low)
                nearest = int(differing.argmin())
                if differing[nearest] <= NEAR_BITS:
                    found.append(
                        NearDuplicate(
                            split=split,
                            file=image.file,
                            near_split=other,
                            near_file=by_split[other][nearest].file,
                            differing_bits=int(differing[nearest]),
                            num_near=int((differing <= NEAR_BITS).sum()),
                        )
                    )
    return sorted(found, key=lambda pair: (pair.split, pair.file, pair.near_split))


def _average_cells(pixels):
    """Mean luma of 9 x 9 cells, in thousandths of a level.

    Sums of integers: the last bit must not hang on a processor's order of adding.
    """
    height, width = pixels.shape[:2]
    top, left = (np.arange(_CELLS + 1) * size // (_CELLS + 1) for size in (height, width))
    by_rows = np.add.reduceat(pixels.reshape(height, -1), top, axis=0, dtype=np.int32)
    grey = by_rows.reshape(len(top), width, 3).astype(np.int64) @ _WEIGHTS
    sums = np.add.reduceat(grey, left, axis=1)
    return sums / np.outer(_run_lengths(top, height), _run_lengths(left, width))


def _run_lengths(starts, size):
    """Values that reduceat adds up for each start: one where the next start is the same."""
    return np.maximum(1, np.diff(np.append(starts, size)))


def _as_words(images):
    """Upper and lower halves of hashes, uint64 [2, N]."""
    data = b"".join(bytes.fromhex(image.picture_hash) for image in images)
    return np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, 2).T.copy()
