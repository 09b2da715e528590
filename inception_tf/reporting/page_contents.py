"""What a report shows: runs, evaluations and images, as plain values."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restart:
    """A start of a run that went on: `step` it went on from, Unix time of the start."""

    step: int
    unix_secs: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run directory, read.

    Attributes:
      label: names it in the report; no two runs share one.
      path: as the user named it.
      network, variant: in the catalog.
      num_classes: without background; None of a run that has only begun.
      steps_per_epoch: training examples / global batch; None where they are not known.
      total_steps: length of the run, None alike.
      train_rows: rows of metrics.jsonl as `read_rows` gives them, by step.
      eval_rows: those of the training and of `evaluate --watch`, one for each step.
      begun_secs: Unix time of the first start; None where nothing says it.
      restarts: later starts.
      recipe: 'section.name' -> value of the config, options that it leaves out as their defaults.
      values: 'section.name' -> value of recipe and operation, as the config has them.
      differences: (parameter, in the paper, in this run) of the recipe.
      config_text: the resolved config.
    """

    label: str
    path: str
    network: str
    variant: str
    num_classes: int | None
    steps_per_epoch: float | None
    total_steps: int | None
    train_rows: Sequence[Mapping] = ()
    eval_rows: Sequence[Mapping] = ()
    begun_secs: float | None = None
    restarts: Sequence[Restart] = ()
    recipe: Mapping[str, object] = dataclasses.field(default_factory=dict)
    values: Mapping[str, object] = dataclasses.field(default_factory=dict)
    differences: Sequence[tuple[str, object, object]] = ()
    config_text: str = ""

    @property
    def last_step(self) -> int:
        """Of the last row; 0 without rows."""
        return max((row["step"] for row in (*self.train_rows, *self.eval_rows)), default=0)

    def epoch(self, step: int) -> float:
        """Epochs in `step` steps; the steps themselves where an epoch's length is not known."""
        return step / (self.steps_per_epoch or 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """One network of an evaluation; what its file does not say is None.

    Attributes:
      source: as the user of `evaluate` named it.
      name, variant: in the catalog.
      input_px: (height, width) of its images.
      weights: 'averaged' or 'raw' of a run, '' of others.
      recipe: of the run that it is of, where that is known.
    """

    source: str
    name: str | None
    variant: str | None
    input_px: tuple[int, int] | None
    weights: str
    recipe: Mapping[str, object] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """An error: the ratio in [0, 1] and its 95% interval."""

    error: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """The figures of one network, or of several together, on one subset of the images.

    Attributes:
      label: of the run that it lies with, '' of others.
      title: as the evaluation names it.
      step: of its only network; None of several, or where none is said.
      networks: one, or the members of an ensemble.
      crops: names of the protocols; num_crops: of each image, None where members differ.
      average: 'probabilities' or 'logits'.
      subset: name; labels: 'original' or 'real'.
      num_examples, num_classes: of what it counts.
      top1, top5: errors; top5 None under ReaL labels.
      path: of the file.
    """

    label: str
    title: str
    step: int | None
    networks: tuple[MeasuredNetwork, ...]
    crops: str
    num_crops: int | None
    average: str
    subset: str
    labels: str
    num_examples: int
    num_classes: int
    top1: Share
    top5: Share | None
    path: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorstClass:
    """A class that a network gets wrong often.

    Attributes:
      index: from 0; name: of the class.
      num_examples, num_wrong, num_wrong_top5: its images, and those not among the first (five).
      taken_for: (name, count), the classes that its images are taken for most.
      images: JPEG bytes of some of its evaluation images, shrunk.
    """

    index: int
    name: str
    num_examples: int
    num_wrong: int
    num_wrong_top5: int
    taken_for: tuple[tuple[str, int], ...] = ()
    images: tuple[bytes, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorstClasses:
    """The worst classes of one run.

    Attributes:
      label: of the run, or the title of the evaluation.
      what: which evaluation they are of, a line; '' where there is none.
      classes: worst first.
      note: what lacks, and how it is to be had; '' where nothing lacks.
    """

    label: str
    what: str = ""
    classes: tuple[WorstClass, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TriedClaim:
    """What came out of a claim of the papers, tried on a small scale.

    Attributes:
      number, title: of the claim.
      verdict: whether it holds, in words.
      lines: source, criterion, and each of its comparisons with the numbers.
      header, rows: of its table, as text; all columns but the first are numbers.
      png: its figure.
    """

    number: int
    title: str
    verdict: str
    lines: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    png: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """All that a page shows; `notes` are what its readers must know of the sources."""

    runs: tuple[Run, ...]
    measured: tuple[Measured, ...]
    worst: tuple[WorstClasses, ...]
    notes: tuple[str, ...] = ()
    claims: tuple[TriedClaim, ...] = ()
