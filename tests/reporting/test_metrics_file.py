"""metrics.jsonl keeps one row per logged step, whatever stopped the run."""

import json
import math

import numpy as np
import pytest

from inception_tf import durable
from inception_tf.reporting.metrics_file import read_rows
from inception_tf.reporting.metrics_file import row_line
from inception_tf.reporting.metrics_file import supersede_after


def write_rows(run_dir, steps):
    lines = [row_line(step, "train", {"train/loss_nats": step / 7}) for step in steps]
    (run_dir / "metrics.jsonl").write_text("".join(lines))
    return lines


def test_a_row_is_one_sorted_line_with_all_digits():
    line = row_line(3, "train", {"train/loss_nats": np.float32(0.1), "eval/images": np.int64(50)})
    assert line == (
        '{"eval/images": 50, "kind": "train", "step": 3, "train/loss_nats": 0.10000000149011612}\n'
    )


def test_what_is_not_finite_is_valid_json_and_reads_back(tmp_path):
    line = row_line(1, "train", {"a": math.nan, "b": math.inf, "c": -math.inf})

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(line, parse_constant=refuse) == {
        "a": "NaN", "b": "Infinity", "c": "-Infinity", "kind": "train", "step": 1,
    }
    (tmp_path / "metrics.jsonl").write_text(line)
    (row,) = read_rows(tmp_path)
    assert math.isnan(row["a"]) and row["b"] == math.inf and row["c"] == -math.inf


def test_a_metric_cannot_take_the_name_of_the_step():
    with pytest.raises(ValueError, match="Received: 'step'"):
        row_line(1, "train", {"step": 2.0})


def test_rows_after_the_step_move_and_the_row_at_the_step_stays(tmp_path):
    lines = write_rows(tmp_path, [10, 20, 30, 40])
    assert supersede_after(tmp_path, 20) == 2
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines[:2])
    assert (tmp_path / "metrics.superseded.jsonl").read_text() == "".join(lines[2:])
    assert [row["step"] for row in read_rows(tmp_path)] == [10, 20]


def test_a_second_supersede_adds_below_the_first(tmp_path):
    lines = write_rows(tmp_path, [10, 20, 30])
    supersede_after(tmp_path, 20)
    supersede_after(tmp_path, 0)
    assert (tmp_path / "metrics.superseded.jsonl").read_text() == lines[2] + lines[0] + lines[1]
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_nothing_to_move_touches_no_file(tmp_path):
    assert supersede_after(tmp_path, 5) == 0
    assert list(tmp_path.iterdir()) == []
    write_rows(tmp_path, [1, 2])
    before = (tmp_path / "metrics.jsonl").stat().st_ino
    assert supersede_after(tmp_path, 2) == 0
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before
    assert not (tmp_path / "metrics.superseded.jsonl").exists()


@pytest.mark.parametrize("torn", [b'{"kind": "train", "st', b"\x00\x00\x00\xff", b'"text"', b"3"])
def test_a_torn_line_moves_and_both_files_stay_json_lines(tmp_path, torn):
    lines = write_rows(tmp_path, [10, 20])
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(torn)
    assert [row["step"] for row in read_rows(tmp_path)] == [10, 20]
    assert supersede_after(tmp_path, 20) == 1
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines)
    (moved,) = (tmp_path / "metrics.superseded.jsonl").read_text().splitlines()
    assert json.loads(moved)["kind"] == "torn"


def test_a_whole_row_without_its_newline_is_repaired(tmp_path):
    lines = write_rows(tmp_path, [10, 20])
    (tmp_path / "metrics.jsonl").write_text("".join(lines).rstrip("\n"))
    assert supersede_after(tmp_path, 20) == 0
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines)


def test_a_kill_between_the_two_files_moves_nothing_twice_and_loses_nothing(tmp_path, monkeypatch):
    lines = write_rows(tmp_path, [10, 20, 30])
    save_bytes = durable.save_bytes

    def killed_before_the_second(path, content):
        if path.name == "metrics.jsonl":
            raise KeyboardInterrupt
        save_bytes(path, content)

    monkeypatch.setattr(durable, "save_bytes", killed_before_the_second)
    with pytest.raises(KeyboardInterrupt):
        supersede_after(tmp_path, 10)
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines)
    monkeypatch.undo()
    supersede_after(tmp_path, 10)
    assert (tmp_path / "metrics.jsonl").read_text() == lines[0]
    assert (tmp_path / "metrics.superseded.jsonl").read_text() == lines[1] + lines[2]
