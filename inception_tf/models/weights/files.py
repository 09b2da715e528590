"""Reads files of weights as data: TensorFlow checkpoints, HDF5, safetensors.

What a file is, its first and last bytes say, not its name. Nothing in a file is executed or
deserialised: no pickle, no `load_model`; links of an HDF5 file to other files are not followed.
"""

import collections
import contextlib
import os
import pathlib
import re

import h5py
import numpy as np

from inception_tf.errors import ConfigError, DataError
from inception_tf.models.weights.source import StoredTensors

CHECKPOINT, HDF5, SAFETENSORS = "TensorFlow checkpoint", "HDF5", "safetensors"
IDENTITY_ATTRIBUTE = "inception_tf"

# At the end of a LevelDB table: the index of a V2 checkpoint and a V1 checkpoint alike.
_TABLE_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_DATA_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_REFUSED = (
    (b"\x1f\x8b", "a gzip archive", "Unpack it and give the checkpoint inside."),
    (b"PK\x03\x04", "a zip archive (a .keras or PyTorch file)",
     "Save the weights alone: as .weights.h5 in Keras, as .safetensors in PyTorch."),
    (b"\x80", "a pickle, which could execute anything", "Take the .safetensors file."),
)  # fmt: skip
_RANK_OF_VECTOR = 1
_MAX_TENSOR_BYTES = 2**31  # far above any tensor of these networks; a sparse HDF5 can claim more


def open_tensors(path):
    """The tensors of a file.

    Args:
      path: an HDF5 or safetensors file; or a TensorFlow checkpoint: its prefix, one of its files,
        or a directory with a `checkpoint` file.

    Returns:
      (container, StoredTensors, attribute), container being CHECKPOINT, HDF5 or SAFETENSORS and
      attribute the text that this project writes beside its weights, or None.

    Raises:
      DataError: nothing is there, or it is none of these, damaged or cut short.
      ConfigError: safetensors is not installed.
    """
    path = pathlib.Path(path).expanduser()
    with _readable(path):
        prefix = _prefix_in_directory(path) if path.is_dir() else _checkpoint_prefix(path)
    if prefix is not None:
        return CHECKPOINT, _open_checkpoint(prefix), None
    if not path.is_file():
        raise DataError(
            "Weights to read must be a file or a TensorFlow checkpoint.",
            received=str(path),
            remedy="Check the path; give a checkpoint as its prefix, such as DIR/model.ckpt-100.",
        )
    with _readable(path):
        size_bytes = path.stat().st_size
        with open(path, "rb") as stream:
            head = stream.read(16)
        if h5py.is_hdf5(path):
            tensors, attribute = _open_hdf5(path)
            return HDF5, tensors, attribute
    header_bytes = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= header_bytes:
        return SAFETENSORS, *_open_safetensors(path)
    for magic, what, remedy in _REFUSED:
        if head.startswith(magic):
            raise DataError(
                "Weights must be HDF5, safetensors or a TensorFlow checkpoint.",
                received=f"{path}, {what}",
                remedy=remedy,
            )
    raise DataError(
        "Weights must be HDF5, safetensors or a TensorFlow checkpoint.",
        received=f"{path}, {size_bytes:,} bytes of something else",
        remedy="Check the path; fetch the file again if it is incomplete.",
    )


@contextlib.contextmanager
def _readable(path, name=None):
    """Turns what a library says of a damaged file into a DataError."""
    try:
        yield
    except (DataError, ConfigError):
        raise
    # Damaged bytes come back as nearly any exception of h5py, safetensors and TensorFlow.
    except Exception as error:
        tensor = f", tensor {name}" if name else ""
        raise DataError(
            "A file of weights must be whole.",
            received=f"{path}{tensor}: {' '.join(str(error).split())}",
            remedy="Fetch the file again if it is incomplete.",
        ) from error


def _checkpoint_prefix(path):
    """The name that TensorFlow's reader wants, or None where this is no checkpoint."""
    bare = path.with_name(_DATA_SUFFIX.sub("", path.name))
    if bare.with_name(f"{bare.name}.index").is_file():
        return bare
    if bare != path and bare.is_file():  # FILE.meta beside a V1 checkpoint FILE
        path = bare
    if not path.is_file() or path.stat().st_size < len(_TABLE_MAGIC):
        return None
    with open(path, "rb") as stream:
        stream.seek(-len(_TABLE_MAGIC), os.SEEK_END)
        return path if stream.read() == _TABLE_MAGIC else None


def _prefix_in_directory(path):
    """The newest checkpoint that a directory's `checkpoint` file names, looked for beside it."""
    state = path / "checkpoint"
    try:
        text = state.read_text(encoding="utf-8") if state.is_file() else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    named = re.search(r'^model_checkpoint_path:\s*"(.+)"', text, re.MULTILINE)
    # The file may name the directory of the machine that wrote it.
    name = pathlib.PurePosixPath(named[1]).name if named else ""
    prefix = _checkpoint_prefix(path / name) if name not in ("", "..") else None
    if prefix:
        return prefix
    raise DataError(
        "A directory of weights must hold a TensorFlow checkpoint and its `checkpoint` file.",
        received=str(path),
        remedy="Give the checkpoint itself, such as DIR/model.ckpt-100.",
    )


def _open_checkpoint(prefix):
    import tensorflow as tf

    with _readable(prefix):
        reader = tf.train.load_checkpoint(str(prefix))
        names = sorted(reader.get_variable_to_shape_map())

    def read(name):
        with _readable(prefix, name):
            return reader.get_tensor(name)

    return StoredTensors(names, read)


def _open_safetensors(path):
    try:
        import safetensors
    except ImportError as error:
        raise ConfigError(
            "Reading .safetensors needs the package safetensors.",
            received=str(path),
            remedy="Run in the checkout: pip install -e '.[timm]'.",
        ) from error
    with _readable(path):
        stored = safetensors.safe_open(path, framework="numpy")
        names = sorted(stored.keys())
        attribute = (stored.metadata() or {}).get(IDENTITY_ATTRIBUTE)

    def read(name):
        with _readable(path, name):
            return stored.get_tensor(name)

    return StoredTensors(names, read), attribute


def _open_hdf5(path):
    with h5py.File(path, "r") as file:
        attribute = file.attrs.get(IDENTITY_ATTRIBUTE)
        datasets = {}
        # Visits what the file itself holds: soft and external links are not followed.
        file.visititems(lambda name, item: _note_dataset(datasets, name, item, path))
        paths = _names_of_layers(file, datasets)

    def read(name):
        with _readable(path, name), h5py.File(path, "r") as file:
            return np.asarray(file[paths[name]][()])

    return StoredTensors(paths, read), attribute


def _note_dataset(datasets, name, item, path):
    if not isinstance(item, h5py.Dataset):
        return
    if item.external or item.is_virtual:
        raise DataError(
            "Weights must be in the file itself.",
            received=f"{path}: {name} lies in another file",
        )
    if item.dtype.kind not in "fiu" or item.nbytes > _MAX_TENSOR_BYTES:
        raise DataError(
            "A tensor must hold numbers, 2 GiB of them at most.",
            received=f"{path}: {name} of {item.dtype} with shape {item.shape}",
        )
    datasets[name] = item.ndim


def _names_of_layers(file, datasets):
    """'<layer>/<variable>' -> path in the file, for both of Keras' layouts.

    Legacy: [model_weights/]<layer>/.../<layer>/<variable>[:0]. Keras 3: .../vars/<i>, whose group
    says the layer's name in an attribute.
    """
    paths = {}
    groups = collections.defaultdict(list)
    for name in datasets:
        groups[name.rpartition("/")[0]].append(name)
    for group, members in groups.items():
        for name, key in zip(members, _keys(file[group or "/"], group, members, datasets)):
            if key in paths:
                raise DataError(
                    "A file of weights must name every tensor once.",
                    received=f"{file.filename}: {paths[key]} and {name} both as {key}",
                )
            paths[key] = name
    return paths


def _keys(item, group, members, ndim_of):
    """Our names for the datasets of one group."""
    top, _, _ = group.partition("/")
    is_weight = group and top != "optimizer_weights" and top != "optimizer"
    layer, _, last = group.rpartition("/")
    if last != "vars":
        # The group's last part is the layer: 'conv2d_1/conv2d_1' in the published files.
        layer = group.rpartition("/")[2]
        return [
            f"{layer}/{name.rpartition('/')[2].removesuffix(':0')}" if is_weight else f"/{name}"
            for name in members
        ]
    layer = item.attrs.get("name")
    if not is_weight or layer is None or "seed_generator" in group:
        return [f"/{name}" for name in members]
    layer = layer.decode() if isinstance(layer, bytes) else str(layer)
    in_order = sorted(members, key=lambda name: int(name.rpartition("/")[2]))
    variables = _variables([ndim_of[name] for name in in_order])
    key_of = dict(zip(in_order, variables or range(len(in_order))))
    return [f"{layer}/{key_of[name]}" for name in members]


def _variables(ranks):
    """Names of a layer's variables, in Keras' order, from how many there are and their ranks."""
    if not ranks:
        return None
    kernel = ["kernel"] if ranks[0] > _RANK_OF_VECTOR else []
    vectors = {
        0: [],
        1: ["bias"],
        3: ["beta", "moving_mean", "moving_variance"],
        4: ["gamma", "beta", "moving_mean", "moving_variance"],
    }
    rest = vectors.get(len(ranks) - len(kernel))
    return None if rest is None else kernel + rest
