"""tools/bench_step.py and tools/bench_infer.py: turns, figures, missing peers, and the commands."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.test_docs import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tools"))
import bench_infer  # noqa: E402
import bench_step  # noqa: E402
import machine_facts  # noqa: E402
import peer_bench  # noqa: E402
import peer_processes  # noqa: E402

sys.path.pop(0)

CASE = peer_processes.Case(
    task="train", network="inception_v3", precision="float32", batch=6, threads=2
)
TINY = (
    "--networks=inception_resnet_v1", "--precision=float32", "--image_px=75", "--num_classes=10",
    "--width_multiplier=0.1", "--rounds=1", "--warmup=1", "--calls=1",
)  # fmt: skip


class FakePeer:
    """Answers as a PeerProcess, and writes down that it was asked; fails in turn `fails_in`."""

    def __init__(self, name, asked, *, fails_in=None):
        self.name = name
        self._asked = asked
        self._fails_in = fails_in
        self._turn = 0

    def call(self, count):
        self._turn += 1
        self._asked.append(self.name)
        if self._turn == self._fails_in:
            raise peer_processes.PeerError("no memory")
        return {"secs": float(self._turn * count), "peak_mb": 100.0 + self._turn}


def test_peers_take_turns_and_warm_ones_do_not_count():
    asked = []
    peers = {name: FakePeer(name, asked) for name in "ab"}
    secs, peaks = peer_processes.alternate(peers, rounds=2, warmup=1, calls=3, failed={})
    assert asked == ["a", "b"] * 3
    assert secs == {"a": [6.0, 9.0], "b": [6.0, 9.0]}
    assert peaks == {"a": 103.0, "b": 103.0}


def test_a_peer_that_fails_leaves_no_figures_and_stops_nobody():
    asked, failed = [], {}
    peers = {"a": FakePeer("a", asked), "b": FakePeer("b", asked, fails_in=2)}
    secs, peaks = peer_processes.alternate(peers, rounds=3, warmup=0, calls=1, failed=failed)
    assert asked == ["a", "b", "a", "b", "a"]
    assert secs == {"a": [1.0, 2.0, 3.0]} and set(peaks) == {"a"}
    assert failed == {"b": "no memory"}


def test_ratios_are_medians_over_neighbours_in_time():
    # The machine halves its speed in the second round and stops for a while in the third.
    secs = {"ours": [2.0, 4.0, 2.0], "stock_keras": [3.0, 6.0, 90.0], "torch": [1.0, 2.0, 1.0]}
    figures = peer_bench.figures_of(
        CASE,
        secs,
        peaks={"ours": 10.4, "stock_keras": 20.0, "torch": 30.0},
        built={name: {"description": name, "first_secs": 5.0} for name in secs},
    )
    assert figures["ours_images_per_sec"] == 3.0
    assert figures["torch_images_per_sec"] == 6.0
    assert figures["ratio_to_stock_keras"] == 1.5
    assert figures["ratio_to_torch"] == figures["ratio_to_best_peer"] == 0.5
    assert figures["best_peer"] == "torch"
    assert figures["ours_peak_mb"] == 10
    text = peer_bench.table(figures, peer_processes.PEERS)
    assert [line.split()[0] for line in text.splitlines()[2:]] == list(secs)


@pytest.mark.parametrize("command", [bench_step, bench_infer])
def test_a_peer_that_is_not_installed_is_named_before_anything_is_timed(
    command, monkeypatch, capsys
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "timm" else find_spec(name)
    )
    monkeypatch.setattr(peer_bench, "measure", lambda *_: pytest.fail("it is timed"))
    assert command.main(["--without=torch_compile"]) == 1
    told = capsys.readouterr().err
    assert "Missing peer torch: not installed:" in told and "timm" in told
    assert "--without=torch leaves it out" in told
    assert "torch_compile" not in told


def test_the_processor_and_what_it_can_are_read_from_linux(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 amx_bf16 avx512f\n\n"
        "processor\t: 1\nmodel name\t: Another\nflags\t\t: fpu\n"
    )
    facts = machine_facts.machine_facts(cpuinfo)
    assert facts["processor"] == "Some CPU @ 2 GHz"
    assert facts["instruction_sets"] == ["avx2", "avx512f", "amx_bf16"]
    assert facts["tensorflow"].startswith("2.")
    assert machine_facts.machine_facts(tmp_path / "none")["instruction_sets"] == []


def run_tool(name, *flags, **environment):
    """(status, what it says in its last line, its messages)."""
    done = subprocess.run(
        [sys.executable, f"tools/{name}.py", *TINY, *flags], cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def check_figures(found, prefix, peers):
    """Every figure of every peer is there, and the ratios are those of the rates."""
    rates = {name: found[f"{prefix}_{name}_images_per_sec"] for name in peers}
    assert min(rates.values()) > 0
    for name in peers:
        assert found[f"{prefix}_{name}_peak_mb"] > 100
        assert found[f"{prefix}_{name}_first_secs"] > 0
        assert "inception_resnet_v1" in found[f"{prefix}_{name}_network"]
    # One round: a ratio is that of the two rates.
    for name in peers[1:]:
        expected = rates["ours"] / rates[name]
        assert found[f"{prefix}_ratio_to_{name}"] == pytest.approx(expected, rel=0.02)
    best = found[f"{prefix}_best_peer"]
    assert rates[best] == max(rates[name] for name in peers if not name.startswith("ours"))
    assert found[f"{prefix}_ratio_to_best_peer"] == found[f"{prefix}_ratio_to_{best}"]
    for fact in ("processor", "instruction_sets", "tensorflow", "keras", "torch", "timm"):
        assert fact in found


def torch_peers():
    """Flags for what is installed here, and the peers that are left."""
    absent = peer_bench.absent_packages(peer_processes.PEERS)
    present = [name for name in peer_processes.PEERS if name not in absent]
    return [f"--without={name}" for name in absent], present


@pytest.mark.slow
def test_the_training_benchmark_gives_every_figure():
    flags, peers = torch_peers()
    peers = [name for name in peers if name != "torch_compile"]
    status, found, messages = run_tool(
        "bench_step", *flags, "--without=torch_compile", "--replica_batch=2"
    )
    assert status == 0, messages
    check_figures(found, "inception_resnet_v1_float32", peers)
    assert found["peers"] == peers and found["missing"] == {}


@pytest.mark.slow
def test_a_peer_that_does_not_compile_is_named_and_the_others_have_their_figures():
    flags, peers = torch_peers()
    if "torch_compile" not in peers:
        pytest.skip("needs torch and timm")
    status, found, messages = run_tool("bench_infer", *flags, "--batch=1", CXX="/no/compiler")
    assert status == 1
    assert "Missing peer torch_compile" in messages
    assert "--without=torch_compile leaves it out" in messages
    (reason,) = found["missing"].values()
    assert "its process ended with status 1" in reason
    peers = [name for name in peers if name not in ("torch_compile", "ours_recompute")]
    check_figures(found, "inception_resnet_v1_float32_batch1", peers)
    assert not any("torch_compile" in name for name in found)
