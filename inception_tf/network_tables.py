"""What `networks` prints: layer tables, sums, two networks side by side, the catalog."""

import csv

from inception_tf.models import layer_table
from inception_tf.models.catalog import CATALOG
from inception_tf.reporting.table import aligned_table


def write_csv(rows, stream):
    """A line per layer; the door's --help says what the columns are."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ("stage", "name", "kind", "height", "width", "channels", "kernel_height", "kernel_width",
         "stride", "padding", "num_parameters", "num_trainable", "num_multiply_adds",
         "receptive_field_height_px", "receptive_field_width_px", "num_activation_values",
         "num_kept_values")
    )  # fmt: skip
    for row in rows:
        writer.writerow(
            (row.stage, row.name, row.kind, *row.grid, row.channels, *(row.kernel or ("", "")),
             row.stride, row.padding, row.num_parameters, row.num_trainable,
             row.num_multiply_adds, *row.receptive_field_px, row.num_activation_values,
             row.num_kept_values)
        )  # fmt: skip


def layers_text(rows):
    """A line per layer and, under every stage of several, one with its sums."""
    lines = []
    for stage, own in layer_table.stages_of(rows):
        lines.extend(
            ("", row.name, row.kind, _output(row), _window(row), f"{row.num_parameters:,}",
             f"{row.num_multiply_adds:,}", size_text(row.receptive_field_px))
            for row in own
        )  # fmt: skip
        if len(own) == 1:
            lines[-1] = (stage, *lines[-1][1:])
            continue
        sums = layer_table.totals_of(own)
        lines.append(
            (stage, f"= {len(own)} layers", "", "", "", f"{sums.num_parameters:,}",
             f"{sums.num_multiply_adds:,}", "")
        )  # fmt: skip
    header = ("stage", "layer", "kind", "output", "window", "parameters", "multiply-adds",
              "sees px")  # fmt: skip
    return aligned_table(lines, header=header, align="lllrlrrr")


def totals_text(rows, *, batch, precision):
    """What the whole network costs, sees and holds."""
    sums, last = layer_table.totals_of(rows), layer_table.last_grid_row(rows)
    facts = [
        ("parameters", f"{sums.num_parameters:,}, {sums.num_trainable:,} of them trainable"),
        ("multiply-adds", f"{sums.num_multiply_adds:,} per image"),
        (
            "receptive field",
            f"{size_text(last.receptive_field_px)} px of {last.name}, the last grid",
        ),
        (
            "all outputs",
            f"{sums.num_activation_values:,} values per image, "
            f"{_gib(sums.activation_bytes * batch)} for {batch} images in {precision}",
        ),
        (
            "kept to train",
            f"{sums.num_kept_values:,} values per image, "
            f"{_gib(sums.kept_bytes * batch)} for {batch} images in {precision}",
        ),
    ]
    return aligned_table(facts)


def stages_diff_text(rows, other_rows):
    """A line per stage: output, parameters and multiply-adds of both; '*' where layers differ."""
    mine, theirs = (dict(layer_table.stages_of(each)) for each in (rows, other_rows))
    lines = []
    for stage in _merged(list(mine), list(theirs)):
        own = [stages.get(stage) for stages in (mine, theirs)]
        sides = [_stage_cells(rows_of_stage) for rows_of_stage in own]
        differs = "*" if _kernels(own[0]) != _kernels(own[1]) or sides[0] != sides[1] else ""
        lines.append((stage, *_interleaved(sides), differs))
    totals = [layer_table.totals_of(each) for each in (rows, other_rows)]
    cells = [("", f"{sums.num_parameters:,}", f"{sums.num_multiply_adds:,}") for sums in totals]
    lines.append(("total", *_interleaved(cells), "*" if cells[0] != cells[1] else ""))
    header = ("stage", "output A", "B", "parameters A", "B", "multiply-adds A", "B", "")
    return aligned_table(lines, header=header, align="lrrrrrrl")


def _kernels(rows):
    return [(row.name, row.kernel) for row in rows or () if row.kernel]


def _stage_cells(rows):
    if rows is None:
        return "-", "-", "-"
    sums = layer_table.totals_of(rows)
    return _output(rows[-1]), f"{sums.num_parameters:,}", f"{sums.num_multiply_adds:,}"


def _interleaved(sides):
    return [cell for both in zip(*sides, strict=True) for cell in both]


def _merged(names, others):
    """Both lists' names in an order that keeps each list's own where they agree."""
    merged, rest = [], list(others)
    for name in names:
        if name in rest:
            at = rest.index(name)
            merged += [other for other in rest[:at] if other not in names]
            rest = rest[at + 1 :]
        merged.append(name)
    return merged + [other for other in rest if other not in merged]


def described(row):
    """A layer in one cell; '-' for none."""
    if row is None:
        return "-"
    return " ".join(filter(None, (row.name, row.kind, _window(row), _output(row))))


def catalog_text():
    lines = [
        (name, variant, f"{entry.num_parameters:,}", f"{entry.num_trainable:,}",
         f"{entry.num_parameters_without_top:,}", f"{entry.num_parameters_with_aux:,}",
         f"{entry.num_multiply_adds:,}")
        for name, variants in CATALOG.items()
        for variant, entry in variants.items()
    ]  # fmt: skip
    header = ("network", "variant", "parameters", "trainable", "without top", "with aux head",
              "multiply-adds")  # fmt: skip
    return aligned_table(lines, header=header, align="llrrrrr")


def size_text(pair):
    return "{}x{}".format(*pair)


def _output(row):
    return f"{size_text(row.grid)}x{row.channels}"


def _window(row):
    """'3x3/2 V' as the figures write it; empty without a window."""
    if row.kernel is None:
        return ""
    stride = f"/{row.stride}" if row.stride > 1 else ""
    is_valid = row.padding == "valid" and row.kernel != (1, 1)
    return f"{size_text(row.kernel)}{stride}" + (" V" if is_valid else "")


def _gib(num_bytes):
    return f"{num_bytes / 2**30:.2f} GiB"
