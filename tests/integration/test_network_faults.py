"""Three hosts over a network that fails, loses or delays: namespaces, each with its launcher.

Each host runs the line that a user types by hand, with faulty_train.py instead of training proper;
the run directory is on the disk that all of them see.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from namespaces import Network

from inception_tf.data.build import build_records
from inception_tf.data.sources import DigitsSource
from inception_tf.reporting.metrics_file import read_rows
from inception_tf.training.checkpoint import CheckpointStore

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
NUM_HOSTS = 3
NUM_STEPS = 8
PORT = 5000
DELAY_MS = 100
START_SECS = 60.0  # within which the hosts must come
MISSED_SECS = 60.0  # heartbeats time out after 10 s; the machine may be busy
TIMEOUT_SECS = 900
PARAMS = {
    "model.name": "inception_resnet_v1",
    "model.variant": "paper",
    "model.width_multiplier": 0.05,
    "model.block_counts": (0, 0, 0),
    "training.num_replicas": NUM_HOSTS,
    "training.num_epochs": None,
    "training.num_steps": NUM_STEPS,
    "training.replica_batch": 4,
    "checkpoints.every_steps": 2,
    "checkpoints.keep_last": 100,
    "evaluation.replica_batch": 40,
    "export.check_images": 1,
    "logging.every_steps": 1,
    "cluster.intra_op_threads": 1,
}

pytestmark = [pytest.mark.slow, pytest.mark.faults]


def train_words(run_dir, data_dir, **params):
    params = {**PARAMS, **{name.replace("__", "."): value for name, value in params.items()}}
    return [
        sys.executable, str(HERE / "faulty_train.py"), "--gin_file=configs/digits.gin",
        f"--run_dir={run_dir}", f"--data_dir={data_dir}",
        *(f"--gin_param={name} = {value!r}" for name, value in params.items()),
    ]  # fmt: skip


def environment_of(**variables):
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "INCEPTION_TF_TOY": "1", **variables}


class Job:
    """One launcher per host, each with its output in a file.

    Args:
      faults: a schedule, as faulty_train.py reads it.
      max_restarts: of each launcher.
      params: 'section__name' -> value, beside PARAMS.
    """

    def __init__(self, directory, data_dir, network, *, max_restarts, faults=None, **params):
        self.directory, self.run_dir = directory, directory / "run"
        hosts = ",".join(f"{address}:{PORT}" for address in network.addresses)
        self.began = time.monotonic()
        self.launchers = []
        for host in range(NUM_HOSTS):
            with open(self.log(host), "w") as log:
                self.launchers.append(
                    subprocess.Popen(
                        [
                            *network.inside(host), sys.executable, "-m", "inception_tf.launch",
                            f"--hosts={hosts}", f"--this_host={host}",
                            f"--max_restarts={max_restarts}", "--grace_secs=20", "--",
                            *train_words(self.run_dir, data_dir, **params),
                        ],
                        cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT,
                        env=environment_of(
                            INCEPTION_TF_FAULTS=json.dumps(faults or {}),
                            INCEPTION_TF_CABLE=" ".join(network.cable(host)),
                        ),
                    )  # fmt: skip
                )

    def log(self, host):
        return self.directory / f"host-{host}.log"

    def said(self, host):
        return self.log(host).read_text(errors="replace")

    def all_said(self):
        return "".join(f"\n--- host {host}\n{self.said(host)}" for host in range(NUM_HOSTS))

    def wait(self):
        """Status of each launcher."""
        deadline = self.began + TIMEOUT_SECS
        statuses = [one.wait(timeout=deadline - time.monotonic()) for one in self.launchers]
        self.secs = time.monotonic() - self.began
        print(f"{self.secs:.0f} s{self.all_said()}")  # shown where the test fails
        return statuses


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
    """State of an undisturbed run of one worker; any number of workers has the same bits."""
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    done = subprocess.run(
        train_words(run_dir, data_dir), cwd=CHECKOUT, env=environment_of(),
        capture_output=True, text=True, timeout=TIMEOUT_SECS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    state = state_of(run_dir)
    assert state[0] == NUM_STEPS
    assert [row["step"] for row in state[2] if row["kind"] == "train"] == list(range(1, 9))
    return state


@pytest.fixture
def network():
    with Network(NUM_HOSTS) as made:
        yield made


def test_a_cable_that_stays_cut_ends_all_hosts_with_138(data_dir, tmp_path, network):
    """Within the time in which TensorFlow misses a host, and twice that in which one may start."""
    job = Job(
        tmp_path, data_dir, network, faults={"5": [2, "within:cut"]}, max_restarts=1,
        watchdog__start_secs=START_SECS,
    )  # fmt: skip
    assert job.wait() == [138, 138, 138]
    cut_at = job.run_dir.with_name("run.faults").stat().st_mtime
    assert time.time() - cut_at < MISSED_SECS + 2 * START_SECS
    assert state_of(job.run_dir)[0] == 4
    for host in (0, 1):
        assert "lost /job:worker/task:2 (stopped sending heartbeats)" in job.said(host)
    assert "worker 2, in phase 'step' at step 5, lost worker 0 (Deadline" in job.said(2)
    for host, others in enumerate([(2,), (2,), (0, 1)]):
        assert job.said(host).count("all start again") == 1
        _, _, waited = job.said(host).partition(f"worker {host} has waited in vain for ")
        for other in others:
            assert f"worker {other} at {network.addresses[other]}:{PORT}" in waited


def test_a_cable_that_is_cut_for_a_while_costs_no_step(straight, data_dir, tmp_path, network):
    job = Job(tmp_path, data_dir, network, faults={"5": [0, "within:cut=30"]}, max_restarts=3)
    assert job.wait() == [0, 0, 0]
    assert state_of(job.run_dir) == straight
    for host in range(NUM_HOSTS):
        assert f"worker {host}, in phase 'step' at step 5, lost " in job.said(host)
        assert "status 138 (stuck, or other workers lost): all start again" in job.said(host)


def test_late_packets_do_not_break_a_run(straight, data_dir, tmp_path, network):
    network.delay(DELAY_MS)
    assert network.round_trip_secs(0, 1) >= 2 * DELAY_MS / 1000
    job = Job(tmp_path, data_dir, network, max_restarts=0)
    assert job.wait() == [0, 0, 0]
    assert state_of(job.run_dir) == straight


def test_lost_packets_do_not_break_a_run(straight, data_dir, tmp_path, network):
    network.lose(5)
    job = Job(tmp_path, data_dir, network, max_restarts=0)
    assert job.wait() == [0, 0, 0]
    assert all(network.num_lost(host) > 0 for host in range(NUM_HOSTS))
    assert state_of(job.run_dir) == straight
