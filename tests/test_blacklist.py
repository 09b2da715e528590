"""`evaluation.blacklist`: the images without it are counted in the same pass, or nothing starts."""

import dataclasses
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf import (
    config, evaluations, experiment, inputs as run_inputs, preparation, products, run_config,
)  # fmt: skip
from inception_tf.data.build import build_records
from inception_tf.data.image import EvaluationCrop, decode_evaluation
from inception_tf.data.pipeline import DataSpec
from inception_tf.data.sources import FolderSource
from inception_tf.errors import ConfigError, DataError
from inception_tf.evaluation import official_lists
from inception_tf.evaluation.evaluator import EvaluationSpec
from inception_tf.parameters import SECTIONS
from inception_tf.run_directory import RunDirectory

CLASSES = [f"class_{letter}" for letter in "abcdefg"]
NUM_IMAGES = 24
BLACKLISTED = (2, 3, 11, 17, 24)
SIDE_PX = 8


def name_of(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def build(folder, names):
    """Records of random images of these names, of the classes in turn."""
    rng = np.random.default_rng(5)
    for split in ("train", "val"):
        for place, name in enumerate(names):
            directory = folder / "images" / split / CLASSES[place % len(CLASSES)]
            directory.mkdir(parents=True, exist_ok=True)
            pixels = tf.constant(rng.integers(0, 256, size=(12, 12, 3)), tf.uint8)
            (directory / name).write_bytes(tf.io.encode_jpeg(pixels).numpy())
    shards = {"train": 1, "validation": 1}
    build_records(FolderSource(folder / "images"), folder / "records", num_shards=shards)
    return str(folder / "records")


@pytest.fixture(autouse=True)
def few_official_images(monkeypatch):
    monkeypatch.setattr(official_lists, "NUM_VALIDATION", NUM_IMAGES)
    monkeypatch.setattr(official_lists, "NUM_BLACKLISTED", len(BLACKLISTED))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    names = [name_of(number) for number in range(1, NUM_IMAGES + 1)]
    return build(tmp_path_factory.mktemp("official"), names)


@pytest.fixture(scope="module")
def blacklist(tmp_path_factory):
    path = tmp_path_factory.mktemp("list") / "blacklist.txt"
    path.write_text("".join(f"{number}\n" for number in BLACKLISTED))
    return str(path)


@pytest.fixture(scope="module")
def model(cluster):
    with cluster.strategy.scope():
        images = keras.Input([SIDE_PX, SIDE_PX, 3])
        dense = keras.layers.Dense(
            len(CLASSES), kernel_initializer=keras.initializers.RandomNormal(seed=3)
        )
        return keras.Model(images, dense(keras.layers.Flatten()(images)))


def declared(data_dir, *, blacklist=None, replica_batch=5):
    """As much of an Experiment as an evaluation reads."""
    return types.SimpleNamespace(
        data=DataSpec(data_dir=data_dir, num_parallel_calls=2),
        model=types.SimpleNamespace(
            input_height_px=SIDE_PX, input_width_px=SIDE_PX, background_class=False,
            num_classes=None,
        ),
        evaluation_crop=EvaluationCrop(),
        evaluation=EvaluationSpec(replica_batch=replica_batch, blacklist=blacklist),
    )  # fmt: skip


def opened(one, tmp_path):
    return run_inputs.open_inputs(
        one.data, one.model, run_dir=tmp_path, splits=["validation"],
        blacklist=one.evaluation.blacklist,
    )  # fmt: skip


def evaluate(one, model, cluster, tmp_path):
    inputs = opened(one, tmp_path)
    evaluator = products.build_evaluator(one, model, cluster, inputs)
    values = (model.trainable_variables, model.non_trainable_variables)
    return products.evaluate_split(one, evaluator, values, cluster, inputs)


def counted_by_hand(model, one, tmp_path, *, left_out):
    """(images, top-1, top-5, loss) of the records whose names are not left out, one by one."""
    reader = opened(one, tmp_path).readers["validation"]
    jpegs, labels, names = reader.read_with_names(np.arange(reader.num_examples))
    ranks, losses = [], []
    for jpeg, label, name in zip(jpegs, labels, names):
        if name not in left_out:
            image = decode_evaluation(
                jpeg, crop=one.evaluation_crop, height_px=SIDE_PX, width_px=SIDE_PX
            )
            logits = model(image[tf.newaxis]).numpy()[0].astype(np.float64)
            ranks.append(np.count_nonzero(logits > logits[label]))
            losses.append(np.log(np.exp(logits).sum()) - logits[label])
    ranks = np.array(ranks)
    return len(ranks), np.sum(ranks < 1), np.sum(ranks < 5), np.mean(losses)


def numbers_of(result):
    return result.num_examples, result.top1_count, result.top5_count


@pytest.mark.parametrize("replica_batch", [5, 24])
def test_one_pass_counts_all_images_and_those_without_the_blacklist(
    data_dir, blacklist, model, cluster, tmp_path, replica_batch
):
    one = declared(data_dir, blacklist=blacklist, replica_batch=replica_batch)
    result = evaluate(one, model, cluster, tmp_path)
    plain = declared(data_dir)
    left_out = {name_of(number) for number in BLACKLISTED}
    for found, names in ((result, set()), (result.without_blacklist, left_out)):
        *numbers, loss_nats = counted_by_hand(model, plain, tmp_path, left_out=names)
        assert numbers_of(found) == tuple(numbers)
        assert found.loss_nats == pytest.approx(loss_nats, rel=1e-6)
    assert result.without_blacklist.num_examples == NUM_IMAGES - len(BLACKLISTED)
    assert result.without_blacklist.top1_count < result.top1_count  # the list tells something


def test_without_the_binding_nothing_is_read_or_told_of_a_blacklist(
    data_dir, blacklist, model, cluster, tmp_path
):
    plain, listed = declared(data_dir), declared(data_dir, blacklist=blacklist)
    batches = run_inputs.eval_batches(opened(plain, tmp_path), plain, cluster)
    assert set(batches.element_spec) == {"images", "labels", "valid"}
    result = evaluate(plain, model, cluster, tmp_path)
    assert list(result.as_row()) == ["eval/top1", "eval/top5", "eval/loss_nats"]
    with_list = evaluate(listed, model, cluster, tmp_path)
    assert dataclasses.replace(with_list, without_blacklist=None) == result


# -- nothing starts where the list cannot be meant -----------------------------------------------


def resolved(data_dir, **bindings):
    return config.resolve(
        gin_files=["digits"],
        gin_params=[f"{name.replace('__', '.')} = {value!r}" for name, value in bindings.items()],
        overrides={"data.data_dir": data_dir},
        reads=SECTIONS,
    )


def prepare(data_dir, blacklist, cluster, run_dir):
    """What training and a dry run of it do first."""
    sections = resolved(data_dir, evaluation__blacklist=blacklist).sections
    return preparation.prepare(
        experiment.Experiment(**sections), RunDirectory(run_dir), cluster, is_synthetic=False
    )


def test_training_does_not_start_on_another_number_of_records(
    data_dir, blacklist, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(official_lists, "NUM_VALIDATION", NUM_IMAGES + 1)
    with pytest.raises(DataError, match="25 validation images.*24 records in split validation"):
        prepare(data_dir, blacklist, cluster, tmp_path)


def test_training_does_not_start_on_images_of_other_names(blacklist, cluster, tmp_path):
    names = [name_of(number) for number in range(1, NUM_IMAGES)] + ["dog.jpg"]
    with pytest.raises(DataError, match="an image named 'dog.jpg'.*Leave it out"):
        prepare(build(tmp_path, names), blacklist, cluster, tmp_path)


def test_training_does_not_start_with_another_list(data_dir, blacklist, cluster, tmp_path):
    with pytest.raises(ConfigError, match="nowhere.txt.*image-net.org"):
        prepare(data_dir, str(tmp_path / "nowhere.txt"), cluster, tmp_path)
    (tmp_path / "short.txt").write_text("1\n2\n")
    with pytest.raises(DataError, match="official blacklist has 5 images.*2 in"):
        prepare(data_dir, str(tmp_path / "short.txt"), cluster, tmp_path)


def test_a_name_that_the_start_did_not_read_ends_the_evaluation(
    blacklist, model, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_inputs, "_NAMES_TRIED", 1)
    names = ["dog.jpg"] + [name_of(number) for number in range(2, NUM_IMAGES + 1)]
    one = declared(build(tmp_path, names), blacklist=blacklist)
    first = opened(declared(one.data.data_dir), tmp_path).readers["validation"]
    assert first.read_with_names(np.arange(1))[2][0] != "dog.jpg"
    with pytest.raises(DataError, match="an image named 'dog.jpg'"):
        evaluate(one, model, cluster, tmp_path)


def test_an_image_that_stands_in_for_another_ends_the_evaluation(
    blacklist, model, cluster, tmp_path
):
    names = [name_of(number) for number in (*range(1, NUM_IMAGES), 1)]  # 1 twice, in two classes
    one = declared(build(tmp_path, names), blacklist=blacklist)
    with pytest.raises(DataError, match="exactly once. Received: 20 of them, where 19 are"):
        evaluate(one, model, cluster, tmp_path)


# -- runs of before ------------------------------------------------------------------------------


def test_a_run_that_knew_no_blacklist_goes_on_with_and_without_one(data_dir, blacklist, tmp_path):
    before = resolved(data_dir)
    (line,) = [one for one in before.text().splitlines() if "evaluation.blacklist" in one]
    RunDirectory(tmp_path).save_config(before.text().replace(f"{line}\n", ""))
    now, changes = run_config.reconcile(resolved(data_dir), tmp_path)
    assert (now, changes) == (before, [])
    listed = resolved(data_dir, evaluation__blacklist=blacklist)
    assert listed.recipe_hash() == before.recipe_hash()
    now, changes = run_config.reconcile(listed, tmp_path)
    assert changes == [("evaluation.blacklist", None, blacklist)]
    assert now.sections["evaluation"].blacklist == blacklist


def test_the_subset_without_the_blacklist_takes_the_list_of_the_config(blacklist, tmp_path):
    one = types.SimpleNamespace(evaluation=EvaluationSpec(blacklist=blacklist))
    other = tmp_path / "other.txt"
    other.write_text("1\n2\n3\n4\n5\n")

    def paths(subsets, named=None):
        request = evaluations.Request(
            sources=("weights.h5",), subsets=subsets, lists={"blacklist": named}
        )
        return [subset.path for subset in evaluations._open_subsets(request, one)]

    assert paths(("all", "without_blacklist")) == [None, blacklist]
    assert paths(("all", "without_blacklist"), str(other)) == [None, str(other)]
    assert paths(("all",)) == [None]
