"""Batches for this worker, as a pure function of (seed, step).

Every data set here counts micro-batches (step, local replica, round) and computes what belongs
into each: it starts at any step without reading what lies before, and holds no state to save.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from inception_tf.data import boxes, image, order
from inception_tf.errors import ConfigError

PADDING = -1  # the position of an image that fills up a batch and is never read
READS_AHEAD = 4  # micro-batches whose bytes are read while earlier ones are decoded


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where the records are and how they are read (gin section `data`).

    Attributes:
      data_dir: directory of the records; None looks at the usual places.
      train_split: split that is trained on.
      eval_split: split that is evaluated.
      label_base: label of the first class in records without a manifest: 0, or 1 where 0 is
        the background.
      on_bad_record: 'raise' stops at the first bad record. 'skip' leaves bad records of the
        training split out, the next good one in their place; an evaluation always stops.
      max_bad_records: with 'skip', how many records of the split a run may leave out.
      max_bad_share: with 'skip', which share of the split it may leave out; the bound that is
        reached first stops the run.
      num_parallel_calls: images decoded at once on this worker; None lets tf.data tune it.
      prefetch_steps: steps of finished batches kept ready.
    """

    data_dir: str | None = None
    train_split: str = "train"
    eval_split: str = "validation"
    label_base: int | None = None
    on_bad_record: str = "raise"
    max_bad_records: int = 0
    max_bad_share: float = 1.0
    num_parallel_calls: int | None = None
    prefetch_steps: int = 2

    def __post_init__(self):
        if self.on_bad_record not in ("raise", "skip"):
            raise ConfigError(
                "data.on_bad_record must be 'raise' or 'skip'.", received=repr(self.on_bad_record)
            )
        budget = self.max_bad_records, self.max_bad_share
        if self.on_bad_record == "raise" and budget != (0, 1.0):
            raise ConfigError(
                "data.max_bad_records and data.max_bad_share need data.on_bad_record = 'skip'.",
                received=f"{budget[0]} and {budget[1]} with 'raise'",
            )
        if self.on_bad_record == "skip" and not (budget[0] >= 1 and 0 < budget[1] <= 1):
            raise ConfigError(
                "data.on_bad_record = 'skip' needs a budget: data.max_bad_records of at least 1,"
                " data.max_bad_share above 0 and at most 1.",
                received=f"{budget[0]} and {budget[1]}",
            )
        if self.on_bad_record == "skip" and self.train_split == self.eval_split:
            raise ConfigError("With data.on_bad_record = 'skip' the two splits must differ: an"
                              " evaluation leaves nothing out.")  # fmt: skip
        if self.label_base not in (None, 0, 1):
            raise ConfigError("data.label_base must be 0, 1 or None.", received=self.label_base)
        if self.num_parallel_calls is not None and self.num_parallel_calls < 1:
            raise ConfigError(
                "data.num_parallel_calls must be at least 1, or None.",
                received=self.num_parallel_calls,
            )
        if self.prefetch_steps < 0:
            raise ConfigError(
                "data.prefetch_steps must be at least 0.", received=self.prefetch_steps
            )


def train_dataset(
    reader,
    *,
    assignment,
    num_examples: int,
    start_step: int,
    seed: int,
    augmentation: image.Augmentation,
    height_px: int,
    width_px: int,
    spec: DataSpec,
    label_offset: int = 0,
) -> tf.data.Dataset:
    """This worker's endless training batches, from `start_step` on.

    Elements come in the order (step, local replica). Physical replica p holds the declared
    replicas p, p + R, ...; where it has one fewer than the others, its last micro-batch is zeros.

    Args:
      reader: `read(record_ids int64 [n])` -> (JPEG bytes object [n], labels int32 [n]), and
        `read_with_boxes` for an augmentation that uses them.
      assignment: a `cluster.Assignment`; decides who computes, never what is computed.
      num_examples: records of the split.
      start_step: first step; an element does not depend on it.
      seed: keys record order and augmentation.
      augmentation: the random part of the images.
      height_px, width_px: size of an image.
      spec: parallelism and prefetching.
      label_offset: added to every label: 1 where the model's class 0 is the background.

    Returns:
      Per local replica and step {'images': float32 [rounds, n, H, W, 3] in [-1, 1], 'labels':
      int32 [rounds, n]}. A failed read ends the iteration with an error of TensorFlow's;
      `reader.first_error` holds the real one.
    """
    batch_shape = [assignment.rounds, assignment.replica_batch]
    size = {"height_px": height_px, "width_px": width_px}

    def decode(jpeg, position, box_bytes):
        key = tf.stack([tf.constant(seed, tf.int64), position])
        found = boxes.boxes_of_bytes(box_bytes) if augmentation.use_bounding_boxes else None
        return image.decode_training(jpeg, key, augmentation=augmentation, boxes=found, **size)

    def element(images, labels, _):
        return {
            "images": tf.reshape(images, [*batch_shape, height_px, width_px, 3]),
            "labels": tf.reshape(labels, batch_shape),
        }

    first = start_step * assignment.num_local * assignment.rounds
    order_of = {"assignment": assignment, "seed": seed, "num_examples": num_examples}
    dataset = tf.data.Dataset.counter(start=first)
    dataset = dataset.map(functools.partial(_train_places, **order_of))
    read = reader.read_with_boxes if augmentation.use_bounding_boxes else reader.read
    dataset = decoded(dataset, read, decode, **size, spec=spec, label_offset=label_offset)
    dataset = dataset.batch(assignment.rounds * assignment.replica_batch, drop_remainder=True)
    dataset = dataset.map(element)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return finish(dataset, num_local=assignment.num_local, spec=spec)


def synthetic_dataset(
    *,
    assignment,
    start_step: int,
    seed: int,
    num_classes: int,
    height_px: int,
    width_px: int,
    spec: DataSpec,
    label_offset: int = 0,
) -> tf.data.Dataset:
    """Batches that cost next to nothing, to see the ceiling without a data set.

    The images of a declared replica are generated once, from (seed, declared replica), and come
    again at every step; the labels change with (seed, step). Neither depends on the topology.

    Args:
      assignment: as for `train_dataset`.
      start_step: first step; an element does not depend on it.
      seed: keys images and labels.
      num_classes: labels lie in [label_offset, label_offset + num_classes).
      height_px, width_px: size of an image.
      spec: prefetching.
      label_offset: as for `train_dataset`.

    Returns:
      Elements as those of `train_dataset`.
    """
    rounds, replica_batch = assignment.rounds, assignment.replica_batch
    num_padding = rounds * assignment.num_physical - assignment.num_replicas
    images = _noise(assignment, seed, height_px=height_px, width_px=width_px)

    def element(index):
        step, local = index // assignment.num_local, index % assignment.num_local
        labels = tf.random.stateless_uniform(
            [assignment.num_replicas, replica_batch],
            seed=tf.stack([tf.constant(seed, tf.int64), step]),
            minval=label_offset,
            maxval=label_offset + num_classes,
            dtype=tf.int32,
            alg="philox",
        )
        labels = tf.pad(labels, [[0, num_padding], [0, 0]])
        labels = labels[assignment.first_local + local :: assignment.num_physical]
        return {
            "images": images[local],
            "labels": tf.ensure_shape(labels, [rounds, replica_batch]),
        }

    dataset = tf.data.Dataset.counter(start=start_step * assignment.num_local)
    dataset = dataset.map(element)
    return finish(dataset, num_local=assignment.num_local, spec=spec)


def _train_places(index, *, assignment, seed, num_examples):
    """Record ids and positions, int64 [n], of this worker's micro-batch number `index`."""
    rounds, num_local = assignment.rounds, assignment.num_local
    step, slot = index // (num_local * rounds), index % (num_local * rounds)
    local, turn = slot // rounds, slot % rounds
    declared = assignment.first_local + local + turn * assignment.num_physical
    positions = order.step_positions(step, declared, assignment=assignment)
    ids = order.record_ids(positions, seed=seed, num_examples=num_examples)
    is_real = declared < assignment.num_replicas
    return tf.where(is_real, ids, PADDING), tf.where(is_real, positions, PADDING)


def decoded(
    places, read_records, decode, *, height_px, width_px, spec, label_offset,
    keep=lambda position, _: position,
):  # fmt: skip
    """Single images in order: float32 [H, W, 3], int32 label, and what `keep` gives.

    Args:
      places: data set of micro-batches (record ids, positions), int64 [n].
      read_records: the reader's method: JPEG bytes, labels and perhaps more bytes of each image.
      decode: from JPEG bytes, position and the other bytes to pixels; not called for padding.
      height_px, width_px, spec, label_offset: as for `train_dataset`.
      keep: from position and the other bytes to what stands beside the image.
    """

    def read(ids, positions):
        jpegs, labels, others = _read(read_records, ids, label_offset=label_offset)
        return jpegs, labels, positions, others

    def example(jpeg, label, position, other):
        pixels = tf.cond(
            tf.equal(position, PADDING),
            lambda: tf.zeros([height_px, width_px, 3]),
            lambda: decode(jpeg, position, other),
        )
        return pixels, label, keep(position, other)

    num_calls = tf.data.AUTOTUNE if spec.num_parallel_calls is None else spec.num_parallel_calls
    dataset = places.map(read, num_parallel_calls=READS_AHEAD, deterministic=True)
    return dataset.unbatch().map(example, num_parallel_calls=num_calls, deterministic=True)


def _read(read_records, ids, *, label_offset):
    """JPEG bytes, string [n], labels, int32 [n], and what else is read, string [n].

    Padding, and what the reader does not give, is empty bytes; padding has label 0.
    """

    def read_real(ids):
        jpegs = np.full(ids.shape, b"", dtype=object)
        labels = np.zeros(ids.shape, dtype=np.int32)
        others = np.full(ids.shape, b"", dtype=object)
        is_real = ids != PADDING
        if is_real.any():
            jpegs[is_real], real_labels, *rest = read_records(ids[is_real])
            labels[is_real] = real_labels + label_offset
            if rest:
                others[is_real] = rest[0]
        return jpegs, labels, others

    # Declared stateless, which by (seed, step) it is: under deterministic ops tf.data runs
    # stateful functions one at a time and without prefetching.
    read = tf.numpy_function(read_real, [ids], [tf.string, tf.int32, tf.string], stateful=False)
    return [tf.ensure_shape(part, ids.shape) for part in read]


def _noise(assignment, seed, *, height_px, width_px):
    """Uniform images in [-1, 1], float32 [local, rounds, n, H, W, 3]; zeros for padding."""
    shape = [assignment.replica_batch, height_px, width_px, 3]
    first = assignment.first_local
    micro_batches = []
    with tf.device("/CPU:0"):
        for physical in range(first, first + assignment.num_local):
            own = [
                tf.random.stateless_uniform(
                    shape,
                    seed=tf.constant([seed, declared], tf.int64),
                    minval=-1.0,
                    maxval=1.0,
                    alg="philox",
                )
                for declared in assignment.declared_of(physical)
            ]
            micro_batches += own + [tf.zeros(shape)] * (assignment.rounds - len(own))
        stacked = tf.stack(micro_batches)
        return tf.reshape(stacked, [assignment.num_local, assignment.rounds, *shape])


def finish(dataset, *, num_local, spec):
    """The data set with the options of all of them, and its batches made ahead."""
    options = tf.data.Options()
    options.deterministic = True
    # One thread per image: images are many, and sums inside an image (the contrast's mean) must
    # not depend on how many cores a worker has.
    options.threading.max_intra_op_parallelism = 1
    # The micro-batches are already this worker's own.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(spec.prefetch_steps * num_local).with_options(options)
