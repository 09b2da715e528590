"""A file of weights as names and arrays, and how its names translate into ours."""

import collections.abc
import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from inception_tf.errors import DataError
from inception_tf.models.weights.identity import NetworkIdentity

LISTED_NAMES = 5


class StoredTensors(collections.abc.Mapping):
    """Tensor name -> numpy array, read from its file whenever it is asked for."""

    def __init__(self, names, read):
        """Args: names, in the order to list them; read, function of one name."""
        self._names = dict.fromkeys(names)
        self._read = read

    def __getitem__(self, name):
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name):
        return name in self._names  # without reading it

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightSource:
    """Weights as they were found, under the names of whoever wrote them.

    Attributes:
      path: where they come from, for messages.
      format: 'slim', 'keras', 'timm' or 'own'.
      network: name in the catalog; None where the names do not tell.
      arrays: tensor name -> array. Of an HDF5 file and of 'own' the name is
        '<layer>/<variable>'; what is no layer's has its whole path there, from '/' on.
      identity: what a file or a run of this project says of its network; None where it says
        nothing, and for others.
    """

    path: str
    format: str
    network: str | None
    arrays: Mapping[str, np.ndarray]
    identity: NetworkIdentity | None = None


@dataclasses.dataclass(frozen=True)
class Match:
    """The source tensor of one of our variables.

    Attributes:
      name: in the source.
      change: from the source's array to ours, such as a transposition; None leaves it as it is.
    """

    name: str
    change: Callable[[np.ndarray], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Translation:
    """Every tensor of a source: either one of our variables', or unused.

    Attributes:
      matches: '<layer>/<variable>' of ours -> Match.
      unused: source name -> reason.
      notes: what a user of these weights should know.
    """

    matches: dict[str, Match] = dataclasses.field(default_factory=dict)
    unused: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def add(self, target, name, change=None):
        """Records the source tensor of a variable.

        Raises:
          DataError: it has one already.
        """
        if target in self.matches:
            raise DataError(
                "A variable must have one source.",
                received=f"{self.matches[target].name} and {name} for {target}",
            )
        self.matches[target] = Match(name, change)


def listed(names):
    """The first few names and how many more there are, for a message."""
    names = list(names)
    more = len(names) - LISTED_NAMES
    return ", ".join(names[:LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")
