""".safetensors files with the tensors of timm's Inception networks, and random values."""

import re

import numpy as np
from safetensors.numpy import save_file

from reference.layer_rows import Values, random_values, read_rows

NUM_CLASSES = 1000
_BATCH_NORM = {
    "gamma": "bn.weight",
    "beta": "bn.bias",
    "mean": "bn.running_mean",
    "variance": "bn.running_var",
}
# By the first letters of a slim module: its branches, {} being a convolution's position in one.
_V3_BRANCHES = {
    "Mixed_5": ("branch1x1", "branch5x5_{}", "branch3x3dbl_{}", "branch_pool"),
    "Mixed_6a": ("branch3x3", "branch3x3dbl_{}"),
    "Mixed_6": ("branch1x1", "branch7x7_{}", "branch7x7dbl_{}", "branch_pool"),
    "Mixed_7a": ("branch3x3_{}", "branch7x7x3_{}"),
    "Mixed_7": ("branch1x1", "branch3x3_{}", "branch3x3dbl_{}", "branch_pool"),
}
_V3_POSITIONS = {
    ("Mixed_7", 1): ("1", "2a", "2b"),
    ("Mixed_7", 2): ("1", "2", "3a", "3b"),
}
_V3_HEADS = {
    "AuxLogits/Conv2d_1b_1x1": "AuxLogits.conv0",
    "AuxLogits/Conv2d_2a_5x5": "AuxLogits.conv1",
    "AuxLogits/Conv2d_2b_1x1": "AuxLogits.fc",
    "Logits/Conv2d_1c_1x1": "fc",
}
# Slim's scopes in the order of timm's `features`.
_V4_MODULES = (
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Mixed_3a Mixed_4a Mixed_5a "
    "Mixed_5b Mixed_5c Mixed_5d Mixed_5e Mixed_6a "
    "Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_6f Mixed_6g Mixed_6h Mixed_7a "
    "Mixed_7b Mixed_7c Mixed_7d"
).split()
_V4_LAST_MODULES = {
    0: ("branch0",),
    1: ("branch1_0", "branch1_1a", "branch1_1b"),
    2: ("branch2_0", "branch2_1", "branch2_2", "branch2_3a", "branch2_3b"),
    3: ("branch3.1",),
}
_RESIDUAL_REPEATS = ("Repeat", "Repeat_1", "Repeat_2")


def timm_paths(network, *, aux_head=False):
    """Paths of timm's modules, {slim's scope: path}, such as 'Mixed_5b.branch5x5_1'.

    Args:
      network: 'inception_v3', 'inception_v4' or 'inception_resnet_v2'.
      aux_head: Inception-v3's auxiliary head too, which only torchvision's weights have.
    """
    path_of = {
        "inception_v3": _v3_path,
        "inception_v4": _v4_path,
        "inception_resnet_v2": _resnet_path,
    }[network]
    branches = {}
    for name in read_rows(network):
        if aux_head or "/AuxLogits/" not in name:
            branches.setdefault(name.rpartition("/")[0], []).append(name)
    return {
        name: path_of(name.partition("/")[2], position, len(names))
        for names in branches.values()
        for position, name in enumerate(names)
    }


def random_timm_arrays(network, *, seed, aux_head=False):
    """Tensors of a timm model, {key: array}: kernels [C', C, H, W], gamma not 1, counters int64."""
    rng = np.random.default_rng(seed)
    rows = read_rows(network, num_classes=NUM_CLASSES)
    arrays = {}
    for name, path in timm_paths(network, aux_head=aux_head).items():
        values = random_values(rows[name], rng, has_gamma=True)
        kernel = np.ascontiguousarray(values.kernel.transpose(3, 2, 0, 1))
        if values.bias is not None:
            is_dense = "conv2d" not in path
            arrays[f"{path}.weight"] = kernel[:, :, 0, 0] if is_dense else kernel
            arrays[f"{path}.bias"] = values.bias
            continue
        arrays[f"{path}.conv.weight"] = kernel
        for field, key in _BATCH_NORM.items():
            arrays[f"{path}.{key}"] = getattr(values, field)
        arrays[f"{path}.bn.num_batches_tracked"] = np.int64(157_585).reshape([])
    return arrays


def timm_values(arrays, network):
    """Function Row -> Values that reads timm-named arrays."""
    paths = timm_paths(network, aux_head=network == "inception_v3")

    def read(row):
        path = paths[row.name]
        if row.norm == "bias":
            kernel = arrays[f"{path}.weight"]
            kernel = kernel[:, :, None, None] if kernel.ndim == 2 else kernel
            return Values(kernel=kernel.transpose(2, 3, 1, 0), bias=arrays[f"{path}.bias"])
        kernel = arrays[f"{path}.conv.weight"].transpose(2, 3, 1, 0)
        fields = {field: arrays[f"{path}.{key}"] for field, key in _BATCH_NORM.items()}
        return Values(kernel=kernel, **fields)

    return read


def write_safetensors(path, arrays):
    """Writes {key: array} as timm publishes it."""
    contiguous = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    save_file(contiguous, str(path), metadata={"format": "pt"})


def _v3_path(scope, position, length):
    if scope in _V3_HEADS:
        return _V3_HEADS[scope]
    if "/" not in scope:
        return scope
    module, branch, _ = scope.split("/")
    kind = next(kind for kind in _V3_BRANCHES if module.startswith(kind))
    index = int(branch[-1])
    positions = _V3_POSITIONS.get((kind, index), "12345")
    return f"{module}.{_V3_BRANCHES[kind][index].format(positions[position])}"


def _v4_path(scope, position, length):
    if scope == "Logits/Logits":
        return "last_linear"
    module, *within = scope.split("/")
    path = f"features.{_V4_MODULES.index(module)}"
    if not within:
        return path
    if module in ("Mixed_3a", "Mixed_5a"):
        return f"{path}.conv"
    index = int(within[0][-1])
    if re.fullmatch("Mixed_7[bcd]", module):
        return f"{path}.{_V4_LAST_MODULES[index][position]}"
    return f"{path}.{_sequential(index, position, length)}"


def _resnet_path(scope, position, length):
    if scope == "Logits/Logits":
        return "classif"
    if "/" not in scope:
        return scope.rpartition("_")[0].lower()
    *block, last = scope.split("/")
    index = int(block.pop()[-1]) if block[-1].startswith("Branch_") else None
    path = block[0].lower()
    if block[0] in _RESIDUAL_REPEATS:
        number = int(block[1].rpartition("_")[2])
        path = f"{path}.{number - 1}"
    if index is None:
        return f"{path}.conv2d"
    return f"{path}.{_sequential(index, position, length)}"


def _sequential(index, position, length):
    """Path within a Sequential branch; an average pool before the convolution is number 0."""
    if index == 3:
        return "branch3.1"
    return f"branch{index}" if length == 1 else f"branch{index}.{position}"
