"""Batches: the same images at the same positions on any topology and from any start."""

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.cluster import Assignment
from inception_tf.data import evaluation_pipeline
from inception_tf.data import image
from inception_tf.data import order
from inception_tf.data import pipeline
from inception_tf.errors import ConfigError
from inception_tf.errors import DataError

NUM_EXAMPLES = 50
SIZE = {"height_px": 8, "width_px": 6}
SPEC = pipeline.DataSpec(num_parallel_calls=2, prefetch_steps=1)
AUGMENTATION = image.Augmentation()


class ListReader:
    """The interface of RecordReader over images in memory; label = record id."""

    def __init__(self, jpegs):
        self.jpegs = jpegs
        self.read_ids = []

    def read(self, record_ids):
        self.read_ids += record_ids.tolist()
        jpegs = np.array([self.jpegs[i] for i in record_ids], dtype=object)
        return jpegs, record_ids.astype(np.int32)


@pytest.fixture(scope="module")
def jpegs():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, [NUM_EXAMPLES, 4, 4, 3]).astype(np.float32)
    pixels = tf.cast(tf.image.resize(coarse, [24, 28]), tf.uint8)
    return [tf.io.encode_jpeg(p).numpy() for p in pixels]


def assignments(num_replicas, replica_batch, num_physical, num_workers=1):
    """One assignment per worker; every worker has the same number of physical replicas."""
    num_local = num_physical // num_workers
    return [
        Assignment(
            num_replicas=num_replicas,
            replica_batch=replica_batch,
            num_physical=num_physical,
            first_local=worker * num_local,
            num_local=num_local,
        )
        for worker in range(num_workers)
    ]


def train(reader, assignment, *, start_step=0, seed=3, **changes):
    arguments = {"augmentation": AUGMENTATION, "spec": SPEC, **SIZE, **changes}
    return pipeline.train_dataset(
        reader,
        assignment=assignment,
        num_examples=NUM_EXAMPLES,
        start_step=start_step,
        seed=seed,
        **arguments,
    )


def synthetic(assignment, *, start_step=0, seed=3, **changes):
    arguments = {"num_classes": 10, "spec": SPEC, **SIZE, **changes}
    return pipeline.synthetic_dataset(
        assignment=assignment, start_step=start_step, seed=seed, **arguments
    )


def global_batches(datasets, workers, *, num_steps):
    """Images [steps, N, n, ...] and labels [steps, N, n] by declared replica, over all workers."""
    first = workers[0]
    images = np.full([num_steps, first.num_replicas, first.replica_batch, 8, 6, 3], np.nan)
    labels = np.full(images.shape[:3], -1)
    for assignment, dataset in zip(workers, datasets, strict=True):
        elements = iter(dataset)
        for step in range(num_steps):
            for local in range(assignment.num_local):
                element = next(elements)
                declared = assignment.declared_of(assignment.first_local + local)
                for turn in range(assignment.rounds):
                    if turn < len(declared):
                        images[step, declared[turn]] = element["images"][turn]
                        labels[step, declared[turn]] = element["labels"][turn]
                    else:
                        assert not np.any(element["images"][turn])
                        assert not np.any(element["labels"][turn])
    return images, labels


@pytest.fixture(scope="module")
def on_one_device(jpegs):
    """Three steps of 20 declared replicas x 3 images, which cross the borders of epochs."""
    workers = assignments(20, 3, 1)
    return global_batches([train(ListReader(jpegs), workers[0])], workers, num_steps=3)


def test_batches_hold_the_images_of_their_positions(jpegs, on_one_device):
    images, labels = on_one_device
    images, labels = images.reshape(180, 8, 6, 3), labels.reshape(180)
    positions = tf.range(180, dtype=tf.int64)
    ids = order.record_ids(positions, seed=3, num_examples=NUM_EXAMPLES).numpy()
    np.testing.assert_array_equal(labels, ids)
    np.testing.assert_array_equal(np.sort(labels[:150]), np.repeat(np.arange(50), 3))
    decode = tf.function(
        lambda jpeg, key: image.decode_training(jpeg, key, augmentation=AUGMENTATION, **SIZE)
    )
    for position in range(0, 180, 7):
        key = tf.constant([3, position], tf.int64)
        expected = decode(tf.constant(jpegs[ids[position]]), key)
        # Not to the bit: outside tf.data the graph optimizer orders some products otherwise.
        np.testing.assert_allclose(images[position], expected, atol=1e-6)


@pytest.mark.parametrize("num_physical, num_workers", [(3, 1), (8, 1), (20, 1), (2, 2), (6, 3)])
def test_every_topology_gives_the_same_images(jpegs, on_one_device, num_physical, num_workers):
    workers = assignments(20, 3, num_physical, num_workers)
    readers = [ListReader(jpegs) for _ in workers]
    datasets = [train(r, a) for r, a in zip(readers, workers, strict=True)]
    images, labels = global_batches(datasets, workers, num_steps=3)
    np.testing.assert_array_equal(labels, on_one_device[1])
    np.testing.assert_array_equal(images, on_one_device[0])


def test_two_workers_read_only_their_own_records(jpegs):
    one, two = assignments(2, 5, 2, num_workers=2)
    labels = [
        np.concatenate([e["labels"].numpy().ravel() for e in train(ListReader(jpegs), a).take(5)])
        for a in (one, two)
    ]
    assert sorted(np.concatenate(labels)) == list(range(NUM_EXAMPLES))  # one epoch, shared out


@pytest.mark.parametrize("num_physical", [1, 3])
def test_a_start_at_step_s_gives_what_a_start_at_0_gives_there(
    jpegs, on_one_device, num_physical
):
    workers = assignments(20, 3, num_physical)
    dataset = train(ListReader(jpegs), workers[0], start_step=2)
    images, labels = global_batches([dataset], workers, num_steps=1)
    np.testing.assert_array_equal(images[0], on_one_device[0][2])
    np.testing.assert_array_equal(labels[0], on_one_device[1][2])


def test_another_seed_gives_another_order_and_other_crops(jpegs):
    assignment = assignments(1, 50, 1)[0]
    one, other = (
        next(iter(train(ListReader(jpegs), assignment, seed=seed))) for seed in (1, 2)
    )
    labels = [e["labels"].numpy()[0] for e in (one, other)]
    assert np.mean(labels[0] == labels[1]) < 0.2
    by_id = [e["images"].numpy()[0][np.argsort(ids)] for e, ids in zip((one, other), labels)]
    assert np.abs(by_id[0] - by_id[1]).mean() > 0.01


def test_training_elements_are_static_and_endless(jpegs):
    assignment = assignments(20, 3, 8)[0]
    for dataset in (train(ListReader(jpegs), assignment), synthetic(assignment)):
        assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        assert dataset.element_spec == {
            "images": tf.TensorSpec([3, 3, 8, 6, 3], tf.float32),
            "labels": tf.TensorSpec([3, 3], tf.int32),
        }
        options = dataset.options()
        assert options.deterministic
        assert options.threading.max_intra_op_parallelism == 1


def test_label_offset_makes_room_for_the_background(jpegs):
    assignment = assignments(1, 50, 1)[0]
    labels = next(iter(train(ListReader(jpegs), assignment, label_offset=1)))["labels"].numpy()
    assert sorted(labels[0]) == list(range(1, 51))
    labels = next(iter(synthetic(assignment, label_offset=1, num_classes=3)))["labels"].numpy()
    assert set(labels[0]) == {1, 2, 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_bad_record": "rise"}, "'raise' or 'skip'.*'rise'"),
        ({"max_bad_records": 3}, "need data.on_bad_record = 'skip'.*3 and 1.0 with 'raise'"),
        ({"max_bad_share": 0.1}, "need data.on_bad_record = 'skip'.*0 and 0.1 with 'raise'"),
        ({"on_bad_record": "skip"}, "needs a budget.*0 and 1.0"),
        ({"on_bad_record": "skip", "max_bad_records": -1}, "needs a budget.*-1 and 1.0"),
        (
            {"on_bad_record": "skip", "max_bad_records": 3, "max_bad_share": 1.5},
            "needs a budget.*3 and 1.5",
        ),
        ({"label_base": 2}, "label_base must be 0, 1 or None"),
        ({"num_parallel_calls": 0}, "num_parallel_calls must be at least 1, or None"),
        ({"prefetch_steps": -7}, "prefetch_steps must be at least 0"),
    ],
)
def test_a_way_of_reading_that_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        pipeline.DataSpec(**options)


# ------------------------------------------------------------------ errors


def test_a_readers_error_ends_the_iteration_and_is_not_swallowed(jpegs):
    class FailingReader(ListReader):
        def read(self, record_ids):
            if 7 in record_ids:
                raise DataError("records must be whole.", received="shard x at byte 12")
            return super().read(record_ids)

    dataset = train(FailingReader(jpegs), assignments(1, 10, 1)[0])
    with pytest.raises(tf.errors.OpError, match="shard x at byte 12"):
        for _ in dataset.take(5):
            pass


@pytest.mark.parametrize("damaged", [b"", b"\xff\xd8\xff no jpeg \xff\xd9"])
def test_undecodable_bytes_raise(jpegs, damaged):
    reader = ListReader([*jpegs[:-1], damaged])
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(train(reader, assignments(1, 25, 1)[0]).take(2))
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(evaluation(reader, num_physical=1, num_local=1))


# ------------------------------------------------------------------ evaluation


def evaluation(reader, *, num_physical, num_local, first_local=0, replica_batch=16, **changes):
    return evaluation_pipeline.eval_dataset(
        reader,
        num_examples=NUM_EXAMPLES,
        replica_batch=replica_batch,
        num_physical=num_physical,
        first_local=first_local,
        num_local=num_local,
        crop=image.EvaluationCrop(),
        spec=SPEC,
        **SIZE,
        **changes,
    )


@pytest.mark.parametrize(
    "replica_batch, num_physical, num_workers, elements_per_replica",
    [(16, 1, 1, 4), (16, 4, 1, 1), (16, 4, 2, 1), (7, 3, 3, 3), (50, 1, 1, 1), (64, 2, 1, 1)],
)
def test_evaluation_counts_every_record_once(
    jpegs, replica_batch, num_physical, num_workers, elements_per_replica
):
    num_local = num_physical // num_workers
    counted = []
    for worker in range(num_workers):
        reader = ListReader(jpegs)
        dataset = evaluation(
            reader,
            num_physical=num_physical,
            num_local=num_local,
            first_local=worker * num_local,
            replica_batch=replica_batch,
        )
        assert dataset.cardinality() == elements_per_replica * num_local
        elements = list(dataset.as_numpy_iterator())
        assert len(elements) == elements_per_replica * num_local
        for element in elements:
            assert element["images"].shape == (replica_batch, 8, 6, 3)
            assert not np.any(element["images"][~element["valid"]])
            assert not np.any(element["labels"][~element["valid"]])
            counted += element["labels"][element["valid"]].tolist()
            for at in np.flatnonzero(element["valid"])[:2]:
                expected = image.decode_evaluation(
                    jpegs[element["labels"][at]], crop=image.EvaluationCrop(), **SIZE
                )
                np.testing.assert_array_equal(element["images"][at], expected)
        assert len(reader.read_ids) == sum(int(e["valid"].sum()) for e in elements)
    assert sorted(counted) == list(range(NUM_EXAMPLES))


class NamingReader(ListReader):
    """Images named '0', '1', ..."""

    def read_with_names(self, record_ids):
        return *self.read(record_ids), np.array([str(i) for i in record_ids], dtype=object)


@pytest.mark.parametrize("replica_batch, num_physical, num_workers", [(16, 1, 1), (7, 4, 2)])
def test_evaluation_marks_what_counts_by_name_on_every_topology(
    jpegs, replica_batch, num_physical, num_workers
):
    asked, counted, num_local = [], [], num_physical // num_workers

    def is_counted(names):
        asked.extend(names)
        return np.array([int(name) % 3 == 0 for name in names])

    for worker in range(num_workers):
        dataset = evaluation(
            NamingReader(jpegs), num_physical=num_physical, num_local=num_local,
            first_local=worker * num_local, replica_batch=replica_batch, is_counted=is_counted,
        )  # fmt: skip
        for element in dataset.as_numpy_iterator():
            assert not np.any(element["counted"] & ~element["valid"])
            counted += element["labels"][element["counted"]].tolist()
    assert sorted(counted) == list(range(0, NUM_EXAMPLES, 3))
    assert sorted(map(int, asked)) == list(range(NUM_EXAMPLES))


def test_evaluation_elements_are_static(jpegs):
    dataset = evaluation(ListReader(jpegs), num_physical=1, num_local=1, label_offset=1)
    assert dataset.element_spec == {
        "images": tf.TensorSpec([16, 8, 6, 3], tf.float32),
        "labels": tf.TensorSpec([16], tf.int32),
        "valid": tf.TensorSpec([16], tf.bool),
    }
    assert next(iter(dataset))["labels"].numpy().tolist() == list(range(1, 17))


# ------------------------------------------------------------------ synthetic


def test_synthetic_batches_are_the_same_on_every_topology_and_from_any_start():
    one = assignments(5, 2, 1)
    images, labels = global_batches([synthetic(one[0])], one, num_steps=4)
    for workers in (assignments(5, 2, 3), assignments(5, 2, 2, num_workers=2)):
        datasets = [synthetic(assignment, start_step=1) for assignment in workers]
        other_images, other_labels = global_batches(datasets, workers, num_steps=3)
        np.testing.assert_array_equal(other_images, images[1:])
        np.testing.assert_array_equal(other_labels, labels[1:])


def test_synthetic_images_fill_the_range_and_differ_between_replicas_labels_between_steps():
    workers = assignments(4, 8, 1)
    images, labels = global_batches([synthetic(workers[0])], workers, num_steps=2)
    assert -1 <= images.min() < -0.99 and 0.99 < images.max() < 1
    assert len(np.unique(images[0, :, :, 0, 0, 0])) == 32
    assert (labels[0] != labels[1]).mean() > 0.5
    assert labels.min() >= 0 and labels.max() < 10
