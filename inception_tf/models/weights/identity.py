"""Which network weights are of: what their names and shapes do not show of what it computes."""

import dataclasses
import inspect
import json
import math
from collections.abc import Mapping

from inception_tf.errors import DataError
from inception_tf.models import catalog

# The arguments of the builders, the classifier's apart, that decide which weights there are or
# what they compute.
OPTIONS = (
    "width_multiplier", "block_counts", "residual_scales", "batch_norm_on_sums",
    "batch_norm_on_last_sum", "stem",
    "first_stride", "first_pool", "branch_5x5", "factorisation", "aux_head", "aux_norm",
    "batch_norm_scale",
)  # fmt: skip
# Another resolution is a transfer that is meant: arXiv 1512.00567 section 9.
_RESOLUTION = ("first_stride", "first_pool")
_OUTSIDE_TABLES = ("factorisation", "batch_norm_on_sums")
# A file could ask for a network that fits into no memory.
_MOST_PX, _MOST_OUTPUTS, _MOST_BLOCKS, _MOST_WIDTH = 4096, 10**6, 100, 8.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkIdentity:
    """A network as whoever reads its weights needs to know it; None is what nobody said.

    Attributes:
      network: name in the catalog.
      variant: one that the network has.
      num_outputs: of the classifier; None without one.
      background_class: whether output 0 is a background class; None without classifier too.
      batch_norm_epsilon: added to the variance.
      input_height_px, input_width_px: of the images that it was trained for.
      evaluation_crop: how they were prepared, the fields of an `EvaluationCrop`.
      options: the builder's arguments among OPTIONS, those left out having its defaults.
    """

    network: str
    variant: str | None = None
    num_outputs: int | None = None
    background_class: bool | None = None
    batch_norm_epsilon: float | None = None
    input_height_px: int | None = None
    input_width_px: int | None = None
    evaluation_crop: Mapping[str, object] | None = None
    options: Mapping[str, object] | None = None

    def as_json(self):
        """The text that `read_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    def option(self, name):
        """An option's value, given or the builder's default; None where it has no such."""
        parameters = _parameters(self.network)
        return self.options.get(name, parameters[name].default if name in parameters else None)


def identity_of_spec(spec, *, num_classes, evaluation_crop):
    """The NetworkIdentity of `catalog.build_model(spec, num_classes=...)`.

    Args:
      evaluation_crop: fields of the `EvaluationCrop` that goes with it.
    """
    options = {name: getattr(spec, name) for name in OPTIONS}
    return NetworkIdentity(
        network=spec.name,
        variant=spec.variant,
        num_outputs=catalog.num_outputs(spec, num_classes),
        background_class=spec.background_class,
        batch_norm_epsilon=spec.batch_norm_epsilon,
        input_height_px=spec.input_height_px,
        input_width_px=spec.input_width_px,
        evaluation_crop=evaluation_crop,
        options={name: value for name, value in options.items() if value is not None},
    )


def read_json(text, *, path):
    """The NetworkIdentity in a file's text; None where there is no text.

    Raises:
      DataError: the text is none, or asks for what no network of the catalog has.
    """
    if text is None:
        return None
    try:
        return read_fields(json.loads(text), path=path)
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_an_identity(text, path) from error


def read_fields(fields, *, path):
    """The NetworkIdentity of what JSON gives; see `read_json`."""
    if not isinstance(fields, dict) or not isinstance(fields.get("network"), str):
        raise _not_an_identity(fields, path)
    if fields["network"] not in catalog.CATALOG:
        raise _not_an_identity(f"network = {fields['network']}", path)
    for name, value in fields.items():
        if name not in _RULES or not (value is None or _RULES[name](value, fields["network"])):
            raise _not_an_identity(f"{name} = {value!r}", path)
    options = fields.get("options")
    if options is not None:
        tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        fields = {**fields, "options": tuples}
    return NetworkIdentity(**fields)


def _not_an_identity(what, path):
    return DataError(
        "A file of this project must say in JSON which network its weights are of.",
        received=f"{path}: {str(what):.200}",
    )


def _is_int(value, most):
    return type(value) is int and 1 <= value <= most


def _is_number(value, most):
    return type(value) in (int, float) and 0 <= value <= most


def _are_options(options, network):
    known = set(OPTIONS) & set(_parameters(network))
    return isinstance(options, dict) and all(
        name in known and _is_option(name, value, _parameters(network)[name].default)
        for name, value in options.items()
    )


def _is_option(name, value, default):
    """Whether a value has the type of the builder's default, and can be built."""
    if name == "width_multiplier":
        return _is_number(value, _MOST_WIDTH) and value > 0
    if default is None:  # a value for each kind of block
        most = _MOST_BLOCKS if name == "block_counts" else math.inf
        kinds = (int,) if name == "block_counts" else (int, float)
        return isinstance(value, (list, tuple)) and len(value) == 3 and all(
            type(one) in kinds and 0 <= one <= most and math.isfinite(one) for one in value
        )
    return type(value) is type(default)


_RULES = {
    "network": lambda value, network: True,
    "variant": lambda value, network: isinstance(value, str) and value in catalog.CATALOG[network],
    "num_outputs": lambda value, network: _is_int(value, _MOST_OUTPUTS),
    "background_class": lambda value, network: isinstance(value, bool),
    "batch_norm_epsilon": lambda value, network: _is_number(value, 1.0),
    "input_height_px": lambda value, network: _is_int(value, _MOST_PX),
    "input_width_px": lambda value, network: _is_int(value, _MOST_PX),
    "evaluation_crop": lambda value, network: isinstance(value, dict),
    "options": _are_options,
}


def check_same_function(theirs, ours, *, path, new_head):
    """Raises DataError where weights would compute something else in a model than they did.

    What names and shapes of the tensors show, width and depth, is left to them.

    Args:
      theirs, ours: NetworkIdentity of the weights and of the model, of one network.
      path: of the weights.
      new_head: the model's classifier begins anew.

    Returns:
      Notes on what is another resolution: a transfer that is meant.
    """
    pairs = {
        "batch_norm_epsilon": (theirs.batch_norm_epsilon, ours.batch_norm_epsilon),
        **_of_tables(theirs, ours),
    }
    if not new_head:
        pairs |= _of_background(theirs, ours)
    knows_options = theirs.options is not None and ours.options is not None
    if knows_options:
        pairs |= {name: (theirs.option(name), ours.option(name)) for name in _OUTSIDE_TABLES}
    differing = {k: v for k, v in pairs.items() if None not in v and v[0] != v[1]}
    if differing:
        sides = [", ".join(f"{k} = {v[i]!r}" for k, v in differing.items()) for i in (0, 1)]
        raise DataError(
            "Weights must compute in a model what they computed in their own.",
            received=f"{path} with {sides[0]} for a model with {sides[1]}",
            remedy="Build the model as the weights have it, or take other weights.",
        )
    pairs = {"input height px": (theirs.input_height_px, ours.input_height_px),
             "input width px": (theirs.input_width_px, ours.input_width_px)}  # fmt: skip
    if knows_options:
        pairs |= {name: (theirs.option(name), ours.option(name)) for name in _RESOLUTION}
    return [
        f"Another resolution: {name} is {here}, the weights were trained with {there}."
        for name, (there, here) in pairs.items()
        if None not in (there, here) and there != here
    ]


def _of_background(theirs, ours):
    """The background classes, but where leaving out the weights' gives what the model has."""
    is_left_out = (
        theirs.background_class
        and ours.background_class is False
        and theirs.num_outputs != ours.num_outputs
    )
    pair = (theirs.background_class, ours.background_class)
    return {} if is_left_out else {"background_class": pair}


def _of_tables(theirs, ours):
    """What makes the networks' tables differ: name -> (theirs, ours), empty where they do not."""
    if None in (theirs.variant, ours.variant, theirs.options, ours.options):
        return {}
    block_counts = ours.options.get("block_counts")
    if _tables(theirs, block_counts) == _tables(ours, block_counts):
        return {}
    names = inspect.signature(_entry(ours).stages).parameters.keys() - {*_RESOLUTION}
    pairs = {"variant": (theirs.variant, ours.variant)}
    for name in sorted(names - {"variant", "block_counts"}):
        pairs[name] = tuple(
            f"the {one.variant} network's" if one.option(name) is None else one.option(name)
            for one in (theirs, ours)
        )
    return pairs


def _tables(identity, block_counts):
    """The stages of a network with these counts of blocks."""
    stages = _entry(identity).stages
    arguments = {**identity.options, "variant": identity.variant, "block_counts": block_counts}
    known = inspect.signature(stages).parameters
    return stages(**{k: v for k, v in arguments.items() if k in known})


def _entry(identity):
    return catalog.find_entry(identity.network, identity.variant)


def _parameters(network):
    builder = next(iter(catalog.CATALOG[network].values())).builder
    return inspect.signature(builder).parameters
