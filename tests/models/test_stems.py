"""Stems for smaller images: the same weights on finer grids, in every network."""

import pytest
from filled_weights import zero_initial_weights

from inception_tf.errors import ConfigError
from inception_tf.models.catalog import CATALOG
from inception_tf.models.counting import count_multiply_adds, count_parameters

NETWORKS = [(name, variant) for name, variants in CATALOG.items() for variant in variants]
SMALL = {"first_stride": 1, "first_pool": False}


def build(name, variant, size, **options):
    shallow = {} if name == "inception_v3" else {"block_counts": (1, 1, 1)}
    with zero_initial_weights():
        return CATALOG[name][variant].builder(
            variant=variant, num_classes=10, width_multiplier=0.125, input_shape=(size, size, 3),
            **shallow, **options,
        )  # fmt: skip


def grids(model):
    return [model.get_layer(name).output.shape[1] for name in ("Mixed_6a", "Mixed_7a")]


@pytest.mark.parametrize("name, variant", NETWORKS)
def test_smaller_images_keep_the_weights_and_get_a_grid(name, variant):
    full = build(name, variant, 299)
    shapes = {weight.path: tuple(weight.shape) for weight in full.weights}
    for options, size, wanted in (({"first_stride": 1}, 151, [17, 8]), (SMALL, 32, [5, 2])):
        model = build(name, variant, size, **options)
        assert {weight.path: tuple(weight.shape) for weight in model.weights} == shapes
        assert grids(model) == wanted
        assert count_parameters(model) == count_parameters(full)
    # At half the size and stride 1 every grid is the same, and so is the cost.
    half = build(name, variant, 151, first_stride=1)
    assert count_multiply_adds(half) == count_multiply_adds(full)


@pytest.mark.parametrize("name, variant", NETWORKS)
def test_the_smallest_input_is_computed_from_the_stem(name, variant):
    for options, least in (({}, 75), ({"first_stride": 1}, 39)):
        assert grids(build(name, variant, least, **options))[-1] == 1
        with pytest.raises(ConfigError, match=f"at least {least} px"):
            build(name, variant, least - 1, **options)
    model = build(name, variant, 24, **SMALL)
    assert grids(model) == [3, 1]


@pytest.mark.parametrize(
    "name, variant", [("inception_v4", "released"), ("inception_resnet_v2", "paper")]
)
def test_the_pool_beside_a_convolution_stays_at_stride_1(name, variant):
    """Figure 3 concatenates the two: without them the next module would see fewer channels."""
    model = build(name, variant, 32, **SMALL)
    pool, conv = (
        model.get_layer(f"Mixed_3a_Branch_{branch}_{layer}")
        for branch, layer in ((0, "MaxPool_1a_3x3"), (1, "Conv2d_0a_3x3"))
    )
    assert pool.strides == (1, 1) and tuple(conv.strides) == (1, 1)
    assert pool.output.shape[1:3] == conv.output.shape[1:3] == (26, 26)


def test_the_networks_of_1602_07261_refuse_what_section_9_does_not_have():
    with pytest.raises(ConfigError, match="section 9"):
        build("inception_v4", "released", 75, first_pool=False)
