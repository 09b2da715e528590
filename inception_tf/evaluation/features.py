"""What a network makes of images before its classifier, as arrays."""

import collections.abc
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from inception_tf import durable
from inception_tf.data import image_files
from inception_tf.errors import ConfigError, DataError, did_you_mean
from inception_tf.models.stage_builder import endpoints

POOLINGS = ("avg", "max", "none")
_POOLS = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}


def feature_model(model, *, endpoint: str | None = None, pooling: str = "avg"):
    """The part of a network up to one of its stages, with the network's own variables.

    Args:
      model: keras.Model of one of the builders, with or without its top.
      endpoint: a name of `stage_builder.endpoints`; None takes the last grid, so that pooling
        'avg' gives what the classifier sees.
      pooling: 'avg' or 'max' over the grid, or 'none' for the grid itself.

    Returns:
      keras.Model, images float32 [N, H, W, 3] in [-1, 1] -> [N, C] float32, or with 'none'
      [N, h, w, C] in the network's precision.

    Raises:
      ConfigError: the network has no such endpoint, or there is no such pooling.
    """
    stages = endpoints(model)
    endpoint = list(stages)[-1] if endpoint is None else endpoint
    if endpoint not in stages:
        raise ConfigError(
            f"{model.name} has no such endpoint.",
            received=repr(endpoint),
            remedy=f"{did_you_mean(endpoint, stages)} It has {', '.join(stages)}.".lstrip(),
        )
    if pooling not in POOLINGS:
        raise ConfigError(f"pooling must be one of {POOLINGS}.", received=repr(pooling))
    features = stages[endpoint]
    if pooling != "none":
        # Float32 under every policy, as the network's own pooling (models/heads.py).
        features = _POOLS[pooling](data_format="channels_last", dtype="float32")(features)
    return keras.Model(model.input, features)


def extract(
    model,
    paths,
    *,
    decode: collections.abc.Callable,
    batch: int,
    on_bad: collections.abc.Callable,
) -> collections.abc.Iterator[tuple[list[str], np.ndarray]]:
    """Features of image files, in their order.

    Args:
      model: of `feature_model`.
      paths: of the image files.
      decode: from a file's bytes to the model's input; the evaluation's own function.
      batch: images in a batch; features do not depend on it beyond the last digits.
      on_bad: called with path and reason of every file that is left out.

    Yields:
      (paths, float32 [n, ...]) of the images that could be read.
    """

    @tf.function(input_signature=[tf.TensorSpec([None, *model.input.shape[1:]], tf.float32)])
    def features_of(images):
        return tf.cast(model(images, training=False), tf.float32)

    in_lines = []
    for path in paths:
        if "\n" in path or "\r" in path:
            on_bad(path, "its name has a line break, and a name is one line")
        else:
            in_lines.append(path)
    for indices, images, reasons in image_files.images_or_reasons(
        in_lines, decode=decode, batch=batch
    ):
        for index, reason in reasons:
            on_bad(in_lines[index], reason)
        if images is not None:
            yield [in_lines[index] for index in indices], features_of(images).numpy()


def save_features(
    path, batches, *, most_rows: int, row_shape: tuple[int, ...]
) -> tuple[pathlib.Path, int]:
    """Writes features as `.npy` and their names beside it, one batch after the other.

    FEATURES.npy is float32 [N, *row_shape], FEATURES.names.txt has the N names, one in a line.
    Both appear once all rows are written; after an exception neither does, and whoever finds both
    has rows and names of one call.

    Args:
      path: to write, see `check_out`.
      batches: (names, float32 [n, *row_shape]), as of `extract`.
      most_rows: there are no more rows than these.

    Returns:
      Path of the names, and N.

    Raises:
      ConfigError: `path` cannot be written.
      DataError: not a single row, or the disk does not take them.
    """
    path, names_path = check_out(path)
    try:
        return names_path, _write(path, names_path, batches, most_rows, row_shape)
    except OSError as error:
        raise DataError("Features need space on the disk.", received=f"{path}: {error}") from error


def _write(path, names_path, batches, most_rows, row_shape):
    """Writes both files; the number of rows."""
    names = []
    with durable.open_whole(names_path) as names_stream, durable.open_whole(path) as stream:
        _write_header(stream, [most_rows, *row_shape])
        for some_names, features in batches:
            stream.write(np.ascontiguousarray(features, np.float32))
            names += some_names
        if not names:
            raise DataError("At least one image must be readable.", received="none")
        # NumPy leaves room in the header for any number of rows: it is as long as the first one.
        stream.seek(0)
        _write_header(stream, [len(names), *row_shape])
        names_stream.write(b"".join(os.fsencode(name) + b"\n" for name in names))
        # The rows get their name first, the names theirs after them: an earlier call's names must
        # not stand beside these rows in between.
        names_path.unlink(missing_ok=True)
    return len(names)


def check_out(path) -> tuple[pathlib.Path, pathlib.Path]:
    """Paths of the features and of their names; to be asked before the work begins.

    Raises:
      ConfigError: `path` does not end in .npy, or its folder does not exist.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npy" or not path.parent.is_dir():
        raise ConfigError(
            "Features are written to a .npy file in a folder that exists.", received=str(path)
        )
    return path, path.with_name(f"{path.stem}.names.txt")


def _write_header(stream, shape):
    form = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(stream, form)
