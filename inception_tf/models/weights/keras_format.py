"""The names of keras.applications' InceptionV3 and InceptionResNetV2 in ours.

Their unnamed convolutions and batch norms carry numbers (`conv2d_17`, `batch_normalization_17`)
that grow in branch order, from wherever the process stood when the model was built; the order of
`model.layers` and of a file's groups does not. So they are mapped by number.
"""

import re

from inception_tf.errors import DataError
from inception_tf.models.blocks import named_convs
from inception_tf.models.inception_resnet_v2 import inception_resnet_v2_stages
from inception_tf.models.inception_v3 import inception_v3_stages
from inception_tf.models.weights.source import Translation

_STAGES = {
    "inception_v3": inception_v3_stages,
    "inception_resnet_v2": inception_resnet_v2_stages,
}
_NAMED = {
    "conv_7b": "Conv2d_7b_1x1",
    "conv_7b_bn": "Conv2d_7b_1x1",
    "predictions": "Logits",
}
_UP_CONVOLUTION = re.compile(r"(block\d+_\d+)_conv")
_NUMBERED = ("conv2d", "batch_normalization")
# Of the first and the last numbered convolution: other networks have as many.
_KERNELS = {
    "inception_v3": ((3, 3, 3, 32), (1, 1, 2048, 192)),
    "inception_resnet_v2": ((3, 3, 3, 32), (3, 1, 224, 256)),
}


def find_network(arrays):
    """The network whose layers keras.applications would name and shape so, or None."""
    layers = {name.rpartition("/")[0] for name in arrays}
    numbers = _numbers(layers, "conv2d")
    if not numbers:
        return None
    if "conv_7b" in layers or any(_UP_CONVOLUTION.fullmatch(layer) for layer in layers):
        network = "inception_resnet_v2"
    elif len(numbers) == len(_convolutions()["inception_v3"]):
        network = "inception_v3"
    else:
        return None
    ends = [f"{numbers[number]}/kernel" for number in (min(numbers), max(numbers))]
    has_ends = all(
        name in arrays and arrays[name].shape == shape
        for name, shape in zip(ends, _KERNELS[network])
    )
    return network if has_ends else None


def translate(source):
    """See `Translation`; `source` is a WeightSource of the format 'keras'.

    Raises:
      DataError: the file does not hold as many layers as the network has.
    """
    translation = Translation()
    layer_of = _layers(source)
    for name in source.arrays:
        layer, _, variable = name.rpartition("/")
        ours = layer_of.get(layer)
        if name.startswith("/"):
            translation.unused[name] = _reason(name)
        else:
            # A layer of another name is left over, which assigning reports as its fault.
            translation.add(f"{ours or layer}/{variable}", name)
    return translation


def _convolutions():
    """Network -> our names of the convolutions that keras.applications numbers."""
    convolutions = {}
    for network, stages in _STAGES.items():
        to_aux_head, from_aux_head = stages()
        names = [name for name, _ in named_convs((*to_aux_head, *from_aux_head))]
        convolutions[network] = [name for name in names if name != "Conv2d_7b_1x1"]
    return convolutions


def _layers(source):
    """Their layer -> ours."""
    layers = {name.rpartition("/")[0] for name in source.arrays}
    ours = _convolutions()[source.network]
    layer_of = dict(_NAMED)
    for prefix in _NUMBERED:
        numbers = _numbers(layers, prefix)
        if len(numbers) != len(ours):
            raise DataError(
                f"keras.applications' {source.network} has {len(ours)} layers named {prefix}*.",
                received=f"{len(numbers)} in {source.path}",
                remedy="Check that the weights are of this network alone.",
            )
        layer_of |= {numbers[number]: name for number, name in zip(sorted(numbers), ours)}
    for layer in layers:
        if match := _UP_CONVOLUTION.fullmatch(layer):
            layer_of[layer] = f"{match[1]}_Conv2d_1x1"
    return layer_of


def _numbers(layers, prefix):
    """Number -> name of the layers conv2d, conv2d_1, ..."""
    found = (re.fullmatch(rf"{prefix}(?:_(\d+))?", layer) for layer in layers)
    return {int(match[1] or 0): match[0] for match in found if match}


def _reason(name):
    if "seed_generator" in name:
        return "a random generator's state is no weight"
    if name.startswith(("/optimizer", "/optimizer_weights")):
        return "the optimizer's state is no weight of the network"
    return "no layer's weight"
