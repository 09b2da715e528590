"""Predictions of runs, exports and weights: the same numbers from every source, computed once."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import (
    checkpoints, config, evaluations, experiment, exports, inputs as run_inputs, predictions,
    preparation, products, run_config,
)  # fmt: skip
from inception_tf.data.build import build_records
from inception_tf.data.block_pipeline import block_dataset
from inception_tf.data.image import decode_whole
from inception_tf.data.pipeline import DataSpec
from inception_tf.data.sources import FolderSource
from inception_tf.errors import CheckpointError, ConfigError
from inception_tf.evaluation import crop_images, crops
from inception_tf.evaluation.predictor import Predictor
from inception_tf.parameters import SECTIONS
from inception_tf.run_directory import RunDirectory
from inception_tf.training.checkpoint import CheckpointStore

CLASSES = ("ash", "birch", "cedar")
NUM_IMAGES = 3 * 4
SMALL = (
    "model.width_multiplier = 0.05",
    "model.block_counts = (1, 1, 1)",
    "training.num_replicas = 1",
    "training.replica_batch = 4",
    "evaluation.replica_batch = 8",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Records of random images, some landscape and some portrait."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    for split, count in (("train", 4), ("val", 4)):
        for name in CLASSES:
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                size = rng.integers(60, 120, size=2)
                pixels = tf.constant(rng.integers(0, 256, size=(*size, 3)), tf.uint8)
                path = folder / "images" / split / name / f"{name}{number}.jpg"
                path.write_bytes(tf.io.encode_jpeg(pixels).numpy())
    build_records(FolderSource(folder / "images"), folder / "records", processes=1)
    return folder / "records"


def resolve_run(run_dir):
    return experiment.Experiment(**run_config.resolve_saved(run_dir).sections)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, data_dir, cluster):
    """A run with random variables at steps 3 and 7; averages unlike the weights."""
    run_dir = tmp_path_factory.mktemp("run") / "run"
    resolved = config.resolve(
        gin_files=["digits"], gin_params=SMALL, overrides={"data.data_dir": str(data_dir)},
        reads=SECTIONS,
    )  # fmt: skip
    directory = RunDirectory(run_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "join_cluster", lambda *_: cluster)
        prepared = preparation.prepare(
            experiment.Experiment(**resolved.sections), directory, cluster, is_synthetic=False
        )
    directory.save_config(resolved.text())
    directory.save_facts(preparation.facts_of(prepared.experiment, prepared.inputs, cluster))
    for step in (3, 7):
        rng = np.random.default_rng(step)
        values = {
            name: (
                rng.uniform(-0.3, 0.3, size=value.shape) + name.endswith("moving_variance")
            ).astype(value.dtype)
            for name, value in prepared.state.values().items()
        }
        CheckpointStore.of_run(run_dir).save(step=step, values=values, facts={})
    return run_dir


@pytest.fixture(scope="module")
def inputs(run_dir):
    declared = resolve_run(run_dir)
    return run_inputs.open_inputs(
        declared.data, declared.model, run_dir=run_dir, splits=[declared.data.eval_split]
    )


@pytest.fixture
def predict(run_dir, inputs, cluster, tmp_path):
    def predict(member, crop_name="1", *, directory=tmp_path, **options):
        options = {"average": "probabilities", **options}
        return predictions.predict(
            member, crop_name=crop_name, inputs=inputs, experiment=resolve_run(run_dir),
            cluster=cluster, directory=directory, **options,
        )  # fmt: skip

    return predict


@pytest.mark.parametrize(("num_local", "images"), [(1, 4), (2, 3), (3, 1)])
def test_a_block_is_dealt_out_in_order_and_filled_up_with_its_last_image(
    inputs, num_local, images
):
    reader = inputs.readers["validation"]
    blocks = [np.arange(0, 5), np.arange(5, 10), np.arange(10, 12)]
    dataset = block_dataset(
        reader, blocks, images=images, num_local=num_local, spec=DataSpec(), label_offset=1,
        decode=lambda jpeg: tf.strings.length(jpeg),
    )  # fmt: skip
    jpegs, labels, names = reader.read_with_names(np.arange(NUM_IMAGES))
    ids = []
    for block in blocks:
        ids += [*block, *[block[-1]] * (-len(block) % (num_local * images))]
    found = list(dataset.as_numpy_iterator())
    joined = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    assert all(len(one["labels"]) == images for one in found)
    assert joined["labels"].tolist() == [labels[i] + 1 for i in ids]
    assert joined["file_names"].tolist() == [names[i].encode() for i in ids]
    assert joined["images"].tolist() == [len(jpegs[i]) for i in ids]


def open_member(source, cluster, **options):
    return predictions.open_member(source, cluster=cluster, resolve_run=resolve_run, **options)


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@pytest.mark.parametrize("crop_name", ["10", pytest.param("144", marks=pytest.mark.slow)])
def test_crops_of_an_image_are_averaged_as_one_by_one(run_dir, inputs, cluster, predict, crop_name):
    member = open_member(run_dir, cluster)
    found = predict(member, crop_name).read()
    protocol = crops.protocol(crop_name, **member.size)
    reader = inputs.readers["validation"]
    jpegs, labels, names = reader.read_with_names(np.arange(NUM_IMAGES))
    np.testing.assert_array_equal(found.labels, labels)
    assert found.file_names.tolist() == names.tolist()
    assert len(set(names)) == NUM_IMAGES
    for row in (0, 5, 11):
        images = crop_images.make_crops(
            decode_whole(jpegs[row]), protocol=protocol, recipe=member.crop
        )
        logits = member.inference.logits_of_first(images, member.values).numpy()
        expected = softmax(logits.astype(np.float64)).mean(0)
        np.testing.assert_allclose(found.probabilities[row], expected, atol=2e-6)


@pytest.mark.slow
def test_the_single_crop_is_the_evaluators(run_dir, inputs, cluster, predict):
    declared = resolve_run(run_dir)
    for weights in ("averaged", "raw"):
        found = predict(open_member(run_dir, cluster, weights=weights)).read()
        trained = products.read_run(declared, RunDirectory(run_dir), cluster)
        evaluator = products.build_evaluator(declared, trained.model, cluster, inputs)
        result = products.evaluate_split(
            declared, evaluator, trained.values(averaged=weights == "averaged"), cluster, inputs
        )
        own = found.probabilities[np.arange(NUM_IMAGES), found.labels].astype(np.float64)
        assert -np.log(own).mean() == pytest.approx(result.loss_nats, rel=1e-5)
        assert (found.probabilities.argmax(1) == found.labels).sum() == result.top1_count


@pytest.mark.slow
def test_an_export_and_kept_weights_predict_what_the_run_does(
    run_dir, inputs, cluster, predict, tmp_path
):
    declared = resolve_run(run_dir)
    trained = products.read_run(declared, RunDirectory(run_dir), cluster)
    exports.write_export(
        declared, trained.model, trained.values(averaged=True), cluster=cluster, inputs=inputs,
        class_names=trained.facts.class_names, photo_edits=trained.facts.photo_edits,
        step=trained.step, directory=RunDirectory(run_dir), out_dir=tmp_path / "export",
    )  # fmt: skip
    of_run = predict(open_member(run_dir, cluster), "12").read()
    member = open_member(tmp_path / "export", cluster)
    assert (member.step, member.class_names) == (7, CLASSES)
    of_export = predict(member, "12").read()
    np.testing.assert_allclose(of_export.probabilities, of_run.probabilities, atol=2e-6)


@pytest.mark.slow
def test_a_run_an_export_and_weights_are_evaluated_alone_and_together(
    run_dir, data_dir, inputs, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(preparation, "join_cluster", lambda *_: cluster)
    monkeypatch.setenv("INCEPTION_TF_CACHE", str(tmp_path / "cache"))
    weights, export = tmp_path / "w.safetensors", tmp_path / "export"
    assert checkpoints.main(["convert", str(run_dir), "--out", str(weights)]) == 0
    declared = resolve_run(run_dir)
    experiment.export(declared, run_dir=run_dir, out_dir=export)
    names = inputs.readers["validation"].read_with_names(np.arange(NUM_IMAGES))[2]
    listed = tmp_path / "five.txt"
    listed.write_text("\n".join(names[:5]))

    def evaluated(experiment_of_data, *sources, **options):
        request = evaluations.Request(
            sources=tuple(map(str, sources)), crops=("10",), out_dir=tmp_path / "out",
            subsets=("all", str(listed)), **options,
        )  # fmt: skip
        told = evaluations.evaluate(experiment_of_data, request, resolve_run=resolve_run)
        (path,) = (tmp_path / "out").glob("*.json")
        found = json.loads(path.read_text())["models"]
        path.unlink()
        return told, {one["title"]: one["subsets"] for one in found}

    told, all_three = evaluated(declared, run_dir, export, weights, is_ensemble=True)
    assert list(all_three) == [f"{run_dir} averaged", str(export), str(weights), "ensemble of 3"]
    (of_run, *others) = all_three.values()
    assert [one["num_examples"] for one in of_run] == [NUM_IMAGES, 5]
    for other in others:
        for one, same in zip(other, of_run):
            assert one["loss_nats"] == pytest.approx(same["loss_nats"], rel=1e-4)
            assert one["top1"] == same["top1"]
    assert "ensemble of 3" in told

    # Without a run nobody says the records but the command line.
    alone = experiment.Experiment(
        **run_config.resolve_without_run(
            overrides={"data.data_dir": str(data_dir)},
            reads=("data", "evaluation", "cluster", "watchdog"),
        ).sections
    )
    _, of_weights = evaluated(alone, weights)
    assert of_weights == {str(weights): all_three[str(weights)]}


def test_what_was_interrupted_goes_on_and_what_is_there_is_left(
    run_dir, cluster, predict, monkeypatch, tmp_path
):
    monkeypatch.setattr(predictions, "_MOST_IMAGES_PER_BLOCK", 5)  # blocks of 5, 5 and 2
    member = open_member(run_dir, cluster)
    straight = predict(member).read()
    directory = tmp_path / "elsewhere"
    batches = iter([None, None])  # the third one is never computed
    with pytest.raises(StopIteration):
        predict(member, directory=directory, on_batch=lambda: next(batches))
    (place,) = directory.iterdir()
    first = {path.name: path.stat().st_mtime_ns for path in place.glob("*.npz")}
    assert 0 < len(first) < 3
    resumed = predict(member, directory=directory)
    for name, stamp in first.items():
        assert (place / name).stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(resumed.read().probabilities, straight.probabilities)

    def fail(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(Predictor, "predict", fail)
    again = predict(member, directory=directory)
    np.testing.assert_array_equal(again.read().probabilities, straight.probabilities)


def test_a_long_evaluation_tells_how_far_it_is_and_one_that_goes_on_of_the_rest(
    run_dir, cluster, predict, monkeypatch, tmp_path
):
    monkeypatch.setattr(predictions, "_MOST_IMAGES_PER_BLOCK", 3)  # 4 blocks
    member, lines = open_member(run_dir, cluster), []
    seconds = iter(range(0, 1000, 6))
    store = predict(member, tell=lines.append, clock=lambda: next(seconds))
    # Blocks end at 0, 6, 12 and 18 seconds.
    assert lines == [f"{run_dir} averaged, 1: 9/12 images 0.5 img/s eta 00:06"]
    for block in (1, 2, 3):
        store._path(block).unlink()
    seconds = iter(range(0, 1000, 30))
    predict(member, tell=lines.append, clock=lambda: next(seconds))
    assert [line.rpartition(": ")[2].split(" images")[0] for line in lines[1:]] == ["6/9", "9/9"]


@pytest.mark.slow
def test_other_weights_crops_and_averages_are_kept_apart(run_dir, cluster, predict, tmp_path):
    stores = [
        predict(open_member(run_dir, cluster, **options), crop_name, average=average).directory
        for options, crop_name, average in (
            ({}, "1", "probabilities"),
            ({"weights": "raw"}, "1", "probabilities"),
            ({"step": 3}, "1", "probabilities"),
            ({}, "10", "probabilities"),
            ({}, "10", "logits"),
        )
    ]
    assert len(set(stores)) == 5
    assert predict(open_member(run_dir, cluster), average="logits").directory == stores[0]


def test_the_same_weights_in_another_function_are_kept_apart(run_dir, cluster, predict):
    def resolve_other(run_dir):
        declared = resolve_run(run_dir)
        other = dataclasses.replace(declared.model, batch_norm_epsilon=0.1)
        return dataclasses.replace(declared, model=other)

    own = open_member(run_dir, cluster)
    assert open_member(run_dir, cluster).digest == own.digest
    assert open_member(run_dir, cluster, step=3).digest != own.digest
    other = predictions.open_member(run_dir, cluster=cluster, resolve_run=resolve_other)
    assert other.digest != own.digest


def test_a_step_that_is_not_there_is_named_with_those_that_are(run_dir, cluster):
    with pytest.raises(CheckpointError, match=r"step 5, where .* has 3, 7"):
        open_member(run_dir, cluster, step=5)


def test_records_of_other_classes_are_refused(run_dir, inputs, cluster):
    member = open_member(run_dir, cluster)
    predictions.check_classes(member, inputs)
    with pytest.raises(ConfigError, match="4 in .*, 3 of averaged weights"):
        predictions.check_classes(member, dataclasses.replace(inputs, num_classes=4))
    with pytest.raises(ConfigError, match="class 1 is 'elm' in .*, 'birch' of averaged weights"):
        predictions.check_classes(
            member, dataclasses.replace(inputs, class_names=("ash", "elm", "cedar"))
        )


def test_an_export_is_taken_as_it_is(run_dir, cluster, tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ConfigError, match="--weights=raw"):
        open_member(tmp_path, cluster, weights="raw")
