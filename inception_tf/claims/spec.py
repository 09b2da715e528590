"""What a claim of the papers is here: runs that try it, and a criterion that they must meet."""

import dataclasses
import operator
import re

from inception_tf.claims.measures import (
    CURVES,
    PROBED_CURVES,
    known_measures,
    target_measure,
)
from inception_tf.errors import ConfigError, did_you_mean

COST_TOLERANCE = 0.03  # of the multiply-adds of networks that are compared at equal cost
_CHECK = re.compile(
    r"(?P<left>\w+)\[(?P<left_arm>[^\]]+)\] (?P<relation><=|>=|<|>) "
    r"(?:(?P<right>\w+)\[(?P<right_arm>[^\]]+)\]|(?P<bound>\d+(?:\.\d+)?))"
    r"(?: (?P<sign>[+-]) (?P<margin>\d+(?:\.\d+)?))?"
)
RELATIONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
DATA = ("cifar10", "imagenette")
PROBES = ("zeros", "crops", "distance")
_WORKERS = re.compile(r"workers = (\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison of means over the seeds, such as `final_error[a] <= final_error[b] + 0.01`.

    Attributes:
      text: as the config writes it.
      left, right: (measure, arm); `right` is None where a number stands there.
      relation: a key of RELATIONS.
      offset: added to the right side, or the number itself.
    """

    text: str
    left: tuple[str, str]
    relation: str
    right: tuple[str, str] | None
    offset: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the things that a claim compares.

    Attributes:
      name: in tables and checks.
      gin_files, gin_params: of its training run.
      num_workers: processes of the run.
    """

    name: str
    gin_files: tuple[str, ...]
    gin_params: tuple[str, ...]
    num_workers: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClaimSpec:
    """A claim and how it is tried (gin section `claim`, in files of configs/claims/).

    Attributes:
      number: of the claim, as `reproduce` takes it.
      title: a line.
      source: paper, section, figure or table.
      statement: what the paper says.
      criterion: what must come out for the claim to hold, in words.
      checks: the same as comparisons of means over the seeds; all of them must hold. See `Check`.
      data: name of the image set, one of DATA.
      seeds: of the runs; weights, record order, augmentation and dropout.
      arms: name -> what its training run is made of: names of gin files, bindings, and
        'workers = N' where it is more than one process.
      equal_cost: groups of arms whose multiply-adds must agree within 3%.
      unequal_cost: why arms that are in no such group cost what they do; every other arm is in one.
      target_errors: validation errors to which the epochs are measured, in (0, 1).
      measures: columns of the table.
      curves: what the figure draws: names of `claims.measures.CURVES` and `PROBED_CURVES`.
      probe: what is measured of a finished run beside its rows: one of PROBES, or None.
      references: arm -> the arm from which the probe 'distance' measures it; the first one where
        nothing is said.
      imagenet: arm -> config of the paper's own run, whose cost is told and which is not run.
    """

    number: int = 0
    title: str = ""
    source: str = ""
    statement: str = ""
    criterion: str = ""
    checks: tuple[str, ...] = ()
    data: str = "cifar10"
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: dict = dataclasses.field(default_factory=dict)
    equal_cost: tuple[tuple[str, ...], ...] = ()
    unequal_cost: str = ""
    target_errors: tuple[float, ...] = ()
    measures: tuple[str, ...] = ("final_error",)
    curves: tuple[str, ...] = ("averaged_error",)
    probe: str | None = None
    references: dict = dataclasses.field(default_factory=dict)
    imagenet: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for group in self.equal_cost:
            for arm in group:
                self._check_arm(arm, f"claim.equal_cost = {group}")
        for arm in self.imagenet:
            self._check_arm(arm, "claim.imagenet")
        for arm in (*self.references, *self.references.values()):
            self._check_arm(arm, "claim.references")
        names = set(map(target_measure, self.target_errors))
        if len(names) < len(self.target_errors) or not all(0 < e < 1 for e in self.target_errors):
            raise ConfigError(
                "claim.target_errors lie in (0, 1) and differ by whole per cents.",
                received=self.target_errors,
                remedy="Write them like (0.8, 0.75).",
            )
        measures = known_measures(self.target_errors)
        for check in self.parsed_checks():
            for measure, arm in filter(None, (check.left, check.right)):
                self._check_arm(arm, check.text)
                _check_name(measure, measures, f"claim.checks, {check.text!r}")
        for kind, given, known in (
            ("measures", self.measures, measures),
            ("curves", self.curves, [*CURVES, *PROBED_CURVES]),
            ("data", (self.data,), DATA),
            ("probe", (self.probe,) if self.probe else (), PROBES),
        ):
            for name in given:
                _check_name(name, known, f"claim.{kind}")

    def parsed_checks(self) -> list[Check]:
        """The checks, read.

        Raises:
          ConfigError: one is no comparison.
        """
        return [parse_check(text) for text in self.checks]

    def parsed_arms(self) -> list[Arm]:
        """The arms, read."""
        return [_parse_arm(name, parts) for name, parts in self.arms.items()]

    def _check_arm(self, name, where):
        if name not in self.arms:
            raise ConfigError(
                "A claim speaks of its own arms.",
                received=f"{name!r} in {where}",
                remedy=did_you_mean(name, self.arms) or f"Arms: {', '.join(self.arms) or 'none'}.",
            )


def _check_name(name, known, where):
    if name not in known:
        raise ConfigError(
            "A claim names what there is.",
            received=f"{name!r} in {where}",
            remedy=did_you_mean(name, known) or f"Known: {', '.join(known)}.",
        )


def parse_check(text) -> Check:
    """A comparison, read; ConfigError where it is none."""
    found = _CHECK.fullmatch(text)
    if found is None:
        raise ConfigError(
            "A check compares means: measure[arm] < measure[arm], or a number there, and "
            "+ or - a number after it.",
            received=repr(text),
        )
    margin = float(found["margin"] or 0) * (-1 if found["sign"] == "-" else 1)
    right = (found["right"], found["right_arm"]) if found["right"] else None
    return Check(
        text=text,
        left=(found["left"], found["left_arm"]),
        relation=found["relation"],
        right=right,
        offset=margin + float(found["bound"] or 0),
    )


def _parse_arm(name, parts):
    gin_files, gin_params, num_workers = [], [], 1
    for part in parts:
        if workers := _WORKERS.fullmatch(part):
            num_workers = int(workers[1])
        elif part.endswith(".gin"):
            gin_files.append(part)
        else:
            gin_params.append(part)
    if not gin_files:
        raise ConfigError(
            "An arm is a training run and needs a config.",
            received=f"{name}: {list(parts)}",
            remedy="Name a gin file first, such as 'claims/parts/v3.gin'.",
        )
    return Arm(
        name=name,
        gin_files=tuple(gin_files),
        gin_params=tuple(gin_params),
        num_workers=num_workers,
    )
