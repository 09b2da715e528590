"""From weights of elsewhere to a file of this project, through the network that they fill."""

import numpy as np

from inception_tf.errors import ConfigError
from inception_tf.models import catalog
from inception_tf.models.weights import own_format
from inception_tf.models.weights.assignment import (
    assign_weights,
    check_network,
    read_weights,
    translate,
)

_IMAGENET_WITH_BACKGROUND = 1001


def import_weights(
    source, out, *, network=None, variant=None, drop_background=False, aux_head=False,
    cache_dir=None,
):  # fmt: skip
    """Writes weights from elsewhere as a `.weights.h5` of this project.

    The network is built as the weights have it: with top where they have a classifier, and with
    batch norm's gamma where theirs was trained.

    Args:
      source: see `read_weights`.
      out: file to write; it appears complete or not at all.
      network: the network that the weights must be of; None takes what their names say.
      variant: None takes what the file says, or the one whose weights are published.
      drop_background: leave out output 0 of the classifiers, the background class.
      aux_head: keep the auxiliary head's weights too.
      cache_dir: see `read_weights`.

    Returns:
      (keras.Model with the weights, ImportReport).

    Raises:
      DataError: see `read_weights`, `assign_weights` and `save_own_weights`.
      ConfigError: an unknown network or variant, or a background class that cannot be left out.
    """
    own_format.check_own_path(out)
    found = read_weights(source, cache_dir=cache_dir)
    network = network or found.network
    if network is None:
        raise ConfigError(
            "The network of the weights must be known.",
            received=f"{source}, which does not tell it",
            remedy="Say which it is (--network).",
        )
    variant = variant or found.identity.get("variant") or published_variant(network)
    entry = catalog.find_entry(network, variant)
    check_network(found, network)
    arguments = builder_arguments(found)
    background_class = has_background(found, arguments["num_classes"])
    if drop_background:
        if background_class is False or not arguments["include_top"]:
            raise ConfigError(
                "Only a background class can be left out.",
                received=f"{source}, whose classifier has none",
                remedy="Leave drop_background out.",
            )
        arguments["num_classes"] -= 1
        background_class = False
    options = {**arguments.pop("options"), "aux_head": aux_head}
    model = entry.builder(variant=variant, name=network, **arguments, **options)
    report = assign_weights(model, found, network=network)
    identity = {
        "network": network,
        "variant": variant,
        "num_outputs": arguments["num_classes"] if arguments["include_top"] else None,
        "background_class": background_class if arguments["include_top"] else None,
        "options": options,
    }
    own_format.save_own_weights(model, out, identity=identity)
    return model, report


def published_variant(network):
    """The variant of a network whose weights are published."""
    variants = catalog.CATALOG.get(network, ())
    return next((v for v in ("released", "facenet") if v in variants), "released")


def builder_arguments(source):
    """What the tensors of a WeightSource say of the builder's arguments.

    Returns:
      {'include_top', 'num_classes': outputs of the classifier (1 without), 'options': the
      arguments of `own_format.OPTIONS` that are known, the auxiliary head apart}.
    """
    matches = translate(source).matches
    bias = matches.get("Logits/bias")
    options = dict(source.identity.get("options", {}))
    options.pop("aux_head", None)
    gammas = [match.name for target, match in matches.items() if target.endswith("/gamma")]
    # A gamma of ones changes nothing; only those of some timm weights are others.
    options.setdefault(
        "batch_norm_scale", any(np.any(source.arrays[name] != 1.0) for name in gammas)
    )
    return {
        "include_top": bias is not None,
        "num_classes": 1 if bias is None else int(source.arrays[bias.name].size),
        "options": options,
    }


def has_background(source, num_outputs):
    """Whether output 0 of a source's classifier is a background class; None where unknown."""
    if "background_class" in source.identity:
        return source.identity["background_class"]
    if source.format in ("keras", "timm"):
        return False
    if source.format == "slim" and num_outputs == _IMAGENET_WITH_BACKGROUND:
        return True
    return None
