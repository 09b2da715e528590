"""A failed step is kept and comes again: a small network, one device, records that are made up."""

import json
import pathlib
import shutil
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf import config, experiment, failed_step, inputs, preparation, replay, replay_step
from inception_tf.cluster import Assignment, Cluster
from inception_tf.data.records import Origin
from inception_tf.models.layers import ConvUnit, Dropout
from inception_tf.parameters import SECTIONS
from inception_tf.training.checkpoint import CheckpointNotWritten, CheckpointStore
from inception_tf.training.step import TrainStep

N, n, SIDE_PX, CLASSES, STEP = 3, 2, 4, 4, 7


def build_network(*_, **__):
    """Two ConvUnits, dropout and a dense layer."""
    made = keras.Input([SIDE_PX, SIDE_PX, 3], name="images")
    x = ConvUnit(5, 3, padding="same", name="first")(made)
    x = ConvUnit(5, 3, padding="same", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    x = Dropout(0.5, name="dropout")(x)
    return keras.Model(made, keras.layers.Dense(CLASSES, name="logits")(x))


class Reader:
    """Says where images come from, as a RecordReader."""

    def origin(self, record_id, *, has_boxes):
        return Origin(record_id, "train-00000-of-00001", 1000 * record_id, f"{record_id}.jpg")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run before step 7, as the session has it, with its step as `train_step`."""
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    run_dir.mkdir()
    resolved = config.resolve(
        gin_files=["digits.gin"],
        gin_params=[f"training.num_replicas = {N}", f"training.replica_batch = {n}",
                    "variables.groups = ({'pattern': '.*', 'l2': 0.01},)"],
        reads=SECTIONS,
    )  # fmt: skip
    (run_dir / "config.gin").write_text(resolved.text())
    made = experiment.Experiment(**resolved.sections)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    cluster = Cluster(
        strategy=strategy, device_kind="CPU", device_names=("CPU",), num_workers=1,
        worker_index=0, num_local=1, intra_op_threads=1, deterministic=True,
    )  # fmt: skip
    data = inputs.Inputs(
        data_dir="records", manifest=types.SimpleNamespace(class_counts=None),
        readers={"train": Reader()}, num_classes=CLASSES, num_train_examples=100,
    )  # fmt: skip
    with strategy.scope():
        model = build_network()
    state = preparation.build_state(made, model, cluster)
    assignment = Assignment(num_replicas=N, replica_batch=n)
    recipe = preparation.build_recipe(made, data, model, assignment)
    values = state.values()
    state.restore({**values, "step": np.int64(STEP)})
    return types.SimpleNamespace(
        run_dir=run_dir, experiment=made, cluster=cluster, inputs=data, state=state,
        recipe=recipe, assignment=assignment,
        train_step=TrainStep(strategy, state, recipe, clock=time.perf_counter),
    )  # fmt: skip


@pytest.fixture(scope="module")
def sound():
    """The sound batch of the step."""
    rng = np.random.default_rng(3)
    images = rng.uniform(-1, 1, [N, n, SIDE_PX, SIDE_PX, 3]).astype(np.float32)
    return {"images": images, "labels": rng.integers(CLASSES, size=[N, n]).astype(np.int32)}


@pytest.fixture(scope="module")
def fed(sound):
    """The batch that fails: a NaN in one image of declared replica 1."""
    images = sound["images"].copy()
    images[1, 1, 2, 3, 0] = np.nan
    return {**sound, "images": images}


def take(run, batch):
    """Outputs of the step; the variables stay as they were before it."""
    before = run.state.values()
    batch = {name: tf.constant(value) for name, value in batch.items()}
    outputs = run.train_step.run_one(batch, tf.zeros([2], tf.int64))
    run.state.restore(before)
    return outputs, batch


def keep(run, outputs, batch, *, step=STEP):
    return failed_step.keep(
        run, step=step, outputs=outputs, batch=batch, checkpoint_facts={"recipe": "abc"}
    )


@pytest.fixture(scope="module")
def kept(run, fed):
    """(directory, what was found, what to do) of the failed step."""
    found, remedy = keep(run, *take(run, fed))
    return run.run_dir / f"failed_step_{STEP}", found, remedy


@pytest.fixture
def door(run, kept, monkeypatch, tmp_path):
    """Runs the door on a copy of the directory, on this process's device."""
    monkeypatch.setattr(preparation, "build_model", build_network)
    monkeypatch.setattr(replay.clusters, "join", lambda spec, *, is_alone: run.cluster)
    copy = tmp_path / f"failed_step_{STEP}"
    shutil.copytree(kept[0], copy)

    def call(*arguments):
        return replay_step.main([str(copy), *arguments])

    call.path = copy
    return call


def test_what_was_found_is_told_with_the_command_that_shows_it_again(kept):
    path, found, remedy = kept
    assert found == "declared replica 1 (worker 0, CPU:0) has nan as the loss"
    assert remedy.endswith(f"python -m inception_tf.replay_step {path}")


def test_the_directory_holds_the_step(run, kept, fed):
    path, _, _ = kept
    with np.load(path / "replica_1.npz") as batch:
        assert batch["images"].tobytes() == fed["images"][1].tobytes()
        assert batch["labels"].tobytes() == fed["labels"][1].tobytes()
    told = json.loads((path / "step.json").read_text())
    assert told["step"] == STEP and told["recipe"] == "abc" and told["left_out"] == []
    assert told["data_loss_nats"] == "nan" and told["batches"] == "as they were fed"
    replica, = told["replicas"]
    assert (replica["declared"], replica["worker"], replica["device"]) == (1, 0, "CPU:0")
    positions = [image["position"] for image in replica["images"]]
    assert positions == [STEP * N * n + n, STEP * N * n + n + 1]
    expected = inputs.upcoming_record_ids(
        STEP, assignment=run.assignment, seed=run.experiment.training.seed, num_examples=100,
        num_steps=1,
    )  # fmt: skip
    assert [image["record_id"] for image in replica["images"]] == expected[n : 2 * n].tolist()
    assert replica["images"][0]["offset"] == 1000 * expected[n]
    assert sorted(file.name for file in path.iterdir()) == [
        "before", "config_of_run.gin", "replica_1.npz", "step.json",
    ]  # fmt: skip


def test_the_variables_are_those_before_the_step_and_no_checkpoint_of_the_run(run, kept):
    store = CheckpointStore(kept[0] / "before")
    info, skipped = store.newest_verified()
    assert info.step == STEP and not skipped
    values = store.read(info)
    for name, value in run.state.values().items():
        assert values[name].tobytes() == value.tobytes(), name
    assert not CheckpointStore.of_run(run.run_dir).holds_checkpoints()
    assert not CheckpointStore.of_run(kept[0]).holds_checkpoints()


def test_a_step_that_fails_again_writes_over_nothing_and_not_without_end(run, fed):
    outputs, batch = take(run, fed)
    said = [keep(run, outputs, batch, step=90)[1] for _ in range(4)]
    names = [f"failed_step_90{suffix}" for suffix in ("", "-2", "-3")]
    assert [remedy.rsplit("/", 1)[1] for remedy in said[:3]] == names
    assert "not kept: no directory failed_step_90" in said[3] and "remove them" in said[3]
    assert not (run.run_dir / "failed_step_90-4").exists()


def made_outputs(faults):
    zeros = {name: tf.constant(0.0) for name in ("data_loss_nats", "l2_loss_nats",
                                                  "gradient_norm", "learning_rate")}  # fmt: skip
    return {**zeros, "faults": tf.constant(faults, tf.int64)}


def test_batches_that_the_host_never_had_are_made_again_and_few_are_kept(
    run, sound, monkeypatch
):
    asked = []

    def declared_batch(opened, made, *, declared, step):
        asked.append((declared, step))
        return sound["images"][0], sound["labels"][0]

    monkeypatch.setattr(inputs, "declared_batch", declared_batch)
    found, _ = keep(run, made_outputs([0] + [2**32 + 5] * 6), None, step=20)
    assert asked == [(declared, 20) for declared in (1, 2, 3, 4)]
    assert found.count("declared replica") == 4 and found.endswith("and 2 more")
    told = json.loads((run.run_dir / "failed_step_20" / "step.json").read_text())
    assert told["left_out"] == [5, 6] and len(told["replicas"]) == 4
    assert told["batches"].startswith("made again from the records")


def test_a_full_disk_hides_nothing_and_leaves_nothing(run, fed, monkeypatch):
    def fail(*_, **__):
        raise CheckpointNotWritten("A checkpoint must fit on the disk.")

    monkeypatch.setattr(CheckpointStore, "save", fail)
    found, remedy = keep(run, *take(run, fed), step=30)
    assert "declared replica 1" in found
    assert "is not kept" in remedy and "A checkpoint must fit on the disk" in remedy
    assert not (run.run_dir / "failed_step_30").exists()


def test_a_batch_that_could_not_be_written_is_told(run, fed, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space")

    outputs, batch = take(run, fed)
    monkeypatch.setattr(failed_step.np, "savez", fail)
    remedy = keep(run, outputs, batch, step=31)[1]
    assert "The batch of declared replica 1 could not be written" in remedy
    assert "--from_data" in remedy and "no space" in remedy
    told = json.loads((run.run_dir / "failed_step_31" / "step.json").read_text())
    assert told["replicas"][0]["file"] is None


def test_nothing_that_goes_wrong_takes_the_place_of_the_steps_own_error(run, fed):
    outputs, batch = take(run, fed)

    def gather(_):
        raise tf.errors.UnavailableError(None, None, "a worker is gone")

    lost = types.SimpleNamespace(**{**vars(run), "cluster": types.SimpleNamespace(
        gather=gather, is_chief=True, num_physical=1, num_local=1, worker_index=0,
        device_kind="CPU")})  # fmt: skip
    found, remedy = keep(lost, outputs, batch, step=32)
    assert "declared replica 1" in found and "a worker is gone" in remedy


# -- the replay ------------------------------------------------------------------------------------


def test_the_failure_comes_again_on_one_device(door, capsys, tmp_path):
    assert door("--all_layers", f"--images={tmp_path / 'sheet.png'}") == 0
    said = capsys.readouterr().out
    assert "declared replica 1, in the run on worker 0, CPU:0" in said
    assert "layer outputs are not finite, the first of them images" in said
    assert "gradients are not finite, nearest to the loss logits/bias" in said
    assert "  1 not finite" in said
    assert said.endswith("reproduced: nan as the loss, as in the run\n")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_the_replay_computes_what_the_step_does(run, kept, sound, monkeypatch):
    monkeypatch.setattr(preparation, "build_model", build_network)
    again = replay.Replay(replay.read(kept[0]), run.experiment, run.cluster)
    losses = []
    for declared in range(N):
        found = again.run(declared, sound["images"][declared], sound["labels"][declared])
        assert found.fault is None
        losses.append(found.loss_nats)
    # Dropout's masks too: they depend on the step and the declared replica.
    expected = float(take(run, sound)[0]["data_loss_nats"])
    np.testing.assert_allclose(np.mean(losses), expected, rtol=1e-6)
    # A layer in the middle is found where its weights are the cause.
    kernel = again.state.values()["model/second/kernel"]
    again.state.restore({**again.state.values(), "model/second/kernel": kernel * np.inf})
    found = again.run(0, sound["images"][0], sound["labels"][0])
    first = next(layer for layer in found.layers if layer.num_non_finite)
    assert (first.name, first.kind) == ("second", "ConvUnit")
    assert found.fault.what == "the loss"


def replace_batch(path, images, labels):
    with open(path / "replica_1.npz", "wb") as stream:
        np.savez(stream, images=images, labels=labels)


def test_a_failure_that_does_not_come_again_has_a_status_of_its_own(door, sound, capsys):
    replace_batch(door.path, sound["images"][1], sound["labels"][1])
    assert door() == 5
    assert "NOT reproduced: all values are finite" in capsys.readouterr().out


def test_a_batch_from_the_records_is_held_against_the_one_that_was_fed(
    door, sound, fed, monkeypatch, capsys
):
    opened = types.SimpleNamespace(num_train_examples=100, data_dir="records")
    monkeypatch.setattr(inputs, "open_inputs", lambda *_, **__: opened)
    for batch, status, text in (
        (fed, 0, "is the one that was fed, bit for bit"),
        (sound, 5, "1 of 2 images made again from the records DIFFER from those that were fed: #1"),
    ):
        again = batch["images"][1], batch["labels"][1]
        monkeypatch.setattr(inputs, "declared_batch", lambda *_, again=again, **__: again)
        assert door("--from_data") == status
        assert text in capsys.readouterr().out
    opened.num_train_examples = 99
    assert door("--from_data") == 2
    assert "99 training examples" in capsys.readouterr().err


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: shutil.rmtree(path), "holds step.json"),
        (lambda path: (path / "step.json").unlink(), "while it wrote the directory"),
        (lambda path: cut(path / "step.json"), "step.json: JSONDecodeError"),
        (lambda path: (path / "step.json").write_text('{"format_version": 1}'), "KeyError"),
        (lambda path: (path / "step.json").write_text(
            '{"format_version": 2, "step": 7, "replicas": []}'), "with version 2"),
        (lambda path: flip(path / "replica_1.npz"), "replica_1.npz: BadZipFile"),
        (lambda path: cut(path / "replica_1.npz"), "replica_1.npz: BadZipFile"),
        (lambda path: (path / "replica_1.npz").unlink(), "--from_data"),
        (lambda path: flip(next(path.glob("before/*/variables.data*"))), "altered: checksum"),
        (lambda path: shutil.rmtree(path / "before"), "must hold the variables before step 7"),
        (lambda path: (path / "config_of_run.gin").unlink(), "config_of_run.gin"),
    ],
)  # fmt: skip
def test_a_directory_that_is_not_whole_is_refused_by_name(door, damage, text, capsys):
    damage(pathlib.Path(door.path))
    assert door() == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "text"), [("--data_dir=x", "made again"), ("--images=sheet.jpg", ".png")]
)
def test_flags_that_mean_nothing_are_refused(tmp_path, flag, text, capsys):
    assert replay_step.main([str(tmp_path), flag]) == 2
    assert text in capsys.readouterr().err
