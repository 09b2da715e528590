"""Runs that count the images without the blacklist: real processes, by one worker and by two."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data.build import build_records
from inception_tf.data.sources import FolderSource
from inception_tf.reporting.metrics_file import read_rows
from tests.integration.small_imagenet import BLACKLISTED, NUM_VALIDATION
from tests.integration.test_road import command, run

CLASSES = [f"class_{letter}" for letter in "abcdefgh"]
SMALL_IMAGENET = [sys.executable, "-m", "tests.integration.small_imagenet"]
TINY = [
    "model.width_multiplier = 0.05",
    "model.block_counts = (1, 1, 1)",
    "training.num_epochs = None",
    "training.num_steps = 4",
    "training.replica_batch = 4",
    "evaluation.every_epochs = 0.8",  # 16 of 40 images a step: at step 2 and at the end
    "evaluation.replica_batch = 7",
    "checkpoints.every_steps = 2",
    "cluster.intra_op_threads = 1",
]

pytestmark = pytest.mark.slow


def name_of(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def train_flags(run_dir, data_dir, blacklist):
    return [
        "--gin_file=configs/digits.gin",
        f"--run_dir={run_dir}",
        f"--data_dir={data_dir}",
        *[f"--gin_param={text}" for text in TINY],
        f"--gin_param=evaluation.blacklist = {str(blacklist)!r}",
    ]


def evaluation_rows(directory):
    return [row for row in read_rows(directory) if row["kind"] == "eval"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Random images; those of the validation split under ImageNet's names."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    for split in ("train", "val"):
        for number in range(1, NUM_VALIDATION + 1):
            directory = folder / "images" / split / CLASSES[number % len(CLASSES)]
            directory.mkdir(parents=True, exist_ok=True)
            pixels = tf.constant(rng.integers(0, 256, size=(80, 80, 3)), tf.uint8)
            (directory / name_of(number)).write_bytes(tf.io.encode_jpeg(pixels).numpy())
    build_records(FolderSource(folder / "images"), folder / "records", processes=1)
    return folder / "records"


@pytest.fixture(scope="module")
def blacklist(tmp_path_factory):
    path = tmp_path_factory.mktemp("list") / "blacklist.txt"
    path.write_text("".join(f"{number}\n" for number in BLACKLISTED))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir, blacklist):
    """A run; (run directory, what it printed)."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    done = run([*SMALL_IMAGENET, "train", *train_flags(run_dir, data_dir, blacklist)])
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir, done.stdout


def test_training_and_a_watcher_have_the_same_rows(trained, data_dir):
    run_dir, said = trained
    rows = evaluation_rows(run_dir)
    assert [row["step"] for row in rows] == [2, 4]
    for prefix in ("eval", "eval_averaged"):
        for metric in ("top1", "top5", "loss_nats"):
            assert all(f"{prefix}/{metric}_without_blacklist" in row for row in rows)
    assert "(without the blacklist top-1" in said
    assert "averaged, without the blacklist      34" in said
    done = run([*SMALL_IMAGENET, "evaluate", run_dir, "--watch", f"--data_dir={data_dir}"])
    assert done.returncode == 0, done.stderr
    assert evaluation_rows(run_dir / "evaluations") == rows
    assert done.stdout.count("(without the blacklist top-1") == 4


def test_the_rows_are_the_figures_of_the_images_that_a_list_names(trained, data_dir, tmp_path):
    run_dir, _ = trained
    staying = tmp_path / "staying.txt"
    names = [name_of(n) for n in range(1, NUM_VALIDATION + 1) if n not in BLACKLISTED]
    staying.write_text("\n".join(names))
    done = run(
        [
            *SMALL_IMAGENET, "evaluate", run_dir, f"--data_dir={data_dir}", f"--out={tmp_path}",
            f"--subsets=all,without_blacklist,{staying}",
        ]
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.json")
    row = evaluation_rows(run_dir)[-1]
    for model, prefix in zip(json.loads(path.read_text())["models"], ("eval_averaged", "eval")):
        everything, official, listed = model["subsets"]
        assert {**official, "subset": "", "path": ""} == {**listed, "subset": "", "path": ""}
        for found, suffix in ((everything, ""), (listed, "_without_blacklist")):
            for metric in ("top1", "top5"):
                share = row[f"{prefix}/{metric}{suffix}"]
                assert found[metric]["count"] / found["num_examples"] == share
            loss_nats = row[f"{prefix}/loss_nats{suffix}"]
            assert found["loss_nats"] == pytest.approx(loss_nats, rel=1e-5)


def test_two_workers_have_the_rows_of_one(trained, data_dir, blacklist, tmp_path):
    train = [*SMALL_IMAGENET, "train", *train_flags(tmp_path / "run", data_dir, blacklist)]
    done = run(command("launch", "--workers=2", "--", *train))
    assert done.returncode == 0, done.stdout + done.stderr
    assert evaluation_rows(tmp_path / "run") == evaluation_rows(trained[0])


@pytest.mark.parametrize("flag", [[], ["--dry_run"]])
def test_neither_a_run_nor_a_dry_run_of_it_starts_on_other_records(data_dir, tmp_path, flag):
    official = tmp_path / "official.txt"
    official.write_text("".join(f"{number}\n" for number in range(1, 1763)))
    done = run(command("train", *flag, *train_flags(tmp_path / "run", data_dir, official)))
    assert done.returncode == 2
    said = " ".join((done.stdout + done.stderr).split())
    assert "evaluation.blacklist is about ImageNet's 50,000 validation images" in said
    assert "40 records in split validation" in said
    assert "step 1/4" not in said
    assert not (tmp_path / "run").exists()
