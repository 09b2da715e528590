"""Whether records agree on which label stands for which class, by the synsets that they name."""

import collections
from collections.abc import Mapping

from inception_tf.counts import count_of
from inception_tf.data.check_shard import Findings
from inception_tf.data.check_shard import Problem

_LISTED = 100  # problems; records of a foreign kind may contradict each other one and all
_WHERE = "image/class/synset"


class SynsetTable:
    """What the good records of a data set say of their labels' names; grows by pairs, not records.

    Args:
      class_names: by stored label, as the manifest of the records' own builder says; empty where
        the records alone have to agree.
    """

    def __init__(self, class_names: Mapping[int, str]):
        self._class_names = class_names
        self._counts = collections.defaultdict(collections.Counter)  # label -> synset -> records
        self._places = {}  # (label, synset) -> (split, file, offset) of the first record

    def add(self, findings: Findings) -> None:
        """Takes the names of one shard, which the findings then no longer hold."""
        task = findings.task
        for (label, synset), (count, offset) in findings.synsets.items():
            self._counts[label][synset] += count
            self._places.setdefault((label, synset), (task.split, task.shard.file, offset))
        findings.synsets = {}

    @property
    def names(self) -> dict[int, str]:
        """The name of every label that has one: of several that of most records."""
        named = {label: counts.most_common(1)[0][0] for label, counts in self._counts.items()}
        return dict(sorted({**named, **self._class_names}.items()))

    def find_problems(self) -> list[Problem]:
        """A problem for each name that is not its label's, and for each name of two labels."""
        names, problems = self.names, []
        for label, counts in sorted(self._counts.items()):
            for synset, count in sorted(counts.items()):
                if synset == names[label]:
                    continue
                say = "other says" if counts[names[label]] == 1 else "others say"
                others = f"{counts[names[label]]:,} {say} {names[label]}"
                if label in self._class_names:
                    others = f"the manifest says {names[label]}"
                records = count_of(count, "record")
                reason = f"{_WHERE} {synset} with label {label} in {records}; {others}"
                problems.append(self._problem(label, synset, reason))
        labels = {}
        for label in sorted(self._counts):
            first = labels.setdefault(names[label], label)
            if first != label and (label, names[label]) in self._places:
                reason = f"{_WHERE} {names[label]} with label {label} and with label {first}"
                problems.append(self._problem(label, names[label], reason))
        more = len(problems) - _LISTED
        if more > 0:
            last = problems[_LISTED - 1]
            problems[_LISTED - 1 :] = [
                Problem(last.split, last.file, None,
                        f"{more + 1:,} more synsets are not those of their labels")
            ]  # fmt: skip
        return problems

    def place_of(self, label: int) -> tuple[str, str]:
        """Split and file of a record that gives a label its name."""
        return self._places[label, self.names[label]][:2]

    def _problem(self, label, synset, reason):
        split, file, offset = self._places[label, synset]
        return Problem(split, file, offset, reason)
