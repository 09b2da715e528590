"""Prints a digest of training images as computed with a number of intra-op threads.

    python tests/data/hash_images.py NUM_THREADS
"""

import hashlib
import sys

import numpy as np
import tensorflow as tf

from inception_tf.data import image

NUM_IMAGES = 24


def main():
    tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
    pixels = np.random.default_rng(0).integers(0, 256, [300, 400, 3]).astype(np.uint8)
    jpeg = tf.io.encode_jpeg(pixels)

    def decode(position):
        key = tf.stack([tf.constant(0, tf.int64), position])
        return image.decode_training(
            jpeg, key, augmentation=image.Augmentation(), height_px=299, width_px=299
        )

    digest = hashlib.sha256()
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1  # as the pipeline
    images = tf.data.Dataset.range(NUM_IMAGES).map(decode, num_parallel_calls=4)
    for decoded in images.with_options(options):
        digest.update(decoded.numpy().tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
