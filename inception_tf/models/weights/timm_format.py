"""The names of timm's inception_v3, inception_v4 and inception_resnet_v2 in ours.

PyTorch keeps a convolution as [out, in, height, width] and a linear layer as [out, in]; ours are
[height, width, in, out] and [in, out].
"""

import numpy as np

from inception_tf.models.blocks import Conv, Mixed, Residual, named_boxes
from inception_tf.models.inception_resnet_v2 import inception_resnet_v2_stages
from inception_tf.models.inception_v3 import inception_v3_stages
from inception_tf.models.inception_v4 import inception_v4_stages
from inception_tf.models.weights.source import Translation

_VARIABLES = {
    "conv.weight": "kernel",
    "bn.weight": "gamma",
    "bn.bias": "beta",
    "bn.running_mean": "moving_mean",
    "bn.running_var": "moving_variance",
    "weight": "kernel",
    "bias": "bias",
}
_COUNTER = ".num_batches_tracked"
_V3_PADDING = (
    "timm's inception_v3 counts the padded zeros in the average pools of its blocks; this network "
    "does not, like the one the weights were first trained in (tf_*) but unlike torchvision's and "
    "gluon's. Outputs differ from timm's through the border pixels of those pools."
)
_GAMMA = (
    "The weights have a trained gamma. Those of gluon were trained on images normalised by "
    "ImageNet's mean and standard deviation; this network expects pixels scaled to [-1, 1]."
)

# Inception-v3: module -> branch -> its convolutions' names.
_35 = (
    ("branch1x1",),
    ("branch5x5_1", "branch5x5_2"),
    ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    ("branch_pool",),
)
_17 = (
    ("branch1x1",),
    tuple(f"branch7x7_{i}" for i in (1, 2, 3)),
    tuple(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)),
    ("branch_pool",),
)
_8 = (
    ("branch1x1",),
    ("branch3x3_1", "branch3x3_2a", "branch3x3_2b"),
    ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b"),
    ("branch_pool",),
)
_V3_BRANCHES = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), _35),
    "Mixed_6a": (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ()),
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), _17),
    "Mixed_7a": (
        ("branch3x3_1", "branch3x3_2"),
        tuple(f"branch7x7x3_{i}" for i in (1, 2, 3, 4)),
        (),
    ),
    **dict.fromkeys(("Mixed_7b", "Mixed_7c"), _8),
}
# Inception-v4: the branches of its 8x8 modules, and the single convolutions of two stem modules.
_V4_8 = (
    ("branch0",),
    ("branch1_0", "branch1_1a", "branch1_1b"),
    ("branch2_0", "branch2_1", "branch2_2", "branch2_3a", "branch2_3b"),
    ("branch3.1",),
)
_V4_BRANCHES = {
    "Mixed_3a": ((), ("conv",)),
    "Mixed_5a": (("conv",), ()),
    **dict.fromkeys(("Mixed_7b", "Mixed_7c", "Mixed_7d"), _V4_8),
}
_REPEAT = {"block35": "repeat", "block17": "repeat_1", "block8": "repeat_2"}

_TELLTALES = {
    "inception_v3": "Mixed_5b.branch1x1.conv.weight",
    "inception_v4": "features.0.conv.weight",
    "inception_resnet_v2": "mixed_5b.branch0.conv.weight",
}


def find_network(names):
    """The network whose tensors timm names so, or None."""
    return next((net for net, name in _TELLTALES.items() if name in names), None)


def translate(source):
    """See `Translation`; `source` is a WeightSource of the format 'timm'."""
    layer_of = _LAYERS[source.network]()
    translation = Translation()
    for name in source.arrays:
        if name.endswith(_COUNTER):
            translation.unused[name] = "PyTorch's count of batches, no weight"
            continue
        path, variable = _split(name)
        layer = layer_of.get(path, path)
        change = _to_channels_last if variable == "kernel" else None
        translation.add(f"{layer}/{variable}", name, change)
    if source.network == "inception_v3":
        translation.notes.append(_V3_PADDING)
    has_gamma = any(
        match.name.endswith("bn.weight") and not np.all(source.arrays[match.name] == 1.0)
        for match in translation.matches.values()
    )
    if has_gamma:
        translation.notes.append(_GAMMA)
    return translation


def _split(name):
    """(module path, our variable) of a tensor."""
    for ending, variable in _VARIABLES.items():
        if name.endswith(f".{ending}"):
            return name.removesuffix(f".{ending}"), variable
    path, _, variable = name.rpartition(".")
    return path, variable


def _to_channels_last(array):
    return np.transpose(array, (2, 3, 1, 0) if array.ndim == 4 else None)


def _layers_of_v3():
    layers = {
        "AuxLogits.conv0": "AuxLogits_Conv2d_1b_1x1",
        "AuxLogits.conv1": "AuxLogits_Conv2d_2a_5x5",
        "AuxLogits.fc": "AuxLogits_Logits",
        "fc": "Logits",
    }
    for stage in _flat(inception_v3_stages()):
        path = stage.name if isinstance(stage, Mixed) else stage.scope()
        layers |= _layers_of_stage(stage, path, _V3_BRANCHES)
    return layers


def _layers_of_v4():
    layers = {"last_linear": "Logits"}
    for index, stage in enumerate(_flat(inception_v4_stages())):
        layers |= _layers_of_stage(stage, f"features.{index}", _V4_BRANCHES)
    return layers


def _layers_of_resnet_v2():
    layers = {"classif": "Logits"}
    stages = _flat(inception_resnet_v2_stages())
    last_block = [stage.name for stage in stages if isinstance(stage, Residual)][-1]
    for stage in stages:
        path = _path_in_resnet_v2(stage, last_block)
        layers |= _layers_of_stage(stage, path, {})
        if isinstance(stage, Residual):
            layers[f"{path}.conv2d"] = f"{stage.name}_Conv2d_1x1"
    return layers


def _path_in_resnet_v2(stage, last_block):
    if isinstance(stage, Residual):
        kind, _, number = stage.name.partition("_")
        return "block8" if stage.name == last_block else f"{_REPEAT[kind]}.{int(number) - 1}"
    if isinstance(stage, Mixed):
        return stage.name.lower()
    return stage.scope().lower().rpartition("_")[0]  # Conv2d_1a_3x3 is conv2d_1a


_LAYERS = {
    "inception_v3": _layers_of_v3,
    "inception_v4": _layers_of_v4,
    "inception_resnet_v2": _layers_of_resnet_v2,
}


def _flat(stages):
    to_aux_head, from_aux_head = stages
    return (*to_aux_head, *from_aux_head)


def _layers_of_stage(stage, path, branch_names):
    """timm's module path -> our layer, of the convolutions of one stage.

    Args:
      path: of the stage.
      branch_names: stage -> branch -> names; for a stage that is not there they are
        `branch<i>.<position in it>`, or `branch<i>` alone for a branch of one box.
    """
    if isinstance(stage, Conv):
        return {path: stage.scope()}
    layers = {}
    for index, branch in enumerate(getattr(stage, "branches", ())):
        boxes = named_boxes(f"{stage.name}_Branch_{index}", branch)
        convs = [(i, name) for i, (name, box) in enumerate(boxes) if isinstance(box, Conv)]
        if stage.name in branch_names:
            names = branch_names[stage.name][index]
        elif len(boxes) == 1:
            names = [f"branch{index}"] * len(convs)
        else:
            names = [f"branch{index}.{i}" for i, _ in convs]
        layers |= {f"{path}.{theirs}": ours for (_, ours), theirs in zip(convs, names)}
    return layers
