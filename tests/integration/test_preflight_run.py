"""Workers that are not of one job are refused at their start, and a dry run leaves no trace."""

import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest

from inception_tf.data.build import build_records
from inception_tf.data.sources import DigitsSource

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
TIMEOUT_SECS = 900
TINY = [
    "model.width_multiplier = 0.05",
    "model.block_counts = (1, 1, 1)",
    "training.num_epochs = None",
    "training.num_steps = 2",
    "training.replica_batch = 4",
    "checkpoints.every_steps = 1",
    "evaluation.every_epochs = None",
    "cluster.intra_op_threads = 1",
]

pytestmark = [pytest.mark.slow, pytest.mark.faults]


def train_command(run_dir, data_dir, *arguments):
    return [
        *[sys.executable, "-m", "inception_tf.train"],
        f"--gin_file={CHECKOUT / 'configs' / 'digits.gin'}",
        f"--run_dir={run_dir}",
        f"--data_dir={data_dir}",
        *[f"--gin_param={text}" for text in TINY],
        *arguments,
    ]


def run(command, **environment):
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECS,
        check=False,
    )
    return done.returncode, done.stdout


def run_two(command, second=None):
    """Status and output of two workers, the second one with what differs there."""
    launch = [sys.executable, "-m", "inception_tf.launch", "--workers", "2", "--"]
    wrapper = [sys.executable, str(HERE / "per_worker.py"), json.dumps({"1": second or {}})]
    return run([*launch, *wrapper, *command])


def digests(directory):
    """Path below the directory -> digest of the file, and its time; '' of a directory."""
    return {
        str(path.relative_to(directory)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
        )
        for path in sorted(directory.rglob("*"))
    }


def assert_refused_by_both(status, said, *texts):
    assert status == 2, said
    for text in texts:
        assert text in said, said
    # The launcher writes once what all say.
    assert "(all 2 workers)" in said or said.count(texts[0]) >= 2, said
    assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits")
    build_records(DigitsSource(image_px=80), out, num_shards={"train": 2, "validation": 1})
    return out


def test_another_binding_on_one_worker_is_refused_with_its_values(tmp_path, data_dir):
    second = {"arguments": ["--gin_param=training.seed = 7"]}
    status, said = run_two(train_command(tmp_path / "run", data_dir), second)
    assert_refused_by_both(status, said, "training.seed: 0 on worker 0; 7 on worker 1")
    assert not (tmp_path / "run").exists()


def test_other_code_on_one_worker_is_refused_with_its_file(tmp_path, data_dir):
    other = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / "inception_tf", other / "inception_tf")
    shutil.copytree(CHECKOUT / "configs", other / "configs")
    with open(other / "inception_tf" / "data" / "order.py", "a", encoding="utf-8") as file:
        file.write("# changed\n")
    # Where `python -m` starts comes before PYTHONPATH.
    status, said = run_two(train_command(tmp_path / "run", data_dir), {"directory": str(other)})
    assert_refused_by_both(status, said, "code of inception_tf/data/order.py: ")
    assert said.count("code of ") == said.count("code of inception_tf/data/order.py: ")


def test_other_records_on_one_worker_are_refused(tmp_path, data_dir):
    other = tmp_path / "other"
    build_records(DigitsSource(image_px=88), other, num_shards={"train": 2, "validation": 1})
    second = {"arguments": [f"--data_dir={other}"]}
    status, said = run_two(train_command(tmp_path / "run", data_dir), second)
    assert_refused_by_both(status, said, "same records", "train content: ")
    assert "train records" not in said  # as many of them


def test_records_that_one_worker_lacks_end_all_with_its_error(tmp_path, data_dir):
    second = {"arguments": [f"--data_dir={tmp_path / 'nowhere'}"]}
    status, said = run_two(train_command(tmp_path / "run", data_dir), second)
    assert_refused_by_both(status, said, f"{tmp_path / 'nowhere'} is no directory")
    assert "Worker 1 cannot go on" in said


def test_another_run_directory_on_one_worker_is_refused_with_both_places(tmp_path, data_dir):
    second = {"arguments": [f"--run_dir={tmp_path / 'second'}"]}
    status, said = run_two(train_command(tmp_path / "first", data_dir), second)
    assert_refused_by_both(status, said, "one run directory", str(tmp_path / "second"))
    assert str(tmp_path / "first") in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [[], ["--dry_run"]])
def test_a_busy_port_is_named_before_anything_waits_for_peers(tmp_path, data_dir, flags):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        workers = [address, "127.0.0.1:1"]
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}
        command = train_command(tmp_path / "run", data_dir, *flags)
        status, said = run(command, TF_CONFIG=json.dumps(task))
    assert status == 2, said
    assert f"{address}, must be free on {socket.gethostname()}" in said
    assert "older worker" in said and "Traceback" not in said


def test_a_dry_run_of_two_workers_passes_tells_all_and_leaves_nothing(tmp_path, data_dir):
    before = digests(data_dir)
    status, said = run_two(train_command(tmp_path / "run", data_dir, "--dry_run"))
    assert status == 0, said
    for text in (
        "2 workers (TF_CONFIG), 1 device each (CPU); its port was free: 127.0.0.1:",
        "equal on all workers",
        "all see what is written",
        "1,437 training images, 10 classes; 2 steps",
        "a new run in",
        "4 declared replicas x 4; 2 devices of 2 workers: 2 rounds, 100% busy",
        "4 more of 4 checkpoints",
        "over 2 devices in",
        "12 checks passed; nothing was saved",
    ):
        assert text in said, text + "\n" + said
    assert said.count("dry run: ") == 1  # the chief's
    assert "retracing" not in said
    assert list(tmp_path.iterdir()) == []
    index = {name: value for name, value in digests(data_dir).items() if name not in before}
    assert all(name.startswith("index-") for name in index)


def test_a_dry_run_leaves_a_run_as_it_is_and_refuses_what_cannot_be(tmp_path, data_dir):
    run_dir = tmp_path / "run"
    status, said = run(train_command(run_dir, data_dir))
    assert status == 0, said
    before = digests(run_dir)
    status, said = run(train_command(run_dir, data_dir, "--dry_run"))
    assert status == 0, said
    assert "is at step 2 of 2" in said and "1 worker (no TF_CONFIG" in said
    assert "one device: nothing is sent" in said
    # Too little room: the table still ends with all of it.
    status, said = run(
        train_command(
            run_dir, data_dir, "--dry_run", "--gin_param=checkpoints.keep_last = 1000000000"
        )
    )
    assert status == 2, said
    assert "to mend: disk" in said and "lower checkpoints.keep_last" in said
    assert "ok    one step" in said and "1 of 12 checks failed" in said
    assert digests(run_dir) == before
