"""The layer tables of tests/golden/layers as the tests of the networks read them.

Nothing here comes from the package: what a row is called in this project is written out below.
"""

import csv
import dataclasses
import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "golden" / "layers"
NETWORKS = (
    ("inception_v3", "released"),
    ("inception_v4", "paper"),
    ("inception_v4", "released"),
    ("inception_resnet_v1", "paper"),
    ("inception_resnet_v1", "facenet"),
    ("inception_resnet_v2", "paper"),
    ("inception_resnet_v2", "released"),
)
# (network, variant) -> (table, classes of its head or None without one)
TABLES = {
    ("inception_v3", "released"): ("inception_v3_slim_1001", 1001),
    ("inception_v4", "paper"): ("inception_v4_slim_1001", 1001),
    ("inception_v4", "released"): ("inception_v4_slim_1001", 1001),
    ("inception_resnet_v1", "paper"): ("inception_resnet_v1_paper_1000", 1000),
    ("inception_resnet_v1", "facenet"): ("inception_resnet_v1_facenet_trunk", None),
    ("inception_resnet_v2", "paper"): ("inception_resnet_v2_paper_1000", 1000),
    ("inception_resnet_v2", "released"): ("inception_resnet_v2_slim_1001", 1001),
}
# Released layers whose name here is not their scope with '_' for '/'.
RENAMED = {
    "Logits/Conv2d_1c_1x1": "Logits",
    "Logits/Logits": "Logits",
    "AuxLogits/Conv2d_2a": "AuxLogits_Conv2d_2a_5x5",
    "AuxLogits/Conv2d_2b_1x1": "AuxLogits_Logits",
    "AuxLogits/Aux_logits": "AuxLogits_Logits",
    "AuxLogits/Logits": "AuxLogits_Logits",
}
# Where the figures of Inception-v4 have height and width exchanged against the released code:
# figure 3, the fourth branch of figure 5, the fourth branch of figure 6.
TRANSPOSED_IN_FIGURES = re.compile(
    r"Mixed_4a/Branch_1/|Mixed_6[b-h]/Branch_2/|Mixed_7[b-d]/Branch_2/"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A convolution or dense layer (kernel 1x1): one line of a table, under this project's name."""

    stage: str
    name: str
    kernel: tuple[int, int]
    stride: int
    padding: str
    channels_in: int
    filters: int
    grid: tuple[int, int]
    has_norm: bool
    has_relu: bool
    num_trainable: int
    num_multiply_adds: int


def read_rows(network, variant):
    """name -> Row of a variant's table, in the file's order."""
    file, _ = TABLES[network, variant]
    with (FOLDER / f"{file}.csv").open() as lines:
        records = list(csv.DictReader(lines))
    if (network, variant) == ("inception_v4", "paper"):
        records = [_as_in_figures(record) for record in records]
    rows = [_row(record, last_block8(network, variant)) for record in records]
    return {row.name: row for row in rows}


def last_block8(network, variant):
    """Name of the block with a scope of its own, `Block8`; None where there is none."""
    return {
        ("inception_resnet_v1", "facenet"): "block8_6",
        ("inception_resnet_v2", "released"): "block8_10",
    }.get((network, variant))


def _as_in_figures(record):
    if not TRANSPOSED_IN_FIGURES.search(record["name"]):
        return record
    name = re.sub(r"(\d)x(\d)$", r"\2x\1", record["name"])
    return {**record, "name": name, "kh": record["kw"], "kw": record["kh"]}


def _row(record, block8):
    scope = re.sub(r"^Inception(V\d|ResnetV\d)/", "", record["name"])
    scope = re.sub(r"^Repeat(_\d)?/", "", scope)
    scope = re.sub(r"^Block8/", f"{block8}/", scope)
    return Row(
        stage=record["stage"],
        name=RENAMED.get(scope, scope.replace("/", "_")),
        kernel=(int(record["kh"]), int(record["kw"])),
        stride=int(record["stride"]),
        padding=record["pad"].lower(),
        channels_in=int(record["cin"]),
        filters=int(record["cout"]),
        grid=(int(record["oh"]), int(record["ow"])),
        has_norm=record["norm"] == "bn",
        has_relu=record["relu"] == "1",
        num_trainable=int(record["trainable_params_no_gamma"]),
        num_multiply_adds=int(record["multiply_adds"]),
    )
