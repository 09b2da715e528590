"""The evaluation batches of a worker: over all workers every record exactly once."""

import tensorflow as tf

from inception_tf.data import image, pipeline


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
) -> tf.data.Dataset:
    """This worker's evaluation batches: over all workers every record exactly once.

    Elements come in the order (evaluation step, local replica). Every physical replica gets the
    same number of them, as collective operations need; what is left over is padding.

    Args:
      reader: as for `pipeline.train_dataset`.
      num_examples: records of the split.
      replica_batch: images b per element.
      num_physical: physical replicas over all workers.
      first_local: this worker's first physical replica.
      num_local: this worker's physical replicas.
      crop: the fixed crop.
      height_px, width_px: size of an image.
      spec: parallelism and prefetching.
      label_offset: as for `pipeline.train_dataset`.

    Returns:
      {'images': float32 [b, H, W, 3] in [-1, 1], 'labels': int32 [b], 'valid': bool [b]};
      padding is zeros with valid False.
    """
    num_elements = -(-num_examples // (replica_batch * num_physical)) * num_local
    size = {"height_px": height_px, "width_px": width_px}

    def places(index):
        physical = first_local + index % num_local
        first = (index // num_local * num_physical + physical) * replica_batch
        ids = first + tf.range(replica_batch, dtype=tf.int64)
        ids = tf.where(ids < num_examples, ids, pipeline.PADDING)
        return ids, ids

    def decode(jpeg, *_):
        return image.decode_evaluation(jpeg, crop=crop, **size)

    def element(images, labels, ids):
        return {"images": images, "labels": labels, "valid": ids != pipeline.PADDING}

    dataset = tf.data.Dataset.range(num_elements).map(places)
    dataset = pipeline.decoded(
        dataset, reader.read, decode, **size, spec=spec, label_offset=label_offset
    )
    dataset = dataset.batch(replica_batch, drop_remainder=True).map(element)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_elements))
    return pipeline.finish(dataset, num_local=num_local, spec=spec)
