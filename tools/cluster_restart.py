"""How long a job of two workers takes to start, and to step again once a worker was killed."""

import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

from inception_tf.data.build import build_records
from inception_tf.data.sources import DigitsSource

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
STEP = re.compile(r"\] step ([\d,]+)/")
STEPS_BEFORE_KILL = 8
PARAMS = (
    "model.width_multiplier = 0.1",
    "model.block_counts = (1, 1, 1)",
    "training.num_epochs = None",
    "training.num_steps = 1000000",
    "checkpoints.every_steps = 4",
    "evaluation.every_epochs = None",
    "logging.every_steps = 1",
    "cluster.intra_op_threads = 1",
)


def time_restarts(directory, *, count):
    """Starts a job and kills a worker of it `count` times, the chief every other time.

    Args:
      directory: for the records and the run.
      count: kills.

    Returns:
      dict of figures: seconds to the first step of the job, and from each kill to the next step.
    """
    build_records(
        DigitsSource(image_px=80), directory / "digits", num_shards={"train": 2, "validation": 1}
    )
    began = time.perf_counter()
    job = subprocess.Popen(_command(directory), cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    try:
        _wait_for_step(job, after=0)
        start_secs = time.perf_counter() - began
        restart_secs = []
        for number in range(count):
            # Checkpoints are written every few steps: the new start has one to go on from.
            _wait_for_step(job, after=_wait_for_step(job, after=0) + STEPS_BEFORE_KILL)
            began = time.perf_counter()
            os.kill(_workers(job.pid)[number % 2], signal.SIGKILL)
            _wait_for_start(job)
            restart_secs.append(time.perf_counter() - began)
    finally:
        job.terminate()
        job.communicate(timeout=120)
    median = statistics.median(restart_secs)
    print(f"\nfirst step of 2 workers after {start_secs:.1f} s; again after a kill:", end=" ")
    print(", ".join(f"{secs:.1f} s" for secs in restart_secs), f"= {median / start_secs:.2f} starts")
    return {
        "job_start_secs": start_secs,
        "job_restart_secs": median,
        "job_restart_ratio": median / start_secs,
    }


def _command(directory):
    return [
        sys.executable, "-m", "inception_tf.launch", "--workers", "2", "--",
        sys.executable, "-m", "inception_tf.train", "--gin_file=configs/digits.gin",
        f"--run_dir={directory / 'run'}", f"--data_dir={directory / 'digits'}",
        *[f"--gin_param={text}" for text in PARAMS],
    ]  # fmt: skip


def _workers(launcher):
    """Process ids of a launcher's workers, in the order in which they were started."""
    text = pathlib.Path(f"/proc/{launcher}/task/{launcher}/children").read_text()
    return [int(word) for word in text.split()]


def _wait_for_step(job, *, after):
    """The first step above `after` that the job prints."""
    for line in job.stdout:
        found = STEP.search(line)
        if found and int(found[1].replace(",", "")) > after:
            return int(found[1].replace(",", ""))
    raise SystemExit(f"The job ended with status {job.wait()}.")


def _wait_for_start(job):
    """Returns at the first step of the workers that are started next."""
    for line in job.stdout:
        if "going on" in line:
            break
    _wait_for_step(job, after=0)
