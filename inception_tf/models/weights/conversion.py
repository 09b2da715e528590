"""From weights of elsewhere to a file of this project, through the network that they fill."""

import dataclasses
import os

import numpy as np

from inception_tf.errors import ConfigError
from inception_tf.models import catalog
from inception_tf.models.weights import own_format
from inception_tf.models.weights.assignment import (
    PUBLISHED_EPSILON,
    assign_weights,
    check_network,
    known_identity,
    published_variant,
    read_weights,
    translate,
)
from inception_tf.models.weights.identity import NetworkIdentity


def convert_weights(
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
      ConfigError: an unknown network or variant, a background class that cannot be left out, or
        `out` is the source.
    """
    own_format.check_own_path(out)
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(source, out):
        raise ConfigError(
            "Weights are written to another file than they are read from.",
            received=f"{source} for both",
        )
    found = read_weights(source, cache_dir=cache_dir)
    identity = network_to_build(found, network=network, variant=variant)
    identity = dataclasses.replace(identity, options={**identity.options, "aux_head": aux_head})
    if drop_background:
        if not identity.background_class:
            raise ConfigError(
                "Only a background class can be left out.",
                received=f"{source}, of whose classifier nobody says that it has one",
                remedy="Leave drop_background out.",
            )
        identity = dataclasses.replace(
            identity, num_outputs=identity.num_outputs - 1, background_class=False
        )
    model = build_network_of(identity)
    report = assign_weights(model, found, identity=identity)
    own_format.save_own_weights(model, out, identity=identity)
    return model, report


def network_to_build(source, *, network=None, variant=None):
    """The NetworkIdentity that a WeightSource fills, without auxiliary head.

    What the source does not say is what is published; of what only a user of the weights needs to
    know, the images' size and preparation, nothing is made up.

    Args:
      network, variant: see `convert_weights`.

    Raises:
      ConfigError: nobody says which network it is, or it has no such variant.
      DataError: the weights are of another network.
    """
    network = network or source.network
    if network is None:
        raise ConfigError(
            "The network of the weights must be known.",
            received=f"{source.path}, which does not tell it",
            remedy=f"Say which it is: --network, one of {', '.join(catalog.CATALOG)}.",
        )
    catalog.find_entry(network, variant or published_variant(network))
    check_network(source, network)
    known = known_identity(source) or NetworkIdentity(network=network)
    matches = translate(source).matches
    bias = matches.get("Logits/bias")
    gammas = [match.name for target, match in matches.items() if target.endswith("/gamma")]
    # A gamma of ones changes nothing; only those of some timm weights are others.
    has_gamma = any(np.any(source.arrays[name] != 1.0) for name in gammas)
    epsilon = known.batch_norm_epsilon
    return dataclasses.replace(
        known,
        variant=variant or known.variant or published_variant(network),
        num_outputs=None if bias is None else int(source.arrays[bias.name].size),
        background_class=None if bias is None else known.background_class,
        batch_norm_epsilon=PUBLISHED_EPSILON if epsilon is None else epsilon,
        options={"batch_norm_scale": has_gamma, **(known.options or {}), "aux_head": False},
    )


def build_network_of(identity, *, input_shape=(299, 299, 3)):
    """The network of a whole NetworkIdentity, with drawn weights.

    Raises:
      ConfigError: an argument out of range.
    """
    return catalog.find_entry(identity.network, identity.variant).builder(
        variant=identity.variant,
        name=identity.network,
        include_top=identity.num_outputs is not None,
        num_classes=identity.num_outputs or 1,
        batch_norm_epsilon=identity.batch_norm_epsilon,
        input_shape=input_shape,
        **identity.options,
    )
