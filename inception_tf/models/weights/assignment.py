"""Weights from elsewhere: slim's checkpoints, keras.applications, timm, and this project's own.

    source = read_weights("inception_v3.ckpt")
    report = assign_weights(model, source, identity=NetworkIdentity(network="inception_v3"))
    print(report.text())

timm's inception_v3 counts padded zeros in the average pools of its blocks and this network does
not, so with those weights its outputs differ a little from timm's; see `ImportReport.notes`.
"""

import collections
import dataclasses

import numpy as np

from inception_tf.errors import DataError
from inception_tf.models.layers import is_seed_state
from inception_tf.models.weights import (
    files,
    keras_format,
    own_format,
    published,
    slim_format,
    timm_format,
)
from inception_tf.models.weights.identity import (
    NetworkIdentity,
    check_same_function,
    read_json,
)
from inception_tf.models.weights.source import WeightSource, listed

_TRANSLATORS = {
    "slim": slim_format,
    "keras": keras_format,
    "timm": timm_format,
    "own": own_format,
}
# Of these the outputs may start with a background class that a model has not.
_CLASSIFIERS = ("Logits", "AuxLogits_Logits")
_CLASSIFIER_VARIABLES = tuple(f"{layer}/{v}" for layer in _CLASSIFIERS for v in ("kernel", "bias"))
_IMAGENET_WITH_BACKGROUND = 1001
_FLOATS = ("float16", "bfloat16", "float32", "float64")
PUBLISHED_EPSILON = 0.001  # of every network that others published
_NOT_SAID = (
    "The weights do not say what their network computes (variant, scales, epsilon ...): it is "
    "taken to be what the model computes."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What became of every tensor of a source.

    Attributes:
      path, format, network: of the source.
      used: (path of our variable, source name) pairs, in the model's order.
      unused: (source name, reason) pairs.
      drawn: paths of the variables of a new head, which keep their initial weights.
      notes: what a user of these weights should know.
    """

    path: str
    format: str
    network: str
    used: tuple[tuple[str, str], ...]
    unused: tuple[tuple[str, str], ...]
    drawn: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def text(self):
        """A few lines: counts, what is unused grouped by reason, notes."""
        lines = [
            f"{self.network} from {self.path} ({self.format})",
            f"  {len(self.used):,} variables filled, {len(self.unused):,} source tensors unused",
        ]
        if self.drawn:
            lines.append(f"  new head, drawn: {len(self.drawn):,} ({listed(self.drawn)})")
        groups = collections.defaultdict(list)
        for name, reason in self.unused:
            groups[reason].append(name)
        for reason, names in groups.items():
            lines.append(f"  unused, {reason}: {len(names):,} ({listed(names)})")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def read_weights(source, *, cache_dir=None):
    """Weights of a published or a given file, read as data; tensors are read when asked for.

    Args:
      source: 'keras:inception_v3', 'keras:inception_resnet_v2' or either with '_notop', fetched
        once into the cache; or a path: a TF1 checkpoint of slim (its prefix, one of its files or
        its directory), an `.h5` or `.weights.h5` of keras.applications, a `.safetensors` of timm,
        or a file of this project. What it is, its content says.
      cache_dir: where published files are kept; None takes ~/.cache/inception_tf.

    Returns:
      WeightSource.

    Raises:
      DataError: missing, damaged, of an unknown format or network; or a published file that
        cannot be fetched or has the wrong digest.
      ConfigError: an unknown published name, or safetensors is not installed.
    """
    path = source = str(source)
    if source.startswith(published.PREFIX):
        path = published.fetch(source, cache_dir=cache_dir)
    container, arrays, attribute = files.open_tensors(path)
    identity = read_json(attribute, path=path)
    if identity is not None:
        format_, network = "own", identity.network
    elif own_format.is_own(arrays):
        format_, network = "own", own_format.find_network(arrays)
    else:
        format_, network = _recognise(container, arrays, path)
    return WeightSource(
        path=source, format=format_, network=network, arrays=arrays, identity=identity
    )


def _recognise(container, arrays, path):
    """(format, network) of a file that others wrote."""
    format_ = {
        files.CHECKPOINT: "slim",
        files.HDF5: "keras",
        files.SAFETENSORS: "timm",
    }[container]
    network = _TRANSLATORS[format_].find_network(arrays)
    if network is not None:
        return format_, network
    if format_ == "keras" and any("/vars/" in name for name in arrays):
        remedy = (
            "If Keras older than 3.6 wrote it, which names no layers, save it with a newer one."
        )
    else:
        remedy = "Known are slim's and keras.applications' networks, timm's, and this project's."
    raise DataError(
        "The names in a file of weights must be those of a known network.",
        received=f"{path}, {container} with {len(arrays):,} tensors: {listed(arrays) or 'none'}",
        remedy=remedy,
    )


def translate(source):
    """The source's names in ours; see `Translation`.

    Raises:
      DataError: the source does not hold the layers that its network has.
    """
    return _TRANSLATORS[source.format].translate(source)


def known_identity(source):
    """What is known of a source's network: what it says itself, or what is published of it.

    Returns:
      NetworkIdentity; None of tensors of this project that say nothing of themselves.
    """
    if source.identity is not None or source.format == "own":
        return source.identity
    bias = translate(source).matches.get("Logits/bias")
    num_outputs = None if bias is None else int(source.arrays[bias.name].size)
    background_class = False
    if source.format == "slim":  # of other classes nobody knows
        background_class = True if num_outputs == _IMAGENET_WITH_BACKGROUND else None
    return NetworkIdentity(
        network=source.network,
        variant=published_variant(source.network),
        num_outputs=num_outputs,
        background_class=None if bias is None else background_class,
        batch_norm_epsilon=PUBLISHED_EPSILON,
        options={},
    )


def published_variant(network):
    """The variant of a network whose weights are published."""
    return "facenet" if network == "inception_resnet_v1" else "released"


def assign_weights(model, source, *, identity, new_head=False):
    """Fills every variable of a model; everything is checked before anything is assigned.

    Where the source's first output is a background class and the model has none, it is left out.

    Args:
      model: of `catalog.build_model` or of a builder.
      source: WeightSource.
      identity: NetworkIdentity of the model; what it does not say is not compared.
      new_head: leave the classifier and the auxiliary head at their initial weights.

    Returns:
      ImportReport: every source tensor is used or unused with a reason.

    Raises:
      DataError: another network's source, or one that computes something else; a variable without
        a source tensor, one left over, or one of another shape or type or with values that cannot
        be; a gamma that the model lacks.
    """
    check_network(source, identity.network)
    known, notes = known_identity(source), []
    if known is None:
        notes.append(_NOT_SAID)
    else:
        notes += check_same_function(known, identity, path=source.path, new_head=new_head)
    translation = translate(source)
    targets = {w.path: w for w in model.weights if not is_seed_state(w.path)}
    unused = dict(translation.unused)
    matches = {}
    for target, match in translation.matches.items():
        reason = _reason_unused(target, match, targets, source, new_head=new_head)
        if reason is None:
            matches[target] = match
        else:
            unused[match.name] = reason
    wanted = [t for t in targets if not (new_head and is_head(t))]
    _check_complete(wanted, matches, source, targets)
    drops = bool(known and known.background_class) and not identity.background_class
    values = {
        t: _value(t, matches[t], targets[t], source, notes, drops_background=drops) for t in wanted
    }
    for target in wanted:
        targets[target].assign(values[target])
    return ImportReport(
        path=source.path,
        format=source.format,
        network=identity.network,
        used=tuple((target, matches[target].name) for target in wanted),
        unused=tuple(sorted(unused.items())),
        drawn=tuple(target for target in targets if target not in values),
        notes=tuple(dict.fromkeys([*translation.notes, *notes])),
    )


def check_network(source, network):
    """Raises DataError where a source's names say that it is another network's."""
    if source.network not in (None, network):
        raise DataError(
            "The weights must be of the model's network.",
            received=f"{source.path} of {source.network} for a model {network}",
            remedy=f"Build {source.network}, or take weights of {network}.",
        )


def is_head(path):
    """Whether the variable of a path belongs to the classifier or the auxiliary head."""
    return path.partition("/")[0] == "Logits" or path.startswith("AuxLogits_")


def _reason_unused(target, match, targets, source, *, new_head):
    """Why a tensor that has a place in the network fills none of this model; None if it does."""
    if is_head(target):
        if new_head:
            return "the model has a new head"
        layer = target.partition("/")[0]
        head = "AuxLogits_" if layer.startswith("AuxLogits_") else "Logits/"
        if not any(path.startswith(head) for path in targets):
            return f"the model has no {'classifier' if layer == 'Logits' else 'auxiliary head'}"
    layer, _, variable = target.rpartition("/")
    if variable != "gamma" or target in targets or f"{layer}/beta" not in targets:
        return None
    if np.all(source.arrays[match.name] == 1.0):
        return "a gamma of ones, which changes nothing; the model has none"
    raise DataError(
        "A trained gamma must have a place in the model.",
        received=f"{match.name} of {source.path}, not all ones; {layer} has no gamma",
        remedy="Build the model with batch norm's gamma: model.batch_norm_scale = True.",
    )


def _check_complete(wanted, matches, source, targets):
    missing = [target for target in wanted if target not in matches]
    extra = [match.name for target, match in matches.items() if target not in targets]
    if not missing and not extra:
        return
    remedy = (
        "Build the network as the weights have it: variant, block counts, classifier and "
        "auxiliary head."
    )
    if missing and all(target.endswith("/gamma") for target in missing):
        remedy = "The weights have no gamma: model.batch_norm_scale = False."
    elif missing and all(is_head(target) for target in missing):
        remedy = (
            "The weights lack this head: build the model without it (aux_head), or train with a "
            "new one (training.new_head = True)."
        )
    raise DataError(
        "Weights must fill every variable of the model and leave nothing over.",
        received=f"{source.path}: {len(missing)} variables without a source "
        f"({listed(missing) or '-'}); {len(extra)} source tensors left over "
        f"({listed(extra) or '-'})",
        remedy=remedy,
    )


def _value(target, match, variable, source, notes, *, drops_background):
    """The array to assign, checked against the variable."""
    stored = np.asarray(source.arrays[match.name])
    value = stored if match.change is None else match.change(stored)
    wanted = tuple(variable.shape)
    is_classifier = target in _CLASSIFIER_VARIABLES
    if is_classifier and drops_background and value.shape[-1:] == (wanted[-1] + 1,):
        layer, num_outputs = target.partition("/")[0], value.shape[-1]
        notes.append(f"{layer}: output 0 of {num_outputs:,}, the background class, is left out.")
        value = value[..., 1:]
    if value.shape != wanted:
        remedy = "Check width, number of classes, background class and input size."
        if is_head(target):
            remedy = "In training, a new classifier is for other classes: training.new_head = True."
        raise DataError(
            "A source tensor must have the shape of the variable it fills.",
            received=f"{match.name} {stored.shape} of {source.path} for {target} {wanted}",
            remedy=remedy,
        )
    if stored.dtype.name not in _FLOATS:
        raise DataError(
            "Weights must be floating-point numbers.",
            received=f"{match.name} of {source.path} is {stored.dtype.name}",
            remedy="Take weights that are not quantised.",
        )
    with np.errstate(over="ignore"):  # what becomes infinite is told of below
        value = value.astype(np.float32)
    if not np.all(np.isfinite(value)):
        raise DataError(
            "Weights must be finite.", received=f"{match.name} of {source.path} holds NaN or Inf"
        )
    if target.endswith("/moving_variance") and np.any(value < 0):
        raise DataError(
            "A variance must be at least 0.",
            received=f"{match.name} of {source.path} down to {value.min():g}",
        )
    return value
