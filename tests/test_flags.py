"""What every door under absl does at its end."""

import subprocess
import sys

import pytest

PROGRAM = """
import threading
from inception_tf import flags
from inception_tf.errors import DataError

def main(argv):
    threading.Thread(target=threading.Event().wait).start()  # a thread that never ends
    print("said before")
    raise {error}

flags.run(main)
"""


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        ('DataError("A record must be whole.")', 2, "error: A record must be whole."),
        ('RuntimeError("a fault of ours")', 1, "RuntimeError: a fault of ours"),
        ("KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_after_an_error_no_thread_keeps_the_process(error, status, message):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(error=error)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status
    assert message in done.stderr and "said before" in done.stdout


def test_a_full_disk_behind_the_output_does_not_change_the_status():
    program = PROGRAM.format(error='DataError("A record must be whole.")')
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program.replace('print("said before")', "")],
            stdout=full,
            stderr=full,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
