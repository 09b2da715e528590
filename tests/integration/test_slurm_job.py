"""A real Slurm on this machine: a preempted job is requeued and ends as if nothing had been."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

from inception_tf.data.build import build_records
from inception_tf.data.sources import DigitsSource
from inception_tf.training.checkpoint import CheckpointStore

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
ONE_MACHINE = CHECKOUT / "launch" / "slurm" / "one_machine.sh"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")
WAIT_SECS = 600  # for the slowest of machines; nothing here measures time
NUM_STEPS = 60

missing = [program for program in PROGRAMS if shutil.which(program) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd has to be root"),
    pytest.mark.skipif(
        bool(missing),
        reason=f"no {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge",
    ),
]


class Slurm:
    """The daemons of one_machine.sh, and what a user asks of them."""

    def __init__(self, directory):
        self.directory = directory
        self.environment = {**os.environ, "SLURM_CONF": str(directory / "slurm.conf")}
        self.environment["PYTHON"] = sys.executable
        self.environment.pop("TF_CONFIG", None)

    def call(self, *words):
        done = subprocess.run(
            [str(word) for word in words], cwd=CHECKOUT, env=self.environment,
            capture_output=True, text=True, timeout=WAIT_SECS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def facts(self, job):
        """What Slurm knows of a job, such as {'JobState': 'RUNNING', 'Restarts': '0'}."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job, what, is_so):
        """Returns once is_so(facts of the job)."""
        deadline = time.monotonic() + WAIT_SECS
        while time.monotonic() < deadline:
            facts = self.facts(job)
            if is_so(facts):
                return
            time.sleep(0.1)
        raise AssertionError(f"job {job}, waiting for {what}: {facts}{self.logs()}")

    def logs(self):
        files = [*self.directory.glob("*.log"), *self.directory.parent.glob("*.out")]
        return "".join(f"\n--- {path}\n{path.read_text()[-6000:]}" for path in files)


@pytest.fixture(scope="module")
def slurm():
    # Not below pytest's own directories: the path of a socket holds 107 characters.
    base = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))
    directory = base / "slurm"
    started = subprocess.run(
        [ONE_MACHINE, "start", directory], capture_output=True, text=True, timeout=120, check=False
    )
    try:
        one = Slurm(directory)
        assert started.returncode == 0, started.stderr + one.logs()
        yield one
    finally:
        if directory.exists():
            subprocess.run([ONE_MACHINE, "stop", directory], timeout=120, check=True)
        shutil.rmtree(base)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits")
    build_records(DigitsSource(image_px=80), out, num_shards={"train": 2, "validation": 1})
    return out


def flags(run_dir, data_dir, *, num_steps):
    params = [
        "model.width_multiplier = 0.05",
        "model.block_counts = (1, 1, 1)",
        "training.num_epochs = None",
        f"training.num_steps = {num_steps}",
        "training.replica_batch = 4",
        # No checkpoint by the step count: the one gone on from is the one the signal asked for.
        "checkpoints.every_steps = None",
        "evaluation.every_epochs = None",
        "logging.every_steps = 1",
        "cluster.intra_op_threads = 1",
    ]
    return [
        "--gin_file=configs/digits.gin", f"--run_dir={run_dir}", f"--data_dir={data_dir}",
        *[f"--gin_param={text}" for text in params],
    ]  # fmt: skip


def submit(slurm, *options, arguments):
    output = slurm.directory.parent / "job-%j.out"
    return slurm.call(
        "sbatch", "--parsable", "--ntasks=2", f"--output={output}", *options,
        "launch/slurm/train.sbatch", *arguments,
    ).strip()  # fmt: skip


def has_rows(run_dir, number):
    metrics = run_dir / "metrics.jsonl"
    return metrics.exists() and metrics.read_text().count('"kind": "train"') >= number


def said_by(slurm, job):
    return (slurm.directory.parent / f"job-{job}.out").read_text()


def test_a_preempted_job_is_requeued_and_ends_with_the_bits_of_a_straight_run(
    slurm, data_dir, tmp_path
):
    job = submit(slurm, arguments=flags(tmp_path / "run", data_dir, num_steps=NUM_STEPS))
    slurm.wait(job, "the first steps", lambda facts: has_rows(tmp_path / "run", 3))
    slurm.call("scancel", "--signal=TERM", job)
    slurm.wait(job, "the requeue", lambda facts: facts["Restarts"] == "1")
    slurm.wait(job, "the end", lambda facts: facts["JobState"] in ("COMPLETED", "FAILED"))
    said = said_by(slurm, job)
    assert slurm.facts(job)["JobState"] == "COMPLETED", said
    assert slurm.facts(job)["Restarts"] == "1", said
    assert "2 devices of 2 workers" in said and "stopped at step" in said and "going on" in said
    assert not (CHECKOUT / f"slurm-{job}.workers").exists()

    straight = flags(tmp_path / "straight", data_dir, num_steps=NUM_STEPS)
    slurm.call(sys.executable, "-m", "inception_tf.train", *straight)
    slurm.call(
        sys.executable, "-m", "inception_tf.checkpoints", "diff",
        tmp_path / "straight", tmp_path / "run",
    )  # fmt: skip


def test_before_the_wall_time_limit_a_job_saves_and_is_requeued(slurm, data_dir, tmp_path):
    arguments = flags(tmp_path / "run", data_dir, num_steps=1_000_000)
    job = submit(slurm, "--time=60", "--signal=TERM@50", arguments=arguments)
    slurm.wait(job, "the first steps", lambda facts: has_rows(tmp_path / "run", 3))
    hours, minutes, _ = slurm.facts(job)["RunTime"].split(":")
    limit = 60 * int(hours) + int(minutes) + 2  # in whole minutes, for one or two from now
    slurm.call("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")
    slurm.wait(job, "the requeue", lambda facts: facts["Restarts"] == "1")
    slurm.call("scancel", job)
    said = said_by(slurm, job)
    newest, _ = CheckpointStore.of_run(tmp_path / "run").newest_verified()
    assert newest is not None and newest.step > 0, said
    assert f"stopped at step {newest.step:,}" in said and "is requeued" in said
    shutil.rmtree(CHECKOUT / f"slurm-{job}.workers", ignore_errors=True)


def test_a_cancelled_job_stays_cancelled(slurm, data_dir, tmp_path):
    job = submit(slurm, arguments=flags(tmp_path / "run", data_dir, num_steps=1_000_000))
    slurm.wait(job, "the first steps", lambda facts: has_rows(tmp_path / "run", 3))
    slurm.call("scancel", job)
    slurm.wait(job, "the end", lambda facts: facts["JobState"] == "CANCELLED")
    # The script may be killed before its last line, and before it removes its directory.
    assert slurm.facts(job)["Restarts"] == "0" and "is requeued" not in said_by(slurm, job)
    shutil.rmtree(CHECKOUT / f"slurm-{job}.workers", ignore_errors=True)


def test_a_configuration_to_be_mended_ends_the_job(slurm, data_dir, tmp_path):
    arguments = flags(tmp_path / "run", data_dir, num_steps=0)
    job = submit(slurm, arguments=arguments)
    slurm.wait(job, "the end", lambda facts: facts["JobState"] in ("COMPLETED", "FAILED"))
    facts = slurm.facts(job)
    assert (facts["ExitCode"], facts["Restarts"]) == ("2:0", "0"), said_by(slurm, job)
