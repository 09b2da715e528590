"""Jobs under the launcher that meet faults and end by themselves with the undisturbed run's bits.

Each worker runs faulty_train.py. Several faults share a job where each can be told from the others:
by its worker, its status and the checkpoint that the next start goes on from.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import order, tfrecord
from inception_tf.data.build import build_records
from inception_tf.data.manifest import open_index
from inception_tf.data.sources import DigitsSource, FolderSource
from inception_tf.reporting.metrics_file import read_rows
from inception_tf.training.checkpoint import CheckpointStore

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
NUM_STEPS = 12
NUM_REPLICAS = 4
TIMEOUT_SECS = 1800
PARAMS = {
    "model.name": "inception_resnet_v1",
    "model.variant": "paper",
    "model.width_multiplier": 0.05,
    "model.block_counts": (0, 0, 0),
    "training.num_epochs": None,
    "training.num_steps": NUM_STEPS,
    "training.num_replicas": NUM_REPLICAS,
    "training.replica_batch": 4,
    "checkpoints.every_steps": 2,
    "checkpoints.keep_last": 100,
    # 86 of 1,437 images: evaluations after steps 6, 11 and, at the end, 12.
    "evaluation.every_epochs": 0.06,
    "evaluation.replica_batch": 40,
    "export.check_images": 1,
    "logging.every_steps": 1,
    "cluster.intra_op_threads": 1,
}
LEAVE_SECS = 5.0  # of a stopped job, once its last step and checkpoint are done
RESTART = re.compile(
    r"launch: worker (\d+): status (\d+) \(([^)]*)\): all start again in \S+ s"
    r"(?: from the checkpoint of step (\d+))? \(restart (\d+) of"
)

pytestmark = [pytest.mark.slow, pytest.mark.faults]


class LaunchedJob:
    """A job under the launcher, in the background, with all its output in one file.

    Args:
      directory: gets the output, and the run unless `run_dir` is given.
      faults: a schedule, as faulty_train.py reads it.
      fed: file for what each step is fed, or None.
      params: 'section__name' -> value, beside PARAMS.
    """

    def __init__(
        self, directory, data_dir, *, num_workers, faults=None, run_dir=None, fed=None, **params
    ):
        directory.mkdir(parents=True, exist_ok=True)
        self.run_dir = run_dir or directory / "run"
        self.log = directory / "launch.log"
        params = {**PARAMS, **{name.replace("__", "."): value for name, value in params.items()}}
        environment = {
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "INCEPTION_TF_TOY": "1",
            "INCEPTION_TF_FAULTS": json.dumps(faults or {}),
            **({} if fed is None else {"INCEPTION_TF_FED": str(fed)}),
        }
        self.began = time.monotonic()
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "inception_tf.launch", f"--workers={num_workers}", "--",
                    sys.executable, str(HERE / "faulty_train.py"), "inception_tf.train",
                    "--gin_file=configs/digits.gin", f"--run_dir={self.run_dir}",
                    f"--data_dir={data_dir}", "--device=cpu",
                    *(f"--gin_param={name} = {value!r}" for name, value in params.items()),
                ],
                cwd=CHECKOUT, env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def said(self):
        return self.log.read_text(errors="replace")

    @property
    def restarts(self):
        """(guilty worker, its status, step of the checkpoint or None, number of the restart)."""
        found = RESTART.findall(self.said)
        return [(int(w), int(s), int(c) if c else None, int(n)) for w, s, _, c, n in found]

    def wait(self):
        """The launcher's status."""
        try:
            status = self.process.wait(timeout=TIMEOUT_SECS)
        finally:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)  # passed on; the second one kills
                self.process.send_signal(signal.SIGTERM)
                self.process.wait(timeout=60)
        self.ended_at, self.secs = time.time(), time.monotonic() - self.began
        print(f"{self.log}: status {status} after {self.secs:.0f} s")
        return status

    def await_fault(self, line):
        """Returns once a fault has happened: its line of <run_dir>.faults."""
        happened = self.run_dir.with_name(f"{self.run_dir.name}.faults")
        deadline = time.monotonic() + TIMEOUT_SECS
        while self.process.poll() is None and time.monotonic() < deadline:
            if happened.exists() and line in happened.read_text().splitlines():
                return
            time.sleep(0.05)
        raise AssertionError(f"{line!r} did not happen: {self.said}")


def state_of(run_dir):
    """Step, variables as bytes, and rows without times."""
    store = CheckpointStore.of_run(run_dir)
    info, _ = store.newest_verified()
    rows = [
        {key: value for key, value in row.items() if not key.startswith("perf/")}
        for row in read_rows(run_dir)
    ]
    return info.step, {n: v.tobytes() for n, v in store.read(info).items()}, rows


def assert_same_run(job, straight):
    """The bits and the rows of the undisturbed run: every step once, in order."""
    step, variables, rows = state_of(job.run_dir)
    assert step == straight[0] == NUM_STEPS
    assert [n for n in straight[1] if variables[n] != straight[1][n]] == []
    assert variables.keys() == straight[1].keys()
    trained = [row["step"] for row in rows if row["kind"] == "train"]
    assert trained == [*range(1, NUM_STEPS + 1)]
    assert rows == straight[2]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits")
    build_records(DigitsSource(image_px=80), out, num_shards={"train": 2, "validation": 1})
    return out


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data_dir):
    """State of an undisturbed run of one worker."""
    job = LaunchedJob(tmp_path_factory.mktemp("straight"), data_dir, num_workers=1)
    assert job.wait() == 0, job.said
    assert job.restarts == []
    state = state_of(job.run_dir)
    assert [row["step"] for row in state[2] if row["kind"] == "eval"] == [6, 11, 12]
    return state


# -- killed ----------------------------------------------------------------------------------------


def test_workers_killed_at_any_moment_leave_no_trace_in_the_run(straight, data_dir, tmp_path):
    faults = {
        "start": [1, "kill"],
        "joined": [0, "kill"],
        "3": [1, "within:kill"],
        "5": [0, "saving:kill"],  # the checkpoint of step 6
        "7": [1, "evaluating:kill"],  # at step 11
    }
    job = LaunchedJob(tmp_path, data_dir, num_workers=2, faults=faults)
    assert job.wait() == 0, job.said
    assert_same_run(job, straight)
    assert job.restarts == [
        (1, 137, None, 1),
        (0, 137, None, 2),
        (1, 137, 2, 1),
        (0, 137, 4, 1),
        (1, 137, 10, 1),
    ]
    assert job.said.count("failed first, with status 137 (SIGKILL)") == 5
    assert not list((job.run_dir / "checkpoints").glob(".*"))  # of the write that was cut short


def test_two_of_three_workers_killed_at_once(straight, data_dir, tmp_path):
    faults = {"5": [[0, "within:kill"], [2, "within:kill"]]}
    job = LaunchedJob(tmp_path, data_dir, num_workers=3, faults=faults)
    assert job.wait() == 0, job.said
    assert_same_run(job, straight)
    [(guilty, status, step, _)] = job.restarts
    assert guilty in (0, 2) and (status, step) == (137, 4)
    assert f"worker {2 - guilty} ended with status 137" in job.said


# -- asked to stop ---------------------------------------------------------------------------------


def test_a_stop_saves_one_step_everywhere_and_the_same_command_goes_on(
    straight, data_dir, tmp_path
):
    """One worker alone is asked, then both, then the launcher; then the run is left to itself."""
    faults = {
        "2": [1, "terminate"],
        "4": [[0, "terminate"], [1, "terminate"]],
        "6": [0, "freeze=10"],  # time for the signal to the launcher
    }
    for start, stopped_at in enumerate([3, 5, 7]):
        job = LaunchedJob(
            tmp_path / str(start), data_dir, num_workers=2, faults=faults, run_dir=tmp_path / "run"
        )
        if stopped_at == 7:
            job.await_fault("6 0 freeze=10")
            job.process.send_signal(signal.SIGTERM)
        assert job.wait() == 143, job.said
        assert state_of(job.run_dir)[0] == stopped_at
        assert job.said.count(f"stopped at step {stopped_at}") == 1
        assert "The workers were asked to stop and did." in job.said
        assert "start again" not in job.said
        newest = job.run_dir / "checkpoints" / f"step-{stopped_at:09d}" / "manifest.json"
        left_secs = job.ended_at - newest.stat().st_mtime
        print(f"left {left_secs:.1f} s after the checkpoint of step {stopped_at} was written")
        assert left_secs < LEAVE_SECS
    job = LaunchedJob(
        tmp_path / "end", data_dir, num_workers=2, faults=faults, run_dir=tmp_path / "run"
    )
    assert job.wait() == 0, job.said
    assert_same_run(job, straight)


# -- stuck -----------------------------------------------------------------------------------------


STUCK = {"watchdog__step_secs": 30.0, "watchdog__step_factor": 2.0}


def test_a_worker_that_stands_still_is_ended_named_and_done_again(straight, data_dir, tmp_path):
    """A process under SIGSTOP, then a main thread that is stuck while its process lives."""
    faults = {"3": [1, "pause"], "5": [1, "freeze"]}
    job = LaunchedJob(tmp_path, data_dir, num_workers=2, faults=faults, **STUCK)
    assert job.wait() == 0, job.said
    assert_same_run(job, straight)
    assert [(status, step) for _, status, step, _ in job.restarts] == [(138, 2), (138, 4)]
    paused, frozen, _ = re.split(r"launch: worker .*: all start again.*\n", job.said)
    assert "worker 1 was frozen by a signal" in paused or "worker 1 failed" in paused
    assert "worker 1: " in paused  # what it was doing, as the other one tells it
    assert "worker 1 is stuck in phase " in frozen and "in freeze" in frozen


def test_a_read_that_never_returns_is_ended_named_and_done_again(straight, data_dir, tmp_path):
    # Reads are some steps ahead: this one is of a step of the run.
    faults = {"1": [0, "reading:freeze"]}
    job = LaunchedJob(tmp_path, data_dir, num_workers=2, faults=faults, **STUCK)
    assert job.wait() == 0, job.said
    assert_same_run(job, straight)
    assert [status for _, status, _, _ in job.restarts] == [138]
    assert "worker 0 is stuck in phase 'waiting for data'" in job.said


# -- a damaged record ------------------------------------------------------------------------------


def test_a_damaged_record_of_one_worker_stops_all_and_is_named(data_dir, tmp_path):
    """That a policy leaves it out, with the same bits everywhere: test_bad_records_run.py."""
    damaged = tmp_path / "damaged"
    shutil.copytree(data_dir, damaged)
    _, index = open_index(damaged, "train")
    # The second declared replica of step 7 is the second worker's.
    global_batch = NUM_REPLICAS * PARAMS["training.replica_batch"]
    position = 7 * global_batch + PARAMS["training.replica_batch"]
    record_id = int(
        order.record_ids(tf.constant([position], tf.int64), seed=0, num_examples=len(index))[0]
    )
    offset, shard = int(index.offset[record_id]), index.files[index.shard[record_id]]
    content = bytearray(pathlib.Path(shard).read_bytes())
    content[offset + tfrecord.HEADER_BYTES + 40] ^= 1
    pathlib.Path(shard).write_bytes(content)
    job = LaunchedJob(tmp_path, damaged, num_workers=2)
    assert job.wait() == 2, job.said
    assert job.restarts == [] and "not started again" in job.said
    assert "launch: worker 1: status 2" in job.said
    assert f"{shard} at byte {offset:,} (record {record_id:,})" in job.said
    assert state_of(job.run_dir)[0] <= 7  # intact, and before the step


# -- elastic ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbered_dir(tmp_path_factory):
    """160 images of 160 classes: a label says which record was fed. Ten steps are an epoch."""
    folder = tmp_path_factory.mktemp("numbered")
    generator = np.random.default_rng(0)
    for number in range(160):
        for split in ("train", "validation") if number < 40 else ("train",):
            pixels = generator.integers(0, 256, [80, 80, 3], np.uint8)
            path = folder / "images" / split / f"{number:03d}" / "noise.jpg"
            path.parent.mkdir(parents=True)
            path.write_bytes(tf.io.encode_jpeg(pixels).numpy())
    build_records(FolderSource(folder / "images"), folder / "records")
    return folder / "records"


def test_workers_come_and_go_and_each_record_of_the_epoch_is_seen_once(numbered_dir, tmp_path):
    params = {
        "training__num_steps": 10,
        "model__background_class": True,  # 0 is then the label of padding alone
        "evaluation__every_epochs": None,
    }
    whole = LaunchedJob(tmp_path / "whole", numbered_dir, num_workers=1, **params)
    assert whole.wait() == 0, whole.said
    run_dir, fed = tmp_path / "run", tmp_path / "fed.jsonl"
    # Workers, faults, status of the launcher, and the step that this part of the run reaches.
    parts = [
        (4, {"2": [3, "terminate"]}, 143, 3),
        (3, {"5": [2, "terminate"]}, 143, 6),
        (1, {"7": [0, "terminate"]}, 143, 8),
        (4, {}, 0, 10),
    ]
    for part, (num_workers, faults, status, step) in enumerate(parts):
        job = LaunchedJob(
            tmp_path / str(part), numbered_dir,
            num_workers=num_workers, faults=faults, run_dir=run_dir, fed=fed, **params,
        )  # fmt: skip
        assert job.wait() == status, job.said
        assert state_of(run_dir)[0] == step
    assert state_of(run_dir) == state_of(whole.run_dir)
    seen = labels_that_count(fed)
    assert sorted(seen) == [*range(10)]
    assert sorted(label for labels in seen.values() for label in labels) == [*range(1, 161)]
    assert all(len(labels) == 16 for labels in seen.values())


def labels_that_count(fed):
    """Step -> labels that all workers were fed in the last start that did the step."""
    lines = [json.loads(line) for line in fed.read_text().splitlines()]
    seen = {}
    for step, num_workers, worker, labels in lines:
        if seen.get(step, (num_workers,))[0] != num_workers:
            del seen[step]
        seen.setdefault(step, (num_workers, {}))[1][worker] = [one for one in labels if one]
    assert all(len(of_worker) == num for num, of_worker in seen.values())
    return {
        step: [label for labels in of_worker.values() for label in labels]
        for step, (_, of_worker) in seen.items()
    }
