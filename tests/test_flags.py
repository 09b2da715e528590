"""What every door under absl does at its end."""

import subprocess
import sys

import pytest

# TensorFlow, which takes seconds to import, has no part in this.
PROGRAM = """
import sys
import threading
import types
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
from inception_tf import flags
from inception_tf.errors import DataError

def main(argv):
    threading.Thread(target=threading.Event().wait).start()  # a thread that never ends
    print("said before")
    {end}

flags.run(main)
"""


@pytest.mark.parametrize(
    ("end", "status", "message"),
    [
        ('raise DataError("A record must be whole.")', 2, "error: A record must be whole."),
        ('raise RuntimeError("a fault of ours")', 1, "RuntimeError: a fault of ours"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("return 143", 143, ""),  # asked to stop, and did
    ],
)
def test_after_an_error_or_a_stop_no_thread_keeps_the_process(end, status, message):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status
    assert message in done.stderr and "said before" in done.stdout


def test_a_full_disk_behind_the_output_does_not_change_the_status():
    program = PROGRAM.format(end='raise DataError("A record must be whole.")')
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program.replace('print("said before")', "")],
            stdout=full,
            stderr=full,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2


@pytest.mark.usefixtures("signals_of_a_terminal")
def test_a_ctrl_c_while_a_door_is_imported_is_one_line():
    program = "import sys, signal; sys.meta_path.insert(0, Finder()); import inception_tf.train"
    finder = """
class Finder:
    def find_spec(self, name, *_):
        if name == "tensorflow":
            signal.raise_signal(signal.SIGINT)

"""
    done = subprocess.run(
        [sys.executable, "-c", finder + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-2, "interrupted\n")
