"""A network as a picture: figure 9 or 15 of arXiv 1602.07261, and the figures of its modules."""

import dataclasses
import itertools

from inception_tf.errors import ConfigError
from inception_tf.models.blocks import (
    AveragePool,
    Conv,
    MaxPool,
    Mixed,
    Residual,
    Siblings,
    named_boxes,
    stage_name,
)
from inception_tf.models.drawing import (
    CAPTION_FONT_PX,
    NOTE_FONT_PX,
    Bar,
    Box,
    Canvas,
    Fork,
    Lane,
    Stack,
    text_width,
)
from inception_tf.models.layers import VALID, ConvUnit

# The papers' names of the stages, by the beginning of theirs.
_LABELS = {
    "Mixed_5": "Inception-A",
    "Mixed_6a": "Reduction-A",
    "Mixed_6": "Inception-B",
    "Mixed_7a": "Reduction-B",
    "Mixed_7": "Inception-C",
    "block35": "Inception-resnet-A",
    "block17": "Inception-resnet-B",
    "block8": "Inception-resnet-C",
}
_AUX_POOL = "AuxLogits_AvgPool_1a"
_STEM_MODULES = ("Mixed_3a", "Mixed_4a", "Mixed_5a")
_PAGE_MARGIN_PX, _PANEL_GAP_PX, _CAPTION_PX, _TITLE_PX = 24, 36, 44, 40
_ROW_WIDTH_PX = 1280


@dataclasses.dataclass(frozen=True)
class _Group:
    """Consecutive stages with the same boxes; the stem is one group."""

    label: str
    stages: tuple

    @property
    def names(self):
        names = [stage_name(stage) for stage in self.stages]
        return ", ".join(names) if len(names) <= 2 else f"{names[0]} ... {names[-1]}"


@dataclasses.dataclass(frozen=True)
class _Panel:
    """The drawing of one kind of module, with its caption."""

    title: str
    subtitle: str
    stack: Stack

    @property
    def width(self):
        titles = text_width(self.title, CAPTION_FONT_PX), text_width(self.subtitle, NOTE_FONT_PX)
        return max(self.stack.width, *titles)

    @property
    def height(self):
        return self.stack.height + _CAPTION_PX

    def draw(self, canvas, x, top):
        canvas.text(x, top + 14, self.title, font_px=CAPTION_FONT_PX, weight="bold")
        canvas.text(x, top + 30, self.subtitle, font_px=NOTE_FONT_PX, fill="#555555")
        left = x + (self.width - self.stack.width) / 2
        self.stack.draw(canvas, left, top + self.height)


def network_svg(model, stages, *, title):
    """The picture of a network as the text of an SVG file.

    On the left the whole network from the input, at the bottom, to the softmax, with every stage's
    output beside its arrow and equal neighbours in one box. Beside it every kind of module once;
    where modules of a kind differ in a filter count, the counts stand in the order of the
    stages. 'V' marks VALID padding, as in the papers.

    Args:
      model: a built network of fixed input size, with or without its top.
      stages: the tables that it was built from, (stages up to the auxiliary head, stages after).
      title: printed above the picture.

    Raises:
      ConfigError: the model's input height or width is free.
    """
    if None in model.input.shape[1:]:
        raise ConfigError(
            "The picture shows the grids of a model whose input height and width are fixed.",
            received=f"input {tuple(model.input.shape)}",
            remedy="Build it with an input_shape.",
        )
    layers = {layer.name: layer for layer in model.layers}
    to_aux_head, from_aux_head = _groups(stages[0]), _groups(stages[1], has_stem=False)
    groups = (*to_aux_head, *from_aux_head)
    overview = _overview(layers, to_aux_head, from_aux_head)
    stem, *modules = _panels(layers, groups)
    columns = [[[panel] for panel in (stem, *_aux_panels(layers))], _shelves(modules)]
    canvas, margin = Canvas(), _PAGE_MARGIN_PX
    canvas.text(margin, margin + 18, title, font_px=20, weight="bold")
    top = margin + _TITLE_PX
    # What stands beside the overview's arrows does so on their right alone.
    unused = (overview.width - max(box.frame_width for box in overview.items)) / 2
    overview.draw(canvas, margin - unused, top + overview.height)
    right, bottom = margin - unused + overview.width, top + overview.height
    for rows in columns:
        right, lowest = _draw_rows(canvas, rows, right + _PANEL_GAP_PX, top)
        bottom = max(bottom, lowest)
    return canvas.finish(right + margin, bottom + margin, title)


def _draw_rows(canvas, rows, left, top):
    """Draws rows of panels below each other; returns their right and lower ends."""
    right, bottom = left, top
    for row in rows:
        x = left
        for panel in row:
            panel.draw(canvas, x, top)
            right, bottom = max(right, x + panel.width), max(bottom, top + panel.height)
            x += panel.width + _PANEL_GAP_PX
        top = bottom + _PANEL_GAP_PX
    return right, bottom


def _groups(stages, *, has_stem=True):
    """The stages with equal neighbours together, what precedes the first module as the stem."""
    stages = tuple(stages)
    groups = []
    if has_stem:
        stem = tuple(itertools.takewhile(_is_of_stem, stages))
        groups.append(_Group("Stem", stem))
        stages = stages[len(stem) :]
    for _, equal in itertools.groupby(stages, key=lambda stage: (_label(stage), _boxes(stage))):
        equal = tuple(equal)
        groups.append(_Group(_label(equal[0]), equal))
    return groups


def _is_of_stem(stage):
    return isinstance(stage, (Conv, MaxPool)) or stage.name in _STEM_MODULES


def _label(stage):
    if isinstance(stage, Conv):
        return f"{stage.kernel} Conv"
    # The longest beginning first: Mixed_6a is a reduction, Mixed_6b a module.
    starts = sorted(_LABELS, key=len, reverse=True)
    return next(_LABELS[start] for start in starts if stage.name.startswith(start))


def _boxes(stage, *, has_filters=True):
    """What makes two stages the same drawing: their boxes without names."""

    def plain(box):
        if isinstance(box, Siblings):
            return tuple(plain(conv) for conv in box.convs)
        if isinstance(box, Conv):
            filters = box.filters if has_filters else None
            return box.kernel, filters, box.stride, box.padding
        return type(box)

    branches = getattr(stage, "branches", ((stage,),))
    branches = tuple(tuple(plain(box) for box in branch) for branch in branches)
    if isinstance(stage, Residual) and has_filters:
        return branches, stage.scale, stage.use_relu
    return branches


def _size(layer):
    """'35x35x384' of a layer's output."""
    return "x".join(map(str, layer.output.shape[1:]))


def _overview(layers, to_aux_head, from_aux_head):
    """The whole network as one stack."""
    images = layers["images"]
    items = [Box((f"Input ({_size(images)})",), "plain", note=_size(images))]
    items += [_stage_box(layers, group) for group in (*to_aux_head, *from_aux_head)]
    if _AUX_POOL in layers:
        at = len(to_aux_head)
        logits = layers["AuxLogits_Logits"]
        aux = Box(("Auxiliary head", f"Output: {_size(logits)}"), "plain")
        items[at] = dataclasses.replace(items[at], side=aux)
    if "GlobalPool" in layers:
        items.append(_output_box("Global pooling", layers["GlobalPool"]))
    if "Logits" in layers:
        items.append(_output_box("Average Pooling", layers["AvgPool_1a"]))
        dropout = layers["Dropout_1b"]
        items.append(_output_box(f"Dropout (keep {1 - dropout.rate:g})", dropout))
        items.append(Box(("Softmax", f"Logits: {_size(layers['Logits'])}"), "plain"))
    return Stack(tuple(items))


def _output_box(text, layer):
    return Box((text,), "plain", note=f"Output: {_size(layer)}")


def _stage_box(layers, group):
    count = f"{len(group.stages)} x " if len(group.stages) > 1 and group.label != "Stem" else ""
    fill = "reduction" if group.label.startswith("Reduction") else "stage"
    output = layers[stage_name(group.stages[-1])]
    return Box((count + group.label, group.names), fill, note=f"Output: {_size(output)}")


def _panels(layers, groups):
    """The stem and one panel for every kind of module."""
    stem, *others = groups
    boxes = [Box(("Input",), "plain", note=_size(layers["images"]))]
    for stage in stem.stages:
        boxes.extend(
            _stage_items(layers, [_Group("Stem", (stage,))], note=_size(layers[stage_name(stage)]))
        )
    boxes[-1] = dataclasses.replace(boxes[-1], note=None)  # no arrow leaves it
    panels = [_Panel("Stem", stem.names, Stack(tuple(boxes)))]
    kinds = {}
    for group in others:
        if not isinstance(group.stages[0], Conv):
            kind = group.label, _boxes(group.stages[0], has_filters=False)
            kinds.setdefault(kind, []).append(group)
    for (label, _), alike in kinds.items():
        items = (Box(("Input",), "plain"), *_stage_items(layers, alike))
        panels.append(_Panel(label, " / ".join(g.names for g in alike), Stack(items)))
    return panels


def _stage_items(layers, groups, note=None):
    """The items of groups that have the same boxes, up to filter counts."""
    stages = [group.stages[0] for group in groups]
    stage = stages[0]
    if not isinstance(stage, (Mixed, Residual)):
        return [dataclasses.replace(_box(layers, [(stage_name(stage), stage)]), note=note)]
    branches = []
    for index in range(len(stage.branches)):
        boxes = [
            named_boxes(f"{each.name}_Branch_{index}", each.branches[index]) for each in stages
        ]
        drawn = [_box(layers, alike) for alike in zip(*boxes, strict=True)]
        last = stage.branches[index][-1]
        if isinstance(last, Siblings):
            count = len(last.convs)
            drawn[-count:] = [Fork(tuple(drawn[-count:]))]
        branches.append(Stack(tuple(drawn)))
    if isinstance(stage, Mixed):
        return [Fork(tuple(branches)), Bar(("Filter concat",), "join", note=note)]
    linear = _filters(layers, [f"{each.name}_Conv2d_1x1" for each in stages])
    up = Stack((Fork(tuple(branches)), Bar((f"1x1 Conv ({linear} Linear)",), "conv")))
    return [Fork((Lane(), up)), Bar(_sum_lines(layers, groups), "join")]


def _sum_lines(layers, groups):
    lines = []
    for group in groups:
        stage = group.stages[0]
        norm = ", batch norm" if f"{stage.name}_Sum" in layers else ""
        relu = ", ReLU" if stage.use_relu else ", no ReLU"
        of_group = f"{group.names}: " if len(groups) > 1 else ""
        lines.append(f"{of_group}input + {stage.scale:g} x residual{norm}{relu}")
    return tuple(lines)


def _filters(layers, names):
    """'192', or '128/160/192' where layers at the same place differ."""
    counts = [str(layers[name].output.shape[-1]) for name in names]
    return counts[0] if len(set(counts)) == 1 else "/".join(counts)


def _box(layers, alike):
    """The box of layers at the same place of modules of a kind; [(layer name, table's box)]."""
    names, box = [name for name, _ in alike], alike[0][1]
    if isinstance(box, AveragePool):
        return Box(("3x3 Avg Pooling",), "pool")
    if isinstance(box, MaxPool):
        return Box(("3x3 MaxPool", f"(stride {box.stride} V)"), "pool")
    words = [_filters(layers, names)]
    words += [f"stride {box.stride}"] if box.stride > 1 else []
    words += ["V"] if box.padding == VALID and box.kernel != "1x1" else []
    layer = layers[names[0]]
    words += ["linear"] if isinstance(layer, ConvUnit) and not layer.use_relu else []
    return Box((f"{box.kernel} Conv", f"({' '.join(words)})"))


def _aux_panels(layers):
    """The auxiliary head's panel, if there is one."""
    if _AUX_POOL not in layers:
        return []
    items = [Box(("Input",), "plain")]
    for name, layer in layers.items():
        if name == _AUX_POOL:
            window = "{}x{} Avg Pooling".format(*layer.pool_size)
            items.append(Box((window, "(stride 3 V)"), "pool"))
        elif name.startswith("AuxLogits_Conv2d"):
            kernel = "{}x{}".format(*layer.kernel_size)
            padding = " V" if layer.padding == VALID else ""
            items.append(Box((f"{kernel} Conv", f"({layer.filters}{padding})")))
        elif name == "AuxLogits_Logits":
            items.append(Box((f"Softmax ({layer.units})",), "plain"))
    return [_Panel("Auxiliary head", "AuxLogits, training only", Stack(tuple(items)))]


def _shelves(panels):
    """Panels in rows, each as full as its width allows."""
    rows, width = [], 0.0
    for panel in panels:
        width += panel.width + _PANEL_GAP_PX
        if not rows or width > _ROW_WIDTH_PX + _PANEL_GAP_PX:
            rows.append([])
            width = panel.width + _PANEL_GAP_PX
        rows[-1].append(panel)
    return rows
