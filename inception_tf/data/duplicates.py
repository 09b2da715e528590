"""Images that stand more than once in a data set, byte for byte."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Copy:
    """One place of an image that has several; `label` as stored."""

    split: str
    file: str
    offset: int
    label: int


def find_duplicates(findings) -> tuple[tuple[Copy, ...], ...]:
    """The places of every image that has more than one, in the order of the findings.

    Args:
      findings: one Findings per shard, after `pack`.
    """
    if not findings:
        return ()
    hashes = np.concatenate([found.hashes for found in findings])
    shard = np.repeat(np.arange(len(findings)), [len(found.hashes) for found in findings])
    start = np.cumsum([0] + [len(found.hashes) for found in findings])
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    counts = np.diff(np.r_[first, len(ordered)])

    def copy_at(place):
        found = findings[shard[place]]
        within = place - start[shard[place]]
        task = found.task
        return Copy(task.split, task.shard.file, int(found.offsets[within]),
                    int(found.labels[within]))  # fmt: skip

    groups = [
        tuple(copy_at(place) for place in order[begin : begin + count])
        for begin, count in zip(first[counts > 1].tolist(), counts[counts > 1].tolist())
    ]
    return tuple(sorted(groups, key=lambda group: (group[0].split, group[0].file,
                                                   group[0].offset)))  # fmt: skip
