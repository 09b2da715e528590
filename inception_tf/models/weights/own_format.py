"""Files of weights that this project writes: `.weights.h5` with the network's identity.

Keras' own layout, which `model.load_weights` reads, and one attribute at the root that says in JSON
which network the weights are of, so that a reader needs no second file.
"""

import json
import os
import pathlib
import re
import secrets

import h5py

from inception_tf import durable
from inception_tf.errors import DataError
from inception_tf.models.weights.files import IDENTITY_ATTRIBUTE
from inception_tf.models.weights.source import Translation

SUFFIX = ".weights.h5"
# The arguments of the builders, the classifier's apart, that decide which weights there are or
# what they compute.
OPTIONS = (
    "width_multiplier", "block_counts", "residual_scales", "batch_norm_on_sums", "stem",
    "first_stride", "first_pool", "branch_5x5", "factorisation", "aux_head", "aux_norm",
    "batch_norm_scale",
)  # fmt: skip
_OUR_VARIABLES = ("kernel", "gamma", "beta", "moving_mean", "moving_variance", "bias")
_OUR_LAYER = re.compile(
    r"Conv2d_\d[a-z]_\dx\d|(Mixed_\d[a-z]|block\d+_\d+)_(Branch_\d_)?Conv\w+|block\d+_\d+|Logits"
    r"|AuxLogits_\w+"
)


def save_own_weights(model, path, *, identity):
    """Writes a model's weights; the file appears complete or not at all.

    Args:
      path: ends in '.weights.h5', in a directory that exists.
      identity: what JSON can hold of the network: 'network', 'variant', 'num_outputs' (None
        without classifier), 'background_class' (None where unknown) and 'options', those of
        OPTIONS that are not the builder's defaults.

    Raises:
      DataError: another ending, no such directory, or the disk did not take it.
    """
    path = pathlib.Path(path)
    check_own_path(path)
    # The name keeps its suffix, from which Keras reads the format.
    unfinished = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        model.save_weights(unfinished)
        with h5py.File(unfinished, "a") as file:
            file.attrs[IDENTITY_ATTRIBUTE] = json.dumps(identity)
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


def read_identity(attribute, *, path):
    """What a file says of its network; empty where it says nothing.

    Raises:
      DataError: the attribute is not what `save_own_weights` writes.
    """
    if attribute is None:
        return {}
    try:
        identity = json.loads(attribute)
        unknown = set(identity.get("options", {})) - set(OPTIONS)
        if unknown or not isinstance(identity["network"], str):
            raise ValueError(f"unknown options {sorted(unknown)}" if unknown else "no network")
        return identity
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            "A file of this project must say in JSON which network its weights are of.",
            received=f"{path}: {attribute!r:.200}",
        ) from error


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
