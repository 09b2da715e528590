"""The evaluation batches of a worker: over all workers every record exactly once."""

import functools

import numpy as np
import tensorflow as tf

from inception_tf.data import image, pipeline
from inception_tf.errors import DataError

_COUNTED = b"counted"


def eval_dataset(
    reader,
    *,
    num_examples: int,
    replica_batch: int,
    num_physical: int,
    first_local: int,
    num_local: int,
    crop: image.EvaluationCrop,
    height_px: int,
    width_px: int,
    spec: pipeline.DataSpec,
    label_offset: int = 0,
    is_counted=None,
) -> tf.data.Dataset:
    """This worker's evaluation batches: over all workers every record exactly once.

    Elements come in the order (evaluation step, local replica). Every physical replica gets the
    same number of them, as collective operations need; what is left over is padding.

    Args:
      reader: as for `pipeline.train_dataset`; with `is_counted` also `read_with_names`.
      num_examples: records of the split.
      replica_batch: images b per element.
      num_physical: physical replicas over all workers.
      first_local: this worker's first physical replica.
      num_local: this worker's physical replicas.
      crop: the fixed crop.
      height_px, width_px: size of an image.
      spec: parallelism and prefetching.
      label_offset: as for `pipeline.train_dataset`.
      is_counted: from file names, str [n], to whether each image counts in a second result too,
        bool [n]; raises DataError for names that it does not know. None: there is no second one.

    Returns:
      {'images': float32 [b, H, W, 3] in [-1, 1], 'labels': int32 [b], 'valid': bool [b]}, with
      `is_counted` also 'counted': bool [b]; padding is zeros with both False.
    """
    num_elements = -(-num_examples // (replica_batch * num_physical)) * num_local
    size = {"height_px": height_px, "width_px": width_px}

    def places(index):
        batch = index // num_local * num_physical + first_local + index % num_local
        return _places(batch, num_examples=num_examples, replica_batch=replica_batch)

    def decode(jpeg, *_):
        return image.decode_evaluation(jpeg, crop=crop, **size)

    read, keep = reader.read, _validity
    if is_counted is not None:
        read, keep = functools.partial(_read_marked, reader, is_counted), _validity_and_mark
    dataset = tf.data.Dataset.range(num_elements).map(places)
    dataset = pipeline.decoded(
        dataset, read, decode, **size, spec=spec, label_offset=label_offset, keep=keep
    )
    dataset = dataset.batch(replica_batch, drop_remainder=True)
    dataset = dataset.map(lambda images, labels, kept: {"images": images, "labels": labels, **kept})
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_elements))
    return pipeline.finish(dataset, num_local=num_local, spec=spec)


def _places(batch, *, num_examples, replica_batch):
    """Record ids, int64 [b], of a batch counted over all replicas: as ids and as positions."""
    ids = batch * replica_batch + tf.range(replica_batch, dtype=tf.int64)
    ids = tf.where(ids < num_examples, ids, pipeline.PADDING)
    return ids, ids


def _validity(position, _):
    return {"valid": position != pipeline.PADDING}


def _validity_and_mark(position, mark):
    return {"valid": position != pipeline.PADDING, "counted": mark == _COUNTED}


def _read_marked(reader, is_counted, record_ids):
    """As the reader's `read`, and third a mark of the images that count, object [n] of bytes."""
    images, labels, names = reader.read_with_names(record_ids)
    try:
        counted = is_counted(names)
    except DataError as error:  # kept as the reader's own are: tf.data wraps what is raised here
        reader.first_error = reader.first_error or error
        raise
    return images, labels, np.where(counted, _COUNTED, b"").astype(object)
