"""Grids of every network for inputs large and small, square or not, with and without a head.

The networks are narrow and shallow: neither changes a grid. At 299 px: test_layer_tables.py.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden_layers import NETWORKS

from inception_tf.errors import ConfigError
from inception_tf.models.catalog import CATALOG
from inception_tf.models.stage_builder import endpoints

# Rows or columns after: the convolutions 1a and 2a, the first pool or Mixed_3a, Conv2d_4a or
# Mixed_4a, and of the three grids.
CHAINS = {
    75: (37, 35, 17, 15, 7, 3, 1),
    150: (74, 72, 35, 33, 16, 7, 3),
    350: (174, 172, 85, 83, 41, 20, 9),
    400: (199, 197, 98, 96, 47, 23, 11),
    600: (299, 297, 148, 146, 72, 35, 17),
}
STEM_V3 = {"Conv2d_1a_3x3": 0, "Conv2d_2a_3x3": 1, "Conv2d_2b_3x3": 1, "MaxPool_3a_3x3": 2,
           "Conv2d_3b_1x1": 2, "Conv2d_4a_3x3": 3}  # fmt: skip
STEM_V4 = {"Conv2d_1a_3x3": 0, "Conv2d_2a_3x3": 1, "Conv2d_2b_3x3": 1, "Mixed_3a": 2,
           "Mixed_4a": 3, "Mixed_5a": 4}  # fmt: skip
# Of one residual block A, one B and two C.
BLOCKS = {"block35_1": 4, "Mixed_6a": 5, "block17_1": 5, "Mixed_7a": 6, "block8_1": 6,
          "block8_2": 6}  # fmt: skip
MODULES = {**{f"Mixed_5{letter}": 4 for letter in "bcd"},
           **{f"Mixed_6{letter}": 5 for letter in "abcde"},
           **{f"Mixed_7{letter}": 6 for letter in "abc"}}  # fmt: skip
# Stage -> position in a chain, from the input upwards.
STAGES = {
    ("inception_v3", "released"): {**STEM_V3, "MaxPool_5a_3x3": 4, **MODULES},
    ("inception_v4", "paper"): {**STEM_V4, **MODULES},
    ("inception_v4", "released"): {**STEM_V4, **MODULES},
    ("inception_resnet_v1", "paper"): {**STEM_V3, "Conv2d_4b_3x3": 4, **BLOCKS},
    ("inception_resnet_v1", "facenet"): {**STEM_V3, "Conv2d_4b_3x3": 4, **BLOCKS},
    ("inception_resnet_v2", "paper"): {**STEM_V4, **BLOCKS},
    ("inception_resnet_v2", "released"): {
        **STEM_V3, "MaxPool_5a_3x3": 4, "Mixed_5b": 4, **BLOCKS, "Conv2d_7b_1x1": 6
    },
}  # fmt: skip
DEPTHS = {
    "inception_v3": {},
    "inception_v4": {"block_counts": (3, 4, 2)},
    "inception_resnet_v1": {"block_counts": (1, 1, 2)},
    "inception_resnet_v2": {"block_counts": (1, 1, 2)},
}


def narrow(key, **options):
    name, variant = key
    arguments = {"width_multiplier": 0.1, "num_classes": 10, **DEPTHS[name], **options}
    return CATALOG[name][variant].builder(variant=variant, **arguments)


@pytest.fixture(scope="module", params=NETWORKS, ids="-".join)
def trunk(request):
    """((name, variant), narrow model without top for any input size)."""
    return request.param, narrow(request.param, include_top=False, input_shape=(None, None, 3))


def test_endpoints_have_the_published_grids(trunk):
    key, model = trunk
    stages = keras.Model(model.input, endpoints(model))
    for height, width in ((150, 150), (75, 75), (400, 600), (350, 400)):
        outputs = stages(tf.zeros((1, height, width, 3)))
        assert list(endpoints(model)) == list(STAGES[key])
        for name, position in STAGES[key].items():
            grid = (CHAINS[height][position], CHAINS[width][position])
            assert outputs[name].shape[1:3] == grid, (name, height, width)


def test_without_top_only_the_head_is_missing(trunk):
    key, model = trunk
    whole = narrow(key, input_shape=(75, 75, 3))
    paths = [weight.path for weight in whole.weights]
    assert paths == [weight.path for weight in model.weights] + ["Logits/kernel", "Logits/bias"]
    assert not [layer for layer in model.layers if layer.name.startswith(("Logits", "Dropout"))]
    assert model.output is model.get_layer(list(STAGES[key])[-1]).output


@pytest.mark.parametrize("pooling, pool", [("avg", np.mean), ("max", np.max)])
def test_pooled_features_are_the_last_grids(pooling, pool):
    images = tf.random.stateless_uniform((2, 107, 150, 3), [0, 1], -1.0, 1.0)
    options = {"include_top": False, "input_shape": (107, 150, 3)}
    grid = narrow(NETWORKS[0], **options)(images).numpy()
    assert grid.shape[:3] == (2, 2, 3)
    features = narrow(NETWORKS[0], pooling=pooling, **options)(images)
    np.testing.assert_allclose(features, pool(grid, axis=(1, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("key", NETWORKS, ids="-".join)
def test_inputs_under_75_px_are_refused_with_the_rule(key):
    for size in ((74, 299), (299, 74)):
        with pytest.raises(ConfigError, match="at least 75 px"):
            narrow(key, input_shape=(*size, 3))


@pytest.mark.parametrize(
    "size, kernel, left",
    [
        ((75, 75), "1x1", (1, 1)),
        ((75, 350), "1x5", (1, 2)),  # 20 columns, pooled to 6
        ((450, 450), "5x5", (4, 4)),  # 26x26, pooled to 8x8
    ],
)
def test_auxiliary_head_fits_any_allowed_size(size, kernel, left):
    """Released: pool 5x5/3 VALID, then a convolution as large as what is left, at most 5x5.

    A grid thinner than 5 (3 rows at 75 px) is pooled whole.
    """
    model = narrow(NETWORKS[-1], aux_head=True, input_shape=(*size, 3))
    units = [layer for layer in model.layers if "Conv2d_2a" in layer.name and "Aux" in layer.name]
    assert [unit.name for unit in units] == [f"AuxLogits_Conv2d_2a_{kernel}"]
    assert units[0].output.shape[1:3] == left
    assert {name: output.shape for name, output in model.output.items()} == {
        "logits": (None, 10),
        "aux_logits": (None, 10),
    }


def test_free_input_size_gives_the_logits_of_a_fixed_one():
    free = narrow(NETWORKS[-1], input_shape=(None, None, 3))
    fixed = narrow(NETWORKS[-1], input_shape=(80, 96, 3))
    images = tf.random.stateless_uniform((2, 80, 96, 3), [0, 1], -1.0, 1.0)
    np.testing.assert_array_equal(free(images), fixed(images))
