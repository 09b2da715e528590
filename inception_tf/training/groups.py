"""Variable groups: which weights are trained, at which rate, with which L2."""

import dataclasses
import re

import keras

from inception_tf.errors import ConfigError, did_you_mean
from inception_tf.models.stage_builder import endpoints

_RULE_KEYS = {"pattern": str, "trained": bool, "learning_rate_factor": float, "l2": float}
STATISTICS = ("moving_mean", "moving_variance")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariableGroups:
    """Rules by name pattern; the first that matches holds (gin section `variables`).

    Attributes:
      groups: dicts with 'pattern', a regular expression for the whole path of a trainable variable
        such as 'Conv2d_1a_3x3/kernel', and any of 'trained' (True), 'learning_rate_factor' (1.0)
        and 'l2' (0.0: the gradient gets l2 * w, the loss l2 / 2 * |w|^2, slim's sense). Default:
        4e-5 on weights and biases as the released Inception-ResNet-v2, not on batch norm's beta.
      freeze_up_to: a stage such as 'Mixed_6a' or 'block35_10': it and all layers below it, down to
        the input, keep their weights and statistics, and no backward pass is done through them.
        The rules are then for the layers above it. None freezes nothing.
    """

    groups: tuple[dict, ...] = (
        {"pattern": r".*/(kernel|bias)", "l2": 0.00004},
        {"pattern": r".*"},
    )
    freeze_up_to: str | None = None

    def __post_init__(self):
        for rule in self.groups:
            _check_rule(rule)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedVariable:
    """A Keras variable that the step updates, and how."""

    variable: object
    path: str
    learning_rate_factor: float
    l2: float


def _check_rule(rule):
    unknown = sorted(set(rule) - set(_RULE_KEYS))
    if unknown or "pattern" not in rule:
        raise ConfigError(
            f"A variable group has 'pattern' and any of {sorted(set(_RULE_KEYS) - {'pattern'})}.",
            received=repr(rule),
        )
    for key, value in rule.items():
        wanted = _RULE_KEYS[key]
        is_number = wanted is float and isinstance(value, (int, float))
        if isinstance(value, bool) is not (wanted is bool) or not (
            isinstance(value, wanted) or is_number
        ):
            raise ConfigError(
                f"'{key}' of a variable group must be a {wanted.__name__}.", received=repr(value)
            )
    try:
        re.compile(rule["pattern"])
    except re.error as error:
        raise ConfigError(
            f"'pattern' of a variable group is no regular expression: {error}.",
            received=repr(rule["pattern"]),
        ) from error
    if rule.get("l2", 0.0) < 0 or rule.get("learning_rate_factor", 1.0) < 0:
        raise ConfigError("'l2' and 'learning_rate_factor' must not be negative.", received=rule)


def _weighted_layers(model):
    """Every layer that owns variables itself, nested models opened."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _weighted_layers(layer)
        elif layer.weights:
            yield layer


def _rule_of(path, groups):
    """(index, rule) of the first rule that matches; None where there is none."""
    for index, rule in enumerate(groups):
        if re.fullmatch(rule["pattern"], path):
            return index, rule
    return None


def apply_groups(model, spec):
    """Freezes the layers that the spec freezes and says how the others are trained.

    A frozen layer gets `trainable = False`: it keeps its weights, its batch norm uses its moving
    statistics and gives no new ones. Its variables have no gradient, L2, slot or average.

    Args:
      model: a keras.Model.
      spec: a VariableGroups.

    Returns:
      A list of TrainedVariable in the order of `model.trainable_variables`.

    Raises:
      ConfigError: an unknown stage, a variable matches no group, a group matches no variable that
        trains, a group freezes a part of a layer, or nothing is left to train.
    """
    unneeded = _freeze_up_to(model, spec)
    rules, used = {}, set()
    for layer in _weighted_layers(model):
        frozen = set()
        for variable in layer.trainable_variables:
            found = _rule_of(variable.path, spec.groups)
            if found is None:
                raise ConfigError(
                    "Every trainable variable must match a variable group.",
                    received=variable.path,
                    remedy="End variables.groups with {'pattern': '.*'}.",
                )
            index, rule = found
            used.add(index)
            rules[variable.path] = rule
            frozen.add(not rule.get("trained", True))
        if frozen == {True, False}:
            raise ConfigError(
                "A group freezes whole layers: batch norm must know whether its layer trains.",
                received=f"layer {layer.name} with frozen and trained variables",
                remedy=f"Use a pattern such as '{layer.name}/.*'.",
            )
        if frozen == {True}:
            layer.trainable = False
    _check_used(spec, used, unneeded)
    trained = [
        TrainedVariable(
            variable=variable,
            path=variable.path,
            learning_rate_factor=float(rules[variable.path].get("learning_rate_factor", 1.0)),
            l2=float(rules[variable.path].get("l2", 0.0)),
        )
        for variable in model.trainable_variables
    ]
    if not trained:
        raise ConfigError("Some variables must be trained.", received="every group is frozen")
    return trained


def _freeze_up_to(model, spec):
    """Freezes a stage and what it is computed from; indices of the rules that would have held."""
    name, stages = spec.freeze_up_to, endpoints(model)
    if name is None:
        return set()
    if name not in stages:
        raise ConfigError(
            "variables.freeze_up_to must be a stage of the network.",
            received=repr(name),
            remedy=did_you_mean(name, stages) or f"Its stages: {', '.join(stages)}.",
        )
    unneeded = set()
    for layer in _weighted_layers(keras.Model(model.inputs, stages[name])):
        for variable in layer.trainable_variables:
            found = _rule_of(variable.path, spec.groups)
            unneeded |= set() if found is None else {found[0]}
        layer.trainable = False
    return unneeded


def _check_used(spec, used, unneeded):
    """Raises ConfigError for a rule without effect.

    A closing catch-all may find nothing left, and so may a rule for all layers ('.*/kernel') where
    freeze_up_to has taken the last that it would have held for: freezing more must not ask for
    other rules. Any other rule that finds nothing is a typo, or is meant for a frozen layer.
    """
    for index, rule in enumerate(spec.groups):
        is_for_all = index in unneeded and rule["pattern"].startswith(".*")
        if index in used or is_for_all or rule["pattern"] == ".*":
            continue
        if index in unneeded:
            raise ConfigError(
                "A variable group must match a variable that trains.",
                received=f"{rule!r}, whose variables variables.freeze_up_to = "
                f"{spec.freeze_up_to!r} freezes",
                remedy="Leave the group out, or freeze fewer stages.",
            )
        raise ConfigError(
            "Every variable group must match a variable that no earlier group took.",
            received=repr(rule),
            remedy="The paths of the variables: python -m inception_tf.checkpoints ls RUN.",
        )


def updated_statistics(model):
    """The moving statistics of the layers that train, in the model's order."""
    return [
        variable
        for layer in _weighted_layers(model)
        if layer.trainable
        for variable in layer.non_trainable_variables
        if variable.path.rsplit("/", 1)[-1] in STATISTICS
    ]
