"""Answers of an exported model, in a process that has TensorFlow and nothing of this project.

Arguments: the SavedModel, a file with JPEGs (.npy of bytes objects), the file to write.
"""

import importlib.util
import sys

import numpy as np
import tensorflow as tf

if importlib.util.find_spec("inception_tf") is not None:
    sys.exit("the package is importable: this process proves nothing")

path, jpegs_file, answers_file = sys.argv[1:]
jpegs = [bytes(jpeg) for jpeg in np.load(jpegs_file, allow_pickle=True)]
signatures = tf.saved_model.load(path).signatures
answers = dict(signatures["serving_default"](image_bytes=tf.constant(jpegs)))
every = signatures["all_probabilities"](image_bytes=tf.constant(jpegs))["probabilities"]
answers["all_probabilities"] = every
np.savez(answers_file, **{name: value.numpy() for name, value in answers.items()})
