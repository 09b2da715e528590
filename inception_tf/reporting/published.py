"""What the two papers publish: tables 2 to 5, and where the curves of figures 21 to 26 end.

Values are text, as printed. Sources: arXiv 1512.00567 and arXiv 1602.07261, by table; the images
that count are those of docs/evaluation.md. Where a paper says nothing, nothing stands here.
"""

import dataclasses

BLACKLISTED, EVERY = "without_blacklist", "all"  # the subsets of evaluation files
NUM_IMAGES = {BLACKLISTED: 48_238, EVERY: 50_000}
NUM_CLASSES = 1000

_V3_PARTS = {
    "model.stem": "factorised", "model.first_stride": 2, "model.first_pool": True,
    "model.branch_5x5": "5x5", "model.factorisation": "relu", "model.aux_norm": "all",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network as a table means it.

    Attributes:
      name: in the catalog.
      variants: those of the catalog that are the paper's network.
      input_px: side of its images.
      recipe: ('section.name', the value that a run's config must have), beside full width and
        depth.
      needs_recipe: without its config nobody can tell such a network from another.
    """

    name: str
    variants: tuple[str, ...] = ("released", "paper")
    input_px: int = 299
    recipe: tuple[tuple[str, object], ...] = ()
    needs_recipe: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table.

    Attributes:
      name: as printed.
      cells: of the table's further columns, such as the crops, as printed.
      top1, top5: in percent, as printed; '' where the paper prints none.
      networks: what has to be measured for it, several of an ensemble; () where no network of
        this project is meant.
      num_crops: of each image, in such a measurement.
    """

    name: str
    cells: tuple[str, ...] = ()
    top1: str = ""
    top5: str = ""
    networks: tuple[Network, ...] = ()
    num_crops: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a paper.

    Attributes:
      paper: its arXiv number.
      number: of the table.
      title: what it shows.
      columns: names of the columns before the errors.
      images: the subset that its measurements must count, a key of NUM_IMAGES.
      is_accuracy: it prints shares of right images, and top-1 alone.
      note: what must not be read without.
      rows: from top to bottom.
    """

    paper: str
    number: int
    title: str
    columns: tuple[str, ...]
    images: str
    is_accuracy: bool = False
    note: str = ""
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndPoint:
    """Where a curve of figures 21 to 26 ends: table 2 of arXiv 1602.07261.

    Attributes:
      network: in the catalog.
      name: as the figures have it.
      epoch: up to which the figures draw it.
      top1, top5: errors in percent.
    """

    network: str
    name: str
    epoch: int
    top1: float
    top5: float


V3 = Network(name="inception_v3", recipe=tuple(_V3_PARTS.items()))
V4 = Network(name="inception_v4")
RESNET_V1 = Network(name="inception_resnet_v1")  # 'facenet' is trained for something else
RESNET_V2 = Network(name="inception_resnet_v2")

END_POINTS = (
    EndPoint(network="inception_v3", name="Inception-v3", epoch=200, top1=21.2, top5=5.6),
    EndPoint(
        network="inception_resnet_v1", name="Inception-ResNet-v1", epoch=200, top1=21.3, top5=5.5
    ),
    EndPoint(network="inception_v4", name="Inception-v4", epoch=160, top1=20.0, top5=5.0),
    EndPoint(
        network="inception_resnet_v2", name="Inception-ResNet-v2", epoch=160, top1=19.9, top5=4.9
    ),
)
# Figure -> (metric, networks), of arXiv 1602.07261.
FIGURES = {
    21: ("top1", ("inception_v3", "inception_resnet_v1")),
    22: ("top5", ("inception_v3", "inception_resnet_v1")),
    23: ("top1", ("inception_v4", "inception_resnet_v2")),
    24: ("top5", ("inception_v4", "inception_resnet_v2")),
    25: ("top5", tuple(point.network for point in END_POINTS)),
    26: ("top1", tuple(point.network for point in END_POINTS)),
}


def _rung(optimizer, smoothing, stem="factorised", aux_norm="all", **sizes):
    """A network of 1512.00567 that differs from Inception-v3; configs/ladder, receptive_field."""
    parts = {"model.stem": stem, "model.aux_norm": aux_norm}
    parts |= {f"model.{name}": value for name, value in sizes.items() if name != "input_px"}
    training = {"training.optimizer": f"@{optimizer}()", "objective.label_smoothing": smoothing}
    return Network(
        name="inception_v3",
        input_px=sizes.get("input_px", 299),
        recipe=tuple({**_V3_PARTS, **parts, **training}.items()),
        needs_recipe=True,
    )


def _errors(name, both, *cells, networks=(), num_crops=1):
    top1, top5 = both.split("/")
    return Row(
        name=name, cells=cells, top1=top1, top5=top5, networks=networks, num_crops=num_crops
    )


_NETWORK, _CROPS, _MODELS = "network", "crops", "models"
_OLD, _NEW = "1512.00567", "1602.07261"
_EXCHANGED = "The paper has the two columns exchanged (19.47% is top-1); here they are right."

TABLES = (
    Table(
        paper=_OLD, number=2, title="size of the receptive field at constant cost",
        columns=("receptive field",), images=BLACKLISTED, is_accuracy=True,
        rows=tuple(
            Row(name=f"{px} x {px}", top1=top1, networks=(
                _rung("momentum", 0.0, aux_norm="convolutions", input_px=px, first_stride=stride,
                      first_pool=pool),))
            for px, top1, stride, pool in (
                (79, "75.2", 1, False), (151, "76.4", 1, True), (299, "76.6", 2, True)
            )
        ),
    ),
    Table(
        paper=_OLD, number=3, title="single crop, each line adds to the one above",
        columns=(_NETWORK, "cost, Bn ops"), images=BLACKLISTED,
        rows=(
            _errors("GoogLeNet", "29/9.2", "1.5"),
            _errors("BN-GoogLeNet", "26.8/", "1.5"),
            _errors("BN-Inception", "25.2/7.8", "2.0"),
            _errors("Inception-v2", "23.4/", "3.8",
                    networks=(_rung("momentum", 0.0, "7x7", "convolutions"),)),
            _errors("Inception-v2, RMSProp", "23.1/6.3", "3.8",
                    networks=(_rung("rmsprop", 0.0, "7x7", "convolutions"),)),
            _errors("Inception-v2, Label Smoothing", "22.8/6.1", "3.8",
                    networks=(_rung("rmsprop", 0.1, "7x7", "convolutions"),)),
            _errors("Inception-v2, Factorized 7x7", "21.6/5.8", "4.8",
                    networks=(_rung("rmsprop", 0.1, aux_norm="convolutions"),)),
            _errors("Inception-v2, BN-auxiliary = Inception-v3", "21.2/5.6", "4.8",
                    networks=(V3,)),
        ),
    ),
    Table(
        paper=_OLD, number=4, title="single model, several crops",
        columns=(_NETWORK, _CROPS), images=BLACKLISTED, note=_EXCHANGED,
        rows=(
            _errors("GoogLeNet", "/9.15", "10"),
            _errors("GoogLeNet", "/7.89", "144"),
            _errors("VGG", "24.4/6.8", ""),
            _errors("BN-Inception", "22/5.82", "144"),
            _errors("PReLU", "24.27/7.38", "10"),
            _errors("PReLU", "21.59/5.71", ""),
            _errors("Inception-v3", "19.47/4.48", "12", networks=(V3,), num_crops=12),
            _errors("Inception-v3", "18.77/4.2", "144", networks=(V3,), num_crops=144),
        ),
    ),
    Table(
        paper=_OLD, number=5, title="ensembles",
        columns=(_NETWORK, _MODELS, _CROPS), images=EVERY,
        note="Of Inception-v3 the paper's footnote gives 3.46% top-5 on the validation images.",
        rows=(
            _errors("VGG", "23.7/6.8", "2", ""),
            _errors("GoogLeNet", "/6.67", "7", ""),
            _errors("PReLU", "/4.94", "", ""),
            _errors("BN-Inception", "20.1/4.9", "6", ""),
            _errors("Inception-v3", "17.2/3.58", "4", "144", networks=(V3,) * 4, num_crops=144),
        ),
    ),
    Table(
        paper=_NEW, number=2, title="single crop, single model",
        columns=(_NETWORK,), images=BLACKLISTED,
        rows=(
            _errors("BN-Inception", "25.2/7.8"),
            _errors("Inception-v3", "21.2/5.6", networks=(V3,)),
            _errors("Inception-ResNet-v1", "21.3/5.5", networks=(RESNET_V1,)),
            _errors("Inception-v4", "20.0/5.0", networks=(V4,)),
            _errors("Inception-ResNet-v2", "19.9/4.9", networks=(RESNET_V2,)),
        ),
    ),
    Table(
        paper=_NEW, number=3, title="10 or 12 crops, single model",
        columns=(_NETWORK, _CROPS), images=EVERY,
        rows=(
            _errors("ResNet-151", "21.4/5.7", "10"),
            _errors("Inception-v3", "19.8/4.6", "12", networks=(V3,), num_crops=12),
            _errors("Inception-ResNet-v1", "19.8/4.6", "12", networks=(RESNET_V1,), num_crops=12),
            _errors("Inception-v4", "18.7/4.2", "12", networks=(V4,), num_crops=12),
            _errors("Inception-ResNet-v2", "18.7/4.1", "12", networks=(RESNET_V2,), num_crops=12),
        ),
    ),
    Table(
        paper=_NEW, number=4, title="144 crops, single model",
        columns=(_NETWORK, _CROPS), images=EVERY,
        rows=(
            _errors("ResNet-151", "19.4/4.5", "dense"),
            _errors("Inception-v3", "18.9/4.3", "144", networks=(V3,), num_crops=144),
            _errors("Inception-ResNet-v1", "18.8/4.3", "144", networks=(RESNET_V1,), num_crops=144),
            _errors("Inception-v4", "17.7/3.8", "144", networks=(V4,), num_crops=144),
            _errors("Inception-ResNet-v2", "17.8/3.7", "144", networks=(RESNET_V2,), num_crops=144),
        ),
    ),
    Table(
        paper=_NEW, number=5, title="144 crops, ensembles",
        columns=(_NETWORK, _MODELS), images=EVERY,
        note="Of the last line the paper gives 3.08% top-5 on the test images.",
        rows=(
            _errors("ResNet-151", "/3.6", "6"),
            _errors("Inception-v3", "17.3/3.6", "4", networks=(V3,) * 4, num_crops=144),
            _errors("Inception-v4 + 3 x Inception-ResNet-v2", "16.5/3.1", "4",
                    networks=(V4, *(RESNET_V2,) * 3), num_crops=144),
        ),
    ),
)  # fmt: skip
