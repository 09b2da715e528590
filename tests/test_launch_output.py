"""What a terminal and a file show of a job: one progress line, prefixes, shared errors once."""

import io
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

from inception_tf import launch_output
from inception_tf.launch_output import JobOutput, is_progress
from inception_tf.reporting.progress import progress_text

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
INDEX = "import json, os, sys, time; i = json.loads(os.environ['TF_CONFIG'])['task']['index']; "


def launched(code, *options):
    words = [sys.executable, "-m", "inception_tf.launch", "--max_restarts=0", *options]
    return [*words, "--", sys.executable, "-c", INDEX + code]


def screen_after(command, *, columns, term="xterm"):
    """(exit status, lines) of a terminal on which a command has run, and what it received."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": term}
    with subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdout=slave, stderr=slave, stdin=slave
    ) as job:
        os.close(slave)
        received = b""
        while True:
            try:
                chunk = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            received += chunk
    os.close(master)
    lines = [""]
    for part in re.findall(r"\x1b\[K|\r\n|\r|[^\r\x1b]+", received.decode()):
        if part == "\r\n":
            lines.append("")
        elif part not in ("\r", "\x1b[K"):
            lines[-1] += part
        elif part == "\x1b[K":
            lines[-1] = ""  # it follows a return to the first column, always
    return job.returncode, lines, received.decode()


def test_on_a_terminal_the_chiefs_progress_is_one_line_and_the_rest_scrolls_above_it(tmp_path):
    def said(name):  # what a worker that says it next waits for; the launcher has to read it first
        return f"open({str(tmp_path / name)!r}, 'w').close()"

    def wait(name):
        return f"while not os.path.exists({str(tmp_path / name)!r}): time.sleep(0.01)"

    chief = ["print('summary')", "print('step 1/3 loss 2.0')", said("a"), wait("b"),
             "time.sleep(0.2)", "print('step 2/3 loss 1.0')", "print('exported')",
             "print('step 3/3 loss 0.5')"]  # fmt: skip
    other = [wait("a"), "time.sleep(0.2)", "print('a record was skipped')", said("b")]
    code = "\n".join(["", "if i == 0:", *(f"  {line}" for line in chief), "else:",
                      *(f"  {line}" for line in other)])  # fmt: skip
    status, lines, received = screen_after(launched(code, "--workers=2"), columns=80)
    assert status == 0
    assert lines == [
        "[worker 0] summary", "[worker 1] a record was skipped", "[worker 0] exported",
        "step 3/3 loss 0.5", "",
    ]  # fmt: skip
    assert received.count("step 1/3") == 2  # drawn, and drawn again below what scrolled


def test_a_progress_line_is_cut_at_the_width_of_the_terminal():
    _, lines, _ = screen_after(launched("print('step 1/3 loss ' + '2' * 99)"), columns=20)
    assert lines == ["step 1/3 loss 22222", ""]


def test_an_error_on_a_terminal_leaves_the_progress_readable():
    code = "print('step 1/3 loss 2.0', flush=True); sys.exit('no such shard')"
    status, lines, _ = screen_after(launched(code), columns=80)
    assert status == 1
    assert lines[:2] == ["[worker 0] no such shard", "step 1/3 loss 2.0"]
    assert "worker 0 failed first, with status 1 (a fault); it wrote last:" in lines


def test_a_terminal_that_cannot_clear_a_line_gets_plain_lines():
    _, lines, received = screen_after(launched("print('step 1/3 x')"), columns=80, term="dumb")
    assert lines == ["[worker 0] step 1/3 x", ""] and "\x1b" not in received


def test_a_file_gets_every_line_as_it_was_written():
    stream = io.StringIO()
    output = JobOutput(stream, num_workers=2)
    for text in ("step 1/3 loss 2.0", "note", "step 2/3 loss 1.0"):
        output.line(0, text)
    output.close()
    assert stream.getvalue().splitlines() == [
        "[worker 0] step 1/3 loss 2.0", "[worker 0] note", "[worker 0] step 2/3 loss 1.0",
    ]  # fmt: skip


def test_progress_is_what_a_run_writes_behind_a_pipe():
    assert is_progress(progress_text(1_200, {"train/loss_nats": 6.9}, total_steps=320_320))
    assert is_progress(progress_text(1, {}, total_steps=3))
    assert not is_progress("stopped at step 4; the same command goes on from there")


def test_an_error_of_all_workers_is_written_once():
    code = "print('up'); print('error: no such config\\n  a  b'); time.sleep(i / 5); sys.exit(2)"
    done = subprocess.run(
        launched(code, "--workers=3"), cwd=CHECKOUT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert [line for line in done.stdout.splitlines() if "up" not in line] == [
        "(all 3 workers) error: no such config", "(all 3 workers)   a  b",
    ]  # fmt: skip
    assert done.stderr == (
        "launch: all workers: status 2 (configuration or data to be mended): not started again\n"
    )


@pytest.mark.parametrize("second", [["error: b"], ["error: a", "more"], []])
def test_errors_of_single_workers_keep_their_names(second):
    stream = io.StringIO()
    output = JobOutput(stream, num_workers=2)
    output.line(0, "error: a")
    for text in second:
        output.line(1, text)
    assert stream.getvalue() == ""
    output.close()
    expected = ["[worker 0] error: a", *(f"[worker 1] {text}" for text in second)]
    assert stream.getvalue().splitlines() == expected
    assert not output.is_shared_error


def test_a_program_that_goes_on_after_an_error_is_held_up_once_and_not_for_long(monkeypatch):
    monkeypatch.setattr(launch_output, "HOLD_SECS", 0.1)
    stream = io.StringIO()
    output = JobOutput(stream, num_workers=2)
    output.line(0, "error: a")
    deadline = time.monotonic() + 30
    while not stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    output.line(0, "error: b")
    assert stream.getvalue().splitlines() == ["[worker 0] error: a", "[worker 0] error: b"]


def test_a_single_workers_error_waits_for_nobody():
    stream = io.StringIO()
    JobOutput(stream, num_workers=1).line(3, "error: a")
    assert stream.getvalue() == "[worker 3] error: a\n"


def test_workers_are_read_to_their_end_though_nobody_reads_the_launcher():
    code = "[print('x' * 1000) for _ in range(1000)]"  # more than a pipe holds
    with subprocess.Popen(launched(code), cwd=CHECKOUT, stdout=subprocess.PIPE) as job:
        job.stdout.close()
        try:
            status = job.wait(timeout=30)
        finally:
            job.send_signal(signal.SIGTERM)
    assert status == 0


def test_a_full_disk_behind_the_launcher_holds_up_no_worker_and_hides_no_status():
    code = "[print('x' * 1000) for _ in range(1000)]; sys.exit(4)"
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            launched(code), cwd=CHECKOUT, stdout=full, stderr=full, timeout=30, check=False
        )
    assert done.returncode == 4


def test_what_the_terminal_cannot_show_is_written_as_its_code():
    done = subprocess.run(
        launched("os.write(1, 'K\\u00fche\\n'.encode()); print('after')"), cwd=CHECKOUT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.stdout == b"[worker 0] K\\xfche\n[worker 0] after\n"
