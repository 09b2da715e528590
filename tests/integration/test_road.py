"""The road as a user walks it: real processes, real signals, real records, every door."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from inception_tf.data.build import build_records
from inception_tf.data.manifest import open_index
from inception_tf.data.sources import DigitsSource
from inception_tf.data.tfrecord import build_frame, parse_example
from inception_tf.reporting.metrics_file import SUPERSEDED_FILE, read_rows
from inception_tf.run_directory import RunDirectory
from inception_tf.training.checkpoint import CheckpointStore

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
NUM_STEPS = 24
TIMEOUT_SECS = 900
TINY = [
    "model.width_multiplier = 0.05",
    "model.block_counts = (1, 1, 1)",
    "training.num_epochs = None",
    f"training.num_steps = {NUM_STEPS}",
    "training.replica_batch = 4",
    "checkpoints.every_steps = 4",
    "checkpoints.keep_last = 100",
    "evaluation.every_epochs = None",
    "logging.every_steps = 1",
    "cluster.intra_op_threads = 1",
]


def command(verb, *arguments):
    return [sys.executable, "-m", f"inception_tf.{verb}", *map(str, arguments)]


def train_command(run_dir, data_dir, *arguments, params=()):
    bindings = {text.split(" =")[0]: text for text in [*TINY, *params]}
    flags = [f"--gin_param={text}" for text in bindings.values()]
    return command(
        "train",
        "--gin_file=configs/digits.gin",
        f"--run_dir={run_dir}",
        f"--data_dir={data_dir}",
        *flags,
        *arguments,
    )


def run(arguments, *, cwd=CHECKOUT):
    return subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_SECS, check=False
    )


def start(arguments):
    return subprocess.Popen(
        arguments, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_step(process, run_dir, step):
    """Returns once a run has saved a step at or past this one."""
    store = CheckpointStore.of_run(run_dir)
    deadline = time.monotonic() + TIMEOUT_SECS
    while process.poll() is None and time.monotonic() < deadline:
        if any(info.step >= step for info in store.checkpoints()):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached: {process.communicate()[0]}")


def wait_for_row(process, run_dir, step):
    """Returns once a run has logged a step."""
    metrics = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + TIMEOUT_SECS
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text().count('"kind": "train"') >= step:
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} was not logged: {process.communicate()[0]}")


def variables_of(run_dir):
    store = CheckpointStore.of_run(run_dir)
    info, _ = store.newest_verified()
    return info.step, store.read(info)


def rows_of(run_dir):
    """Rows of metrics without what is measured in seconds."""
    return [
        {key: value for key, value in row.items() if not key.startswith("perf/")}
        for row in read_rows(run_dir)
    ]


def assert_same_run(run_dir, reference):
    step, variables = variables_of(run_dir)
    reference_step, expected = variables_of(reference)
    assert step == reference_step == NUM_STEPS
    assert variables.keys() == expected.keys()
    differing = [n for n in expected if variables[n].tobytes() != expected[n].tobytes()]
    assert differing == []
    assert rows_of(run_dir) == rows_of(reference)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The digits as the builder writes them."""
    out = tmp_path_factory.mktemp("digits")
    build_records(DigitsSource(image_px=80), out, num_shards={"train": 2, "validation": 1})
    return out


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data_dir):
    """A run from start to end; (run directory, what it printed)."""
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    done = run(train_command(run_dir, data_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir, done.stdout


def test_a_run_tells_what_it_does_and_keeps_what_it_was_made_of(straight):
    run_dir, said = straight
    for text in (
        "16 images a step = 4 declared replicas x 4; 1 device: 4 rounds, 100% busy",
        "1 x CPU; 1 worker (no TF_CONFIG, no Slurm step)",
        "the same bits on any number of devices",
        "model.width_multiplier            1.0          0.05",
        "step 24/24",
        "exported averaged weights",
    ):
        assert text in said
    assert "training.num_steps = 24" in (run_dir / "config.gin").read_text()
    assert [row["step"] for row in rows_of(run_dir) if row["kind"] == "train"] == [
        *range(1, NUM_STEPS + 1)
    ]
    assert [row["step"] for row in rows_of(run_dir) if row["kind"] == "eval"] == [NUM_STEPS]
    facts = json.loads((run_dir / "run.json").read_text())
    assert facts["num_examples"] == 1437 and facts["intra_op_threads"] == 1
    (begun,) = RunDirectory(run_dir).read_starts()
    assert (begun.step, begun.num_workers, begun.num_devices) == (0, 1, 1)
    times = [row["perf/unix_secs"] for row in read_rows(run_dir) if row["kind"] == "train"]
    assert len(times) == NUM_STEPS and [begun.unix_secs, *times] == sorted([begun.unix_secs, *times])


@pytest.mark.slow
def test_a_run_killed_at_any_step_ends_with_the_bits_of_a_straight_one(
    straight, data_dir, tmp_path
):
    seed = int.from_bytes(os.urandom(4), "big")
    step = random.Random(seed).randrange(1, NUM_STEPS - 1)
    print(f"killed with SIGKILL once step {step} was logged, drawn from seed {seed}")
    process = start(train_command(tmp_path / "run", data_dir))
    wait_for_row(process, tmp_path / "run", step)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # A row that a killed run wrote after its last checkpoint belongs to steps done again.
    with open(tmp_path / "run" / "metrics.jsonl", "a", encoding="utf-8") as rows:
        rows.write('{"kind": "train", "step": 9999, "train/loss_nats": 1.0}\n{"kind": "tr')
    done = run(train_command(tmp_path / "run", data_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "going on" in done.stdout or "holds no checkpoint: starts at step 0" in done.stdout
    assert_same_run(tmp_path / "run", straight[0])
    assert "9999" in (tmp_path / "run" / SUPERSEDED_FILE).read_text()


@pytest.mark.slow
def test_a_run_stopped_by_sigterm_saves_that_step_and_ends_with_the_bits_of_a_straight_one(
    straight, data_dir, tmp_path
):
    # No checkpoint by the step count: the one that it goes on from is the one SIGTERM asked for.
    params = ["checkpoints.every_steps = None"]
    process = start(train_command(tmp_path / "run", data_dir, params=params))
    wait_for_row(process, tmp_path / "run", 3)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=TIMEOUT_SECS)[0]
    assert process.returncode == 143, said
    step, _ = variables_of(tmp_path / "run")
    assert 3 <= step < NUM_STEPS and f"stopped at step {step}" in said
    done = run(train_command(tmp_path / "run", data_dir, params=params))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(tmp_path / "run", straight[0])
    assert [begun.step for begun in RunDirectory(tmp_path / "run").read_starts()] == [0, step]


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_it_used(
    straight, data_dir, tmp_path
):
    shutil.copytree(straight[0], tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / f"step-{NUM_STEPS:09d}"
    data = newest / "variables.data-00000-of-00001"
    damaged = bytearray(data.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    data.write_bytes(damaged)
    done = run(train_command(tmp_path / "run", data_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" in done.stdout and newest.name in done.stdout
    assert "is at step 20 of 24" in done.stdout
    assert_same_run(tmp_path / "run", straight[0])


@pytest.mark.slow
def test_a_run_never_starts_at_0_over_checkpoints_that_cannot_be_used(straight, data_dir, tmp_path):
    shutil.copytree(straight[0], tmp_path / "run")
    for index in (tmp_path / "run" / "checkpoints").glob("step-*/variables.index"):
        index.write_bytes(b"")
    done = run(train_command(tmp_path / "run", data_dir))
    assert done.returncode == 2
    assert "must hold one that verifies" in done.stderr
    assert rows_of(tmp_path / "run") == rows_of(straight[0])


@pytest.mark.slow
def test_another_recipe_is_refused_until_one_is_said_to_win(straight, data_dir, tmp_path):
    shutil.copytree(straight[0], tmp_path / "run")
    other = ["exponential_decay.learning_rate = 0.01", "logging.every_steps = 4"]
    done = run(train_command(tmp_path / "run", data_dir, params=other))
    assert done.returncode == 2
    assert "exponential_decay.learning_rate  0.045  0.01" in done.stderr
    assert "--recipe_wins=saved" in done.stderr
    done = run(train_command(tmp_path / "run", data_dir, "--recipe_wins=saved", params=other))
    assert done.returncode == 0, done.stderr
    assert "from step 24: logging.every_steps 4, was 1" in done.stdout
    assert "exponential_decay.learning_rate = 0.045" in (tmp_path / "run/config.gin").read_text()
    changes = [json.loads(line) for line in open(tmp_path / "run" / "changes.jsonl")]
    assert {"step": 24, "parameter": "logging.every_steps", "before": 1, "now": 4} in changes


@pytest.mark.slow
def test_a_run_on_another_number_of_workers_than_its_config_asks_for_does_not_start(
    data_dir, tmp_path
):
    done = run(train_command(tmp_path / "run", data_dir, params=["cluster.num_workers = 2"]))
    assert done.returncode == 2
    assert "1 worker (no TF_CONFIG, no Slurm step)" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_finished_run_is_left_alone(straight, data_dir):
    done = run(train_command(straight[0], data_dir))
    assert done.returncode == 0, done.stderr
    assert "is complete; its export is in" in done.stdout
    assert [path.name for path in (straight[0] / "export").iterdir()] == ["1"]
    assert len(RunDirectory(straight[0]).read_starts()) == 1


@pytest.mark.slow
def test_device_loops_end_with_the_bits_of_single_steps(straight, data_dir, tmp_path):
    params = ["training.steps_per_loop = 5", "logging.every_steps = 6"]
    done = run(train_command(tmp_path / "run", data_dir, params=params))
    assert done.returncode == 0, done.stdout + done.stderr
    _, variables = variables_of(tmp_path / "run")
    expected = variables_of(straight[0])[1]
    counted = {"clipped_steps", "last_row_step"}  # since the last row, and rows are fewer
    differing = {n for n in expected if variables[n].tobytes() != expected[n].tobytes()}
    assert differing <= counted
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [6, 12, 18, 24, 24]


@pytest.mark.slow
def test_numbers_that_are_not_finite_stop_the_run_with_the_step_and_the_last_checkpoint(
    data_dir, tmp_path
):
    params = ["exponential_decay.learning_rate = 1e30", "training.clip_global_norm = None"]
    done = run(train_command(tmp_path / "run", data_dir, params=params))
    assert done.returncode == 3, done.stdout
    assert re.search(r"at step \d+ they were not finite", done.stderr), done.stderr
    assert "heckpoint" in done.stderr


@pytest.mark.slow
def test_a_run_directory_has_one_writer(straight, data_dir, tmp_path):
    shutil.copytree(straight[0], tmp_path / "run")
    with RunDirectory(tmp_path / "run").lock():
        done = run(train_command(tmp_path / "run", data_dir))
    assert done.returncode == 2
    assert "one training process" in done.stderr


def test_evaluate_gives_the_rows_of_the_training(straight, data_dir):
    done = run(command("evaluate", f"--run_dir={straight[0]}", f"--data_dir={data_dir}"))
    assert done.returncode == 0, done.stderr
    row = rows_of(straight[0])[-1]
    (path,) = (straight[0] / "evaluations").glob("*.json")
    assert str(path) in done.stdout
    models = json.loads(path.read_text())["models"]
    assert [model["networks"][0]["weights"] for model in models] == ["averaged", "raw"]
    for model, prefix in zip(models, ("eval_averaged", "eval")):
        (found,) = model["subsets"]
        assert found["num_examples"] == 360
        details = model["networks"][0]["details"]
        assert (details["network"], details["variant"]) == ("inception_resnet_v2", "released")
        assert details["input"] == {"height_px": 75, "width_px": 75}
        assert found["top1"]["count"] == round(360 * row[f"{prefix}/top1"])
        assert found["top5"]["count"] == round(360 * row[f"{prefix}/top5"])
        # Of probabilities in float32, not of logits.
        assert found["loss_nats"] == pytest.approx(row[f"{prefix}/loss_nats"], rel=1e-5)


@pytest.mark.slow
def test_a_watcher_gives_the_rows_of_the_training_and_ends_with_the_run(straight, data_dir):
    done = run(command("evaluate", str(straight[0]), "--watch", f"--data_dir={data_dir}"))
    assert done.returncode == 0, done.stderr
    watched = {row["step"]: row for row in rows_of(straight[0] / "evaluations")}
    trained = [row for row in rows_of(straight[0]) if row["kind"] == "eval"]
    assert watched[trained[-1]["step"]] == trained[-1]
    again = run(command("evaluate", str(straight[0]), "--watch", f"--data_dir={data_dir}"))
    assert (again.returncode, again.stdout) == (0, "")


@pytest.mark.slow
def test_two_workers_evaluate_to_the_figures_of_one(straight, data_dir, tmp_path):
    listed = tmp_path / "some.txt"
    listed.write_text("\n".join(map(str, range(100, 300))))  # of the blocks of both workers
    found = {}
    for name, launched in (
        ("one", []),
        ("two", [sys.executable, "launch/local.py", "--workers", "2", "--"]),
    ):
        own = tmp_path / name
        evaluate = command(
            "evaluate", straight[0], f"--data_dir={data_dir}", f"--subsets=all,{listed}",
            f"--out={own}", f"--predictions_dir={own / 'predictions'}",
        )  # fmt: skip
        done = run([*launched, *evaluate])
        assert done.returncode == 0, done.stdout + done.stderr
        (path,) = own.glob("*.json")
        tables = [text.read_text() for text in sorted(own.glob("*.csv"))]
        found[name] = json.loads(path.read_text()), tables
        assert len(list(own.glob("predictions/*/block-*.npz"))) == 2 * 2  # averaged and raw
    assert found["one"] == found["two"]
    assert [one["num_examples"] for one in found["two"][0]["models"][0]["subsets"]] == [360, 200]


_FOREIGN = """
import sys
sys.modules["inception_tf"] = None  # whoever imports it fails
import numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
jpegs = np.load(sys.argv[2], allow_pickle=True)
answer = loaded.signatures["all_probabilities"](image_bytes=tf.constant(list(jpegs)))
np.save(sys.argv[3], answer["probabilities"].numpy())
"""


@pytest.mark.slow
def test_an_export_gives_the_evaluators_probabilities_in_a_process_without_this_package(
    straight, data_dir, tmp_path
):
    done = run(
        command(
            "export", f"--run_dir={straight[0]}", f"--out={tmp_path / 'out'}",
            f"--data_dir={data_dir}",
        )  # fmt: skip
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "expected.py").write_text(_EXPECTED)
    done = run([sys.executable, tmp_path / "expected.py", straight[0], data_dir, tmp_path])
    assert done.returncode == 0, done.stderr
    (tmp_path / "foreign.py").write_text(_FOREIGN)
    done = run(
        [sys.executable, "-P", tmp_path / "foreign.py", tmp_path / "out/1", tmp_path / "jpegs.npy",
         tmp_path / "answers.npy"],
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers, expected = np.load(tmp_path / "answers.npy"), np.load(tmp_path / "expected.npy")
    assert answers.shape == (50, 10)
    assert np.max(np.abs(answers - expected)) <= 1e-5


# The evaluator's own probabilities of 50 held-out digits, with the averaged weights.
_EXPECTED = """
import pathlib, sys
import numpy as np, tensorflow as tf
from inception_tf import cluster, inputs, products, run_config
from inception_tf.data.image import decode_evaluation
from inception_tf.experiment import Experiment
from inception_tf.run_directory import RunDirectory

run_dir, data_dir, out = sys.argv[1:]
resolved = run_config.resolve_saved(run_dir, overrides={"data.data_dir": data_dir})
experiment = Experiment(**resolved.sections)
joined = cluster.join(experiment.cluster)
found = inputs.open_inputs(
    experiment.data, experiment.model, run_dir=run_dir, splits=["validation"]
)
trained = products.read_run(experiment, RunDirectory(run_dir), joined)
evaluator = products.build_evaluator(experiment, trained.model, joined, found)
jpegs, _ = found.readers["validation"].read(np.arange(100, 150))
size = {"crop": experiment.evaluation_crop, "height_px": 75, "width_px": 75}
images = tf.stack([decode_evaluation(jpeg, **size) for jpeg in jpegs])
np.save(f"{out}/jpegs.npy", jpegs, allow_pickle=True)
np.save(f"{out}/expected.npy", evaluator.probabilities(images, trained.values(averaged=True)))
"""


@pytest.mark.slow
def test_without_records_the_papers_run_says_where_it_looked(tmp_path):
    done = subprocess.run(
        command("train", "--gin_file=configs/irv2.gin", f"--run_dir={tmp_path / 'run'}"),
        cwd=CHECKOUT, capture_output=True, text=True, timeout=TIMEOUT_SECS, check=False,
        env={**os.environ, "HOME": str(tmp_path), "TFDS_DATA_DIR": str(tmp_path / "nowhere")},
    )  # fmt: skip
    assert done.returncode == 2
    for text in ("--data_dir", "$TFDS_DATA_DIR", "nowhere", "tensorflow_datasets", "records build"):
        assert text in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_generated_batches_need_no_records_and_save_nothing(tmp_path):
    params = [text for text in TINY if "num_steps" not in text]
    done = run(
        command(
            "train", "--gin_file=digits", "--synthetic", f"--run_dir={tmp_path / 'run'}",
            *[f"--gin_param={text}" for text in [*params, "training.num_steps = 3"]],
        )  # fmt: skip
    )
    assert done.returncode == 0, done.stderr
    assert "generated batches" in done.stdout and "step 3/3" in done.stdout
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_an_undecodable_image_stops_the_run_with_its_shard_and_offset(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "data")
    _, index = open_index(tmp_path / "data", "train")
    shard = pathlib.Path(index.files[0])
    content, frames = shard.read_bytes(), []
    for offset, length in zip(index.offset[index.shard == 0], index.length[index.shard == 0]):
        payload = content[offset + 12 : offset + 12 + length]
        image = parse_example(payload).jpeg
        # Both checksums hold, it begins and ends as a JPEG, and what lies between is none.
        broken = image[:200] + bytes(len(image) - 202) + image[-2:]
        frames.append(build_frame(payload.replace(image, broken)))
    shard.write_bytes(b"".join(frames))
    done = run(train_command(tmp_path / "run", tmp_path / "data"))
    assert done.returncode == 2, done.stdout
    named = re.search(rf"{re.escape(shard.name)}\D+([\d,]+)", done.stderr)
    assert named, done.stderr
    assert int(named[1].replace(",", "")) in set(index.offset[index.shard == 0].tolist())


@pytest.mark.slow
def test_two_workers_end_with_the_bits_of_one_process_and_one_goes_on_where_two_stopped(
    straight, data_dir, tmp_path
):
    launched = command("launch", "--workers", "2", "--")
    done = run([*launched, *train_command(tmp_path / "two", data_dir)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 devices of 2 workers: 2 rounds, 100% busy" in done.stdout
    assert "1 x CPU on this worker; 2 workers (TF_CONFIG), 2 devices in all" in done.stdout
    assert_same_run(tmp_path / "two", straight[0])

    process = start([*launched, *train_command(tmp_path / "stopped", data_dir)])
    wait_for_step(process, tmp_path / "stopped", 4)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=TIMEOUT_SECS)[0]
    assert process.returncode == 143, said
    done = run(train_command(tmp_path / "stopped", data_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(tmp_path / "stopped", straight[0])


def pid_of_worker(launcher, index):
    """Process number of one of the workers that a launcher has started."""
    children = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text()
    for pid in map(int, children.split()):
        environment = pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0")
        told = dict(text.split("=", 1) for text in environment if "=" in text)
        if json.loads(told["TF_CONFIG"])["task"]["index"] == index:
            return pid
    raise AssertionError(f"no worker {index} among {children}")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="workers are found in /proc")
def test_a_job_whose_worker_was_killed_starts_again_and_ends_with_the_bits_of_a_straight_run(
    straight, data_dir, tmp_path
):
    job = start([*command("launch", "--workers=2", "--"), *train_command(tmp_path, data_dir)])
    wait_for_step(job, tmp_path, 4)
    os.kill(pid_of_worker(job, 1), signal.SIGKILL)
    said = job.communicate(timeout=TIMEOUT_SECS)[0]
    assert job.returncode == 0, said
    assert "worker 1 failed first, with status 137" in said
    (again,) = re.findall("launch: .*", said)
    step = int(re.search(r"all start again in 1 s from the checkpoint of step (\d+)", again)[1])
    assert 4 <= step < NUM_STEPS and f"is at step {step} of {NUM_STEPS}" in said
    assert_same_run(tmp_path, straight[0])


@pytest.mark.slow
def test_the_proof_of_resume_finds_no_difference(data_dir):
    params = [text for text in TINY if text.split(".")[0] not in ("checkpoints", "evaluation")]
    params = [text for text in params if "num_" not in text]
    done = run(
        command(
            "prove_resume", "--gin_file=configs/digits.gin", f"--data_dir={data_dir}",
            "--num_steps=12", *[f"--gin_param={text}" for text in params],
        )  # fmt: skip
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 differ" in done.stdout and "the same bits" in done.stdout


@pytest.mark.slow
def test_profiled_steps_leave_a_trace_for_tensorboard(data_dir, tmp_path):
    done = run(train_command(tmp_path / "run", data_dir, "--profile_steps=3:5"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "run" / "tensorboard").rglob("*.xplane.pb"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_run_in_16_bits_trains_evaluates_and_exports(precision, data_dir, tmp_path):
    params = [f"model.precision = '{precision}'"]
    done = run(train_command(tmp_path / "run", data_dir, params=params))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [row for row in rows_of(tmp_path / "run") if row["kind"] == "train"]
    assert np.isfinite([row["train/loss_nats"] for row in rows]).all()
    assert ("train/loss_scale" in rows[0]) is (precision == "mixed_float16")


@pytest.mark.slow
def test_the_main_job_reaches_its_accuracy_on_digits(tmp_path):
    build_records(DigitsSource(), tmp_path / "digits")
    done = run(
        command(
            "train", "--gin_file=configs/digits.gin", f"--run_dir={tmp_path / 'run'}",
            f"--data_dir={tmp_path / 'digits'}",
        )  # fmt: skip
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows_of(tmp_path / "run")[-1]["eval_averaged/top1"] >= 0.985
