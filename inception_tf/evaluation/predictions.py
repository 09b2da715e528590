"""Probabilities that are computed once and kept: blocks of record ids, each a file of its own.

Everything that an evaluation says is arithmetic over them: an ensemble costs only its new member,
another subset nothing, and an evaluation that was interrupted goes on with the blocks that lack.
"""

import dataclasses
import hashlib
import json
import pathlib
import zipfile

import numpy as np

from inception_tf import durable
from inception_tf.errors import DataError

FACTS_FILE = "facts.json"
_ARRAYS = {"probabilities": np.float32, "labels": np.int32, "file_names": np.str_}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a network says of n images, in the order of their record ids.

    Attributes:
      probabilities: float32 [n, K]; K counts the background's output, where there is one, first.
      labels: int32 [n] in [0, K), in the numbering of the outputs.
      file_names: of the source images, str [n]; '' where a record does not say it.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    file_names: np.ndarray


class PredictionStore:
    """The predictions of one network, in one protocol, over one split.

    Args:
      directory: holds a directory for each set of facts.
      facts: name -> value, as JSON takes it: all that decides the predictions. Others are kept
        apart from these.
      num_examples: images of the split, record ids 0, 1, ...
      block_examples: images of a block, the last one's rest apart.
    """

    def __init__(self, directory, *, facts: dict, num_examples: int, block_examples: int):
        self.num_examples = num_examples
        self.block_examples = block_examples
        self.facts = {**facts, "num_examples": num_examples, "block_examples": block_examples}
        self._text = json.dumps(self.facts, indent=2, sort_keys=True) + "\n"
        key = hashlib.sha256(self._text.encode()).hexdigest()[:16]
        self.directory = pathlib.Path(directory) / key

    @property
    def num_blocks(self) -> int:
        """Blocks of the split."""
        return -(-self.num_examples // self.block_examples)

    def record_ids(self, block: int) -> np.ndarray:
        """The ids of a block's images, int64 [n]."""
        first = block * self.block_examples
        return np.arange(first, min(first + self.block_examples, self.num_examples))

    def open(self) -> list[int]:
        """Makes the directory; the blocks that lack. Damaged ones lack: they are removed.

        Raises:
          OSError: the directory cannot be written.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        durable.save_text(self.directory / FACTS_FILE, self._text)
        missing = []
        for block in range(self.num_blocks):
            try:
                self._read_block(block)
            except FileNotFoundError:
                missing.append(block)
            except DataError:
                self._path(block).unlink()
                missing.append(block)
        return missing

    def save(self, block: int, predictions: Predictions) -> None:
        """Writes one block, whole or not at all; several processes may, each its own block."""
        _check_lengths(predictions, len(self.record_ids(block)))
        with durable.open_whole(self._path(block), has_other_writers=True) as stream:
            np.savez(stream, **dataclasses.asdict(predictions))

    def read(self) -> Predictions:
        """All of them.

        Raises:
          DataError: a block lacks or is damaged.
        """
        try:
            blocks = [self._read_block(block) for block in range(self.num_blocks)]
        except FileNotFoundError as error:
            raise DataError(
                "An evaluation needs the predictions of every image.",
                received=f"no {error.filename}",
                remedy="On several machines the directory has to be one that all of them see.",
            ) from error
        return Predictions(
            **{name: np.concatenate([getattr(b, name) for b in blocks]) for name in _ARRAYS}
        )

    def _path(self, block):
        return self.directory / f"block-{block:06}.npz"

    def _read_block(self, block):
        path = self._path(block)
        try:
            with np.load(path, allow_pickle=False) as stored:  # checks the CRC of each array
                found = Predictions(**{name: stored[name] for name in _ARRAYS})
            _check_lengths(found, len(self.record_ids(block)))
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
            raise DataError(
                "Kept predictions must be whole.",
                received=f"{path}: {error}",
                remedy="Remove the file and evaluate again: only its images are computed.",
            ) from error
        return found


def _check_lengths(predictions, count):
    for name, kind in _ARRAYS.items():
        array = getattr(predictions, name)
        if len(array) != count or not np.issubdtype(array.dtype, kind):
            raise ValueError(f"{name}: {array.dtype} [{len(array)}] for {count} images")
