"""Rows of the layer tables, and random values for them that keep activations of one size."""

import csv
import pathlib
import typing

import numpy as np

_DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / "golden" / "layers"
CLASSES_WITH_BACKGROUND = 1001


class Row(typing.NamedTuple):
    """One convolution or dense layer; `name` is tf-slim's scope, `norm` is 'bn' or 'bias'."""

    name: str
    kernel: tuple[int, int]
    stride: int
    padding: str
    num_inputs: int
    num_outputs: int
    norm: str
    has_relu: bool


class Values(typing.NamedTuple):
    """float32 arrays of one layer: kernel [H, W, C, C'], others [C'] or None where it has none."""

    kernel: np.ndarray
    bias: np.ndarray | None = None
    gamma: np.ndarray | None = None
    beta: np.ndarray | None = None
    mean: np.ndarray | None = None
    variance: np.ndarray | None = None


def read_rows(network, *, num_classes=CLASSES_WITH_BACKGROUND):
    """Rows of a network as released by its authors, {name: Row}, auxiliary head included.

    Branches come in index order: the files put Branch_0 third in the last modules of v3 and v4.
    """
    with open(_DIRECTORY / f"{network}_slim_1001.csv", encoding="utf-8", newline="") as file:
        rows = [_row(line, num_classes) for line in csv.DictReader(file)]
    modules = {}
    for row in rows:
        modules.setdefault(row.name.split("/Branch_")[0], []).append(row)
    in_order = (row for module in modules.values() for row in sorted(module, key=_branch))
    return {row.name: row for row in in_order}


def random_values(row, rng, *, has_gamma=False):
    """Values of one layer, drawn so that neither signal nor spread is lost with depth.

    Args:
      row: Row.
      rng: numpy Generator.
      has_gamma: draw batch norm's gamma from [0.5, 1.5] too.
    """
    num_outputs = row.num_outputs
    fan_in = row.kernel[0] * row.kernel[1] * row.num_inputs
    kernel = rng.standard_normal((*row.kernel, row.num_inputs, num_outputs), np.float32)
    kernel *= np.sqrt((2 if row.has_relu else 1) / fan_in, dtype=np.float32)
    small = rng.standard_normal((2, num_outputs), np.float32) / 10
    if row.norm == "bias":
        return Values(kernel=kernel, bias=small[0])
    ratios = rng.uniform(0.5, 1.5, (2, num_outputs)).astype(np.float32)
    return Values(
        kernel=kernel,
        gamma=ratios[0] if has_gamma else None,
        beta=small[0],
        mean=small[1],
        variance=ratios[1],
    )


def _row(line, num_classes):
    num_outputs = int(line["cout"])
    return Row(
        name=line["name"],
        kernel=(int(line["kh"]), int(line["kw"])),
        stride=int(line["stride"]),
        padding=line["pad"],
        num_inputs=int(line["cin"]),
        num_outputs=num_classes if num_outputs == CLASSES_WITH_BACKGROUND else num_outputs,
        norm=line["norm"],
        has_relu=line["relu"] == "1",
    )


def _branch(row):
    """Branch index of a row; the convolution after the branches comes last."""
    return int(row.name.split("/Branch_")[1][0]) if "/Branch_" in row.name else 9
