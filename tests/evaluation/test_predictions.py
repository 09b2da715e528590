"""Kept predictions: every image once, whatever was interrupted, damaged or already there."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import DataError
from inception_tf.evaluation.inference import Inference
from inception_tf.evaluation.predictions import FACTS_FILE, Predictions, PredictionStore
from inception_tf.evaluation.predictor import Predictor, crop_batches

NUM_CLASSES = 3


def predictions_of(ids):
    rng = np.random.default_rng(int(ids[0]))
    return Predictions(
        probabilities=rng.random([len(ids), NUM_CLASSES], np.float32),
        labels=(ids % NUM_CLASSES).astype(np.int32),
        file_names=np.array([f"größe_{i}.JPEG" for i in ids]),
    )


def store_in(directory, **facts):
    facts = {"weights": "abc", **facts}
    return PredictionStore(directory, facts=facts, num_examples=10, block_examples=4)


def filled(directory):
    store = store_in(directory)
    for block in store.open():
        store.save(block, predictions_of(store.record_ids(block)))
    return store


def test_blocks_hold_every_image_once_in_order(tmp_path):
    store = store_in(tmp_path)
    assert store.open() == [0, 1, 2]
    np.testing.assert_array_equal(
        np.concatenate([store.record_ids(block) for block in range(3)]), np.arange(10)
    )
    for block in (2, 0, 1):  # as several workers end
        store.save(block, predictions_of(store.record_ids(block)))
    read = store.read()
    expected = [predictions_of(ids) for ids in (np.arange(4), np.arange(4, 8), np.arange(8, 10))]
    for name in ("probabilities", "labels", "file_names"):
        joined = np.concatenate([getattr(one, name) for one in expected])
        np.testing.assert_array_equal(getattr(read, name), joined)


def test_what_is_there_is_not_asked_for_again(tmp_path):
    filled(tmp_path)
    assert store_in(tmp_path).open() == []
    assert store_in(tmp_path, weights="other").open() == [0, 1, 2]


def test_the_facts_lie_beside_the_blocks(tmp_path):
    store = filled(tmp_path)
    facts = json.loads((store.directory / FACTS_FILE).read_text())
    assert facts == {"weights": "abc", "num_examples": 10, "block_examples": 4}


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.index(predictions_of(np.arange(4, 8)).probabilities.tobytes())] ^= 1
    path.write_bytes(content)


def shorten(path):
    with np.load(path) as stored:
        arrays = {name: stored[name][:-1] for name in stored}
    np.savez(path, **arrays)


@pytest.mark.parametrize("damage", [cut, flip, shorten, lambda path: path.write_bytes(b"")])
def test_a_damaged_block_is_named_and_computed_again(tmp_path, damage):
    store = filled(tmp_path)
    path = store.directory / "block-000001.npz"
    damage(path)
    with pytest.raises(DataError, match="block-000001"):
        store.read()
    assert store.open() == [1]
    assert not path.exists()


def test_a_block_that_lacks_is_named(tmp_path):
    store = filled(tmp_path)
    (store.directory / "block-000002.npz").unlink()
    with pytest.raises(DataError, match="block-000002"):
        store.read()


def test_predictions_of_other_images_are_not_kept(tmp_path):
    store = store_in(tmp_path)
    store.open()
    with pytest.raises(ValueError, match="probabilities"):
        store.save(2, predictions_of(np.arange(4)))
    assert not list(store.directory.glob("*.npz"))


@pytest.mark.parametrize(
    ("num_crops", "replica_batch", "images", "parts"),
    [(1, 32, 32, 1), (10, 32, 3, 1), (12, 32, 2, 1), (144, 32, 1, 6), (144, 144, 1, 1),
     (144, 1, 1, 144), (10, 8, 1, 2)],
)  # fmt: skip
def test_crops_fill_batches_in_equal_parts(num_crops, replica_batch, images, parts):
    deal = crop_batches(num_crops, replica_batch=replica_batch)
    assert (deal.images, deal.parts) == (images, parts)
    assert deal.batch * deal.parts == deal.images * num_crops
    assert deal.batch <= replica_batch


def dense_model(side_px, num_outputs):
    images = keras.Input([side_px, side_px, 3])
    return keras.Model(images, keras.layers.Dense(num_outputs)(keras.layers.Flatten()(images)))


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("replica_batch", [2, 5, 12])
def test_the_crops_of_an_image_are_averaged(average, replica_batch):
    rng = np.random.default_rng(0)
    num_crops, num_images = 4, 7
    model = dense_model(5, NUM_CLASSES)
    images = rng.uniform(-1, 1, [num_images, num_crops, 5, 5, 3]).astype(np.float32)
    kernel, bias = rng.normal(size=[75, NUM_CLASSES]).astype(np.float32), np.float32([0, 1, 2])
    deal = crop_batches(num_crops, replica_batch=replica_batch)
    predictor = Predictor(
        Inference(model, tf.distribute.get_strategy()),
        ([kernel, bias], []),
        batches=deal,
        crops_of=lambda crops: crops * 2.0,
        average=average,
    )
    padded = np.concatenate([np.arange(num_images), np.full(-num_images % deal.images, 6)])
    elements = (
        {
            "images": tf.constant(images[ids]),
            "labels": tf.constant(ids % NUM_CLASSES, tf.int32),
            "file_names": tf.constant([f"{i}.JPEG" for i in ids]),
        }
        for ids in padded.reshape(-1, deal.images)
    )
    told = []
    found = predictor.predict(
        elements, num_images=num_images, on_batch=lambda: told.append(len(told))
    )
    assert len(told) == -(-num_images // deal.images)
    logits = (2 * images.astype(np.float64)).reshape(num_images, num_crops, 75) @ kernel + bias
    expected = (
        softmax(logits).mean(1) if average == "probabilities" else softmax(logits.mean(1))
    )
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert found.probabilities.dtype == np.float32
    assert found.labels.tolist() == [i % NUM_CLASSES for i in range(num_images)]
    assert found.file_names.tolist() == [f"{i}.JPEG" for i in range(num_images)]
