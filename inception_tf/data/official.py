"""What official ImageNet (ILSVRC2012) holds, to hold a data set against it.

Totals: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", table 2 (CLS-LOC,
2012-2014). Labels: the synsets in the order of the alphabet, as every released list has them.
"""

import dataclasses
import functools
import importlib.util
import pathlib
import re
from collections.abc import Mapping

from inception_tf.counts import count_of

_NUM_CLASSES = 1000
_NEAR = 0.05  # of the total: a split, or a number of classes, this close is meant to be it
_KNOWN = 0.5  # of the synsets: from here on a data set is meant to be it, in part or in whole
_LISTED = 5
_SYNSET = re.compile(r"n[0-9]{8}")
_SPLIT_OF = {"val": "validation", "valid": "validation"}


@dataclasses.dataclass(frozen=True)
class _OfficialSplit:
    name: str
    num_records: int
    least: int | None  # records of the smallest and of the largest class; None: not published
    most: int | None


_SPLITS = (_OfficialSplit("train", 1_281_167, 732, 1300),
           _OfficialSplit("validation", 50_000, 50, 50),
           _OfficialSplit("test", 100_000, None, None))  # fmt: skip


@functools.cache
def read_synsets() -> tuple[str, ...]:
    """The 1,000 synsets by label, as TensorFlow Datasets lists them; () where it is not there."""
    found = importlib.util.find_spec("tensorflow_datasets")  # without importing it
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = pathlib.Path(folder, "datasets", "imagenet2012", "labels.txt")
        if path.is_file():
            synsets = tuple(path.read_text(encoding="utf-8").split())
            if len(synsets) == _NUM_CLASSES:
                return synsets
    return ()


def are_names_of_imagenet(names: Mapping[int, str]) -> bool:
    """Whether classes of these names, by stored label, are ImageNet's or most of them.

    A handful of its classes, as imagenette has, are a data set of their own; so are the 21,841 of
    all of ImageNet.
    """
    found, synsets = set(names.values()), read_synsets()
    if not synsets:
        known = {name for name in found if _SYNSET.fullmatch(name)}
        return known == found and _is_near(len(known), _NUM_CLASSES)
    num_known = len(found & set(synsets))
    return num_known > _KNOWN * _NUM_CLASSES and num_known > 0.9 * len(found)


def find_wrong_label(names: Mapping[int, str], *, first: int) -> str | None:
    """What is wrong with the order of ImageNet's labels; None where nothing is.

    Args:
      names: synsets by stored label, of all classes or of some.
      first: stored label of the first class.
    """
    synsets = read_synsets()
    if not synsets:  # then the order of the alphabet alone
        labels = sorted(names)
        for earlier, label in zip(labels, labels[1:]):
            if names[earlier] >= names[label]:
                return (f"label {label} is {names[label]} and label {earlier} {names[earlier]},"
                        " officially in the order of the alphabet")  # fmt: skip
        return None
    right = dict(enumerate(synsets, first))
    wrong = [label for label in sorted(names) if names[label] != right.get(label)]
    if not wrong:
        return None
    label = wrong[0]
    official = right.get(label, "no class")
    return (f"label {label} is {names[label]}, officially {official} where labels begin at"
            f" {first}; {len(wrong):,} of {len(names):,} labels are wrong")  # fmt: skip


def compare(
    num_classes: int | None, num_records: Mapping[str, int],
    class_counts: Mapping[str, Mapping[int, int]], *, names: Mapping[int, str] | None = None,
    first: int = 1,
) -> tuple[str, ...]:
    """One line per fact that official ImageNet is known by; () where this is not meant to be it.

    Meant to be it is a data set whose classes have ImageNet's synsets, whatever its size; without
    their names one of nearly 1,000 classes, for each split of nearly an official one's size.

    Args:
      num_classes: classes of the data set, or those seen in it.
      num_records: of each split.
      class_counts: split -> stored label -> records, of the splits where they are known.
      names: names of classes by stored label, where they are known.
      first: stored label of the first class.
    """
    has_names = are_names_of_imagenet(names or {})
    if not has_names and not _is_near(num_classes or 0, _NUM_CLASSES):
        return ()
    lines = []
    for split, count in num_records.items():
        for official in _SPLITS:
            is_named = has_names and official.name == _SPLIT_OF.get(split, split)
            if is_named or _is_near(count, official.num_records):
                lines.append(_compare_total(split, count, official))
                if class_counts.get(split) and official.least is not None:
                    lines.append(_compare_classes(split, class_counts[split], official, first))
    if has_names:
        lines.append(_compare_names(names, first))
    return tuple(lines)


def _is_near(count, official):
    return abs(count - official) <= _NEAR * official


def _compare_names(names, first):
    wrong = find_wrong_label(names, first=first)
    if wrong:
        return f"classes: {wrong}"
    lacking = sorted(set(read_synsets()) - set(names.values()))
    if lacking:
        return f"classes: no record names {_list(lacking)}"
    return f"classes: the synsets of {len(names):,} labels, as officially"


def _list(parts):
    more = f" and {len(parts) - _LISTED:,} more" if len(parts) > _LISTED else ""
    return ", ".join(parts[:_LISTED]) + more


def _compare_total(split, count, official):
    whose = f"official ImageNet's {official.name} split"
    if count == official.num_records:
        return f"{split}: {count_of(count, 'record')}, as {whose}"
    difference = abs(count - official.num_records)
    word = "fewer" if count < official.num_records else "more"
    return f"{split}: {count_of(count, 'record')}, {difference:,} {word} than {whose}"


def _compare_classes(split, counts, official, first):
    allowed = f"{official.least:,}"
    if official.most != official.least:
        allowed += f" to {official.most:,}"
    wrong = {label: n for label, n in sorted(counts.items())
             if not official.least <= n <= official.most}  # fmt: skip
    parts = []
    if len(counts) != _NUM_CLASSES:
        parts.append(f"{len(counts):,} classes have records, officially {_NUM_CLASSES:,}")
        lacking = [label for label in range(first, first + _NUM_CLASSES) if label not in counts]
        if lacking:
            synsets = read_synsets()
            shown = [f"{n} ({synsets[n - first]})" if synsets else f"{n}" for n in lacking]
            parts[-1] += f"; none of label {_list(shown)}"
    if wrong:
        shown = _list([f"label {label}: {n:,}" for label, n in wrong.items()])
        lack = "class does not" if len(wrong) == 1 else "classes do not"
        parts.append(f"{len(wrong):,} {lack} have {allowed} records ({shown})")
    elif (official.least, official.most) != (min(counts.values()), max(counts.values())):
        found = f"{min(counts.values()):,} to {max(counts.values()):,}"
        parts.append(f"classes of {found} records, officially {allowed}")
    return f"{split}: " + ("; ".join(parts) or f"1,000 classes of {allowed} records, as officially")
