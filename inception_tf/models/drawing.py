"""Boxes and arrows as SVG, laid out from below upwards as the papers' figures are.

A figure is a tree: a `Stack` of `Box`, `Bar` and `Fork`, whose branches are stacks again. Every
item knows its size and draws itself at a place; nothing is measured by a browser, so texts get the
width of a wide sans-serif font.
"""

import dataclasses
import xml.etree.ElementTree as ElementTree

FONT_PX, NOTE_FONT_PX, CAPTION_FONT_PX = 12, 11, 14
FILLS = {
    "conv": "#e6eefb",
    "pool": "#fdf0dc",
    "join": "#ececec",
    "stage": "#e6eefb",
    "reduction": "#fde3dc",
    "plain": "#ffffff",
}
_EM = 0.63  # mean width of a character of DejaVu Sans, the widest of the fonts named below
_FONTS = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
_LINE_PX = 15
_MARGIN_PX = 6  # between a box and its text
_ARROW_PX = 24  # between the items of a stack
_BUS_PX = 26  # from a fork's entry to its branches
_BUS_RISE_PX = 8
_BETWEEN_PX = 12  # branches of a fork
_NOTE_SHIFT_PX = 6
_SIDE_PX = 30  # from a box to the one at its side


def text_width(text, font_px=FONT_PX):
    """Width in px that a text takes at most."""
    return _EM * font_px * len(text)


class Canvas:
    """An SVG in the making; x runs to the right, y downwards, both in px."""

    def __init__(self):
        self.svg = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg")

    def box(self, x, y, width, height, lines, fill):
        """A rectangle with centred lines of text."""
        self._add("rect", x=x, y=y, width=width, height=height, rx=3, fill=FILLS[fill],
                  stroke="#333333")  # fmt: skip
        first = y + height / 2 - (len(lines) - 1) * _LINE_PX / 2 + FONT_PX * 0.35
        for index, line in enumerate(lines):
            self.text(x + width / 2, first + index * _LINE_PX, line, anchor="middle")

    def text(self, x, y, text, *, anchor="start", font_px=FONT_PX, weight="normal", fill="#000000"):
        """One line of text; y is its base line."""
        element = self._add("text", x=x, y=y, fill=fill)
        element.set("text-anchor", anchor)
        element.set("font-size", str(font_px))
        element.set("font-weight", weight)
        element.text = text

    def line(self, *points, has_tip=True):
        """A line through points, an arrow unless said otherwise."""
        self._add("polyline", points=_points(points), fill="none", stroke="#333333")
        if has_tip:
            (_, before), (x, y) = points[-2:]
            tip = [(-3, 6), (3, 6)] if before > y else [(-6, -3), (-6, 3)]  # up, or to the right
            corners = [(x, y), *((x + dx, y + dy) for dx, dy in tip)]
            self._add("polygon", points=_points(corners), fill="#333333")

    def finish(self, width, height, title):
        """The SVG's text, for a page of this size."""
        self.svg.set("width", _number(width))
        self.svg.set("height", _number(height))
        self.svg.set("viewBox", f"0 0 {_number(width)} {_number(height)}")
        self.svg.set("font-family", _FONTS)
        self.svg.set("role", "img")
        named = ElementTree.Element("title")
        named.text = title
        paper = ElementTree.Element("rect", width="100%", height="100%", fill="#ffffff")
        self.svg[:0] = [named, paper]
        ElementTree.indent(self.svg)
        return ElementTree.tostring(self.svg, encoding="unicode") + "\n"

    def _add(self, kind, **attributes):
        texts = {
            name: value if isinstance(value, str) else _number(value)
            for name, value in attributes.items()
        }
        return ElementTree.SubElement(self.svg, kind, texts)


@dataclasses.dataclass(frozen=True)
class Box:
    """Lines of text in a frame.

    Attributes:
      lines: its text.
      fill: a key of `FILLS`.
      note: text beside the arrow that leaves it.
      side: a `Box` that its output also goes to, drawn at its right.
    """

    lines: tuple[str, ...]
    fill: str = "conv"
    note: str | None = None
    side: "Box | None" = None

    has_entry_tip = True

    @property
    def frame_width(self):
        return max(map(text_width, self.lines)) + 2 * _MARGIN_PX

    @property
    def width(self):
        note = text_width(self.note, NOTE_FONT_PX) + _NOTE_SHIFT_PX if self.note else 0
        side = self.frame_width / 2 + _SIDE_PX + self.side.frame_width if self.side else 0
        return max(self.frame_width, 2 * note, 2 * side)

    @property
    def height(self):
        return len(self.lines) * _LINE_PX + 2 * _MARGIN_PX

    def draw(self, canvas, x, bottom):
        """Draws it with its left edge at x; returns the points that its output leaves from."""
        left = x + (self.width - self.frame_width) / 2
        return self.draw_frame(canvas, left, bottom, self.frame_width)

    def draw_frame(self, canvas, left, bottom, width):
        """Draws it as wide as asked."""
        top = bottom - self.height
        canvas.box(left, top, width, self.height, self.lines, self.fill)
        center = left + width / 2
        if self.note:
            middle = top - _ARROW_PX / 2 + NOTE_FONT_PX * 0.35
            canvas.text(center + _NOTE_SHIFT_PX, middle, self.note, font_px=NOTE_FONT_PX)
        if self.side:
            right, level = left + width, (top + bottom) / 2
            canvas.line((right, level), (right + _SIDE_PX, level))
            foot = level + self.side.height / 2
            self.side.draw_frame(canvas, right + _SIDE_PX, foot, self.side.frame_width)
        return [(center, top)]


class Bar(Box):
    """A box as wide as the stack that it closes."""


@dataclasses.dataclass(frozen=True)
class Lane:
    """A branch without any box: the input goes past the others."""

    width = 16
    height = 0
    has_entry_tip = False

    def draw(self, canvas, x, bottom):
        """Draws nothing; whatever stands on top draws the line."""
        return [(x + self.width / 2, bottom)]


@dataclasses.dataclass(frozen=True)
class Fork:
    """Branches side by side on the same input."""

    branches: tuple

    has_entry_tip = False

    @property
    def width(self):
        return sum(b.width for b in self.branches) + _BETWEEN_PX * (len(self.branches) - 1)

    @property
    def height(self):
        return _BUS_PX + max(branch.height for branch in self.branches)

    def draw(self, canvas, x, bottom):
        """Draws the branches and the lines to them; returns where all of them end."""
        bus, feet = bottom - _BUS_RISE_PX, bottom - _BUS_PX
        center = x + self.width / 2
        tops, middles = [], []
        for branch in self.branches:
            middle = x + branch.width / 2
            middles.append(middle)
            if isinstance(branch, Lane):
                tops.extend(branch.draw(canvas, x, bus))
            else:
                canvas.line((middle, bus), (middle, feet), has_tip=branch.has_entry_tip)
                tops.extend(branch.draw(canvas, x, feet))
            x += branch.width + _BETWEEN_PX
        canvas.line((center, bottom), (center, bus), has_tip=False)
        ends = (*middles, center)
        canvas.line((min(ends), bus), (max(ends), bus), has_tip=False)
        return tops


@dataclasses.dataclass(frozen=True)
class Stack:
    """Items one on top of the other, with arrows between them."""

    items: tuple

    @property
    def has_entry_tip(self):
        return self.items[0].has_entry_tip

    @property
    def width(self):
        return max(item.width for item in self.items)

    @property
    def height(self):
        return sum(item.height for item in self.items) + _ARROW_PX * (len(self.items) - 1)

    def draw(self, canvas, x, bottom):
        """Draws all items; returns where the last of them ends."""
        center, tops = x + self.width / 2, []
        for item in self.items:
            is_bar = isinstance(item, Bar)
            if tops:
                bottom = min(y for _, y in tops) - _ARROW_PX if is_bar else bottom - _ARROW_PX
            for top_x, top_y in tops:
                end = top_x if is_bar else center
                canvas.line((top_x, top_y), (end, bottom), has_tip=item.has_entry_tip)
            if is_bar:
                tops = item.draw_frame(canvas, x, bottom, self.width)
            else:
                tops = item.draw(canvas, center - item.width / 2, bottom)
            bottom -= item.height
        return tops


def _points(points):
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value):
    return f"{value:.1f}".rstrip("0").rstrip(".")
