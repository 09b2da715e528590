"""A network of this project as a PyTorch module, and timm's models where torchvision is absent."""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types

import torch
from torch import nn


class ListedNetwork(nn.Module):
    """A network from its list of layers (tools/layer_list.py), as timm would write it.

    Images float32 [N, 3, H, W] in [-1, 1] to logits [N, K]. Convolutions without bias, batch norms
    with a gamma as all of timm's, ReLUs in place. Average pools do not count padded zeros.

    Args:
      layers: of `layer_list.layers_of`.

    Raises:
      ValueError: a layer that is not known here, or a padding that PyTorch has not.
    """

    def __init__(self, layers):
        super().__init__()
        first, *rest = layers
        channels = {first["name"]: first["config"]["batch_shape"][-1]}
        self.layers = nn.ModuleDict()
        for layer in rest:
            taken = [channels[name] for name in layer["inputs"]]
            self.layers[layer["name"]], channels[layer["name"]] = _build_layer(layer, taken)
        self._first = first["name"]
        last_takers = {name: layer["name"] for layer in rest for name in layer["inputs"]}
        # What nobody takes any more is let go at once, as the variables of a written model are.
        self._plan = [
            (
                layer["name"],
                tuple(layer["inputs"]),
                tuple(n for n in layer["inputs"] if last_takers[n] == layer["name"]),
            )
            for layer in rest
        ]

    def forward(self, images):
        """Logits [N, K] of images [N, 3, H, W]."""
        found = {self._first: images}
        for name, inputs, done in self._plan:
            found[name] = self.layers[name](*[found[taken] for taken in inputs])
            for taken in done:
                del found[taken]
        (logits,) = found.values()
        return logits


class Concatenation(nn.Module):
    """Inputs [N, C, H, W] side by side on channels."""

    def forward(self, *inputs):
        """[N, sum of C, H, W]."""
        return torch.cat(inputs, dim=1)


class ResidualSum(nn.Module):
    """`x + scale * up`, then ReLU unless `use_relu` is False; all [N, C, H, W]."""

    def __init__(self, scale, *, use_relu):
        super().__init__()
        self.scale = scale
        self.relu = nn.ReLU(inplace=True) if use_relu else nn.Identity()

    def forward(self, x, up):
        """[N, C, H, W]."""
        return self.relu(x + up * self.scale)


def _build_layer(layer, taken_channels):
    """(module, channels of its output)."""
    kind, config, channels = layer["kind"], layer["config"], taken_channels[0]
    if kind == "ConvUnit":
        filters = config["filters"]
        parts = [
            _convolution(layer, channels, bias=False),
            nn.BatchNorm2d(filters, eps=config["epsilon"], momentum=1.0 - config["momentum"]),
        ]
        return nn.Sequential(*parts, *[nn.ReLU(inplace=True)] * config["use_relu"]), filters
    if kind == "Conv2D":
        return _convolution(layer, channels, bias=True), config["filters"]
    if kind == "ResidualSum":
        return ResidualSum(config["scale"], use_relu=config["use_relu"]), channels
    if kind == "Concatenate":
        return Concatenation(), sum(taken_channels)
    if kind == "MaxPooling2D":
        return nn.MaxPool2d(config["pool_size"], config["strides"], _padding(layer)), channels
    if kind == "AveragePooling2D":
        pool = nn.AvgPool2d(
            config["pool_size"], config["strides"], _padding(layer), count_include_pad=False
        )
        return pool, channels
    if kind == "GlobalAveragePooling2D":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels
    if kind == "Dropout":
        return nn.Dropout(config["rate"]), channels
    if kind == "Dense":
        return nn.Linear(channels, config["units"]), config["units"]
    raise ValueError(f"no module of PyTorch stands for {kind} {layer['name']}")


def _convolution(layer, channels, *, bias):
    config = layer["config"]
    return nn.Conv2d(
        channels, config["filters"], tuple(config["kernel_size"]), tuple(config["strides"]),
        _padding(layer), bias=bias,
    )  # fmt: skip


def _padding(layer):
    """(vertical, horizontal) zeros on each side that stand for Keras' padding."""
    config = layer["config"]
    if config["padding"] == "valid":
        return 0, 0
    size = config.get("kernel_size") or config["pool_size"]
    if tuple(config["strides"]) != (1, 1) or any(side % 2 == 0 for side in size):
        raise ValueError(f"no symmetric padding of PyTorch stands for 'same' of {layer['name']}")
    return tuple(side // 2 for side in size)


@contextlib.contextmanager
def torchvision_or_stub():
    """Inside, timm can be imported without torchvision, which its networks do not compute with."""
    if importlib.util.find_spec("torchvision"):
        yield
        return
    finder = _StubFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        # Others who look for it shall find that it is not there.
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision and all below it as modules that have whatever name is asked for."""

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec):
        return _StubModule(spec.name)

    def exec_module(self, module):
        module.__version__ = "0"


class _StubModule(types.ModuleType):
    """A module in which every name is a class."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, _Members(name, (), {}))
        return getattr(self, name)


class _Members(type):
    """A class in which every name is a member, as of an enumeration: the name itself."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name
