"""Checkpoints: exact bits back, damage of every file seen, and no moment of a kill that harms."""

import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from inception_tf import durable
from inception_tf.errors import CheckpointError, ConfigError
from inception_tf.training import checkpoint_files
from inception_tf.training.checkpoint import (
    CheckpointNotWritten,
    CheckpointSpec,
    CheckpointStore,
    steps_to_keep,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ("variables.index", "variables.data-00000-of-00001", "manifest.json")


def make_values(step, *, size=64):
    rng = np.random.default_rng(step)
    return {
        "step": np.int64(step),
        "model/Conv2d_1a_3x3/kernel": rng.standard_normal((3, 3, size), np.float32),
        "rms/Conv2d_1a_3x3/kernel": rng.random((3, 3, size), np.float32),
    }


@pytest.fixture
def store(tmp_path):
    return CheckpointStore.of_run(tmp_path / "run")


@pytest.fixture
def saved(store):
    """A store with steps 10 and 20."""
    for step in (10, 20):
        store.save(step=step, values=make_values(step), facts={"epoch": step / 10})
    return store


def flip_bit(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(content)


def assert_falls_back(store, reason_part):
    """The newest verified is step 10 with its own bits, and step 20's defect is told."""
    info, skipped = store.newest_verified()
    assert info.step == 10
    [(path, reason)] = skipped
    assert path.name == "step-000000020"
    assert reason_part in reason
    for name, value in make_values(10).items():
        assert store.read(info)[name].tobytes() == value.tobytes()


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


# Round trip


def test_every_dtype_comes_back_with_its_bits(store):
    values = {
        "float32": np.array([1 / 3, -0.0, np.nan, np.inf, 1e-45], np.float32),
        "negative_nan": np.array([0xFFC00001], np.uint32).view(np.float32),
        "float64_scalar": np.float64(1 / 3),
        "float16": np.array([6e-8, 65504], np.float16),
        "bfloat16": np.array([1.5, -0.0, np.nan], ml_dtypes.bfloat16),
        "int64_scalar": np.int64(-(2**63)),
        "uint32": np.array([0, 2**32 - 1], np.uint32),
        "uint64": np.array([2**64 - 1], np.uint64),
        "bool": np.array([[True], [False]]),
        "no_values": np.zeros((0, 7), np.float32),
        "tensor": tf.constant([[1.0, 2.0]]),
        "variable": tf.Variable([3, 4], dtype=tf.int32),
    }
    store.save(step=0, values=values, facts={})
    info, skipped = store.newest_verified()
    assert skipped == []
    read = store.read(info)
    assert read.keys() == values.keys()
    for name, value in values.items():
        expected = np.asarray(value)
        assert read[name].dtype == expected.dtype, name
        assert read[name].shape == expected.shape, name
        assert read[name].tobytes() == expected.tobytes(), name
    store.check_matches(info, {n: (np.shape(v), v.dtype) for n, v in values.items()})


def test_tensorflow_reads_the_bundle_by_name(saved):
    reader = tf.train.load_checkpoint(str(saved.directory / "step-000000020" / "variables"))
    name = "model/Conv2d_1a_3x3/kernel"
    np.testing.assert_array_equal(reader.get_tensor(name), make_values(20)[name])


def test_facts_shapes_and_dtypes_are_told_without_reading_variables(saved):
    first, second = saved.checkpoints()
    assert (first.step, second.step) == (10, 20)
    assert second.facts == {"epoch": 2.0}
    assert second.variables["step"] == ((), "int64")
    assert second.variables["model/Conv2d_1a_3x3/kernel"] == ((3, 3, 64), "float32")
    assert second.defect is None


def test_equal_content_gives_equal_files(tmp_path):
    contents = []
    for run in ("a", "b"):
        values = make_values(5)
        if run == "b":
            values = dict(reversed(values.items()))
        path = CheckpointStore(tmp_path / run).save(step=5, values=values, facts={"x": 1, "y": 2})
        contents.append({name: (path / name).read_bytes() for name in FILES})
    assert contents[0] == contents[1]


# Damage of every file


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_falls_back_to_the_previous(saved, file):
    (saved.directory / "step-000000020" / file).unlink()
    assert_falls_back(saved, f"{file}: missing")


@pytest.mark.parametrize("file", FILES)
def test_an_empty_file_falls_back_to_the_previous(saved, file):
    (saved.directory / "step-000000020" / file).write_bytes(b"")
    assert_falls_back(saved, f"{file}: empty")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("file", FILES)
def test_a_truncated_file_falls_back_to_the_previous(saved, file, share):
    path = saved.directory / "step-000000020" / file
    size = path.stat().st_size
    left = max(1, int(size * share))
    os.truncate(path, left)
    expected = f"truncated to {left:,} of {size:,} bytes"
    assert_falls_back(saved, "truncated or altered" if file == "manifest.json" else expected)


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_grew_falls_back_to_the_previous(saved, file):
    with open(saved.directory / "step-000000020" / file, "ab") as opened:
        opened.write(b" ")
    assert_falls_back(saved, "altered" if file == "manifest.json" else "bytes long instead of")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("file", FILES)
def test_one_flipped_bit_falls_back_to_the_previous(saved, file, share):
    path = saved.directory / "step-000000020" / file
    flip_bit(path, round(share * (8 * path.stat().st_size - 1)))
    assert_falls_back(saved, f"{file}: ")


def test_no_bit_of_the_manifest_can_flip_unseen(saved):
    info = saved.checkpoints()[-1]
    path = info.path / "manifest.json"
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            checkpoint_files.read_manifest(info.path)
    path.write_bytes(content)
    saved.verify(info)


def test_the_last_resort_is_none_with_every_reason(saved):
    for path in saved.directory.iterdir():
        (path / "variables.index").unlink()
    info, skipped = saved.newest_verified()
    assert info is None
    assert [path.name for path, _ in skipped] == ["step-000000020", "step-000000010"]
    assert saved.holds_checkpoints()


def test_a_swapped_bundle_is_refused_by_read_too(saved):
    """Whole files of another checkpoint carry right tensor checksums, but not the right names."""
    path = saved.directory / "step-000000020"
    other = CheckpointStore(saved.directory / "other").save(step=20, values={"x": 1}, facts={})
    for file in FILES[:2]:
        shutil.copy(other / file, path / file)
    with pytest.raises(CheckpointError, match="other variables than its manifest"):
        saved.read(saved.checkpoints()[-1])


def test_damage_while_reading_is_a_checkpoint_error(saved):
    info = saved.checkpoints()[-1]
    for file in FILES[:2]:
        content = (info.path / file).read_bytes()
        for damaged in (b"", content[: len(content) // 2], bytes(len(content))):
            (info.path / file).write_bytes(damaged)
            with pytest.raises(CheckpointError, match="variables"):
                saved.read(info)
        (info.path / file).write_bytes(content)
    saved.read(info)


def test_a_checkpoint_renamed_to_another_step_is_refused(saved):
    (saved.directory / "step-000000020").rename(saved.directory / "step-000000030")
    info, skipped = saved.newest_verified()
    assert info.step == 10
    assert "of step 20" in skipped[0][1]


def test_another_format_version_is_refused_by_its_number(saved):
    path = saved.directory / "step-000000020"
    manifest = checkpoint_files.read_manifest(path)
    del manifest["manifest_crc32c"]
    manifest["format_version"] = 99
    (path / "manifest.json").write_bytes(checkpoint_files.seal_manifest(manifest))
    assert_falls_back(saved, "version 99")


# Half-written saves


def test_planted_remains_of_a_save_are_ignored_and_then_cleaned(saved):
    half = saved.directory / ".saving-0123abcd-step-000000030"
    shutil.copytree(saved.directory / "step-000000020", half)
    gone = saved.directory / ".removing-0123abcd-step-000000005"
    gone.mkdir()
    info, skipped = saved.newest_verified()
    assert (info.step, skipped) == (20, [])
    saved.save(step=30, values=make_values(30), facts={})
    assert names_in(saved.directory) == [f"step-0000000{step}" for step in (10, 20, 30)]


def test_a_final_directory_without_manifest_is_passed_over_and_replaced(saved):
    half = saved.directory / "step-000000030"
    half.mkdir()
    (half / "variables.index").write_bytes(b"half")
    info, [(path, reason)] = saved.newest_verified()
    assert info.step == 20
    assert path == half
    assert "manifest.json: missing" in reason
    saved.save(step=30, values=make_values(30), facts={})
    assert saved.newest_verified()[0].step == 30


SAVE_FOR_EVER = """
import itertools, sys
import numpy as np
from inception_tf.training.checkpoint import CheckpointSpec, CheckpointStore
store = CheckpointStore(sys.argv[1])
print("ready", flush=True)
for step in itertools.count(store.checkpoints()[-1].step + 1 if store.checkpoints() else 1):
    values = {"step": np.int64(step), "model/w": np.full(300_000, step, np.float32)}
    store.save(step=step, values=values, facts={})
    store.save(step=step, values=values, facts={"again": True})
    print(step, flush=True)
    store.prune(CheckpointSpec(keep_last=2), best_step=None, steps_per_epoch=1.0)
"""


@pytest.mark.slow
def test_sigkill_while_saving_never_costs_a_completed_checkpoint(store, tmp_path):
    draw = random.Random(0)
    for _ in range(3):
        with open(tmp_path / "log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SAVE_FOR_EVER, store.directory],
                stdout=log,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(ROOT)},
            )
        try:
            deadline = time.monotonic() + 60
            while len((tmp_path / "log").read_text().split()) < 3:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.1))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        completed = int((tmp_path / "log").read_text().split()[-1])
        info, skipped = store.newest_verified()
        assert skipped == []
        assert info.step in (completed, completed + 1)
        values = store.read(info)
        assert values["step"] == info.step
        assert (values["model/w"] == info.step).all()


# The same step again, and other variables


def test_the_same_step_with_the_same_bytes_is_left_untouched(saved):
    path = saved.directory / "step-000000020"
    inode = path.stat().st_ino
    saved.save(step=20, values=make_values(20), facts={"epoch": 2.0})
    assert path.stat().st_ino == inode
    assert names_in(saved.directory) == ["step-000000010", "step-000000020"]


def test_the_same_step_with_other_values_is_replaced(saved):
    saved.save(step=20, values=make_values(21), facts={"epoch": 2.0})
    info, _ = saved.newest_verified()
    assert saved.read(info)["step"] == 21
    assert names_in(saved.directory) == ["step-000000010", "step-000000020"]


def test_the_same_step_is_replaced_where_it_is_damaged(saved):
    flip_bit(saved.directory / "step-000000020" / FILES[1], 99)
    saved.save(step=20, values=make_values(20), facts={"epoch": 2.0})
    assert saved.newest_verified()[0].step == 20


def test_the_same_step_with_other_names_is_refused_and_kept(saved):
    with pytest.raises(CheckpointError, match="1 missing: other") as caught:
        saved.save(step=20, values={"other": 1}, facts={})
    assert "model/Conv2d_1a_3x3/kernel" in str(caught.value)
    saved.verify(saved.checkpoints()[-1])
    assert names_in(saved.directory) == ["step-000000010", "step-000000020"]


def test_a_replacement_killed_between_its_renames_keeps_the_old(saved):
    """Also where it is the only checkpoint: the run must not start at 0."""
    shutil.rmtree(saved.directory / "step-000000010")
    hidden = saved.directory / ".replaced-0123abcd-step-000000020"
    (saved.directory / "step-000000020").rename(hidden)
    assert saved.holds_checkpoints()
    info, skipped = saved.newest_verified()
    assert (info.step, info.path, skipped) == (20, hidden, [])
    assert saved.read(info)["step"] == 20
    saved.save(step=30, values=make_values(30), facts={})
    assert names_in(saved.directory) == ["step-000000020", "step-000000030"]


def test_a_finished_replacement_hides_the_old(saved):
    old = saved.directory / ".replaced-0123abcd-step-000000020"
    shutil.copytree(saved.directory / "step-000000010", old)
    assert saved.newest_verified()[0].path.name == "step-000000020"
    saved.save(step=30, values=make_values(30), facts={})
    assert not old.exists()


def test_differing_variables_are_named(saved):
    info = saved.checkpoints()[-1]
    expected = {name: (value.shape, value.dtype) for name, value in make_values(20).items()}
    saved.check_matches(info, expected)
    expected["model/Conv2d_1a_3x3/kernel"] = ((3, 3, 32), tf.float32)
    expected["step"] = ((), "int32")
    del expected["rms/Conv2d_1a_3x3/kernel"]
    expected |= {f"average/{number:02d}": ((), "float32") for number in range(12)}
    with pytest.raises(CheckpointError) as caught:
        saved.check_matches(info, expected)
    message = str(caught.value)
    assert "12 missing: average/00, average/01" in message
    assert "average/09, ..." in message
    assert "average/10" not in message
    assert "1 unexpected: rms/Conv2d_1a_3x3/kernel" in message
    assert "kernel float32 [3, 3, 64] instead of float32 [3, 3, 32]" in message
    assert "step int64 [] instead of int32 []" in message


# Directories that hold something


def test_a_fresh_directory_holds_no_checkpoint(store):
    assert not store.holds_checkpoints()
    assert store.checkpoints() == []
    assert store.newest_verified() == (None, [])
    store.directory.mkdir(parents=True)
    (store.directory / "notes.txt").write_text("")
    (store.directory / ".saving-0123abcd-step-000000030").mkdir()
    assert not store.holds_checkpoints()


@pytest.mark.parametrize(
    "name", ["step-000000010", "step-10", "step-000000010.bak", "ckpt-1.index"]
)
def test_what_looks_like_a_checkpoint_forbids_a_start_at_0(store, name):
    store.directory.mkdir(parents=True)
    (store.directory / name).write_text("")
    assert store.holds_checkpoints()
    info, skipped = store.newest_verified()
    assert info is None
    assert [path.name for path, _ in skipped] == ([name] if name.startswith("step") else [])


# Full disks


def test_too_little_room_is_seen_before_writing(saved, monkeypatch):
    full = shutil.disk_usage(saved.directory)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(CheckpointNotWritten, match="5,000 bytes free.*Make room"):
        saved.save(step=30, values=make_values(30), facts={})
    assert names_in(saved.directory) == ["step-000000010", "step-000000020"]
    assert saved.newest_verified()[0].step == 20


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "No space left on device"),
    ],
)
@pytest.mark.parametrize("place", ["crc32c_of_file", "flush_to_disk"])
def test_a_failing_disk_leaves_nothing_of_the_attempt(saved, monkeypatch, error, place):
    def fail(path):
        raise error

    monkeypatch.setattr(durable, place, fail)
    with pytest.raises(CheckpointNotWritten, match="No space left"):
        saved.save(step=30, values=make_values(30), facts={})
    monkeypatch.undo()
    assert names_in(saved.directory) == ["step-000000010", "step-000000020"]
    assert saved.newest_verified()[0].step == 20


def test_a_disk_that_is_really_full_leaves_older_ones_intact(tmp_path, monkeypatch):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        store = CheckpointStore.of_run(tmp_path)
        store.save(step=10, values=make_values(10), facts={})
        room = shutil.disk_usage(tmp_path)._replace(free=2**40)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: room)
            with pytest.raises(CheckpointNotWritten):
                store.save(step=20, values=make_values(20, size=20_000), facts={})
        assert names_in(store.directory) == ["step-000000010"]
        assert store.newest_verified()[0].step == 10
        store.save(step=20, values=make_values(20), facts={})
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_facts_that_are_not_json_leave_nothing_behind(saved):
    with pytest.raises(TypeError):
        saved.save(step=30, values=make_values(30), facts={"epoch": object()})
    assert names_in(saved.directory) == ["step-000000010", "step-000000020"]


# What is kept


def test_the_last_ones_the_best_and_one_per_interval_are_kept():
    steps = list(range(7, 300, 7))
    spec = CheckpointSpec(keep_last=2, keep_every_epochs=2.0)
    # Two epochs of 25 steps: the first at or after 50, 100, 150, 200, 250.
    expected = {56, 105, 154, 203, 252} | {287, 294} | {140}
    assert steps_to_keep(steps, spec=spec, best_step=140, steps_per_epoch=25.0) == expected
    without_best = CheckpointSpec(keep_last=1, keep_best=False)
    assert steps_to_keep(steps, spec=without_best, best_step=140, steps_per_epoch=25.0) == {294}


@pytest.mark.parametrize(
    "options",
    [
        {"every_steps": 0},
        {"every_minutes": -1.0},
        {"keep_last": -3},
        {"keep_last": 0},
        {"keep_every_epochs": -1.0},
    ],
)
def test_intervals_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match=f"checkpoints.{next(iter(options))} must be"):
        CheckpointSpec(**options)


def test_what_is_kept_for_its_epoch_stays_kept_as_the_run_goes_on():
    spec = CheckpointSpec(keep_last=1, keep_every_epochs=0.5)
    present = []
    for step in range(3, 200, 3):
        present.append(step)
        kept = steps_to_keep(present, spec=spec, best_step=None, steps_per_epoch=22.453125)
        present = [step for step in present if step in kept]
    milestones = [22.453125 * 0.5 * multiple for multiple in range(1, 18)]
    firsts = {min(s for s in range(3, 300, 3) if s >= milestone) for milestone in milestones}
    assert set(present) == {step for step in firsts if step < 200} | {198}


def test_one_checkpoint_may_serve_two_intervals():
    spec = CheckpointSpec(keep_last=1, keep_every_epochs=1.0)
    assert steps_to_keep([9, 25, 28, 31], spec=spec, best_step=None, steps_per_epoch=10.0) == {
        25,
        31,
    }


def test_prune_removes_the_rest(store):
    for step in range(10, 60, 10):
        store.save(step=step, values=make_values(step), facts={})
    removed = store.prune(CheckpointSpec(keep_last=2), best_step=20, steps_per_epoch=1e9)
    assert [path.name for path in removed] == ["step-000000010", "step-000000030"]
    assert names_in(store.directory) == [f"step-0000000{step}" for step in (20, 40, 50)]


def test_prune_never_removes_the_newest_verified(store):
    for step in range(10, 60, 10):
        store.save(step=step, values=make_values(step), facts={})
    for step in (40, 50):
        flip_bit(store.directory / f"step-0000000{step}" / FILES[1], 12)
    removed = store.prune(CheckpointSpec(keep_last=1), best_step=None, steps_per_epoch=1e9)
    assert [path.name for path in removed] == ["step-000000010", "step-000000020"]
    assert store.newest_verified()[0].step == 30


def test_a_checkpoint_with_a_cut_file_does_not_count_as_kept(store):
    for step in range(10, 60, 10):
        store.save(step=step, values=make_values(step), facts={})
    os.truncate(store.directory / "step-000000040" / FILES[1], 100)
    store.prune(CheckpointSpec(keep_last=2), best_step=None, steps_per_epoch=1e9)
    assert names_in(store.directory) == ["step-000000030", "step-000000050"]


def test_prune_removes_nothing_where_nothing_verifies(saved):
    for path in saved.directory.iterdir():
        flip_bit(path / FILES[1], 12)
    assert saved.prune(CheckpointSpec(keep_last=1), best_step=None, steps_per_epoch=1.0) == []
    assert names_in(saved.directory) == ["step-000000010", "step-000000020"]


def test_a_killed_removal_leaves_no_half_checkpoint(saved, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        saved.prune(CheckpointSpec(keep_last=1), best_step=None, steps_per_epoch=1.0)
    assert [info.step for info in saved.checkpoints()] == [20]
    assert saved.newest_verified()[1] == []


def test_the_manifest_is_plain_json(saved):
    manifest = json.loads((saved.directory / "step-000000020" / "manifest.json").read_text())
    assert manifest["step"] == 20
    assert manifest["files"].keys() == set(FILES[:2])
    assert manifest["variables"]["step"] == {"shape": [], "dtype": "int64"}
