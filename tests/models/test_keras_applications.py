"""Logits of Inception-v3 and Inception-ResNet-v2 against keras.applications' own networks.

Keras' networks are the released ones, written by others. The same random weights and random
batch-norm statistics go into both, layer by layer in the order of the layer tables, which is the
order in which Keras numbers its convolutions.
"""

import re

import keras
import numpy as np
import pytest
from golden_layers import read_rows
from filled_weights import fill_randomly

from inception_tf.models.catalog import CATALOG

SEEDS = (0, pytest.param(1, marks=pytest.mark.slow))
SIZES = ((139, 139), (107, 150))


def numbered(model, prefix):
    """Layers named `prefix`, `prefix_1`, ... in the order of their numbers."""
    found = {}
    for layer in model.layers:
        match = re.fullmatch(rf"{prefix}(?:_(\d+))?", layer.name)
        if match:
            found[int(match[1] or 0)] = layer
    return [layer for _, layer in sorted(found.items())]


def units_in_branch_order(network):
    """Names of the layers with batch norm that stand below the classifier, `Branch_0` first."""
    rows = [row for row in read_rows(network, "released").values() if row.has_norm]
    names = [row.name for row in rows if row.stage != "AuxLogits"]
    stages = list(dict.fromkeys(re.sub("_Branch.*", "", name) for name in names))

    def position(name):
        branch = re.search(r"_Branch_(\d)", name)
        return stages.index(re.sub("_Branch.*", "", name)), int(branch[1]) if branch else 0

    return sorted(names, key=position)


def copy_weights(theirs, ours, network):
    """Copies every weight of Keras' network, and checks that none of ours is left out."""
    units = units_in_branch_order(network)
    convs = numbered(theirs, "conv2d")
    norms = numbered(theirs, "batch_normalization")
    if network == "inception_resnet_v2":
        last = units.index("Conv2d_7b_1x1")
        convs.insert(last, theirs.get_layer("conv_7b"))
        norms.insert(last, theirs.get_layer("conv_7b_bn"))
    assert len(convs) == len(norms) == len(units)
    filled = set()
    for name, conv, norm in zip(units, convs, norms):
        layer = ours.get_layer(name)
        layer.kernel.assign(conv.kernel)
        layer.beta.assign(norm.beta)
        layer.moving_mean.assign(norm.moving_mean)
        layer.moving_variance.assign(norm.moving_variance)
        filled.add(name)
    linear = [row.name for row in read_rows(network, "released").values() if not row.has_norm]
    for name in linear:
        if name.startswith("Aux"):
            continue
        dense = name == "Logits"
        source = "predictions" if dense else name.replace("_Conv2d_1x1", "_conv")
        ours.get_layer(name).set_weights(theirs.get_layer(source).get_weights())
        filled.add(name)
    assert filled == {layer.name for layer in ours.layers if layer.weights}


@pytest.fixture(scope="module", params=["inception_v3", "inception_resnet_v2"])
def networks(request):
    """(name, Keras' network, ours) for any input size; both get new weights in every test."""
    twin = {"inception_v3": "keras_twin_v3", "inception_resnet_v2": "keras_twin"}[request.param]
    theirs = request.getfixturevalue(twin)
    ours = CATALOG[request.param]["released"].builder(input_shape=(None, None, 3))
    yield request.param, theirs, ours
    fill_randomly(theirs, seed=0)  # as others expect it


@pytest.mark.parametrize("seed", SEEDS)
def test_features_and_logits_equal_keras_applications(networks, seed):
    name, theirs, ours = networks
    fill_randomly(theirs, seed=seed)
    copy_weights(theirs, ours, name)
    both = [
        keras.Model(model.input, [model.get_layer(dense).input, model.output])
        for model, dense in ((theirs, "predictions"), (ours, "Logits"))
    ]
    rng = np.random.default_rng(seed)
    for size in SIZES:
        images = rng.uniform(-1, 1, (2, *size, 3)).astype("float32")
        for wanted, found in zip(*(model(images) for model in both)):
            wanted, found = np.asarray(wanted), np.asarray(found)
            largest = np.abs(wanted).max()
            # Two images have outputs of their own: more than biases is compared.
            assert np.abs(wanted[0] - wanted[1]).max() > 0.01 * largest
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * largest)
