"""What makes the launcher start a job again, how often and when."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from inception_tf import errors, launch_restarts
from inception_tf.launch_restarts import RestartPolicy
from inception_tf.training.checkpoint import CheckpointStore

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
# Counts the starts of worker i in a file, and says which one this is: `n`, from 1.
START = (
    "import json, os, pathlib, sys, time; task = json.loads(os.environ['TF_CONFIG']); "
    "i = task['task']['index']; log = pathlib.Path(f'starts.{i}'); "
    "ports = ' '.join(a.split(':')[1] for a in task['cluster']['worker']); "
    "log.write_text((log.read_text() if log.exists() else '') + ports + '\\n'); "
    "n = len(log.read_text().splitlines()); "
)


def launched(code, *options):
    words = [sys.executable, "-m", "inception_tf.launch", *options]
    return [*words, "--", sys.executable, "-c", START + code]


def run_launched(directory, code, *options):
    return subprocess.run(
        launched(code, *options), cwd=directory, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, check=False,
    )  # fmt: skip


def starts_of(directory, index=0):
    return (directory / f"starts.{index}").read_text().splitlines()


def test_a_killed_worker_is_told_of_in_one_line_and_all_start_again_on_new_ports(tmp_path):
    # Worker 1 kills itself once worker 0 has counted its start too.
    code = (
        "\nwhile n == i == 1:"
        "\n  any(log.stat().st_size for log in pathlib.Path().glob('starts.0'))"
        " and os.kill(os.getpid(), 9)"
        "\ntime.sleep(50 * (n == 1)); print('done')"
    )
    done = run_launched(tmp_path, code, "--workers=2")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "[worker 0] done", "[worker 1] done"]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("launch:")]
    assert line == (
        "launch: worker 1: status 137 (SIGKILL): all start again in 1 s (restart 1 of at most 3 "
        "without a newer checkpoint)"
    )
    first, second = starts_of(tmp_path)
    assert starts_of(tmp_path, 1) == [first, second]
    assert not set(first.split()) & set(second.split())


@pytest.mark.slow
def test_the_launchers_of_several_hosts_start_again_and_meet(tmp_path):
    # Worker 1 is killed; worker 0, on another host, ends as one that lost it.
    code = "n == 1 and (i == 0 and (time.sleep(1), sys.exit(138)), os.kill(os.getpid(), 9))"
    options = ["--hosts=a:5000,b:5000", "--max_restarts=1"]
    jobs = [
        subprocess.Popen(
            launched(code, *options, f"--this_host={host}"), cwd=tmp_path, text=True,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )
        for host in (0, 1)
    ]  # fmt: skip
    said = [job.communicate(timeout=60)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert "worker 0: status 138 (stuck, or other workers lost): all start again" in said[0]
    assert "worker 1: status 137 (SIGKILL): all start again" in said[1]
    assert starts_of(tmp_path, 0) == starts_of(tmp_path, 1) == ["5000 5000"] * 2


@pytest.mark.parametrize("status", [errors.EXIT_USER_ERROR, errors.EXIT_PREEMPTED])
def test_what_would_end_the_same_way_and_what_was_asked_for_is_not_started_again(tmp_path, status):
    done = run_launched(tmp_path, f"sys.exit({status})", "--workers=1")
    assert done.returncode == status
    assert len(starts_of(tmp_path)) == 1


@pytest.mark.slow
def test_the_last_of_the_allowed_starts_gives_the_status(tmp_path):
    began = time.monotonic()
    done = run_launched(tmp_path, "sys.exit(1 if n < 3 else 138)", "--max_restarts=2")
    assert done.returncode == errors.EXIT_STUCK
    assert len(starts_of(tmp_path)) == 3
    assert time.monotonic() - began > 1 + 2  # the back-off
    assert "not started again after 2 restarts without a newer checkpoint" in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_back_off_ends_the_job_at_once(tmp_path, signum):
    with subprocess.Popen(
        launched("sys.exit(1)"), cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    ) as job:  # fmt: skip
        for line in job.stderr:
            if "start again in 1 s" in line:
                break
        job.send_signal(signum)
        assert job.wait(timeout=30) == errors.EXIT_PREEMPTED
        assert "asked to stop; not started again" in job.stderr.read()
    assert len(starts_of(tmp_path)) == 1


def test_after_a_stop_nothing_is_started_again_though_a_worker_fails_of_it(tmp_path):
    code = "import signal; signal.signal(15, lambda *_: sys.exit(1)); print('up'); time.sleep(50)"
    with subprocess.Popen(
        launched(code), cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    ) as job:  # fmt: skip
        assert job.stdout.readline() == "[worker 0] up\n"
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=30) == errors.EXIT_FAULT
    assert len(starts_of(tmp_path)) == 1


@pytest.mark.parametrize("status", [2, 3, 4, 126, 127])
def test_no_number_of_restarts_helps_against_what_a_start_repeats(status):
    policy = RestartPolicy(max_restarts=9, command=["true"])
    policy.note_start()
    assert policy.decide(status).delay_secs is None


def train_in(run_dir):
    return ["python", "-m", "inception_tf.train", f"--run_dir={run_dir}"]


def test_restarts_are_counted_from_the_newest_checkpoint(tmp_path):
    policy = RestartPolicy(max_restarts=2, command=train_in(tmp_path))
    for step in range(10, 200, 10):  # a machine lost again and again, and always a newer step
        policy.note_start()
        (tmp_path / f"checkpoints/step-{step:09}").mkdir(parents=True)
        decision = policy.decide(137)
        assert decision.delay_secs == 1.0
        assert f"from the checkpoint of step {step} (restart 1 of at most 2" in decision.words
    delays = []
    for _ in range(3):
        policy.note_start()
        delays.append(policy.decide(137).delay_secs)
    assert delays == [2.0, None, None]


def test_the_back_off_doubles_up_to_a_minute():
    policy = RestartPolicy(max_restarts=9, command=["true"])
    delays = []
    for _ in range(10):
        policy.note_start()
        delays.append(policy.decide(1).delay_secs)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60, None]


def test_the_newest_checkpoint_is_read_from_its_name(tmp_path):
    assert launch_restarts.newest_step_of(train_in(tmp_path)) is None
    for step in (1_200, 90):
        CheckpointStore.of_run(tmp_path).save(step=step, values={"x": 0.0}, facts={})
    checkpoints = tmp_path / "checkpoints"
    for other in (".new-abc-step-000009999", "step-9999", "step-000009999.bak"):
        (checkpoints / other).mkdir()
    assert launch_restarts.newest_step_of(train_in(tmp_path)) == 1_200


@pytest.mark.parametrize(
    ("words", "run_dir"),
    [
        ("-m inception_tf.train --gin_file=configs/irv2.gin --gin_file=mine/a.gin", "runs/a"),
        ("-m inception_tf.train --gin_file digits --run_dir=first --run_dir my/run", "my/run"),
        ("-m inception_tf.train -run_dir=x --gin_file=digits", "x"),
        ("-m inception_tf.train", None),
        ("-m inception_tf.evaluate --run_dir=x", None),
        ("-c pass --run_dir=x", None),
    ],
)
def test_the_run_directory_is_read_from_the_command(words, run_dir):
    found = launch_restarts.run_dir_of(["python", *words.split()])
    assert found == (run_dir and pathlib.Path(run_dir))


def test_statuses_are_named():
    assert launch_restarts.meaning_of(137) == "SIGKILL"
    assert launch_restarts.meaning_of(138) == "stuck, or other workers lost"
    assert launch_restarts.meaning_of(255) == "a status of its own"
