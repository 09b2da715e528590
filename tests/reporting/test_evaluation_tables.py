"""The table, the JSON and the CSV of an evaluation say what the scores do, and all of it."""

import csv
import json
import math
import types

import numpy as np
import pytest

from inception_tf.evaluation import outcomes, subset_scores, subsets
from inception_tf.reporting import evaluation_files, evaluation_tables
from inception_tf.reporting.evaluation_tables import Evaluated, Network

NAMES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 9)]


def network(source="runs/a", **changes):
    fields = {"what": f"{source} at step 12", "weights": "averaged", "step": 12}
    fields |= {"crops": "12_soeaver", "num_crops": 12, "details": {"digest": "ab"}}
    return Network(source=source, **(fields | changes))


def answers(*rows, labels):
    """Outcomes of three classes: each row names the class that gets 0.8, or None for NaN."""
    probabilities = np.full([len(rows), 3], 0.1, np.float32)
    for place, answer in enumerate(rows):
        probabilities[place, answer if answer is not None else 0] = 0.8
        if answer is None:
            probabilities[place] = np.nan
    return outcomes.outcomes_of(probabilities, np.array(labels))


@pytest.fixture
def evaluated():
    """Two networks on 8 images, on all of them, on 7 and under ReaL labels; the second has a NaN."""
    numbers = np.ones(50_001, bool)
    numbers[2] = False
    wanted = [
        subsets.Subset(name="all"),
        subsets.Subset(name="without_blacklist", path="lists/black.txt", numbers=numbers),
        subsets.RealLabels(path="real.json", labels=((0,), (), (1, 2), (2,)) * 2),
    ]
    labels = [0, 0, 1, 2, 0, 0, 1, 2]
    told = {"file_names": NAMES, "record_ids": range(8)}
    found, both = [], []
    for title, rows in (("a", [0, 1, 1, 1, 0, 0, 2, 2]), ("b", [0, 0, 1, 2, None, 0, 1, 1])):
        both.append((title, answers(*rows, labels=labels)))
        figures, contrasts = subset_scores.score_subsets(
            both[-1][1], wanted, class_names=("tench, cod", "goldfish", "shark"), **told
        )
        one = Evaluated(
            title=title,
            networks=[network(f"runs/{title}")],
            average="probabilities",
            subsets=figures,
            contrasts=contrasts,
        )
        found.append(one)
    return found, subset_scores.compare_on_subsets(both[1], both[0], wanted, **told)


def test_the_table_has_a_line_for_each_figure(evaluated):
    lines = evaluation_tables.evaluation_table(*evaluated).splitlines()
    starts = [line.split() for line in lines]
    assert starts[0][:2] == ["network", "crops"]
    assert [start[:2] for start in starts[2:4]] == [["a", "12_soeaver"], ["without_blacklist", "7"]]
    assert starts[4][:2] == ["real", "6"] and starts[5][:3] == ["all", "minus", "without_blacklist"]
    assert starts[6][:2] == ["b", "12_soeaver"]
    assert [start[:4] for start in starts[10:12]] == [
        ["b", "minus", "a", "all"],
        ["b", "minus", "a", "without_blacklist"],
    ]
    # 3 of 8 wrong; Wilson's interval of 5 right ones is 30.57% to 86.32%.
    assert "37.50 [13.68, 69.43]" in lines[2]
    assert "28.57 [" in lines[3] and "33.33 [" not in lines[3]
    assert lines[4].split()[-3:] == ["-", "-", "-"]
    assert "+8.93 [" in lines[5]  # 3/8 - 2/7
    assert "-12.50 [" in lines[10]
    assert "nan" in lines[6]
    assert lines[12] == "b, all: 1 image gave NaN and counts as wrong"
    assert len(lines) == 15 and "real" in lines[14]


def test_wrong_with_87_nats_is_told():
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], np.float32)
    figures, contrasts = subset_scores.score_subsets(
        outcomes.outcomes_of(probabilities, np.array([0, 1, 1])),
        [subsets.Subset(name="all")],
        file_names=[""] * 3,
        record_ids=range(3),
    )
    assert contrasts == ()
    one = Evaluated(title="a", networks=[network()], average="logits", subsets=figures)
    text = evaluation_tables.evaluation_table([one])
    assert text.endswith("a, all: 2 images gave their class less than 2^-126, and count with 87.3"
                         " nats")  # fmt: skip


def test_the_json_file_holds_every_figure(evaluated, tmp_path):
    data = {"data_dir": "records", "split": "validation", "num_examples": 8}
    files = evaluation_files.save_evaluation(tmp_path / "out", "e", *evaluated, data=data)
    assert [file.name for file in files] == ["e.json", "e.csv", "e_classes.csv"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(
        file.name for file in files
    )
    told = json.loads(files[0].read_text(), parse_constant=pytest.fail)  # standard JSON alone
    assert (told["format"], told["version"], told["data"]) == ("inception_tf.evaluation", 1, data)
    first, second = told["models"]
    assert (first["title"], first["is_ensemble"], first["num_crops"]) == ("a", False, 12)
    assert first["networks"][0]["step"] == 12
    assert first["networks"][0]["details"] == {"digest": "ab"}
    whole, kept, real = first["subsets"]
    assert (whole["num_examples"], kept["num_examples"], real["num_examples"]) == (8, 7, 6)
    assert whole["top1"]["count"] == 5 and whole["top1"]["error"] == 3 / 8
    assert whole["top1"]["error_interval"] == pytest.approx([0.1368, 0.6943], abs=1e-4)
    assert (kept["path"], kept["labels"], real["labels"]) == (
        "lists/black.txt", "original", "real",
    )  # fmt: skip
    assert real["num_left_out"] == 2 and "top5" not in real
    # Images 1, 3, 4, 5, 7, 8 with answers 0, 1, 1, 0, 2, 2: all but image 4's.
    assert real["top1"]["count"] == 5
    assert whole["classes"][0] == {
        "index": 0, "name": "tench, cod", "num_examples": 4, "top1_count": 3, "top5_count": 4,
    }  # fmt: skip
    assert {(c["label"], c["predicted"], c["count"]) for c in whole["confusions"]} == {
        (0, 1, 1), (1, 2, 1), (2, 1, 1),
    }  # fmt: skip
    assert second["subsets"][0]["loss_nats"] == "NaN" and second["subsets"][0]["num_nan"] == 1
    (difference,) = first["differences"]
    assert (difference["first"], difference["second"]) == ("all", "without_blacklist")
    assert difference["top1"]["error_difference"] == pytest.approx(3 / 8 - 2 / 7)
    low, high = difference["top1"]["interval"]
    assert low < difference["top1"]["error_difference"] < high
    compared = told["comparisons"][0]
    assert (compared["first"], compared["second"], compared["subset"]) == ("b", "a", "all")
    assert compared["top1"]["error_difference"] == 2 / 8 - 3 / 8
    assert compared["top1"]["p_value"] == 1.0  # 3 and 2 images that only one has right


def test_the_csv_files_read_back(evaluated, tmp_path):
    _, by_subset, by_class = evaluation_files.save_evaluation(tmp_path, "e", *evaluated, data={})
    rows = list(csv.DictReader(by_subset.open(newline="")))
    assert [(row["title"], row["subset"]) for row in rows] == [
        (title, subset) for title in "ab" for subset in ("all", "without_blacklist", "real")
    ]
    assert float(rows[0]["top1_error"]) == 3 / 8 and rows[0]["steps"] == "12"
    assert float(rows[0]["top1_error_interval_low"]) < 3 / 8 < float(
        rows[0]["top1_error_interval_high"]
    )
    assert rows[2]["top5_error"] == "" and rows[2]["num_left_out"] == "2"
    assert math.isnan(float(rows[3]["loss_nats"]))
    rows = list(csv.DictReader(by_class.open(newline="")))
    assert len(rows) == 2 * 2 * 3
    assert rows[0] == {
        "title": "a", "crops": "12_soeaver", "subset": "all", "index": "0", "name": "tench, cod",
        "num_examples": "4", "top1_count": "3", "top5_count": "4",
    }  # fmt: skip


def test_an_ensemble_says_what_its_members_share():
    one = types.SimpleNamespace
    alike = Evaluated(title="e", networks=[network("a"), network("b")], average="logits",
                      subsets=[one()])  # fmt: skip
    assert (alike.crops, alike.num_crops) == ("12_soeaver", 12)
    other = network("b", crops="1_recipe", num_crops=1)
    mixed = Evaluated(title="e", networks=[network("a"), other], average="logits", subsets=[one()])
    assert (mixed.crops, mixed.num_crops) == ("12_soeaver+1_recipe", None)


def test_a_file_is_replaced_whole(evaluated, tmp_path, monkeypatch):
    evaluation_files.save_evaluation(tmp_path, "e", *evaluated, data={"n": 1})

    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError):
        evaluation_files.save_evaluation(tmp_path, "e", *evaluated, data={"n": 2})
    assert json.loads((tmp_path / "e.json").read_text())["data"] == {"n": 1}
    assert len(list(tmp_path.iterdir())) == 3
