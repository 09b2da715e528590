"""The batch that every peer of a benchmark computes on, and the numbers of its training step."""

import numpy as np

# Small: the labels are drawn, and no peer's loss may become infinite. It does not change the time.
LEARNING_RATE = 0.001
LABEL_SMOOTHING = 0.1
DROPOUT_RATE = 0.2


def images_of(case):
    """float32 [batch, image_px, image_px, 3] in [-1, 1)."""
    shape = (case.batch, case.image_px, case.image_px, 3)
    return np.random.default_rng(0).random(shape, np.float32) * 2.0 - 1.0


def labels_of(case):
    """int32 [batch] in [0, num_classes)."""
    return np.random.default_rng(1).integers(case.num_classes, size=case.batch, dtype=np.int32)
