"""The workers of a Slurm step, and the scripts that report how each of them ended."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from inception_tf import cluster, slurm
from inception_tf.errors import ConfigError

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
SCRIPTS = CHECKOUT / "launch" / "slurm"
# Five tasks on three nodes, as the third of them sees it: the first one of the second node.
STEP = {
    "SLURM_JOB_ID": "770",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "gpu[08-09],login",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_PROCID": "2",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
}


# Expected lists as `scontrol show hostnames` of Slurm 22.05 prints them.
@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("localhost", ["localhost"]),
        ("a,b-1.example", ["a", "b-1.example"]),
        ("tux[1-3]", ["tux1", "tux2", "tux3"]),
        ("tux[08-10,3],x", ["tux08", "tux09", "tux10", "tux3", "x"]),
        ("r[0-1]n[01-02]", ["r0n01", "r0n02", "r1n01", "r1n02"]),
    ],
)
def test_a_node_list_names_every_host(text, hosts):
    assert slurm.parse_node_list(text) == hosts


@pytest.mark.parametrize(
    "text", ["", "a,", "a[1-2", "a1-2]", "a[]", "a[2-1]", "a[x]", "a b", "a[[1]]"]
)
def test_a_malformed_node_list_is_refused(text):
    with pytest.raises(ConfigError, match="SLURM_STEP_NODELIST must be as srun sets it.*TF_CONFIG"):
        slurm.parse_node_list(text)


def test_task_counts_repeat():
    assert slurm.parse_task_counts("2(x3),1") == [2, 2, 2, 1]
    for text in ("", "2(3)", "2,", "x"):
        with pytest.raises(ConfigError, match="SLURM_STEP_TASKS_PER_NODE"):
            slurm.parse_task_counts(text)


def test_a_step_names_its_workers_node_by_node():
    # 770 = 768 + 2, and 20000 + 16 x 2 = 20032.
    assert slurm.read_step(STEP) == (
        ["gpu08:20032", "gpu08:20033", "gpu09:20032", "gpu09:20033", "login:20032"],
        2,
    )


def test_ports_of_neighbouring_jobs_differ_and_stay_below_those_of_clients():
    taken = [slurm.base_port(job) + n for job in range(768) for n in range(slurm.PORTS_PER_JOB)]
    assert len(set(taken)) == len(taken)
    assert min(taken) == 20000 and max(taken) < 32768


@pytest.mark.parametrize(
    "environment",
    [
        {},
        # The script of sbatch, and a shell of salloc: a job of five tasks, one process.
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "5", "SLURM_PROCID": "0", "SLURM_NODEID": "0"},
        {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "5"},
    ],
)
def test_one_process_waits_for_nobody(environment):
    assert slurm.read_step(environment) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SLURM_PROCID": "5"}, "count the same nodes and tasks.*SLURM_PROCID=5"),
        ({"SLURM_STEP_NUM_TASKS": "6"}, "count the same.*SLURM_STEP_NUM_TASKS=6"),
        ({"SLURM_STEP_NODELIST": "a,b"}, "count the same.*SLURM_STEP_NODELIST=a,b"),
        ({"SLURM_STEP_NUM_TASKS": "many"}, "SLURM_STEP_NUM_TASKS must be as srun sets it.*'many'"),
        ({"SLURM_PROCID": "-1"}, "SLURM_PROCID must be as srun sets it"),
        ({"SLURM_JOB_ID": ""}, "SLURM_JOB_ID must be as srun sets it"),
        ({"SLURM_NODEID": "2"}, "node 1 with local number 0.*SLURM_NODEID=2.*distribution=block"),
        ({"SLURM_LOCALID": "1"}, "SLURM_LOCALID=1.*distribution=block"),
    ],
)
def test_variables_that_cannot_be_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        slurm.read_step({**STEP, **change})


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID"])
def test_a_missing_variable_is_named(name):
    with pytest.raises(ConfigError, match=f"must have {name}.*TF_CONFIG"):
        slurm.read_step({key: value for key, value in STEP.items() if key != name})


@pytest.fixture
def in_step(monkeypatch):
    """This process as a task of STEP."""
    monkeypatch.setenv("TF_CONFIG", "")  # so that what the test sets is taken back
    monkeypatch.delenv("TF_CONFIG")
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)


def test_a_config_that_wants_other_workers_is_told_that_slurm_names_these(in_step):
    with pytest.raises(ConfigError, match=r"5 workers \(Slurm\)"):
        cluster.check_num_workers(cluster.ClusterSpec(num_workers=4))


def test_tensorflow_is_told_of_the_step_by_tf_config(in_step):
    addresses, index = cluster.read_workers()
    assert index == 2 and len(addresses) == 5
    assert json.loads(os.environ["TF_CONFIG"]) == {
        "cluster": {"worker": addresses},
        "task": {"type": "worker", "index": 2},
    }


def test_tf_config_of_the_user_wins_over_the_step(in_step, monkeypatch):
    config = {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert cluster.read_workers() == (["a:1"], 0)


@pytest.fixture
def job(tmp_path):
    """Runs train.sbatch with stand-ins for Python and Slurm's programs; (status, its calls)."""
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "slurm").symlink_to(SCRIPTS)
    programs = {
        # Two tasks after each other: a stand-in that knows neither signals nor hosts.
        "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; worst=0\n'
        "for id in 0 1; do SLURM_PROCID=$id \"$@\"; s=$?; [ $s -gt $worst ] && worst=$s; done\n"
        "exit $worst",
        "scontrol": 'echo "$@" >>calls',
        "squeue": 'echo "$STATE"',
        "sleep": "true",
        # Asked for the newest checkpoint, by `-c`, or a worker.
        "python": f'[ "$1" != -c ] || exec {sys.executable} "$@"; '
        'echo "$SLURM_PROCID $*" >>arguments; set -- $STATUSES; '
        "shift $SLURM_PROCID; exit $1",
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def submit(statuses, *flags, state="RUNNING"):
        (tmp_path / "calls").write_text("")
        done = subprocess.run(
            ["bash", SCRIPTS / "train.sbatch", *flags], capture_output=True, text=True,
            env={
                "PATH": f"{tmp_path}:{os.environ['PATH']}", "STATUSES": statuses,
                "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "77", "MAX_CRASHES": "1",
                "STATE": state, "PYTHONPATH": str(CHECKOUT),
            },
            timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, (tmp_path / "calls").read_text()

    return submit


def test_flags_reach_every_worker_as_they_were_given(job, tmp_path):
    assert job("0 0", "--gin_param=a.b = 'c d'", "--dry_run") == (0, "")
    assert (tmp_path / "arguments").read_text() == "".join(
        f"{task} -m inception_tf.train --gin_param=a.b = 'c d' --dry_run\n" for task in (0, 1)
    )
    assert not list(tmp_path.glob("slurm-77*"))


@pytest.mark.parametrize("statuses", ["143 143", "143 0"])
def test_workers_that_were_asked_to_stop_are_requeued(job, statuses):
    assert job(statuses) == (143, "requeue 77\n")


@pytest.mark.parametrize("statuses", ["143 143", "137 137"])
def test_a_job_that_was_cancelled_is_not_called_back(job, statuses, tmp_path):
    assert job(statuses, state="CANCELLED")[1] == ""
    assert not list(tmp_path.glob("slurm-77*"))


@pytest.mark.parametrize(
    ("status", "other"), [(2, 0), (2, 137), (3, 143), (4, 138), (126, 1), (127, 138)]
)
def test_what_a_start_would_repeat_is_not_requeued(job, status, other):
    assert job(f"{status} {other}") == (status, "")
    assert job(f"{other} {status}") == (status, "")


@pytest.mark.parametrize("statuses", ["138 1", "1 138"])
def test_a_worker_that_lost_the_others_is_not_the_one_that_failed(job, statuses):
    assert job(statuses) == (1, "requeue 77\n")


def test_workers_that_all_lost_each_other_are_requeued(job):
    assert job("138 138") == (138, "requeue 77\n")


def test_crashes_are_requeued_until_there_were_too_many(job):
    assert job("1 143") == (1, "requeue 77\n")
    assert job("143 143") == (143, "requeue 77\n")  # a preemption between is no crash
    assert job("137 1") == (137, "")


def test_crashes_are_counted_from_the_newest_checkpoint(job, tmp_path):
    for step in (10, 20, 30):
        (tmp_path / f"run/checkpoints/step-{step:09}").mkdir(parents=True)
        assert job("137 1", f"--run_dir={tmp_path}/run") == (137, "requeue 77\n")
    assert job("137 1", f"--run_dir={tmp_path}/run") == (137, "")


def test_the_whole_slurm_refuses_a_directory_that_it_did_not_make(tmp_path):
    (tmp_path / "mine").touch()
    for verb in ("start", "stop", "restart"):
        done = subprocess.run(
            [SCRIPTS / "one_machine.sh", verb, tmp_path],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1 and "one_machine.sh: " in done.stderr
    assert (tmp_path / "mine").exists()
