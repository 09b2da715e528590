"""tools/soak.py: which faults it draws, and that a lost step shows."""

import json
import sys

import pytest
import tensorflow as tf

from inception_tf.training.checkpoint import CheckpointStore
from tests.test_docs import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tools"))
import soak  # noqa: E402

sys.path.pop(0)


def test_the_seed_draws_every_kind_before_one_comes_again():
    drawn = soak.draw_schedule(7, num_workers=3, num_faults=16, has_disk=True)
    assert drawn == soak.draw_schedule(7, num_workers=3, num_faults=16, has_disk=True)
    assert drawn != soak.draw_schedule(8, num_workers=3, num_faults=16, has_disk=True)
    schedule, kind_of = drawn
    kinds = list(kind_of.values())
    assert len(kinds) == 16 and len(set(kinds[:8])) == len(set(kinds[8:])) == 8
    for line, kind in kind_of.items():
        step, worker, fault = line.split()
        assert schedule[step][0] == [int(worker), fault]
        if kind == "two kills":
            assert len({worker for worker, _ in schedule[step]}) == 2
        if kind == "full disk":
            assert schedule[str(int(step) + soak.FILLED_STEPS)] == [[0, "free"]]


def test_one_worker_without_a_small_disk_has_neither_two_kills_nor_full_disks():
    _, kind_of = soak.draw_schedule(1, num_workers=1, num_faults=12, has_disk=False)
    assert len(set(kind_of.values())) == 6
    assert not {"two kills", "full disk"} & set(kind_of.values())


def write_run(run_dir, *, steps, weight):
    """A run with one variable, one row per entry of `steps` and checkpoints of steps 5 and 10."""
    run_dir.mkdir()
    rows = [{"step": s, "kind": "train", "loss": s / 2, "perf/secs": id(run_dir)} for s in steps]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (5, 10):
        CheckpointStore.of_run(run_dir).save(
            step=step, values={"weight": tf.constant(weight)}, facts={}
        )
    return run_dir


@pytest.mark.parametrize(
    ("steps", "weight", "lost"),
    [
        ([*range(1, 11)], 1.0, 0),
        ([*range(1, 13)], 1.0, 0),  # later rows are not of this checkpoint
        ([1, 2, 3, 5, 6, 7, 8, 9, 10], 1.0, 1),
        ([1, 2, 3, 3, 4, 5, 6, 7, 8, 8, 9, 10], 1.0, 2),
        ([*range(1, 11)], 1.0000001, 10),
    ],
)
def test_a_step_that_is_missing_double_or_another_is_lost(tmp_path, steps, weight, lost):
    straight = write_run(tmp_path / "straight", steps=range(1, 12), weight=1.0)
    run_dir = write_run(tmp_path / "run", steps=steps, weight=weight)
    info = soak.newest_regular(run_dir)
    assert info.step == 10
    assert soak.count_lost(run_dir, straight, info)[0] == lost


def test_the_longest_time_without_a_new_step_leaves_out_steps_done_again(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(soak.time, "monotonic", lambda: now)
    progress = soak.Progress(tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    for secs, steps in [(3.0, [1, 2]), (4.0, [1]), (5.0, [1, 2]), (1.0, [1, 2, 3]), (2.0, [1, 4])]:
        now += secs
        metrics.write_text("".join(f'{{"kind": "train", "step": {s}, "x": 1}}\n' for s in steps))
        progress.look()
    assert (progress.longest_secs, progress.longest_before_step) == (10.0, 3)
