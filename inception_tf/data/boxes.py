"""The objects of a record: the bounding boxes of the released `build_imagenet_data.py`."""

import numpy as np
import tensorflow as tf

# In the order of TensorFlow's boxes.
_KEYS = tuple(f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))


class BadBoxes(ValueError):
    """Boxes that are none; the message gives the reason without its place."""


def parse_boxes(payload: bytes) -> np.ndarray:
    """The boxes of one serialized Example, float32 [N, 4]: ymin, xmin, ymax, xmax in [0, 1].

    A record without the keys has no boxes. TensorFlow takes a box without area as it stands: no
    crop covers a share of it, so that the whole image is used.

    Raises:
      BadBoxes: the four lists differ in length, or a coordinate is not in [0, 1].
    """
    features = tf.train.Example.FromString(payload).features.feature
    sides = [
        np.array(features[key].float_list.value if key in features else (), np.float32)
        for key in _KEYS
    ]
    if len({len(side) for side in sides}) > 1:
        raise BadBoxes(f"its boxes have {', '.join(str(len(side)) for side in sides)} sides")
    boxes = np.stack(sides, axis=1)
    is_wrong = ~((boxes >= 0.0) & (boxes <= 1.0))  # NaN is wrong too
    if is_wrong.any():
        raise BadBoxes(f"a side of a box is at {boxes[is_wrong][0]:g}, outside the image")
    return boxes


def boxes_of_bytes(data: tf.Tensor) -> tf.Tensor:
    """float32 [N, 4] again, of a string scalar that holds `parse_boxes(...).tobytes()`."""
    return tf.reshape(tf.io.decode_raw(data, tf.float32), [-1, 4])
