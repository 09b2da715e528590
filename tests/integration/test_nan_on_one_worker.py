"""NaN on one of two workers: all stop at that step, and one device does it again."""

import json
import re
import sys

import pytest

from inception_tf.data.build import build_records
from inception_tf.data.sources import DigitsSource
from inception_tf.training.checkpoint import CheckpointStore
from tests.integration.test_road import CHECKOUT, command, run, train_command

STEP = 6

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory):
    """(run directory, what the two workers said) of a NaN in worker 1's batch of step 6."""
    folder = tmp_path_factory.mktemp("nan")
    records = folder / "digits"
    build_records(DigitsSource(image_px=80), records)
    # `train`, but for the NaN
    train = train_command(folder / "run", records, "--device=cpu")[3:]
    planted = [sys.executable, "-m", "tests.integration.nan_in_a_batch", f"--nan_at={STEP}:1"]
    workers = command("launch", "--workers=2", "--", *planted, *train)
    return folder / "run", run(workers, cwd=CHECKOUT)


def first_nan(said):
    """What was NaN first: where the CPU's ReLU takes NaN for 0 the loss stays finite."""
    found = re.search(r"nan as the (loss|gradient of Conv2d_1a_3x3/kernel)", said)
    assert found, said
    return found[0]


def test_both_workers_stop_at_the_step_and_say_whose_it_was(failed_run):
    run_dir, done = failed_run
    assert done.returncode == 3, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert f"at step {STEP} they were not finite" in said
    assert f"declared replica 1 (worker 1, CPU:0) has {first_nan(said)}." in said
    assert f"python -m inception_tf.replay_step {run_dir}/failed_step_{STEP}" in said
    # The launcher says so where both ended with this one message and status.
    assert "launch: all workers: status 3" in said and "not started again" in said
    newest, skipped = CheckpointStore.of_run(run_dir).newest_verified()
    assert newest.step == 4 and not skipped


def test_one_device_does_it_again_from_what_worker_1_was_fed(failed_run):
    directory = failed_run[0] / f"failed_step_{STEP}"
    told = json.loads((directory / "step.json").read_text())
    assert [replica["declared"] for replica in told["replicas"]] == [1]
    assert told["num_workers"] == 2
    done = run(command("replay_step", directory))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the first of them images" in done.stdout
    what = first_nan("".join([failed_run[1].stdout, failed_run[1].stderr]))
    assert done.stdout.endswith(f"reproduced: {what}, as in the run\n")


def test_the_records_are_told_from_what_was_fed(failed_run):
    done = run(command("replay_step", failed_run[0] / f"failed_step_{STEP}", "--from_data"))
    assert done.returncode == 5, done.stdout + done.stderr
    assert "1 of 4 images made again from the records DIFFER" in done.stdout
    assert "NOT reproduced" in done.stdout
