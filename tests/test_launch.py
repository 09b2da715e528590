"""The local launcher, with workers that are a line of Python each."""

import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import time

import pytest

from inception_tf import errors, launch

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
INDEX = "import json, os, sys, time; i = json.loads(os.environ['TF_CONFIG'])['task']['index']; "


def command_line(workers, code, *options):
    door = [sys.executable, "-m", "inception_tf.launch", "--workers", str(workers), *options]
    return [*door, "--", sys.executable, "-c", INDEX + code]


def run_workers(workers, code, *options):
    return subprocess.run(
        command_line(workers, code, *options),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_worker_gets_the_same_cluster_and_its_own_index():
    done = run_workers(3, "print(os.environ['TF_CONFIG'])")
    assert done.returncode == 0, done.stderr
    configs = {}
    for line in done.stdout.splitlines():
        prefix, text = line.split("] ", 1)
        configs[prefix] = json.loads(text)
    assert {p: c["task"] for p, c in configs.items()} == {
        f"[worker {i}": {"type": "worker", "index": i} for i in range(3)
    }
    addresses = [c["cluster"]["worker"] for c in configs.values()]
    assert addresses[0] == addresses[1] == addresses[2]
    assert len(set(addresses[0])) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses[0])


def test_status_and_last_lines_are_those_of_the_worker_that_failed_first():
    done = run_workers(
        3,
        "print('ready', i); i == 1 and (print('no such shard', file=sys.stderr), sys.exit(7)); "
        "time.sleep(50)",
    )
    assert done.returncode == 7
    report = done.stderr.strip().splitlines()
    assert report[0] == "worker 1 failed first, with status 7:"
    assert "no such shard" in report[2]
    assert report[3:] == ["worker 0 ended with status 143", "worker 2 ended with status 143"]


def test_a_worker_that_stopped_is_not_blamed_for_one_that_fails_later():
    done = run_workers(
        2, "i == 0 and sys.exit(143); time.sleep(0.5); print('disk on fire'); sys.exit(5)"
    )
    assert done.returncode == 5
    report = done.stderr.strip().splitlines()
    assert report[0] == "worker 1 failed first, with status 5:"
    assert "disk on fire" in report[1]
    assert report[2:] == ["worker 0 ended with status 143"]


def test_workers_that_were_asked_to_stop_and_did_are_no_failure():
    done = run_workers(3, "time.sleep(0.2 * i); sys.exit(143)")
    assert done.returncode == errors.EXIT_PREEMPTED
    assert done.stderr.strip() == "The workers were asked to stop and did."


def test_no_signal_goes_to_a_process_number_that_may_be_a_strangers(monkeypatch):
    sent = []

    def kill_group(pid, signum):
        # Raises ChildProcessError once the worker has been collected and its number is free.
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        sent.append(signum)

    monkeypatch.setattr(launch.os, "killpg", kill_group)
    ended = queue.SimpleQueue()
    worker = launch.Worker(0, ["true"], os.environ, ended=ended, print_line=print)
    assert ended.get(timeout=30).status == 0
    worker.send(signal.SIGTERM)
    assert sent == [signal.SIGKILL]


def test_a_worker_that_ignores_the_stop_is_killed_after_the_grace():
    began = time.monotonic()
    done = run_workers(
        2,
        "import signal; i and signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', i); "
        "time.sleep(50 if i else 1); sys.exit(3)",
        "--grace_secs=1",
    )
    assert done.returncode == 3
    assert "worker 1 ended with status 137" in done.stderr
    assert time.monotonic() - began < 30


def test_a_child_that_outlives_its_worker_does_not_hold_up_the_job():
    began = time.monotonic()
    done = run_workers(1, "import subprocess; subprocess.Popen(['sleep', '50']); sys.exit(4)")
    assert done.returncode == 4
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_worker_and_its_answer_is_the_exit_status(signum):
    code = (
        f"import signal; signal.signal({int(signum)}, lambda *_: (print('saved', i), "
        f"sys.exit({errors.EXIT_PREEMPTED}))); print('up', i); time.sleep(50)"
    )
    with subprocess.Popen(
        command_line(2, code), cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as job:
        lines = [job.stdout.readline().strip() for _ in range(2)]
        assert sorted(lines) == ["[worker 0] up 0", "[worker 1] up 1"]
        job.send_signal(signum)
        rest = sorted(job.stdout.read().split("\n"))
        assert job.wait(timeout=30) == errors.EXIT_PREEMPTED
    assert [line for line in rest if line] == ["[worker 0] saved 0", "[worker 1] saved 1"]


def test_ports_differ_and_are_free():
    ports = launch.free_ports(20)
    assert len(set(ports)) == 20


def test_devices_are_shared_out_in_order():
    environments = launch.worker_environments(
        {launch.GPU_LIST: "4,5,6,7"}, num_workers=2, devices_per_worker=2
    )
    assert [e[launch.GPU_LIST] for e in environments] == ["4,5", "6,7"]
    for hidden in ("", "-1"):
        environments = launch.worker_environments(
            {launch.GPU_LIST: hidden}, num_workers=2, devices_per_worker=1
        )
        assert [e[launch.GPU_LIST] for e in environments] == ["", ""]
    with pytest.raises(errors.ConfigError, match="3 workers x 2 devices need 6 devices"):
        launch.worker_environments(
            {launch.GPU_LIST: "4,5,6,7"}, num_workers=3, devices_per_worker=2
        )


def test_devices_per_worker_reaches_our_own_commands_only():
    arguments = ["--workers", "2", "--devices_per_worker", "4", "--"]
    ours = [sys.executable, "-m", "inception_tf.train", "--gin_file=a.gin"]
    _, command = launch.parse_command_line([*arguments, *ours])
    assert command == [*ours, "--gin_param=cluster.devices_per_worker=4"]
    _, command = launch.parse_command_line([*arguments, sys.executable, "-c", "pass"])
    assert command == [sys.executable, "-c", "pass"]


def test_a_missing_command_is_refused_with_an_example(capsys):
    assert launch.main(["--workers", "2"]) == errors.EXIT_USER_ERROR
    assert "-- python -m inception_tf.train" in capsys.readouterr().err
    assert launch.main(["--workers", "2", "--", "no-such-program"]) == errors.EXIT_USER_ERROR
    assert "no-such-program" in capsys.readouterr().err


def test_the_file_in_launch_is_the_same_door():
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "launch" / "local.py"), "--help"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--devices_per_worker" in done.stdout
