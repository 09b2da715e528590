"""The claims that come with the package, and the door that tries them."""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from inception_tf import claim_runs, config, reproduce
from inception_tf.claims import results
from inception_tf.errors import EXIT_USER_ERROR
from inception_tf.models.catalog import build_model
from inception_tf.models.counting import count_multiply_adds
from inception_tf.reporting.metrics_file import read_rows
from tests.data import prepared
from tests.test_claim_data import write_archive

ROOT = pathlib.Path(__file__).resolve().parents[1]
CLAIMS = sorted((config.config_folder() / "claims").glob("*.gin"))
TINY = """
claim.number = 42
claim.title = 'two lengths'
claim.criterion = 'the longer run is not worse'
claim.arms = {
    'short': ('tiny.gin', 'training.num_steps = 2'),
    'long': ('tiny.gin', 'training.num_steps = 4'),
}
claim.equal_cost = (('short', 'long'),)
claim.checks = ('final_error[long] <= final_error[short] + 0.9',)
claim.probe = 'zeros'
claim.curves = ('averaged_error', 'zeros')
"""
TINY_RUN = """
include 'claims/parts/irv1.gin'
model.block_counts = (0, 0, 1)
training.replica_batch = 4
training.num_epochs = None
checkpoints.every_steps = 1
checkpoints.keep_last = 4
logging.every_steps = 1
"""


@functools.cache
def cost_of(model_spec):
    return count_multiply_adds(build_model(model_spec, num_classes=10))


def spec_of(path):
    return config.resolve(gin_files=[path], reads=("claim",)).sections["claim"]


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
def test_every_claim_can_be_planned_and_compares_what_it_says(path, tmp_path):
    spec = spec_of(path)
    assert path.stem.startswith(f"{spec.number}_")
    assert spec.checks and spec.criterion and spec.source and spec.statement
    assert len(spec.seeds) >= 3
    costs, places = {}, set()
    for arm in spec.parsed_arms():
        run = claim_runs.plan(arm, 0, runs_dir=tmp_path)
        places.add(run.run_dir)
        assert run.resolved.sections["training"].seed == 0
        assert run.resolved.sections["export"].formats == ()
        assert spec.unequal_cost or any(arm.name in group for group in spec.equal_cost)
        costs[arm.name] = cost_of(run.resolved.sections["model"])
    assert len(places) == len(spec.arms)  # no two arms are the same run
    lines = results.check_costs(spec, costs)
    assert len(lines) == len(spec.equal_cost) + bool(spec.unequal_cost)


def test_claims_share_runs_and_no_other_seed_or_interval(tmp_path):
    arms = {
        number: spec_of(next(p for p in CLAIMS if p.stem.startswith(f"{number}_"))).parsed_arms()
        for number in (1, 3, 6, 8)
    }
    shared = [arms[1][1], arms[3][0], arms[6][1], arms[8][0]]
    places = {claim_runs.plan(arm, 0, runs_dir=tmp_path).run_dir for arm in shared}
    assert len(places) == 1
    others = [
        claim_runs.plan(shared[0], 1, runs_dir=tmp_path),
        claim_runs.plan(shared[0], 0, runs_dir=tmp_path,
                        extra_params=["evaluation.every_epochs = 0.4"]),
    ]  # fmt: skip
    assert len(places | {run.run_dir for run in others}) == 3
    threads = claim_runs.plan(
        shared[0], 0, runs_dir=tmp_path, extra_params=["cluster.intra_op_threads = 1"]
    )
    assert threads.run_dir in places  # a property of the machine


def test_an_unknown_claim_is_named_with_those_that_there_are(capsys):
    assert reproduce.main(["first"]) == EXIT_USER_ERROR
    assert "1_residual_speed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_reproduction_goes_on_and_runs_nothing_twice(tmp_path):
    write_archive(tmp_path / "cifar10.tar.gz", num_train=8)
    (tmp_path / "claim.gin").write_text(TINY.replace("tiny.gin", str(tmp_path / "tiny.gin")))
    (tmp_path / "tiny.gin").write_text(TINY_RUN)
    command = [
        sys.executable, "-m", "inception_tf.reproduce", str(tmp_path / "claim.gin"), "--threads=1",
        f"--data_dir={tmp_path}", f"--out={tmp_path / 'out'}",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def outcomes():
        return {
            path: path.stat().st_mtime_ns
            for path in (tmp_path / "out").glob(f"runs/*/{claim_runs.OUTCOME_FILE}")
        }

    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        deadline = time.monotonic() + 300
        while not outcomes() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    before = outcomes()
    assert len(before) == 1
    subprocess.run(command, env=environment, check=True)
    after = outcomes()
    assert len(after) == 6 and before.items() <= after.items()
    content = json.loads((tmp_path / "out" / "claim_42.json").read_text())
    assert content["holds"] is True
    for arm, steps in zip(content["arms"], (2, 4), strict=True):
        assert [run["seed"] for run in arm["runs"]] == [0, 1, 2]
        zeros = arm["runs"][0]["curves"]["zeros"]
        assert [round(epoch * 4) for epoch, _ in zeros] == list(range(1, steps + 1))
        assert all(0 <= share <= 1 for _, share in zeros)
    assert (tmp_path / "out" / "claim_42.png").exists()
    assert not list((tmp_path / "out").glob("runs/*/export"))
    assert "the claim: holds" in (tmp_path / "out" / "claim_42.txt").read_text()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "claims").glob("claim_*.json")), ids=lambda path: path.stem
)
def test_the_results_say_what_came_out(path, tmp_path):
    content = results.read(path)
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    page = page.partition("## The papers' claims, tried small")[2]
    assert results.markdown_of(content) in page
    assert (ROOT / "docs" / "images" / "claims" / f"{path.stem}.png").exists()
    number = content["number"]
    spec = spec_of(next(p for p in CLAIMS if p.stem.startswith(f"{number}_")))
    # The criterion and the arms are still those that were tried.
    assert content["checks"] and [c["text"] for c in content["checks"]] == list(spec.checks)
    assert [arm["name"] for arm in content["arms"]] == list(spec.arms)
    for arm, told in zip(spec.parsed_arms(), content["arms"], strict=True):
        for run in told["runs"]:
            assert run["mark"] == claim_runs.plan(arm, run["seed"], runs_dir=tmp_path).mark
    assert content["criterion"] == spec.criterion
    held = [check["held"] for check in content["checks"]]
    assert content["holds"] is all(held)
    row = next(line for line in page.splitlines() if line.startswith(f"| {number} "))
    assert row.endswith(f"| {results.VERDICTS[content['holds']]} |")


@pytest.mark.slow
def test_records_that_tensorflow_datasets_prepared_are_trained_and_evaluated_on(tmp_path):
    prepared.write_cifar_batches(tmp_path / "source")
    prepared.prepare_cifar(tmp_path / "tfds", tmp_path / "source")
    (tmp_path / "tiny.gin").write_text(TINY_RUN)
    (tmp_path / "claim.gin").write_text(
        f"""claim.arms = {{
        'one': ('{tmp_path / "tiny.gin"}', 'training.num_steps = 2'),
        'two': ('{tmp_path / "tiny.gin"}', 'training.num_steps = 3'),
        }}
        claim.checks = ('final_error[one] <= 1',)
        """
    )
    command = [str(tmp_path / "claim.gin"), f"--data_dir={tmp_path / 'tfds'}"]
    command += [f"--out={tmp_path / 'out'}", "--seeds=0", "--threads=1"]
    assert reproduce.main(command) == 0
    content = json.loads((tmp_path / "out" / "claim_0.json").read_text())
    for arm in content["arms"]:
        (row,) = [
            row
            for row in read_rows(*(tmp_path / "out" / "runs").glob(f"*{arm['runs'][0]['mark']}*"))
            if row["kind"] == "eval"
        ][-1:]
        # All 4 images called test, each of which is a quarter.
        assert row["eval/top1"] in (0.0, 0.25, 0.5, 0.75, 1.0)
    # Runs that were made with one thread are not mixed with others, whose bits differ.
    assert reproduce.main([*command[:-1], "--threads=2"]) == EXIT_USER_ERROR


@pytest.mark.slow
def test_probes_of_distance_and_crops_on_runs(tmp_path):
    write_archive(tmp_path / "cifar10.tar.gz", num_train=8)
    (tmp_path / "tiny.gin").write_text(TINY_RUN)
    tiny = f"'{tmp_path / 'tiny.gin'}', 'training.num_replicas = 2', 'training.num_steps = 2'"
    arms = f"""claim.arms = {{
        'one device': ({tiny}),
        'two devices': ({tiny}, 'cluster.devices_per_worker = 2'),
        'twice the rate': ({tiny}, 'exponential_decay.learning_rate = 0.04'),
    }}
    """
    found = {}
    for probe in ("distance", "crops"):
        path = tmp_path / f"{probe}.gin"
        path.write_text(f"claim.number = 1\nclaim.probe = '{probe}'\n{arms}")
        command = [
            str(path), "--seeds=0", f"--data_dir={tmp_path}", f"--out={tmp_path / 'out'}",
        ]  # fmt: skip
        assert reproduce.main(command) == 0
        content = json.loads((tmp_path / "out" / "claim_1.json").read_text())
        found[probe] = {arm["name"]: arm["runs"][0]["measures"] for arm in content["arms"]}
    apart = {name: told["largest_distance"] for name, told in found["distance"].items()}
    assert apart["one device"] == apart["two devices"] == 0.0  # the exact reduction
    assert apart["twice the rate"] > 1e-6
    one, two = (found["crops"][name] for name in ("one device", "two devices"))
    first, second = (arm["runs"][0]["curves"] for arm in content["arms"][:2])
    assert first["crops"][0] == [1, one["error_at_1"]]
    assert first["ensemble_crops"][-1] == [144, one["ensemble_error_at_144"]]
    assert "ensemble_crops" not in second
    # The evaluator's own count is the single crop's; equal weights give equal answers.
    for told in (one, two):
        assert told["error_at_1"] == pytest.approx(told["final_error"])
        for crops in (10, 12, 144):
            assert told[f"gain_at_{crops}"] == pytest.approx(
                told["error_at_1"] - told[f"error_at_{crops}"]
            )
    assert one["ensemble_error"] == pytest.approx(one["error_at_1"])
    assert one["ensemble_gain"] == pytest.approx(0.0)
    assert "ensemble_error" not in two
