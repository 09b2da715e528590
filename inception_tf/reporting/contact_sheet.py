"""A contact sheet: images side by side with a caption each, pixel for pixel, as a PNG file."""

import math
import pathlib

import numpy as np

from inception_tf import durable

_DPI = 100
_FONT_PT = 8
_CHARACTER_PX = 7  # of the caption's font, on average
_LINE_PX = 14
_GAP_PX = 6
_LEAST_CELL_PX = 112  # a caption below this says nothing: smaller images are enlarged


def write_contact_sheet(path, images: np.ndarray, captions, *, title: str) -> tuple[int, int]:
    """Writes the sheet; its width and height in pixels.

    Images smaller than a caption are enlarged by a whole factor: every pixel stays one colour.

    Args:
      path: of the PNG file.
      images: float32 [N, H, W, 3] in [-1, 1], N at least 1.
      captions: N texts; what does not fit under an image is cut off.
      title: stands at the top.
    """
    # Imported here: it takes half a second, which no run should wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    factor = math.ceil(_LEAST_CELL_PX / images.shape[2])
    levels = np.rint((np.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    levels = levels.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = levels.shape[1:3]
    columns, rows = _grid(len(images), width, height)
    sheet_width = columns * (width + _GAP_PX) + _GAP_PX
    sheet_height = rows * (height + _LINE_PX + _GAP_PX) + _GAP_PX + _LINE_PX
    size = sheet_width / _DPI, sheet_height / _DPI
    # Grey, on which the border of a white image shows.
    figure = Figure(figsize=size, dpi=_DPI, facecolor="0.85")
    canvas = FigureCanvasAgg(figure)
    text = {"fontsize": _FONT_PT, "verticalalignment": "center", "parse_math": False}

    def write(x, y, words, *, width_px):
        fitting = words[: width_px // _CHARACTER_PX]
        figure.text(x / sheet_width, 1 - (y + _LINE_PX / 2) / sheet_height, fitting, **text)

    write(_GAP_PX, _GAP_PX // 2, title, width_px=sheet_width)
    for number, (image, caption) in enumerate(zip(levels, captions, strict=True)):
        left = _GAP_PX + number % columns * (width + _GAP_PX)
        top = _GAP_PX + _LINE_PX + number // columns * (height + _LINE_PX + _GAP_PX)
        # Not an axes' image, which would be resampled.
        figure.figimage(image, xo=left, yo=sheet_height - top - height, origin="upper")
        write(left, top + height, caption, width_px=width)
    with durable.open_whole(pathlib.Path(path)) as stream:
        canvas.print_png(stream)
    return sheet_width, sheet_height


def _grid(num_images, width_px, height_px):
    """Columns and rows of a sheet that is about half as wide again as high."""
    columns = math.ceil(math.sqrt(1.5 * num_images * height_px / width_px))
    columns = min(columns, num_images)
    return columns, math.ceil(num_images / columns)
