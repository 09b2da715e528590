"""A built network as a table: what each layer is, holds, costs and sees of the image."""

import dataclasses
import itertools
import re

import keras

from inception_tf.models import counting
from inception_tf.models.layers import VALID, ConvUnit, Dropout, ResidualSum, SumNorm
from inception_tf.models.wiring import producers_of, sources_of

AUX_STAGE = "AuxLogits"
_IN_STAGE = re.compile(rf"(Mixed_\d[a-z]|block\d+_\d+|{AUX_STAGE})(?=_|$)")
_KERNEL_SUFFIX = re.compile(r"_\d+x\d+$")
_GLOBAL_POOLS = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
_POOLS = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
_CONVS = (ConvUnit, keras.layers.Conv2D)
_VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer of a network.

    Attributes:
      stage: 'Mixed_5b', 'block35_1', 'Conv2d_1a_3x3', 'AuxLogits'; 'Logits' with the pool and the
        dropout before it.
      name: of the Keras layer.
      kind: 'conv+bn+relu', 'conv+bias', 'max pool', 'concat', 'sum+relu', 'dense' ...
      grid: (height, width) of the output; (1, 1) of a vector.
      channels: of the output.
      kernel: (height, width) of a convolution's or pool's window, else None.
      stride: of the window in both directions, else None.
      padding: 'same' or 'valid', else None.
      num_parameters: values, moving statistics included.
      num_trainable: values that gradients reach.
      num_multiply_adds: per image, of convolutions and dense layers.
      receptive_field_px: (height, width) of the part of the image that one output value can
        depend on, where the image's border does not cut it off.
      num_activation_values: of the output, per image.
      num_kept_values: that a training step keeps of this layer for its backward pass, per image;
        see `layer_rows`.
      value_bytes: of one output value under the layer's policy.
    """

    stage: str
    name: str
    kind: str
    grid: tuple[int, int]
    channels: int
    kernel: tuple[int, int] | None
    stride: int | None
    padding: str | None
    num_parameters: int
    num_trainable: int
    num_multiply_adds: int
    receptive_field_px: tuple[int, int]
    num_activation_values: int
    num_kept_values: int
    value_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over some rows; the fields are those of `LayerRow`, bytes per image."""

    num_parameters: int
    num_trainable: int
    num_multiply_adds: int
    num_activation_values: int
    activation_bytes: int
    num_kept_values: int
    kept_bytes: int


@dataclasses.dataclass(frozen=True)
class _Field:
    """One axis of what an output sees: `size` pixels, its neighbour the same `jump` further."""

    size: int = 1
    jump: int = 1

    def through(self, kernel, stride):
        """The field behind a window."""
        return _Field(self.size + (kernel - 1) * self.jump, self.jump * stride)


def layer_rows(model):
    """The rows of a network, stage by stage from the input upwards, the auxiliary head last.

    Within a stage in branch order: `Branch_0` first, from its input to its output, then the
    concatenation, the linear 1x1 and the sum.

    Kept for the backward pass are: a convolution's result before its batch norm; the output of a
    ReLU or max pool; whatever a convolution, batch norm, max pool or dense layer takes in; a
    dropout's mask. Nothing is kept of the linear 1x1, whose result is only scaled and added. The
    loss and what kernels use while they run come on top.

    Args:
      model: a built functional model of one of the networks, whole, headless or cut at an
        endpoint.

    Returns:
      list of LayerRow.

    Raises:
      ConfigError: the model's input height or width is free.
    """
    counting.count_activation_values(model)  # raises before a field is sought on a free grid
    producers = producers_of(model)
    layers = _in_branch_order(model, producers)
    consumers = {layer.name: [] for layer in layers}
    for layer in layers:
        for source in sources_of(layer, producers):
            consumers[source.name].append(layer)
    fields, rows = {}, []
    for layer in layers:
        sources = [fields[source.name] for source in sources_of(layer, producers)]
        fields[layer.name] = _fields(layer, sources)
        rows.append(_row(layer, fields[layer.name], consumers[layer.name]))
    return sorted(rows, key=lambda row: row.stage == AUX_STAGE)


def stages_of(rows):
    """[(stage, its rows)] in the rows' order."""
    return [(stage, list(own)) for stage, own in itertools.groupby(rows, key=lambda r: r.stage)]


def totals_of(rows):
    """The sums of some rows."""
    rows = list(rows)
    return Totals(
        num_parameters=sum(row.num_parameters for row in rows),
        num_trainable=sum(row.num_trainable for row in rows),
        num_multiply_adds=sum(row.num_multiply_adds for row in rows),
        num_activation_values=sum(row.num_activation_values for row in rows),
        activation_bytes=sum(row.num_activation_values * row.value_bytes for row in rows),
        num_kept_values=sum(row.num_kept_values for row in rows),
        kept_bytes=sum(row.num_kept_values * row.value_bytes for row in rows),
    )


def last_grid_row(rows):
    """The row whose output is the trunk's last grid, on which the classifier stands."""
    return [row for row in rows if row.stage not in ("Logits", "GlobalPool", AUX_STAGE)][-1]


def differing_layers(rows, other_rows):
    """Layers with weights or a window that two networks do not have alike.

    Layers are compared under their names. What is left over on both sides is then paired by stage,
    branch and position, `Mixed_4a_Branch_1_Conv2d_0b_7x1` with `..._Conv2d_0b_1x7`.

    Returns:
      list of (LayerRow or None, LayerRow or None), None where only the other network has it; in
      the first's order, then what only the second has.
    """
    mine = [row for row in rows if row.kernel or row.num_parameters]
    theirs = {row.name: row for row in other_rows if row.kernel or row.num_parameters}
    mine_names = {row.name for row in mine}
    left_over = {}
    for row in theirs.values():
        if row.name not in mine_names:
            left_over.setdefault(_KERNEL_SUFFIX.sub("", row.name), []).append(row)
    pairs = []
    for row in mine:
        twin = theirs.get(row.name)
        if twin is None:
            candidates = left_over.get(_KERNEL_SUFFIX.sub("", row.name))
            twin = candidates.pop(0) if candidates else None
        if twin is None or _identity(row) != _identity(twin):
            pairs.append((row, twin))
    unpaired = {row.name for rows in left_over.values() for row in rows}
    return pairs + [(None, row) for name, row in theirs.items() if name in unpaired]


def _identity(row):
    """What makes a layer the same in two networks."""
    return (row.kind, row.grid, row.channels, row.kernel, row.stride, row.padding,
            row.num_parameters)  # fmt: skip


def _in_branch_order(model, producers):
    """Every layer after all of its inputs, one input after the other."""
    ordered, seen = [], set()
    for output in keras.tree.flatten(model.output):
        # A stack of our own: a deep network would exceed Python's.
        pending = [(producers[id(output)], False)]
        while pending:
            layer, has_its_inputs = pending.pop()
            if has_its_inputs:
                ordered.append(layer)
            elif layer.name not in seen:
                seen.add(layer.name)
                pending.append((layer, True))
                pending.extend((s, False) for s in reversed(sources_of(layer, producers)))
    return ordered


def _row(layer, fields, consumers):
    kernel, stride, padding = _window(layer)
    return LayerRow(
        stage=stage_of(layer.name),
        name=layer.name,
        kind=_kind(layer),
        grid=_grid(layer.output),
        channels=layer.output.shape[-1],
        kernel=kernel,
        stride=stride,
        padding=padding,
        num_parameters=counting.count_values(layer.weights),
        num_trainable=counting.count_values(layer.trainable_weights),
        num_multiply_adds=counting.layer_multiply_adds(layer),
        receptive_field_px=tuple(field.size for field in fields),
        num_activation_values=counting.layer_activation_values(layer),
        num_kept_values=_num_kept_values(layer, consumers),
        value_bytes=_VALUE_BYTES[layer.output.dtype],
    )


def stage_of(name):
    """The stage that a layer belongs to, by its name."""
    found = _IN_STAGE.match(name)
    if found:
        return found.group(1)
    return "Logits" if name in ("AvgPool_1a", "Dropout_1b") else name


def _kind(layer):
    relu = "+relu" if _ends_with_relu(layer) else ""
    kinds = {
        ConvUnit: f"conv+bn{relu}",
        SumNorm: f"bn{relu}",
        ResidualSum: f"sum{relu}",
        keras.layers.Conv2D: f"conv+bias{relu}",
        keras.layers.Dense: "dense",
        keras.layers.MaxPooling2D: "max pool",
        keras.layers.AveragePooling2D: "average pool",
        keras.layers.GlobalAveragePooling2D: "average pool",
        keras.layers.GlobalMaxPooling2D: "max pool",
        keras.layers.Concatenate: "concat",
        keras.layers.InputLayer: "input",
        Dropout: "dropout",
    }
    return kinds[type(layer)]


def _ends_with_relu(layer):
    if isinstance(layer, keras.layers.Conv2D):
        return layer.activation is keras.activations.relu
    return getattr(layer, "use_relu", False)


def _window(layer):
    """(kernel, stride, padding), all None where there is no window."""
    if isinstance(layer, _CONVS):
        return tuple(layer.kernel_size), layer.strides[0], layer.padding
    if isinstance(layer, _POOLS):
        return tuple(layer.pool_size), layer.strides[0], layer.padding
    if isinstance(layer, _GLOBAL_POOLS):
        return _grid(layer.input), 1, VALID
    return None, None, None


def _grid(x):
    return tuple(x.shape[1:-1]) or (1, 1)


def _fields(layer, sources):
    """A layer's field on both axes, from those of its inputs behind its window."""
    if not sources:
        return _Field(), _Field()
    # Kernels are odd and SAME has stride 1, so that fields which meet have the same centre and the
    # largest one contains the others.
    largest = [max(fields, key=lambda field: field.size) for fields in zip(*sources, strict=True)]
    kernel, stride, _ = _window(layer)
    if kernel is None:
        return tuple(largest)
    return tuple(field.through(k, stride) for field, k in zip(largest, kernel, strict=True))


def _num_kept_values(layer, consumers):
    size = counting.layer_activation_values(layer)
    if isinstance(layer, Dropout):
        mask = size if layer.rate > 0.0 else 0
        return mask + _is_taken_in(consumers) * size
    is_kept = _ends_with_relu(layer) or isinstance(layer, keras.layers.MaxPooling2D)
    before_norm = size if isinstance(layer, ConvUnit) else 0
    return before_norm + (is_kept or _is_taken_in(consumers)) * size


def _is_taken_in(consumers):
    """Whether a layer that reads an output needs it again in the backward pass."""
    keepers = (*_CONVS, SumNorm, keras.layers.MaxPooling2D, keras.layers.Dense)
    return any(isinstance(layer, keepers) for layer in consumers)
