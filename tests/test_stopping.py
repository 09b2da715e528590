"""Signals that ask a run to stop."""

import functools
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from inception_tf import stopping
from inception_tf.stopping import StopRequests

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGTERM, "ends after what is under way"), (signal.SIGINT, "a second Ctrl-C")],
)
def test_a_signal_is_a_request(number, said, capfd):
    with StopRequests() as requests:
        assert not requests.has_arrived()
        os.kill(os.getpid(), number)
        assert requests.has_arrived() and requests.has_arrived()
    assert said in capfd.readouterr().err


def test_a_signal_is_a_request_though_nobody_reads_what_is_said(monkeypatch):
    read_end, write_end = os.pipe()
    os.close(read_end)
    monkeypatch.setattr(stopping.os, "write", functools.partial(_write_to, write_end, os.write))
    with StopRequests() as requests:
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.has_arrived()
    os.close(write_end)


def _write_to(descriptor, write, _, text):
    write(descriptor, text)


PROGRAM = """
import os, signal, time
from inception_tf.stopping import end_at_once

with end_at_once("nothing to save"):
    print("up", flush=True)
    {wait}
print("done")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "wait",
    [
        "time.sleep(60)",
        # Not between two instructions of Python, as in a step of TensorFlow.
        "import ctypes; [ctypes.CDLL(None).sleep(60) for _ in range(9)]",
    ],
)
def test_what_has_nothing_to_save_ends_at_once(number, wait):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(wait=wait)],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        said, errors = process.communicate(timeout=20)
    assert (process.returncode, said, errors) == (143, "", "nothing to save\n")


def test_what_ends_by_itself_is_left_alone():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(wait="pass")],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "up\ndone\n"


def test_a_second_interrupt_interrupts_whoever_has_asked_between():
    with StopRequests() as requests:
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.has_arrived()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_is_known_before_pythons_handler_has_run():
    # As while the main thread is in C++: the pipe is written by the handler in C.
    with StopRequests() as requests:
        signal.signal(signal.SIGTERM, lambda *_: None)
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.has_arrived()


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequests() as requests:
        assert signal.getsignal(signal.SIGTERM) == requests._on_signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        requests.install()
        assert signal.getsignal(signal.SIGTERM) == requests._on_signal
    assert signal.getsignal(signal.SIGTERM) is before
