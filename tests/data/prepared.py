"""Data sets that TensorFlow Datasets itself prepares, offline, from files made here."""

import importlib.resources.abc
import io
import sys
import tarfile
from unittest import mock

import numpy as np
import tensorflow as tf

# TFDS asks for the backport of the standard library's module; where only that is there, it serves.
try:
    import importlib_resources  # noqa: F401
except ModuleNotFoundError:
    sys.modules["importlib_resources"] = importlib.resources

import tensorflow_datasets as tfds

CIFAR_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
SYNSETS = ("n01440764", "n02102040", "n02105855")
PNG_IN_DISGUISE = "n02105855_2933.JPEG"


def picture(number, *, height_px=40, width_px=48):
    """uint8 [H, W, 3], another picture for every number."""
    return np.random.default_rng(number).integers(0, 256, (height_px, width_px, 3), np.uint8)


def _add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_imagenet_tars(folder):
    """The two tars in the official layout; {file name: bytes} of the images in them."""
    written = {}
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as tar:
        for k, synset in enumerate(SYNSETS):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as class_tar:
                names = [f"{synset}_{number}.JPEG" for number in range(7 - k)]
                for name in names + [PNG_IN_DISGUISE] * (k == 2):
                    encode = tf.io.encode_png if name == PNG_IN_DISGUISE else tf.io.encode_jpeg
                    written[name] = encode(picture(len(written))).numpy()
                    _add(class_tar, name, written[name])
            _add(tar, f"{synset}.tar", inner.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as tar:
        for number in range(1, 6):
            name = f"ILSVRC2012_val_{number:08d}.JPEG"
            written[name] = tf.io.encode_jpeg(picture(100 + number)).numpy()
            _add(tar, name, written[name])
    return written


def prepare_imagenet(data_dir, manual_dir, *, num_shards=3):
    """Prepares imagenet2012/5.1.0 below `data_dir`; its builder."""
    builder = tfds.builder("imagenet2012", data_dir=data_dir)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, num_shards=num_shards)
    builder.download_and_prepare(download_config=config, file_format="tfrecord")
    return builder


def write_cifar_batches(folder):
    """CIFAR-10's binary files with 4 images each; {split: (uint8 [n, 32, 32, 3], labels)}."""
    batches = folder / "cifar-10-batches-bin"
    batches.mkdir(parents=True)
    (batches / "batches.meta.txt").write_text("\n".join(CIFAR_CLASSES) + "\n\n")
    written = {"train": ([], []), "test": ([], [])}
    names = [("train", f"data_batch_{n}.bin") for n in range(1, 6)] + [("test", "test_batch.bin")]
    for number, (split, name) in enumerate(names):
        data = b""
        for place in range(4):
            label = (4 * number + place) % 10
            pixels = picture(200 + 4 * number + place, height_px=32, width_px=32)
            data += bytes([label]) + pixels.transpose(2, 0, 1).tobytes()
            written[split][0].append(pixels)
            written[split][1].append(label)
        (batches / name).write_bytes(data)
    return {split: (np.stack(images), labels) for split, (images, labels) in written.items()}


def prepare_cifar(data_dir, source):
    """Prepares cifar10/3.0.2 below `data_dir`, with PNGs inside; its builder."""
    builder = tfds.builder("cifar10", data_dir=data_dir)
    with mock.patch.object(
        tfds.download.DownloadManager, "download_and_extract", return_value=str(source)
    ):
        builder.download_and_prepare(file_format="tfrecord")
    return builder


def stored_examples(builder, split):
    """What TFDS reads of a split, images as stored: dictionaries of NumPy values."""
    dataset = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    return list(dataset.as_numpy_iterator())
