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

from inception_tf import errors, launch, launch_job, launch_plan

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
INDEX = "import json, os, sys, time; i = json.loads(os.environ['TF_CONFIG'])['task']['index']; "


def command_line(workers, code, *options):
    door = [sys.executable, "-m", "inception_tf.launch", "--workers", str(workers)]
    # Once, unless a test says otherwise: argparse takes the last.
    return [*door, "--max_restarts=0", *options, "--", sys.executable, "-c", INDEX + code]


def run_workers(workers, code, *options):
    return subprocess.run(
        command_line(workers, code, *options),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def job_of(workers, code, *, grace_secs=60.0):
    environments = launch_plan.plan_here([], num_workers=workers).environments(os.environ)
    return launch_job.Job(
        [sys.executable, "-c", code], environments, grace_secs=grace_secs,
        print_line=lambda index, line: None,
    )  # fmt: skip


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
        "print('ready', i); print('step 1/3 loss 2'); i == 1 and (print('no such shard', file=sys.stderr), sys.exit(7)); "
        "time.sleep(50)",
    )
    assert done.returncode == 7
    report = done.stderr.strip().splitlines()
    assert report[0] == "worker 1 failed first, with status 7 (a status of its own); it wrote last:"
    assert "no such shard" in report[2]
    assert report[3:5] == ["worker 0 ended with status 143", "worker 2 ended with status 143"]
    assert len(report) == 6 and "not started again (--max_restarts 0)" in report[5]


def test_a_worker_that_stopped_is_not_blamed_for_one_that_fails_later():
    done = run_workers(
        2, "i == 0 and sys.exit(143); time.sleep(0.5); print('disk on fire'); sys.exit(5)"
    )
    assert done.returncode == 5
    report = done.stderr.strip().splitlines()
    assert report[0] == "worker 1 failed first, with status 5 (a status of its own); it wrote last:"
    assert "disk on fire" in report[1]
    assert report[2:] == ["worker 0 ended with status 143"]  # and not started again


@pytest.mark.parametrize("own", ["sys.exit(1)", "sys.exit(2)", "os.kill(os.getpid(), 9)"])
def test_a_worker_that_lost_its_peers_is_not_guilty_of_what_ended_them(own):
    lost = "i == 0 and (print('lost worker 1'), sys.exit(138)); time.sleep(0.5); print('mine'); "
    done = run_workers(2, lost + own)
    assert done.returncode in (1, 2, 137)
    report = done.stderr.strip().splitlines()
    assert report[0].startswith("worker 1 failed first") and "mine" in report[1]
    assert "lost worker 1" not in done.stderr


def test_where_all_lost_each_other_the_first_is_named_and_the_frozen_one_is_woken(
    monkeypatch, capsys
):
    monkeypatch.setattr(launch_job, "SETTLE_SECS", 0.2)
    code = INDEX + "i or sys.exit(138); import signal; os.kill(os.getpid(), signal.SIGSTOP)"
    began, end = time.monotonic(), job_of(2, code).run()
    assert (end.guilty.index, end.guilty.status) == (0, errors.EXIT_STUCK)
    assert [worker.status for worker in end.workers] == [138, 128 + signal.SIGTERM]
    assert time.monotonic() - began < 30  # and not only after the grace
    launch_job.report_failure(end, sys.stderr)
    said = capsys.readouterr().err
    assert "worker 0 failed first, with status 138" in said
    assert "worker 1 was frozen by a signal, such as SIGSTOP, and ended with status 143" in said


@pytest.mark.parametrize("first", ["sys.exit(138)", "sys.exit(1)"])
def test_a_status_that_no_peer_can_cause_is_the_guilty_one_also_when_it_comes_last(first):
    code = (
        "import signal; i and signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); "
        f"print('up', flush=True); i or (time.sleep(0.5), {first}); time.sleep(1 + 50 * (i < 1)); "
        "sys.exit(3)"
    )
    end = job_of(2, INDEX + code).run()
    assert (end.guilty.index, end.guilty.status) == (1, errors.EXIT_NON_FINITE)


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

    monkeypatch.setattr(launch_job.os, "killpg", kill_group)
    ended = queue.SimpleQueue()
    worker = launch_job.Worker(0, ["true"], os.environ, ended=ended, print_line=print)
    assert ended.get(timeout=30).status == 0
    worker.send(signal.SIGTERM)
    assert sent == [signal.SIGKILL]


def test_a_worker_that_ignores_the_stop_is_killed_after_the_grace():
    began = time.monotonic()
    done = run_workers(
        2,
        "import signal; i and signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', i); "
        "time.sleep(50 if i else 1); sys.exit(7)",
        "--grace_secs=1",
    )
    assert done.returncode == 7
    assert "worker 1 ended with status 137" in done.stderr
    assert time.monotonic() - began < 30


def test_a_child_that_outlives_its_worker_does_not_hold_up_the_job():
    began = time.monotonic()
    done = run_workers(1, "import subprocess; subprocess.Popen(['sleep', '50']); sys.exit(7)")
    assert done.returncode == 7
    assert time.monotonic() - began < 20


@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize(
    ("signum", "passed_on"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGHUP, signal.SIGTERM),  # the terminal was closed
    ],
)
def test_a_signal_reaches_every_worker_and_its_answer_is_the_exit_status(signum, passed_on):
    code = (
        f"import signal; signal.signal({int(passed_on)}, lambda *_: (print('saved', i), "
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


def test_a_worker_that_a_ctrl_c_met_before_it_could_take_it_was_asked_to_stop():
    code = "import signal; print('up', i); signal.signal(2, signal.SIG_DFL); time.sleep(50)"
    with subprocess.Popen(
        command_line(2, code), cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as job:  # fmt: skip
        for _ in range(2):
            job.stdout.readline()
        time.sleep(0.2)
        job.send_signal(signal.SIGINT)
        said = job.communicate(timeout=30)[1]
    assert job.returncode == errors.EXIT_PREEMPTED
    assert said == "\nThe workers were asked to stop and did.\n"


def test_of_a_worker_that_a_signal_ended_little_is_shown():
    done = run_workers(1, "[print('line', n) for n in range(20)]; os.kill(os.getpid(), 9)")
    report = done.stderr.strip().splitlines()
    assert report[0] == "worker 0 failed first, with status 137 (SIGKILL); it wrote last:"
    assert report[1:-1] == [f"  line {n}" for n in range(15, 20)]
    done = run_workers(1, "os.kill(os.getpid(), 9)")
    assert "status 137 (SIGKILL); it wrote nothing\n" in done.stderr


def test_a_job_of_which_one_worker_cannot_be_started_leaves_none_behind():
    job = job_of(2, "import time; time.sleep(50)")
    job._environments[1] = {"NAME": "no\0value"}
    with pytest.raises(ValueError, match="null byte"):
        job.run()
    assert job._ended.get(timeout=20).status == 137


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


def test_the_launcher_itself_starts_at_once():
    code = "import sys, inception_tf.launch; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)
