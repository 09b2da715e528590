"""The names of slim's TF1 checkpoints in ours: Inception-v3, v4, Inception-ResNet-v2.

Our layers are named after slim's scopes, so most of it is '_' for '/'. What is not: the residual
blocks' Repeat scopes, the linear last block `Block8`, and the heads, which each network names in
its own way. facenet's Inception-ResNet-v1 has the same scopes and an embedding for a head.
"""

import re

from inception_tf.errors import DataError
from inception_tf.models.weights.source import Translation

_NETWORK_OF_SCOPE = {
    "InceptionV3": "inception_v3",
    "InceptionV4": "inception_v4",
    "InceptionResnetV1": "inception_resnet_v1",
    "InceptionResnetV2": "inception_resnet_v2",
}
_HEADS = {
    "inception_v3": {
        "Logits/Conv2d_1c_1x1": "Logits",
        "AuxLogits/Conv2d_2b_1x1": "AuxLogits_Logits",
    },
    "inception_v4": {
        "Logits/Logits": "Logits",
        "AuxLogits/Conv2d_2a": "AuxLogits_Conv2d_2a_5x5",
        "AuxLogits/Aux_logits": "AuxLogits_Logits",
    },
    "inception_resnet_v1": {},
    "inception_resnet_v2": {
        "Logits/Logits": "Logits",
        "AuxLogits/Logits": "AuxLogits_Logits",
    },
}
_VARIABLES = {
    "weights": "kernel",
    "biases": "bias",
    "BatchNorm/beta": "beta",
    "BatchNorm/gamma": "gamma",
    "BatchNorm/moving_mean": "moving_mean",
    "BatchNorm/moving_variance": "moving_variance",
}
_VARIABLE = re.compile(rf"(.+)/({'|'.join(_VARIABLES)})")
_AVERAGE = "/ExponentialMovingAverage"
_SLOT = re.compile(r"(.+)/(RMSProp|Momentum|Adam|Adagrad|Adadelta|Ftrl|AdagradDA)(_\d+)?")
_COUNTERS = re.compile(r"(.*/)?(global_step|beta[12]_power|local_step)")
_REPEAT = re.compile(r"Repeat(_\d)?/")
_OLDER_PACKAGE = re.compile(r"mixed_(35x35x256a|17x17x768a|17x17x1280a)/")


def find_network(names):
    """The network of a checkpoint's variables, or None.

    Raises:
      DataError: they are of the older `inception/` package, which is not read, or of two networks.
    """
    if any(_OLDER_PACKAGE.match(name) for name in names):
        raise DataError(
            "A TF1 checkpoint must be one of slim's networks.",
            received="one of the older inception/ package (scopes such as mixed_35x35x256a)",
            remedy="Take slim's inception_v3.ckpt.",
        )
    scopes = sorted({name.partition("/")[0] for name in names} & set(_NETWORK_OF_SCOPE))
    if len(scopes) > 1:
        raise DataError("A checkpoint must hold one network.", received=" and ".join(scopes))
    return _NETWORK_OF_SCOPE[scopes[0]] if scopes else None


def translate(source):
    """See `Translation`; `source` is a WeightSource of the format 'slim'.

    Where a variable has an average, that is its source: the released accuracies are of averages.
    """
    translation = Translation()
    block8 = _last_block8(source.arrays)
    num_averages = 0
    for name in source.arrays:
        reason = _reason_unused(name, source.arrays)
        match = _VARIABLE.fullmatch(name.removesuffix(_AVERAGE))
        if reason or not match:
            translation.unused[name] = reason or "no variable of a network"
            continue
        num_averages += name.endswith(_AVERAGE)
        _, _, scope = match[1].partition("/")
        layer = _our_layer(scope, source.network, block8)
        change = _squeeze if layer in ("Logits", "AuxLogits_Logits") else None
        translation.add(f"{layer}/{_VARIABLES[match[2]]}", name, change)
    if num_averages:
        translation.notes.append(
            f"{num_averages} variables have an ExponentialMovingAverage, which is what is used."
        )
    return translation


def _reason_unused(name, names):
    if _COUNTERS.fullmatch(name):
        return "a counter of the training, no weight"
    if _SLOT.fullmatch(name):
        return "a slot of the optimizer, no weight"
    if "/Bottleneck/" in name:
        return "the embedding of facenet, in whose place stands a classifier"
    if f"{name}{_AVERAGE}" in names:
        return "its ExponentialMovingAverage is used"
    if not name.startswith(tuple(f"{scope}/" for scope in _NETWORK_OF_SCOPE)):
        return "no variable of the network"
    return None


def _last_block8(names):
    """Our number of `Block8`: one more than the last of its repeated siblings."""
    found = [re.match(r"\w+/Repeat_2/block8_(\d+)/", name) for name in names]
    return 1 + max((int(match[1]) for match in found if match), default=0)


def _our_layer(scope, network, block8):
    if scope in _HEADS[network]:
        return _HEADS[network][scope]
    scope = _REPEAT.sub("", scope)
    scope = re.sub(r"^Block8/", f"block8_{block8}/", scope)
    return scope.replace("/", "_")


def _squeeze(array):
    """The 1x1 convolution of v3's heads [1, 1, C, K] as a dense layer's [C, K]."""
    return array[0, 0] if array.shape[:-2] == (1, 1) else array
