"""A second process evaluates each checkpoint of a run once and keeps the best, whatever happens."""

import types

import pytest

from inception_tf import products, watching
from inception_tf.errors import CheckpointError
from inception_tf.evaluation.metrics import EvaluationResult
from inception_tf.reporting.metrics_file import METRICS_FILE, read_rows
from inception_tf.training.checkpoint import CheckpointStore
from inception_tf.watching import WatchedResults

TOTAL_STEPS = 40
# Right answers of 10 at each step: the best is at 20, and again at 30.
RIGHT = {10: 4, 20: 7, 30: 7, 40: 5}


def save(run_dir, step):
    return CheckpointStore.of_run(run_dir).save(step=step, values={"x": float(step)}, facts={})


@pytest.fixture
def watch(monkeypatch, tmp_path):
    """Runs `watching.watch` over checkpoints whose accuracy is known by their step."""

    def read_run(experiment, directory, cluster, *, num_classes, step, model):
        store = CheckpointStore.of_run(directory.path)
        info = next(one for one in store.checkpoints() if one.step == step)
        store.verify(info)
        return types.SimpleNamespace(
            model="model", values=lambda averaged: (int(store.read(info)["x"]), averaged)
        )

    def evaluate_split(experiment, evaluator, values, cluster, inputs, *, is_stop_asked):
        step, averaged = values
        count = RIGHT[step] if averaged else 1
        return EvaluationResult(num_examples=10, top1_count=count, top5_count=9, loss_nats=0.5)

    monkeypatch.setattr(products, "read_run", read_run)
    monkeypatch.setattr(products, "build_evaluator", lambda *_: "evaluator")
    monkeypatch.setattr(products, "evaluate_split", evaluate_split)
    told = []

    def run(*, is_over=lambda: False, wait=lambda: pytest.fail("nothing new came")):
        done = watching.watch(
            None, run_dir=tmp_path, cluster=None, inputs=types.SimpleNamespace(num_classes=2),
            total_steps=TOTAL_STEPS, tell=told.append, is_over=is_over, wait=wait,
        )  # fmt: skip
        return done, told

    return run


def test_every_checkpoint_is_evaluated_once_and_the_trainers_files_stay(watch, tmp_path):
    (tmp_path / METRICS_FILE).write_text("the trainer's\n")
    save(tmp_path, 10)
    coming = iter([20, 30, 40])
    done, told = watch(wait=lambda: save(tmp_path, next(coming)))
    assert done
    rows = read_rows(tmp_path / "evaluations")
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert [row["eval_averaged/top1"] for row in rows] == [0.4, 0.7, 0.7, 0.5]
    assert {row["eval/top1"] for row in rows} == {0.1}
    assert told[1] == (
        "evaluation at step 20: averaged top-1 70.00% top-5 90.00% loss 0.5000; "
        "raw top-1 10.00% top-5 90.00% loss 0.5000"
    )
    assert (tmp_path / METRICS_FILE).read_text() == "the trainer's\n"


def test_the_best_stays_when_the_trainer_removes_its_own(watch, tmp_path):
    saved = {step: save(tmp_path, step) for step in RIGHT}
    watch()
    for path in saved.values():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    best = WatchedResults(tmp_path).best
    (info,) = best.checkpoints()
    best.verify(info)
    assert info.step == 20
    assert best.read(info)["x"] == 20.0
    assert len(list(best.directory.iterdir())) == 1


def test_a_watcher_goes_on_where_it_was_killed(watch, tmp_path):
    save(tmp_path, 10)
    asked = iter([False, True])
    assert watch(is_over=lambda: next(asked))[0] is False
    rows = tmp_path / "evaluations" / METRICS_FILE
    rows.write_bytes(rows.read_bytes() + b'{"eval/top1": 0.3, "ki')  # killed while it wrote
    for step in (20, 30, 40):
        save(tmp_path, step)
    done, told = watch()
    assert done
    assert [row["step"] for row in read_rows(tmp_path / "evaluations")] == [10, 20, 30, 40]
    assert len(told) == 4


def test_a_damaged_checkpoint_is_told_of_and_passed_over(watch, tmp_path):
    for step in RIGHT:
        save(tmp_path, step)
    path = CheckpointStore.of_run(tmp_path).checkpoints()[1].path
    data = next(file for file in path.iterdir() if ".data" in file.name)
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    done, told = watch()
    assert done
    assert told[1].startswith("step 20 is passed over: ")
    assert [row["step"] for row in read_rows(tmp_path / "evaluations")] == [10, 30, 40]
    assert WatchedResults(tmp_path).best_step() == 30


def test_a_removed_checkpoint_is_passed_over(watch, tmp_path, monkeypatch):
    def gone(*_, **__):
        raise CheckpointError("A checkpoint must be there to be used.", received="step 40")

    save(tmp_path, 40)
    monkeypatch.setattr(products, "read_run", gone)
    done, told = watch()
    assert done
    assert read_rows(tmp_path / "evaluations") == []
    assert "step 40" in told[0]
