"""Workers that stick, come not, die, are stopped or find no room: real processes on loopback.

Each worker runs faulty_train.py, the real training with faults planted from outside.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from inception_tf.data.build import build_records
from inception_tf.data.sources import DigitsSource
from inception_tf.launch_plan import free_ports
from inception_tf.reporting.metrics_file import read_rows
from inception_tf.training.checkpoint import CheckpointStore

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
NUM_STEPS = 8
TIMEOUT_SECS = 900
PARAMS = {
    "model.width_multiplier": 0.05,
    "model.block_counts": (1, 1, 1),
    "training.num_epochs": None,
    "training.num_steps": NUM_STEPS,
    "training.replica_batch": 4,
    "checkpoints.every_steps": 2,
    "checkpoints.keep_last": 100,
    # 43 of 1,437 images: evaluations after steps 3, 6 and, at the end, 8.
    "evaluation.every_epochs": 0.03,
    "evaluation.replica_batch": 40,
    "logging.every_steps": 1,
    "cluster.intra_op_threads": 1,
}

pytestmark = [pytest.mark.slow, pytest.mark.faults]


class Job:
    """Workers of one run, each with its output in a file.

    Args:
      faults: a schedule, as faulty_train.py reads it.
      started: indices of the workers that really start; all of them when None.
      params: 'section.name' -> value, beside PARAMS.
    """

    def __init__(
        self, directory, data_dir, *, num_workers, faults, started=None, run_dir=None, **params
    ):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.run_dir = run_dir or directory / "run"
        addresses = [f"127.0.0.1:{port}" for port in free_ports(num_workers)]
        params = {**PARAMS, **{name.replace("__", "."): value for name, value in params.items()}}
        self.began = time.monotonic()
        self.workers = {}
        for index in range(num_workers) if started is None else started:
            environment = {
                **os.environ,
                "PYTHONPATH": str(CHECKOUT),
                "INCEPTION_TF_FAULTS": json.dumps(faults),
            }
            if num_workers > 1:
                task = {"type": "worker", "index": index}
                config = {"cluster": {"worker": addresses}, "task": task}
                environment["TF_CONFIG"] = json.dumps(config)
            with open(self.log(index), "w") as log:
                self.workers[index] = subprocess.Popen(
                    [
                        sys.executable, str(HERE / "faulty_train.py"),
                        "--gin_file=configs/digits.gin", f"--run_dir={self.run_dir}",
                        f"--data_dir={data_dir}",
                        *(f"--gin_param={name} = {value!r}" for name, value in params.items()),
                    ],
                    cwd=CHECKOUT, env=environment, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip

    def log(self, index):
        return self.directory / f"worker-{index}.log"

    def said(self, index):
        return self.log(index).read_text(errors="replace")

    def wait(self):
        """Status of each worker; a killed one has 128 + its signal, as in a shell."""
        try:
            codes = {i: p.wait(timeout=TIMEOUT_SECS) for i, p in self.workers.items()}
        finally:
            for process in self.workers.values():
                process.kill()
                process.wait()
        self.secs = time.monotonic() - self.began
        return {i: 128 - code if code < 0 else code for i, code in codes.items()}


def state_of(run_dir):
    """Step, variables as bytes, and rows without times."""
    store = CheckpointStore.of_run(run_dir)
    info, _ = store.newest_verified()
    rows = [
        {key: value for key, value in row.items() if not key.startswith("perf/")}
        for row in read_rows(run_dir)
    ]
    return info.step, {n: v.tobytes() for n, v in store.read(info).items()}, rows


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits")
    build_records(DigitsSource(image_px=80), out, num_shards={"train": 2, "validation": 1})
    return out


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data_dir):
    """State of an undisturbed run of one worker; two workers have the same bits."""
    job = Job(tmp_path_factory.mktemp("straight"), data_dir, num_workers=1, faults={})
    assert job.wait() == {0: 0}, job.said(0)
    step, variables, rows = state_of(job.run_dir)
    assert step == NUM_STEPS
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [3, 6, 8]
    return step, variables, rows


def test_a_frozen_worker_ends_all_with_stacks_and_phases(tmp_path, data_dir):
    job = Job(
        tmp_path, data_dir, num_workers=2, faults={"4": [1, "freeze"]},
        watchdog__step_secs=20.0, watchdog__step_factor=2.0,
    )  # fmt: skip
    assert job.wait() == {0: 138, 1: 138}, job.said(0) + job.said(1)
    for index in (0, 1):
        said = job.said(index)
        assert "is stuck in phase" in said or "lost /job:worker" in said
        assert f"worker {1 - index}: " in said
    stacks = (job.run_dir / "workers" / "1.stacks").read_text()
    assert "worker 1 is stuck in phase 'waiting for data' at step 4" in stacks
    assert "faulty_train.py" in stacks and "in freeze" in stacks
    assert state_of(job.run_dir)[0] == 4


def test_a_read_that_never_returns_ends_all(tmp_path, data_dir):
    # So many steps that what is read ahead does not reach the end.
    job = Job(
        tmp_path, data_dir, num_workers=2, faults={"2": [1, "reading:freeze"]},
        training__num_steps=500, checkpoints__every_steps=100, evaluation__every_epochs=None,
        watchdog__first_step_secs=60.0, watchdog__step_secs=20.0, watchdog__step_factor=2.0,
        watchdog__first_step_secs_per_device=1.0,
    )  # fmt: skip
    assert job.wait() == {0: 138, 1: 138}, job.said(0) + job.said(1)
    assert "worker 1 is stuck in phase 'waiting for data'" in job.said(1)


def test_a_worker_that_never_starts_ends_the_others_within_the_limit(tmp_path, data_dir):
    job = Job(
        tmp_path, data_dir, num_workers=3, started=[0, 2], faults={}, watchdog__start_secs=30.0
    )
    assert job.wait() == {0: 138, 2: 138}, job.said(0) + job.said(2)
    for index in (0, 2):
        assert f"worker {index} has waited in vain for" in job.said(index)
        assert "worker 1 at 127.0.0.1:" in job.said(index)
        assert "worker 1 at" in job.said(index).splitlines()[0]  # told while it waits


def test_a_killed_worker_is_one_message_in_the_other(tmp_path, data_dir):
    job = Job(tmp_path, data_dir, num_workers=2, faults={"4": [1, "kill"]})
    assert job.wait() == {0: 138, 1: 137}, job.said(0)
    assert "lost /job:worker/" in job.said(0) and "Traceback" not in job.said(0)
    assert "output of the worker that was lost" in job.said(0)


def test_a_workers_own_error_keeps_its_status_and_is_told_by_the_other(tmp_path, data_dir):
    job = Job(tmp_path, data_dir, num_workers=2, faults={"4": [1, "raise"]})
    assert job.wait() == {0: 138, 1: 1}, job.said(0)
    assert "RuntimeError: the fault that worker 1 was to have" in job.said(1)
    assert (
        "worker 1: has ended with status 1: RuntimeError: the fault that worker 1 was to have"
        in job.said(0)
    )


@pytest.mark.parametrize(("num_workers", "asked"), [(1, 0), (2, 1)])
def test_a_stop_during_an_evaluation_leaves_it_to_the_next_start(
    straight, data_dir, tmp_path, num_workers, asked
):
    faults = {"3": [asked, "evaluating:terminate"], "8": [asked, "evaluating:terminate"]}
    for start, stopped_at in enumerate([3, 8]):
        job = Job(
            tmp_path / str(start), data_dir,
            num_workers=num_workers, faults=faults, run_dir=tmp_path / "run",
        )  # fmt: skip
        statuses = job.wait()
        assert statuses == dict.fromkeys(range(num_workers), 143), job.said(0)
        assert f"stopped at step {stopped_at}" in job.said(0)
        step, _, rows = state_of(tmp_path / "run")
        assert step == stopped_at
        assert (stopped_at, "eval") not in {(row["step"], row["kind"]) for row in rows}
    job = Job(tmp_path / "end", data_dir, num_workers=1, faults={}, run_dir=tmp_path / "run")
    assert job.wait() == {0: 0}, job.said(0)
    assert state_of(tmp_path / "run") == straight
    assert (tmp_path / "run" / "export" / "1").is_dir()


@pytest.mark.parametrize("when", ["start", "joined", "0"])
def test_a_stop_before_the_first_step_ends_at_once(data_dir, tmp_path, when):
    job = Job(tmp_path, data_dir, num_workers=1, faults={when: [0, "terminate"]})
    assert job.wait() == {0: 143}, job.said(0)
    assert "nothing is lost" in job.said(0)
    assert not CheckpointStore.of_run(job.run_dir).holds_checkpoints()


# -- a full disk -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for a few checkpoints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount for a small tmpfs")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_training_goes_on_over_a_full_disk_and_saves_when_there_is_room(
    data_dir, tmp_path, small_disk
):
    # So many rows between that they fill the page which the file has when the disk is full.
    longer = {"training__num_steps": 24, "evaluation__every_epochs": None}
    job = Job(
        tmp_path / "job", data_dir, num_workers=1, faults={"3": [0, "fill"], "21": [0, "free"]},
        run_dir=small_disk / "run", checkpoints__max_failed_saves=20, **longer,
    )  # fmt: skip
    assert job.wait() == {0: 0}, job.said(0)
    for text in ("step 4 was not saved", "step 20 was not saved", "bytes free", "rows of metrics"):
        assert text in job.said(0)
    straight = Job(tmp_path / "straight", data_dir, num_workers=1, faults={}, **longer)
    assert straight.wait() == {0: 0}, straight.said(0)
    assert state_of(small_disk / "run") == state_of(straight.run_dir)
    assert not list((small_disk / "run" / "checkpoints").glob(".*"))


def test_a_disk_that_stays_full_ends_all_workers_with_4(data_dir, tmp_path, small_disk):
    job = Job(
        tmp_path / "job", data_dir, num_workers=2, faults={"3": [0, "fill"]},
        run_dir=small_disk / "run", checkpoints__max_failed_saves=2,
    )  # fmt: skip
    assert job.wait() == {0: 4, 1: 4}, job.said(0) + job.said(1)
    assert "A run must be able to save itself" in job.said(1)
    step, _, rows = state_of(small_disk / "run")
    # The evaluation after step 3 brought a checkpoint with it.
    assert step == 3 and [row["step"] for row in rows][:4] == [1, 2, 3, 3]
    assert not list((small_disk / "run" / "checkpoints").glob(".*"))


def test_a_stop_without_room_ends_with_4_and_older_checkpoints(data_dir, tmp_path, small_disk):
    faults = {"3": [[0, "fill"], [0, "terminate"]]}
    job = Job(tmp_path / "job", data_dir, num_workers=1, faults=faults, run_dir=small_disk / "run")
    assert job.wait() == {0: 4}, job.said(0)
    assert state_of(small_disk / "run")[0] == 3
