"""Images of given records in order, with their labels and names: what a block evaluation reads."""

import numpy as np
import tensorflow as tf

from inception_tf.data import pipeline


def block_dataset(reader, blocks, *, images: int, num_local: int, decode, spec, label_offset=0):
    """Elements of `images` images each, block after block, for `num_local` devices in turn.

    A block's last elements are filled up with its last image: as many elements as devices stand
    behind each other for every block.

    Args:
      reader: a RecordReader.
      blocks: int64 arrays of record ids, none of them empty.
      images: images b of an element.
      num_local: devices among which a block is dealt out.
      decode: from an image file's bytes, string scalar, to nested tensors of fixed shapes.
      spec: a DataSpec; parallelism and prefetching.
      label_offset: added to every label: 1 where output 0 is the background.

    Returns:
      tf.data.Dataset of {'images': what `decode` gives, [b, ...], 'labels': int32 [b],
      'file_names': string [b]}. A failed read ends it with an error of TensorFlow's;
      `reader.first_error` holds the real one.
    """

    def read(ids):
        jpegs, labels, names = reader.read_with_names(ids)
        encoded = np.array([name.encode() for name in names], object)
        return jpegs, labels + np.int32(label_offset), encoded

    def read_records(ids):
        kinds = [tf.string, tf.int32, tf.string]
        parts = tf.numpy_function(read, [ids], kinds, stateful=False)
        return tuple(tf.ensure_shape(part, [images]) for part in parts)

    def example(jpeg, label, name):
        return {"images": decode(jpeg), "labels": label, "file_names": name}

    filled = [_filled(ids, images * num_local) for ids in blocks]
    ids = np.concatenate(filled).reshape([-1, images])
    num_calls = tf.data.AUTOTUNE if spec.num_parallel_calls is None else spec.num_parallel_calls
    dataset = tf.data.Dataset.from_tensor_slices(ids)
    dataset = dataset.map(read_records, num_parallel_calls=pipeline.READS_AHEAD, deterministic=True)
    dataset = dataset.unbatch().map(example, num_parallel_calls=num_calls, deterministic=True)
    dataset = dataset.batch(images, drop_remainder=True)
    return pipeline.finish(dataset, num_local=num_local, spec=spec)


def _filled(ids, multiple):
    """The ids and, up to a multiple of so many, the last one again."""
    return np.concatenate([ids, np.repeat(ids[-1:], -len(ids) % multiple)])
