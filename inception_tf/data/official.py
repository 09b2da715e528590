"""What official ImageNet (ILSVRC2012) holds, to hold a data set against it.

Totals: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", table 2 (CLS-LOC,
2012-2014).
"""

import dataclasses
from collections.abc import Mapping

_NUM_CLASSES = 1000
_NEAR = 0.05  # of the total: a split this close to an official one is meant to be it
_LISTED = 5


@dataclasses.dataclass(frozen=True)
class _OfficialSplit:
    name: str
    num_records: int
    least: int  # records of the smallest and of the largest class
    most: int


_SPLITS = (_OfficialSplit("train", 1_281_167, 732, 1300),
           _OfficialSplit("validation", 50_000, 50, 50))  # fmt: skip


def compare(
    num_classes: int | None, num_records: Mapping[str, int],
    class_counts: Mapping[str, Mapping[int, int]],
) -> tuple[str, ...]:
    """One line per fact that official ImageNet is known by; () where this is not meant to be it.

    Meant to be it is a data set of 1,000 classes, for each split of nearly an official one's size.

    Args:
      num_classes: classes of the data set.
      num_records: of each split.
      class_counts: split -> stored label -> records, of the splits where they are known.
    """
    if num_classes != _NUM_CLASSES:
        return ()
    lines = []
    for split, count in num_records.items():
        for official in _SPLITS:
            if abs(count - official.num_records) <= _NEAR * official.num_records:
                lines.append(_compare_total(split, count, official))
                if class_counts.get(split):
                    lines.append(_compare_classes(split, class_counts[split], official))
    return tuple(lines)


def _compare_total(split, count, official):
    whose = f"official ImageNet's {official.name} split"
    if count == official.num_records:
        return f"{split}: {count:,} records, as {whose}"
    difference = abs(count - official.num_records)
    word = "fewer" if count < official.num_records else "more"
    return f"{split}: {count:,} records, {difference:,} {word} than {whose}"


def _compare_classes(split, counts, official):
    allowed = f"{official.least:,}"
    if official.most != official.least:
        allowed += f" to {official.most:,}"
    wrong = {label: n for label, n in sorted(counts.items())
             if not official.least <= n <= official.most}  # fmt: skip
    parts = []
    if len(counts) != _NUM_CLASSES:
        parts.append(f"{len(counts):,} classes have records, officially {_NUM_CLASSES:,}")
    if wrong:
        shown = ", ".join(f"label {label}: {n:,}" for label, n in list(wrong.items())[:_LISTED])
        more = f" and {len(wrong) - _LISTED:,} more" if len(wrong) > _LISTED else ""
        parts.append(f"{len(wrong):,} classes do not have {allowed} records ({shown}{more})")
    elif (official.least, official.most) != (min(counts.values()), max(counts.values())):
        found = f"{min(counts.values()):,} to {max(counts.values()):,}"
        parts.append(f"classes of {found} records, officially {allowed}")
    return f"{split}: " + ("; ".join(parts) or f"1,000 classes of {allowed} records, as officially")
