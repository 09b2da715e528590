"""`inception_tf.train` on which one image of one step becomes NaN, on one worker alone.

    python -m tests.integration.nan_in_a_batch --nan_at=STEP:WORKER <flags of train>

Planted in the batches that the worker is fed, behind the records and their decoding, so that the
records themselves stay sound. CPU workers of one device: a worker's number is its first device's.
"""

from inception_tf import flags as shared_flags  # isort: skip  (imports TensorFlow quietly)

import numpy as np
import tensorflow as tf
from absl import flags

from inception_tf import inputs, train

flags.DEFINE_string("nan_at", None, "STEP:WORKER", required=True)
_make_batches = inputs._train_dataset


def _planted(element):
    mask = np.zeros(element["images"].shape, np.float32)
    mask[0, 0, 2, 3, 1] = np.nan
    return {**element, "images": element["images"] + mask}


def _train_dataset(opened, experiment, assignment, *, start_step):
    nan_step, nan_worker = (int(part) for part in flags.FLAGS.nan_at.split(":"))
    dataset = _make_batches(opened, experiment, assignment, start_step=start_step)
    if assignment.first_local != nan_worker:
        return dataset
    return dataset.enumerate(start_step).map(
        lambda step, element: tf.cond(
            step == nan_step, lambda: _planted(element), lambda: element
        )
    )


if __name__ == "__main__":
    inputs._train_dataset = _train_dataset
    shared_flags.run(train.main)
