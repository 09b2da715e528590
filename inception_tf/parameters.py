"""What a config may say: sections, their parameters, types, and which of them are the recipe.

Knows nothing of gin. A new section or parameter appears here through the dataclass of its room.
"""

import ast
import dataclasses
import math
import types
import typing

from inception_tf.claims.spec import ClaimSpec
from inception_tf.cluster import ClusterSpec
from inception_tf.data.image import Augmentation, EvaluationCrop
from inception_tf.data.pipeline import DataSpec
from inception_tf.errors import ConfigError, did_you_mean
from inception_tf.evaluation.evaluator import EvaluationSpec
from inception_tf.models.catalog import ModelSpec
from inception_tf.reporting.events import LoggingSpec
from inception_tf.serving.spec import ExportSpec
from inception_tf.training.averaging import Averages
from inception_tf.training.checkpoint import CheckpointSpec
from inception_tf.training.groups import VariableGroups
from inception_tf.training.objective import Objective
from inception_tf.training.optimizer import Momentum, RmsProp
from inception_tf.training.schedule import ExponentialDecay, TwoPhase
from inception_tf.training.spec import TrainingSpec
from inception_tf.training.recipe import LossScale
from inception_tf.training.watchdog import WatchdogSpec

# Sections that every experiment has, in the order in which a resolved config prints them.
SECTIONS = {
    "model": ModelSpec,
    "data": DataSpec,
    "augmentation": Augmentation,
    "evaluation_crop": EvaluationCrop,
    "training": TrainingSpec,
    "objective": Objective,
    "variables": VariableGroups,
    "averages": Averages,
    "loss_scale": LossScale,
    "checkpoints": CheckpointSpec,
    "evaluation": EvaluationSpec,
    "export": ExportSpec,
    "logging": LoggingSpec,
    "cluster": ClusterSpec,
    "watchdog": WatchdogSpec,
}

# Sections that are read only where a parameter refers to them: training.optimizer = @rmsprop().
REFERABLE = {
    "rmsprop": RmsProp,
    "momentum": Momentum,
    "exponential_decay": ExponentialDecay,
    "two_phase": TwoPhase,
}

# Sections of files that describe no run: what runs are to show (configs/claims/).
APART = {"claim": ClaimSpec}

# How a run is carried out, not what it computes: it may be changed when a run goes on. Device,
# tf32, deterministic, threads, jit_compile and recompute decide what computes, and therefore the
# last digits of the weights, never the recipe; a resume with others announces it. Whole sections, or
# single parameters of a section that is recipe otherwise.
OPERATION = {
    "checkpoints",
    "cluster",
    "evaluation",
    "export",
    "logging",
    "watchdog",
    "data.data_dir",
    "data.max_bad_records",
    "data.max_bad_share",
    "data.num_parallel_calls",
    "data.on_bad_record",
    "data.prefetch_steps",
    "training.jit_compile",
    "training.recompute",
    "training.steps_per_loop",
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@section()` as a value: the object that a referable section describes."""

    section: str

    def __repr__(self):
        return f"@{self.section}()"


def spec_class(section):
    """The dataclass behind a section of any kind; None for an unknown one."""
    return SECTIONS.get(section) or REFERABLE.get(section) or APART.get(section)


def parameter_names(section):
    """The parameters of a section, in the order of its dataclass."""
    return [field.name for field in dataclasses.fields(spec_class(section))]


def is_operation(parameter):
    """Whether 'section.name' is operation: devices, paths, intervals; not recipe."""
    return parameter in OPERATION or parameter.split(".")[0] in OPERATION


def default_of(parameter):
    """The value of an unbound 'section.name'; `dataclasses.MISSING` where it must be bound."""
    section, name = parameter.split(".")
    fields = {field.name: field for field in dataclasses.fields(spec_class(section))}
    if fields[name].default_factory is not dataclasses.MISSING:
        return fields[name].default_factory()
    default = fields[name].default
    for referable, cls in REFERABLE.items():
        # A default object is a reference like any other: its section can be bound too.
        if type(default) is cls:
            return Reference(referable)
    return default


def annotation_of(parameter):
    """The declared type of 'section.name'."""
    section, name = parameter.split(".")
    return typing.get_type_hints(spec_class(section))[name]


def same_name_elsewhere(name):
    """A question with the parameters of this name in any section; empty where there is none."""
    owners = [section for section in (*SECTIONS, *REFERABLE) if name in parameter_names(section)]
    return f"Did you mean {' or '.join(f'{o}.{name}' for o in owners)}?" if owners else ""


def check_parameter(parameter, *, received):
    """Raises ConfigError, with the nearest names, unless 'section.name' is a parameter."""
    section, _, name = parameter.rpartition(".")
    if spec_class(section) is None:
        known = (*SECTIONS, *REFERABLE, *APART)
        raise ConfigError(
            f"A config has no section '{section}'.",
            received=received,
            remedy=did_you_mean(section, known)
            or same_name_elsewhere(name)
            or f"Sections: {', '.join(known)}.",
        )
    names = parameter_names(section)
    if name not in names:
        raise ConfigError(
            f"Section '{section}' has no parameter '{name}'.",
            received=received,
            remedy=same_name_elsewhere(name)
            or did_you_mean(name, names, prefix=f"{section}.")
            or f"Its parameters: {', '.join(names)}.",
        )


def fit(parameter, value, *, where):
    """The value as 'section.name' holds it: an int as float, a list as tuple, nothing else.

    Raises:
      ConfigError: the value is of another type.
    """
    annotation = annotation_of(parameter)
    options = [annotation]
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        options = typing.get_args(annotation)
    for option in options:
        if _is_of(value, option):
            return _converted(value, option)
    raise ConfigError(
        f"{parameter} must be {' or '.join(map(_description, options))}.",
        received=f"{parameter} = {value!r} ({where})",
        remedy=_unquoted(value, options),
    )


def _unquoted(value, options):
    """The remedy for '3' where 3 was wanted; None where quotes are not the cause."""
    try:
        meant = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return None
    if isinstance(value, str) and any(_is_of(meant, option) for option in options):
        return f"Did you mean {meant!r}, without quotes?"
    return None


def _is_of(value, annotation):
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in REFERABLE.values():
        return isinstance(value, Reference) and REFERABLE[value.section] is annotation
    if annotation is float:
        return type(value) in (int, float) and math.isfinite(value)
    if origin is tuple:
        if type(value) not in (tuple, list):
            return False
        if arguments[1:] == (...,):
            return all(_is_of(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_is_of, value, arguments))
    if annotation is dict or origin is dict:
        if type(value) is not dict or not arguments:
            return type(value) is dict and _is_plain(value)
        return all(_is_of(k, arguments[0]) and _is_of(v, arguments[1]) for k, v in value.items())
    return type(value) is annotation  # not isinstance: True is no 1, and 1 is no True


def _is_plain(value):
    """Whether a nested value holds literals only, no reference and no macro as a key."""
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _converted(value, annotation):
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is float:
        return float(value)
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        return tuple(map(_converted, value, kinds))
    if origin is dict:
        return {key: _converted(item, arguments[1]) for key, item in value.items()}
    return value


def _description(annotation):
    """An annotation in the words of an error message."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    words = {
        bool: "True or False",
        int: "an integer",
        float: "a finite number",
        str: "a string in quotes",
        dict: "a dict",
        types.NoneType: "None",
    }
    for section, cls in REFERABLE.items():
        words[cls] = f"@{section}()"
    if origin is tuple:
        if arguments[1:] == (...,):
            return f"a tuple, each item {_description(arguments[0])}"
        return f"a tuple of {len(arguments)}: {', '.join(map(_description, arguments))}"
    if origin is dict:
        return f"a dict with values that are {_description(arguments[1])}"
    return words.get(annotation, str(annotation))
