"""Weights published for keras.applications' Inception-ResNet-v2, brought into ours.

Its 203 unnamed convolutions and batch norms carry numbers (`conv2d_17`, `batch_normalization_17`)
that grow in branch order, from wherever the process stood when the model was built; the order of
`model.layers` and of a file's groups does not. So they are mapped by number. Files are read as
data: nothing in them is executed or deserialised.
"""

import os
import pathlib
import re

import h5py

from inception_tf.errors import DataError
from inception_tf.models.blocks import named_convs
from inception_tf.models.inception_resnet_v2 import inception_resnet_v2, inception_resnet_v2_stages

_KERAS_VARIABLES = ("kernel", "bias", "beta", "moving_mean", "moving_variance")


def read_keras_h5(path):
    """Weights of an `.h5` file in Keras' legacy layout: layer name -> variable name -> array.

    Args:
      path: weights alone, as published, or a whole model saved as `.h5`.

    Raises:
      DataError: the file is missing, no HDF5, or in another layout.
    """
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if "model_weights" in file else file
            if "layer_names" not in root.attrs:
                raise DataError(
                    "Weights to import must be an .h5 file in Keras' legacy layout, with "
                    "'layer_names'.",
                    received=str(path),
                    remedy="Take the published file, or save the whole keras.applications model "
                    "with model.save('FILE.h5').",
                )
            return {
                name: _read_layer(root[name]) for name in _texts(root.attrs["layer_names"])
            }
    except (OSError, KeyError) as error:
        raise DataError(
            "Weights to import must be a readable HDF5 file.",
            received=f"{path}: {error}",
            remedy="Check the path; fetch the file again if it is incomplete.",
        ) from error


def keras_model_weights(model):
    """Weights of a live Keras model: layer name -> variable name -> array."""
    return {
        layer.name: {weight.name: weight.value.numpy() for weight in layer.weights}
        for layer in model.layers
        if layer.weights
    }


def load_keras_weights(model, source):
    """Fills a `released` model of full width with keras.applications' weights.

    Args:
      model: of `inception_resnet_v2(variant="released")` without auxiliary head, with top if and
        only if the source has one.
      source: layer name -> variable name -> array, of `read_keras_h5` or `keras_model_weights`.

    Raises:
      DataError: a weight of the model is missing in the source, left over, or of another shape;
        nothing is assigned then.
    """
    pairs = _layer_pairs(source)
    targets = {layer.name: layer for layer in model.layers if layer.weights}
    used = {ours for ours, _ in pairs}
    if used != set(targets):
        raise DataError(
            "The source must hold exactly the model's layers.",
            received=f"without a source: {sorted(set(targets) - used)[:5]}; "
            f"left over: {sorted(used - set(targets))[:5]}",
            remedy="Build the released variant at full depth, with top where the source has one.",
        )
    assignments, filled = [], set()
    for ours, theirs in pairs:
        variables = {weight.name: weight for weight in targets[ours].weights}
        for name, value in source[theirs].items():
            if name not in variables or tuple(variables[name].shape) != value.shape:
                wanted = {key: tuple(weight.shape) for key, weight in variables.items()}
                raise DataError(
                    "A weight must have the shape of the variable it fills.",
                    received=f"{theirs}/{name} {value.shape} for {ours} with {wanted}",
                    remedy="Check the width and the number of classes.",
                )
            assignments.append((variables[name], value))
            filled.add(variables[name].path)
    missing = [weight.path for weight in model.weights if weight.path not in filled]
    if missing:
        raise DataError("Every weight must be filled.", received=f"none for {missing[:5]}")
    for variable, value in assignments:
        variable.assign(value)


def import_keras_h5(path, out):
    """Writes keras.applications' Inception-ResNet-v2 weights as a `.weights.h5` of `released`.

    Args:
      path: see `read_keras_h5`.
      out: file to write, ending in `.weights.h5`; it appears complete or not at all.

    Returns:
      The model with the weights, with top where the source has one.

    Raises:
      DataError: see `read_keras_h5` and `load_keras_weights`; or `out` has another ending.
    """
    out = pathlib.Path(out)
    if not out.name.endswith(".weights.h5"):
        raise DataError("The file to write must end in '.weights.h5'.", received=str(out))
    if not out.parent.is_dir():
        raise DataError("The folder to write to must exist.", received=str(out.parent))
    source = read_keras_h5(path)
    dense = source.get("predictions")
    model = inception_resnet_v2(
        include_top=dense is not None,
        num_classes=dense["kernel"].shape[-1] if dense else 1000,
    )
    load_keras_weights(model, source)
    temporary = out.with_name(f".{os.getpid()}-{out.name}")
    try:
        model.save_weights(temporary)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return model


def _layer_pairs(source):
    """(our layer, source layer) in branch order."""
    to_aux_head, from_aux_head = inception_resnet_v2_stages()
    stages = (*to_aux_head, *from_aux_head)
    ours = [name for name, _ in named_convs(stages) if name != "Conv2d_7b_1x1"]
    pairs = []
    for prefix in ("conv2d", "batch_normalization"):
        theirs = _numbered(source, prefix)
        if len(theirs) != len(ours):
            raise DataError(
                f"keras.applications' Inception-ResNet-v2 has {len(ours)} unnamed layers of each "
                "kind.",
                received=f"{len(theirs)} named {prefix}*",
                remedy="Check that the weights are of this network.",
            )
        pairs.extend(zip(ours, theirs))
    pairs += [("Conv2d_7b_1x1", "conv_7b"), ("Conv2d_7b_1x1", "conv_7b_bn")]
    pairs += [
        (f"{name.removesuffix('_conv')}_Conv2d_1x1", name)
        for name in source
        if re.fullmatch(r"block\d+_\d+_conv", name)
    ]
    if "predictions" in source:
        pairs.append(("Logits", "predictions"))
    absent = [theirs for _, theirs in pairs if theirs not in source]
    unknown = [name for name in source if source[name] and name not in {b for _, b in pairs}]
    if absent or unknown:
        raise DataError(
            "The source must hold exactly keras.applications' layers.",
            received=f"absent: {absent[:5]}; unknown: {unknown[:5]}",
            remedy="Check that the weights are of Inception-ResNet-v2.",
        )
    return pairs


def _numbered(source, prefix):
    """Names such as conv2d, conv2d_1, ... in the order of their numbers."""
    found = [re.fullmatch(rf"{prefix}(?:_(\d+))?", name) for name in source]
    found = [match for match in found if match]
    return [match[0] for match in sorted(found, key=lambda match: int(match[1] or 0))]


def _read_layer(group):
    arrays = {}
    for path in _texts(group.attrs["weight_names"]):
        # 'conv2d_1/kernel:0' in the published files; 'kernel' where Keras 3 wrote it.
        name = path.split("/")[-1].removesuffix(":0")
        if name not in _KERAS_VARIABLES:
            raise DataError("A weight has an unknown name.", received=f"{group.name}/{path}")
        arrays[name] = group[path][()]
    return arrays


def _texts(names):
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
