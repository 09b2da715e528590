"""The picture of a network: whole, legible, and of the network that was built."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from inception_tf.errors import ConfigError
from inception_tf.models.catalog import CATALOG
from inception_tf.models.picture import network_svg
from inception_tf.models.stage_builder import endpoints

SVG = "{http://www.w3.org/2000/svg}"
SMALL = {"input_shape": (139, 171, 3), "width_multiplier": 0.1}
CASES = {
    "inception_v3": ("released", {"aux_head": True}, {}),
    "inception_v4": ("paper", {}, {"block_counts": (2, 1, 2)}),
    "inception_resnet_v1": ("facenet", {"batch_norm_on_sums": True}, {"block_counts": (2, 0, 3)}),
    "inception_resnet_v2": ("released", {"aux_head": True}, {"block_counts": (3, 2, 3)}),
}


def draw(name, variant, arguments, structure):
    entry = CATALOG[name][variant]
    model = entry.builder(variant=variant, **SMALL, **arguments, **structure)
    if name != "inception_v3":
        structure = {"variant": variant, **structure}
    text = network_svg(model, entry.stages(**structure), title=f"{name} <{variant}>")
    return model, ElementTree.fromstring(text)


@pytest.fixture(scope="module", params=CASES)
def drawn(request):
    return draw(request.param, *CASES[request.param])


def frames(root):
    """(x0, y0, x1, y1) of every box."""
    return [
        (float(r.get("x")), float(r.get("y")), float(r.get("x")) + float(r.get("width")),
         float(r.get("y")) + float(r.get("height")))
        for r in root.iter(f"{SVG}rect")
        if r.get("x")
    ]  # fmt: skip


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


def text_frames(root):
    """Where the texts are, at 0.6 em a character, as DejaVu Sans has it."""
    for element in root.iter(f"{SVG}text"):
        font_px, x, y = (float(element.get(key)) for key in ("font-size", "x", "y"))
        width = 0.6 * font_px * len(element.text)
        left = x - width / 2 if element.get("text-anchor") == "middle" else x
        yield left, y - 0.75 * font_px, left + width, y + 0.22 * font_px


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_nothing_overlaps_and_nothing_leaves_the_page(drawn):
    _, root = drawn
    boxes, words = frames(root), list(text_frames(root))
    page = tuple(map(float, root.get("viewBox").split()))
    assert len(boxes) > 30 and len(words) > 60
    assert not [pair for pair in itertools.combinations(boxes, 2) if overlap(*pair)]
    assert not [pair for pair in itertools.combinations(words, 2) if overlap(*pair)]
    for word in words:
        around = [box for box in boxes if overlap(word, box)]
        assert len(around) <= 1  # inside its own box, or in none
        for x0, y0, x1, y1 in around:
            assert x0 <= word[0] and y0 <= word[1] and word[2] <= x1 and word[3] <= y1
    for x0, y0, x1, y1 in boxes + words:
        assert 0 <= x0 and 0 <= y0 and x1 <= page[2] and y1 <= page[3]


def test_no_line_crosses_a_box(drawn):
    _, root = drawn
    boxes = frames(root)
    for line in root.iter(f"{SVG}polyline"):
        (x0, y0), (x1, y1) = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
        assert x0 == x1 or y0 == y1
        # A line ends at the edge of a box; coordinates are rounded to 0.1 px.
        (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
        for left, top, right, bottom in boxes:
            inside = left + 0.2, top + 0.2, right - 0.2, bottom - 0.2
            assert not overlap((x0, y0, x1, y1), inside)


def test_every_stage_and_its_grid_are_there(drawn):
    model, root = drawn
    words = texts(root)
    names = [name for name in endpoints(model) if re.match("Mixed_[567]|block|Conv2d_7b", name)]
    for name in names:
        if name == "Mixed_5a":
            continue  # the last of the stem
        assert [w for w in words if name in w] or _within_a_range(words, name), name
    grids = {"x".join(map(str, output.shape[1:])) for output in endpoints(model).values()}
    noted = {word.removeprefix("Output: ") for word in words}
    assert grids <= noted


def _within_a_range(words, name):
    """Texts such as 'Mixed_6b ... Mixed_6h' that a name lies in."""
    ranges = [word.split(" ... ") for word in words if " ... " in word and ":" not in word]
    stem = re.match(r"block\d+_|Mixed_\d", name).group()

    def place(text):
        rest = text.removeprefix(stem)
        return int(rest) if rest.isdecimal() else ord(rest[0])

    return [
        (first, last) for first, last in ranges
        if first.startswith(stem) and last.startswith(stem)
        and place(first) < place(name) < place(last)
    ]  # fmt: skip


def test_equal_stages_are_one_box_and_read_from_below():
    _, root = draw("inception_resnet_v2", "released", {}, {"block_counts": (3, 2, 3)})
    places = {e.text: float(e.get("y")) for e in reversed(list(root.iter(f"{SVG}text")))}
    order = ["Input (139x171x3)", "Stem", "Inception-A", "3 x Inception-resnet-A", "Reduction-A",
             "2 x Inception-resnet-B", "Reduction-B", "2 x Inception-resnet-C", "block8_3",
             "Conv2d_7b_1x1", "Average Pooling", "Dropout (keep 0.8)", "Softmax"]  # fmt: skip
    assert [places[text] for text in order] == sorted((places[t] for t in order), reverse=True)
    assert "block8_3: input + 1 x residual, no ReLU" in places
    assert "block8_1, block8_2: input + 0.2 x residual, ReLU" in places
    assert "Auxiliary head" not in places


def draw_full(name, variant, structure, **arguments):
    entry = CATALOG[name][variant]
    model = entry.builder(variant=variant, **arguments)
    return texts(ElementTree.fromstring(network_svg(model, entry.stages(**structure), title=name)))


def test_boxes_of_the_full_network_are_those_of_the_figures():
    words = draw_full("inception_v4", "paper", {"variant": "paper"})
    for text in ("4 x Inception-A", "7 x Inception-B", "3 x Inception-C", "Output: 35x35x384",
                 "Output: 17x17x1024", "Output: 8x8x1536", "Output: 1536", "(384 stride 2 V)",
                 "(96 V)", "(448)", "(512)", "7x1 Conv"):  # fmt: skip
        assert text in words, text
    # Long and high kernels of figures 3, 5, 8 and 6.
    assert sum(bool(re.fullmatch("(1x[37]|[37]x1) Conv", word)) for word in words) == 2 + 6 + 2 + 6


def test_modules_that_differ_in_a_count_share_a_drawing():
    words = draw_full("inception_v3", "released", {}, factorisation="linear", include_top=False,
                      pooling="avg")  # fmt: skip
    assert "(128/160/192 linear)" in words and "(32/64)" in words
    assert words.count("2 x Inception-B") == 1
    assert "Mixed_6b / Mixed_6c, Mixed_6d / Mixed_6e" in words
    assert "Softmax" not in words and "Global pooling" in words


def test_auxiliary_head_stands_beside_its_stage(drawn):
    model, root = drawn
    # The overview is drawn first; further down the name is a caption.
    levels = [(element.text, element.get("y")) for element in root.iter(f"{SVG}text")]
    heads = [level for text, level in levels if text == "Auxiliary head"]
    has_head = any(layer.name.startswith("AuxLogits") for layer in model.layers)
    assert len(heads) == (2 if has_head else 0)
    if has_head:
        beside = [text for text, level in levels if level == heads[0]]
        assert any(re.search("Inception-(resnet-)?B", text) for text in beside)


def test_norms_on_sums_are_written(drawn):
    model, root = drawn
    has_norms = any(layer.name.endswith("_Sum") for layer in model.layers)
    assert any("batch norm" in text for text in texts(root)) == has_norms


def test_a_free_input_size_has_no_picture():
    entry = CATALOG["inception_resnet_v1"]["paper"]
    model = entry.builder(
        input_shape=(None, None, 3), width_multiplier=0.1, block_counts=(0, 0, 0)
    )
    with pytest.raises(ConfigError, match="fixed"):
        network_svg(model, entry.stages(block_counts=(0, 0, 0)), title="free")
