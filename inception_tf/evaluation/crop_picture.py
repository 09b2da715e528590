"""A picture of a protocol: where its crops lie in an image, and the crops that come of it."""

import matplotlib.figure
import matplotlib.patches
import numpy as np

from inception_tf.data.image import EvaluationCrop
from inception_tf.evaluation import crop_images, crops

# Okabe and Ito's: told apart by colour-blind people too.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_PX_PER_INCH = 100
_WIDTH_INCHES = 9.0


def draw_protocol(
    pixels: np.ndarray, protocol: crops.Protocol, *, recipe: EvaluationCrop
) -> matplotlib.figure.Figure:
    """Above, the image at each scale with every square and crop of it; below, all crops.

    Args:
      pixels: uint8 [h, w, 3].
      protocol: of several crops.
      recipe: how images are resized.
    """
    scales = crops.crop_boxes(protocol, height_px=pixels.shape[0], width_px=pixels.shape[1])
    num_columns = 12 if protocol.num_crops % 12 == 0 else 10
    num_rows = protocol.num_crops // num_columns
    # Side by side in one measure, so that a larger scale looks larger; a lone one is kept small.
    gap_px = 20
    total_px = sum(scale.width_px + gap_px for scale in scales)
    inches_per_px = min(_WIDTH_INCHES / total_px, 0.4 * _WIDTH_INCHES / scales[0].width_px)
    places_inches = max(s.height_px for s in scales) * inches_per_px + 0.35  # with titles
    crop_inches = _WIDTH_INCHES / num_columns
    height_inches = places_inches + num_rows * crop_inches
    figure = matplotlib.figure.Figure((_WIDTH_INCHES, height_inches), dpi=_PX_PER_INCH)
    left = 0.0
    for scale in scales:
        width, height = (side * inches_per_px for side in (scale.width_px, scale.height_px))
        bottom = height_inches - places_inches + 0.1
        axes = figure.add_axes(
            [left / _WIDTH_INCHES, bottom / height_inches,
             width / _WIDTH_INCHES, height / height_inches]
        )  # fmt: skip
        _draw_places(axes, pixels, scale, crop_px=protocol.height_px)
        left += width + gap_px * inches_per_px
    sheet = figure.add_axes([0, 0, 1, num_rows * crop_inches / height_inches])
    found = crop_images.make_crops(pixels, protocol=protocol, recipe=recipe).numpy()
    _draw_sheet(sheet, found, num_columns=num_columns)
    return figure


def _draw_places(axes, pixels, scale, *, crop_px):
    """One scale: crops as thin lines in the colour of their square, whole squares as thick ones."""
    extent = (0, scale.width_px, scale.height_px, 0)
    axes.imshow(pixels, extent=extent, alpha=0.6, interpolation="antialiased")
    axes.set_axis_off()
    size = f"{scale.height_px} x {scale.width_px} px, {len(scale.boxes)} crops"
    axes.set_title(size, fontsize=8, loc="left", pad=2)
    plain = [box for box in scale.boxes if not box[4]]
    # Crops of one window of all squares follow each other.
    num_wholes = sum(box[2] > crop_px for box in plain)
    num_colors = num_wholes or min(len(plain), len(_COLORS))
    for number, (top, left, height, width, _) in enumerate(plain):
        color = _COLORS[number % num_colors % len(_COLORS)]
        is_whole = height > crop_px
        axes.add_patch(
            matplotlib.patches.Rectangle(
                (left, top), width, height, fill=False, edgecolor=color,
                linewidth=2.2 if is_whole else 0.8, linestyle="-" if is_whole else "--",
            )
        )  # fmt: skip


def _draw_sheet(axes, found, *, num_columns):
    """All crops in their order, row by row."""
    side = found.shape[1]
    rows = found.reshape(-1, num_columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    sheet = rows.reshape(-1, num_columns * side, 3) / 2 + 0.5
    axes.imshow(sheet, interpolation="antialiased", aspect="auto")
    for edge in range(side, max(sheet.shape[:2]), side):
        axes.axvline(edge, color="white", linewidth=1.5)
        axes.axhline(edge, color="white", linewidth=1.5)
    axes.set_xlim(0, sheet.shape[1])
    axes.set_ylim(sheet.shape[0], 0)
    axes.set_axis_off()
