"""Small sources of images and the records built from them."""

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import build
from inception_tf.data import sources


def picture(number, *, height_px=40, width_px=48):
    """Smooth uint8 [H, W, 3] pixels, another picture for every number."""
    y, x = np.mgrid[:height_px, :width_px] / 16.0
    waves = [np.sin(x * (1 + c) + number) * np.cos(y + c * number) for c in range(3)]
    return np.rint(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


def write_folder(root):
    """14 train and 6 val images of 3 classes; among them one PNG and one greyscale JPEG."""
    for split, per_class in (("train", (5, 5, 4)), ("val", (2, 2, 2))):
        for label, name in enumerate(("ant", "bee", "cow")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class[label]):
                pixels = picture(10 * label + i)
                data = tf.io.encode_jpeg(pixels, quality=95).numpy()
                if (split, name, i) == ("train", "ant", 1):
                    data = tf.io.encode_png(pixels).numpy()  # a PNG named .JPEG, as ImageNet has
                if (split, name, i) == ("train", "bee", 2):
                    data = tf.io.encode_jpeg(pixels[..., :1], format="grayscale").numpy()
                (folder / f"{name}_{i}.JPEG").write_bytes(data)
    return root


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def built_records(image_folder, tmp_path_factory):
    """Records of `image_folder` in 3 + 1 shards; not to be changed."""
    out = tmp_path_factory.mktemp("records")
    build.build_records(
        sources.FolderSource(image_folder), out, num_shards={"train": 3, "validation": 1}
    )
    return out


@pytest.fixture
def records(built_records, tmp_path):
    """A copy of `built_records` that a test may damage, without the index that others left."""
    copy = tmp_path / "records"
    copy.mkdir()
    for path in built_records.iterdir():
        if path.suffix != ".npz":
            (copy / path.name).write_bytes(path.read_bytes())
    return copy
