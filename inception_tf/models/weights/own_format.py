"""Files of weights that this project writes: `.weights.h5` or `.safetensors` with an identity.

The first in Keras' own layout, which `model.load_weights` reads, the second with our variables'
names. An attribute at the root, or an entry of the metadata, says in JSON which network the weights
are of, so that a reader needs no second file.
"""

import contextlib
import os
import pathlib
import re
import secrets

import h5py

from inception_tf import durable
from inception_tf.errors import ConfigError, DataError
from inception_tf.models.weights.files import IDENTITY_ATTRIBUTE
from inception_tf.models.weights.source import Translation

SUFFIX = ".weights.h5"
_OUR_VARIABLES = ("kernel", "gamma", "beta", "moving_mean", "moving_variance", "bias")
_OUR_LAYER = re.compile(
    r"Conv2d_\d[a-z]_\dx\d|(Mixed_\d[a-z]|block\d+_\d+)_(Branch_\d_)?Conv\w+|block\d+_\d+|Logits"
    r"|AuxLogits_\w+"
)


def save_own_weights(model, path, *, identity):
    """Writes a model's weights; the file appears complete or not at all.

    Args:
      path: ends in '.weights.h5', in a directory that exists.
      identity: NetworkIdentity of the model.

    Raises:
      DataError: another ending, no such directory, or the disk did not take it.
    """
    check_own_path(path)
    with _whole(path) as unfinished:
        model.save_weights(unfinished)
        with h5py.File(unfinished, "a") as file:
            file.attrs[IDENTITY_ATTRIBUTE] = identity.as_json()


def save_own_tensors(arrays, path, *, identity, about):
    """Writes weights by their names as safetensors; the file appears complete or not at all.

    Args:
      arrays: '<layer>/<variable>' -> array.
      path: in a directory that exists.
      identity: NetworkIdentity of the weights' network.
      about: what else to keep in the metadata, texts by name.

    Raises:
      ConfigError: safetensors is not installed.
      DataError: the disk did not take it.
    """
    try:
        import safetensors.numpy
    except ImportError as error:
        remedy = "Run: pip install safetensors. Or write a .weights.h5 file."
        raise ConfigError("Writing .safetensors needs safetensors.", remedy=remedy) from error
    with _whole(path) as unfinished:
        metadata = {**about, IDENTITY_ATTRIBUTE: identity.as_json()}
        try:
            safetensors.numpy.save_file(arrays, unfinished, metadata=metadata)
        except safetensors.SafetensorError as error:  # also how it reports a full disk
            raise OSError(str(error)) from error


@contextlib.contextmanager
def _whole(path):
    """The name of a file to write that becomes `path` once it is on the disk."""
    path = pathlib.Path(path)
    # The name keeps its suffix, from which Keras reads the format.
    unfinished = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        yield unfinished
        unfinished.chmod(0o644)  # safetensors lets nobody else read what it writes
        durable.flush_to_disk(unfinished)
        os.replace(unfinished, path)
        durable.flush_to_disk(path.parent)
    except OSError as error:
        raise DataError("The weights must fit on the disk.", received=f"{path}: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def check_own_path(path):
    """Raises DataError unless a file of weights can be written to `path`."""
    path = pathlib.Path(path)
    if not path.name.endswith(SUFFIX):
        raise DataError(f"The file to write must end in '{SUFFIX}'.", received=str(path))
    if not path.parent.is_dir():
        raise DataError("The directory to write to must exist.", received=str(path.parent))


def is_own(names):
    """Whether tensors are named as our variables are: '<layer>/<variable>'."""
    pairs = [name.rpartition("/")[::2] for name in names]
    return any(
        _OUR_LAYER.fullmatch(layer) and variable in _OUR_VARIABLES for layer, variable in pairs
    )


def find_network(names):
    """The network that has our layers of these names, or None where they do not tell."""
    layers = {name.rpartition("/")[0] for name in names}
    if "block35_1_Conv2d_1x1" in layers:
        return "inception_resnet_v1" if "Conv2d_4b_3x3" in layers else "inception_resnet_v2"
    if any(layer.startswith("Mixed_3a_") for layer in layers):
        return "inception_v4"
    if any(layer.startswith("Mixed_5b_") for layer in layers):
        return "inception_v3"
    return None


def translate(source):
    """See `Translation`; `source` is a WeightSource of the format 'own'."""
    translation = Translation()
    for name in source.arrays:
        if name.startswith("/") or name.endswith("seed_generator_state"):
            translation.unused[name] = "the state of a generator or an optimizer is no weight"
        else:
            translation.add(name, name)
    return translation
