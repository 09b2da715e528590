"""`python -m inception_tf.checkpoints`: what each verb prints, writes and ends with."""

import builtins
import os
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import safetensors.numpy

import inception_tf
from inception_tf import checkpoints
from inception_tf.models.weights.identity import NetworkIdentity
from inception_tf.training.checkpoint import CheckpointStore

ROOT = pathlib.Path(__file__).resolve().parents[1]


def make_model():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(3, name="hidden")(inputs)
    hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    hidden = keras.layers.Dropout(0.5, seed=1, name="dropout")(hidden)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(hidden))


def make_values(step):
    """What a run of this model keeps; the average of 'logits/bias' is missing, as if frozen."""
    rng = np.random.default_rng(step)
    values = {"step": np.int64(step), "model/dropout/seed_generator_state": np.uint32([1, 2])}
    for weight in make_model().weights:
        for group in ("model", "rms", "momentum", "average"):
            values[f"{group}/{weight.path}"] = rng.random(weight.shape, np.float32)
    del values["average/logits/bias"]
    return values


@pytest.fixture
def run_dir(tmp_path):
    run_dir = tmp_path / "run"
    store = CheckpointStore.of_run(run_dir)
    for step in (50, 100, 150):
        facts = {"epoch": step / 22.5, "best_step": 100}
        store.save(step=step, values=make_values(step), facts=facts)
    return run_dir


@pytest.fixture(autouse=True)
def run_config_of_the_model(monkeypatch):
    """Stands for the road's builder of a run's model."""
    module = types.ModuleType("inception_tf.run_config")
    module.build_model_of_run = lambda run_dir: make_model()
    module.identity_of_run = lambda run_dir: NetworkIdentity(network="inception_v3")
    monkeypatch.setitem(sys.modules, "inception_tf.run_config", module)
    monkeypatch.setattr(inception_tf, "run_config", module, raising=False)


def damage(run_dir, step):
    path = run_dir / "checkpoints" / f"step-{step:09d}" / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


def run_door(*arguments):
    return checkpoints.main([str(argument) for argument in arguments])


# ls and verify


def test_ls_shows_step_epoch_and_the_best(run_dir, capsys):
    assert run_door("ls", run_dir) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["step", "epoch", "size", "written", "variables", "state"]
    assert [row.split()[:2] for row in rows] == [["50", "2.22"], ["100", "4.44"], ["150", "6.67"]]
    assert [row.endswith("best") for row in rows] == [False, True, False]
    assert str(len(make_values(50))) in rows[0].split()


def test_ls_verify_tells_which_is_damaged(run_dir, capsys):
    damage(run_dir, 100)
    assert run_door("ls", run_dir, "--verify") == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert "verified" in rows[0]
    assert "damaged" in rows[1] and "altered: checksum" in rows[1]
    assert "verified" in rows[2]


def test_ls_tells_of_a_cut_file_without_reading_all(run_dir, capsys):
    os.truncate(run_dir / "checkpoints/step-000000100/variables.data-00000-of-00001", 10)
    (run_dir / "checkpoints/step-000000050/manifest.json").unlink()
    assert run_door("ls", run_dir) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert "manifest.json: missing" in rows[0]
    assert "truncated to 10 of" in rows[1]


def test_verify_ends_with_0_when_all_are_whole(run_dir, capsys):
    assert run_door("verify", run_dir) == 0
    assert capsys.readouterr().out.count("whole, ") == 3


def test_verify_ends_with_2_when_one_is_damaged(run_dir, capsys):
    damage(run_dir, 100)
    assert run_door("verify", run_dir) == 2
    out = capsys.readouterr().out
    assert "step 100: DAMAGED" in out
    assert out.count("whole, ") == 2
    assert run_door("verify", run_dir, "--step", 150) == 0
    assert run_door("verify", run_dir, "--step", 100) == 2


def test_a_directory_without_checkpoints_is_refused(tmp_path, capsys):
    for arguments in (["ls"], ["verify"], ["convert", "--out", tmp_path / "w.safetensors"]):
        assert run_door(arguments[0], tmp_path, *arguments[1:]) == 2
        assert str(tmp_path) in capsys.readouterr().err


def test_a_step_that_is_not_there_is_refused_with_those_that_are(run_dir, capsys):
    assert run_door("verify", run_dir, "--step", 70) == 2
    assert "50, 100, 150" in capsys.readouterr().err


def test_the_module_runs_as_a_command(run_dir):
    damage(run_dir, 50)
    done = subprocess.run(
        [sys.executable, "-m", "inception_tf.checkpoints", "verify", run_dir],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "step 50: DAMAGED" in done.stdout
    assert "Traceback" not in done.stderr


# diff


def test_diff_of_a_checkpoint_with_itself_is_empty(run_dir, capsys):
    assert run_door("diff", run_dir, 50, 50) == 0
    assert "the same bits" in capsys.readouterr().out


def test_diff_gives_the_largest_distance_per_group(run_dir, tmp_path, capsys):
    values = make_values(150)
    values["rms/hidden/kernel"] = values["rms/hidden/kernel"] + np.float32(0.5)
    values["model/norm/gamma"] = values["model/norm/gamma"].copy()
    values["model/norm/gamma"][1] += 2.0
    other = tmp_path / "other"
    CheckpointStore.of_run(other).save(step=150, values=values, facts={})
    assert run_door("diff", run_dir, other) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["rms", "8", "1", "0.5"] in lines
    assert ["model", "9", "1", "2"] in lines
    assert ["momentum", "8", "0", "0"] in lines
    assert ["run", "1", "0", "0"] in lines
    farthest = lines[lines.index(["farthest", "apart:"]) + 1 :]
    assert farthest[:2] == [["2", "model/norm/gamma"], ["0.5", "rms/hidden/kernel"]]


def test_diff_names_what_is_only_in_one_and_other_shapes(run_dir, tmp_path, capsys):
    values = make_values(150)
    del values["momentum/hidden/bias"]
    values["momentum/hidden/offset"] = np.float32(0)
    values["rms/hidden/kernel"] = np.zeros((9, 3), np.float32)
    other = tmp_path / "other"
    CheckpointStore.of_run(other).save(step=150, values=values, facts={})
    assert run_door("diff", run_dir, other, "--step", 150) == 1
    out = capsys.readouterr().out
    assert "only in A (1):\n  momentum/hidden/bias" in out
    assert "only in B (1):\n  momentum/hidden/offset" in out
    assert "rms/hidden/kernel: float32 [4, 3], float32 [9, 3]" in out
    assert out.splitlines()[-1] == "different"


def test_compare_goes_by_bits():
    a = {"x": np.float32([np.nan, 1]), "zero": np.float32(0.0), "count": np.int64(2**53)}
    b = {"x": np.float32([np.nan, 1]), "zero": np.float32(-0.0), "count": np.int64(2**53 + 1)}
    found = {d.name: d for d in checkpoints.compare(a, b)}
    assert not found["x"].is_different
    assert found["zero"].is_different and found["zero"].max_abs == 0.0
    assert found["count"].is_different


def test_a_nan_in_one_is_listed_first(tmp_path, capsys):
    for run, far, value in (("a", 1.0, 1.0), ("b", 9.0, np.nan)):
        values = {"model/far": far, "model/nan": value}
        CheckpointStore.of_run(tmp_path / run).save(step=1, values=values, facts={})
    assert run_door("diff", tmp_path / "a", tmp_path / "b") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("farthest apart:") + 1].split() == ["nan", "model/nan"]
    assert ["model", "2", "2", "nan"] in [line.split() for line in lines]


def test_diff_of_something_else_is_refused(run_dir, capsys):
    for arguments in ([run_dir], [run_dir, "a", "b"], [run_dir, 1, 2, 3]):
        assert run_door("diff", *arguments) == 2
        assert "RUN STEP_A STEP_B" in capsys.readouterr().err


# convert


def expected_weights(step, kind):
    values = make_values(step)
    return {
        weight.path: values.get(f"average/{weight.path}", values[f"model/{weight.path}"])
        if kind == "averaged"
        else values[f"model/{weight.path}"]
        for weight in make_model().weights
    }


@pytest.mark.parametrize("kind", ["averaged", "raw"])
def test_keras_loads_the_converted_weights(run_dir, tmp_path, kind):
    out = tmp_path / "digits.weights.h5"
    assert run_door("convert", run_dir, "--out", out, "--weights", kind) == 0
    model = make_model()
    model.load_weights(out)
    for weight in model.weights:
        np.testing.assert_array_equal(weight.numpy(), expected_weights(150, kind)[weight.path])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.weights.h5", "run"]


@pytest.mark.parametrize("kind", ["averaged", "raw"])
def test_safetensors_holds_the_converted_weights_by_path(run_dir, tmp_path, kind):
    out = tmp_path / "digits.safetensors"
    assert run_door("convert", run_dir, "--out", out, "--weights", kind, "--step", 50) == 0
    found = safetensors.numpy.load_file(out)
    expected = expected_weights(50, kind)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value)


def test_the_default_is_averaged_of_the_newest_that_verifies(run_dir, tmp_path, capsys):
    damage(run_dir, 150)
    out = tmp_path / "w.safetensors"
    assert run_door("convert", run_dir, "--out", out) == 0
    found = safetensors.numpy.load_file(out)
    np.testing.assert_array_equal(
        found["hidden/kernel"], make_values(100)["average/hidden/kernel"]
    )
    captured = capsys.readouterr()
    assert "passed over step-000000150" in captured.err
    assert "averaged weights of step 100" in captured.out


def test_a_damaged_step_asked_for_by_number_is_refused(run_dir, tmp_path):
    damage(run_dir, 150)
    out = tmp_path / "w.safetensors"
    assert run_door("convert", run_dir, "--out", out, "--step", 150) == 2
    assert not out.exists()


def test_averages_that_are_not_there_are_refused(tmp_path, capsys):
    values = {"model/hidden/kernel": np.ones(3, np.float32)}
    CheckpointStore.of_run(tmp_path / "run").save(step=1, values=values, facts={})
    out = tmp_path / "w.safetensors"
    assert run_door("convert", tmp_path / "run", "--out", out) == 2
    assert "--weights=raw" in capsys.readouterr().err
    assert run_door("convert", tmp_path / "run", "--out", out, "--weights", "raw") == 0


def test_another_model_is_refused_by_the_names(run_dir, tmp_path, capsys):
    values = make_values(200)
    values["model/hidden/kernel"] = np.zeros((9, 3), np.float32)
    values["model/foreign/kernel"] = values.pop("model/logits/kernel")
    CheckpointStore.of_run(run_dir).save(step=200, values=values, facts={})
    out = tmp_path / "w.weights.h5"
    assert run_door("convert", run_dir, "--out", out, "--weights", "raw") == 2
    error = capsys.readouterr().err
    assert "3 missing" in error
    for name in ("foreign/kernel", "hidden/kernel", "logits/kernel"):
        assert name in error
    assert not out.exists()


def test_an_unknown_suffix_is_refused(run_dir, tmp_path, capsys):
    assert run_door("convert", run_dir, "--out", tmp_path / "weights.h5") == 2
    assert ".weights.h5 or .safetensors" in capsys.readouterr().err


def test_without_the_package_safetensors_the_remedy_is_told(
    run_dir, tmp_path, monkeypatch, capsys
):
    real_import = builtins.__import__

    def fail(name, *arguments, **keywords):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", fail)
    assert run_door("convert", run_dir, "--out", tmp_path / "w.safetensors") == 2
    assert "pip install safetensors" in capsys.readouterr().err


def test_a_full_disk_is_told_and_leaves_nothing(run_dir, tmp_path, monkeypatch, capsys):
    def fail(*arguments, **keywords):
        raise safetensors.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    assert run_door("convert", run_dir, "--out", tmp_path / "w.safetensors") == 2
    assert "No space left" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failed_conversion_leaves_the_old_file(run_dir, tmp_path, monkeypatch, capsys):
    out = tmp_path / "w.safetensors"
    out.write_bytes(b"old")

    def fail(arrays, path, **keywords):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    assert run_door("convert", run_dir, "--out", out) == 2
    assert "No space left" in capsys.readouterr().err
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "w.safetensors"]
