"""Initial weights against the released code's formulas, measured on drawn kernels."""

import numpy as np
import pytest

from inception_tf.models.catalog import CATALOG
from inception_tf.models.initializers import (
    layer_seed,
    slim_variance_scaling,
    truncated_normal,
    xavier_uniform,
)

# A standard normal cut off at +-2 has this standard deviation:
# sqrt(1 - 2 * 2 * phi(2) / (2 * Phi(2) - 1)), phi(2) = 0.0539910, Phi(2) = 0.9772499.
CUT_STDDEV = np.sqrt(1 - 4 * 0.0539910 / (2 * 0.9772499 - 1))


def check_truncated_normal(kernel, stddev, *, rel=0.02):
    assert kernel.std() == pytest.approx(CUT_STDDEV * stddev, rel=rel)
    assert abs(kernel.mean()) < 4 * stddev / np.sqrt(kernel.size)
    assert 1.97 * stddev < np.abs(kernel).max() <= 2 * stddev * (1 + 1e-6)


def check_xavier(kernel):
    """Uniform: in +-sqrt(6 / (fan_in + fan_out)), of standard deviation limit / sqrt(3)."""
    area = np.prod(kernel.shape[:-2])
    limit = np.sqrt(6 / (area * (kernel.shape[-2] + kernel.shape[-1])))
    assert 0.99 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)


def test_slim_variance_scaling_is_sqrt_of_2_6_over_fan_in_before_the_cut():
    kernel = np.asarray(slim_variance_scaling(0, "a")((3, 5, 128, 256)))
    check_truncated_normal(kernel, np.sqrt(2.6 / (3 * 5 * 128)), rel=0.005)


def test_fixed_truncated_normal():
    check_truncated_normal(np.asarray(truncated_normal(0.01)(0, "a")((300, 1000))), 0.01)


def test_xavier_uniform_counts_the_kernels_area_in_both_fans():
    check_xavier(np.asarray(xavier_uniform(0, "a")((1, 7, 160, 192))))
    check_xavier(np.asarray(xavier_uniform(0, "a")((1536, 1000))))


def test_weights_depend_on_seed_and_name_alone():
    assert layer_seed(0, "a") == layer_seed(0, "a")
    assert len({layer_seed(0, "a"), layer_seed(1, "a"), layer_seed(0, "b")}) == 3
    for initializer in (slim_variance_scaling, xavier_uniform, truncated_normal(0.1)):
        draws = [
            np.asarray(initializer(seed, name)((3, 3, 8, 8)))
            for seed, name in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
        ]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert np.abs(draws[0] - draws[2]).max() > 0.1 * draws[0].std()
        assert np.abs(draws[0] - draws[3]).max() > 0.1 * draws[0].std()


def kernels(name, variant, **options):
    """Layer name -> initial kernel of a network of half width."""
    model = CATALOG[name][variant].builder(
        variant=variant, width_multiplier=0.5, aux_head=True, seed=3, **options
    )
    return {
        layer.name: layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")
    }


def check_slim_convolutions(found, names):
    for name in names:
        check_truncated_normal(found[name], np.sqrt(2.6 / np.prod(found[name].shape[:-1])))


def test_inception_v3_starts_as_the_older_package_and_slim_have_it():
    found = kernels("inception_v3", "released")
    check_slim_convolutions(
        found,
        ("Mixed_5d_Branch_1_Conv2d_0b_5x5", "Mixed_7c_Branch_2_Conv2d_0b_3x3",
         "AuxLogits_Conv2d_1b_1x1"),
    )  # fmt: skip
    check_truncated_normal(found["AuxLogits_Conv2d_2a_5x5"], 0.01)
    check_truncated_normal(found["AuxLogits_Logits"], 0.001)
    check_truncated_normal(found["Logits"], np.sqrt(2.6 / 1024))  # released: a 1x1 convolution


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_inception_v4_convolutions_are_slims_and_dense_layers_xavier(variant):
    found = kernels("inception_v4", variant, block_counts=(1, 1, 1))
    check_slim_convolutions(
        found,
        ("Mixed_6b_Branch_0_Conv2d_0a_1x1", "Mixed_7a_Branch_1_Conv2d_1a_3x3",
         "AuxLogits_Conv2d_1b_1x1", "AuxLogits_Conv2d_2a_5x5"),
    )  # fmt: skip
    check_xavier(found["Logits"])
    check_xavier(found["AuxLogits_Logits"])


@pytest.mark.parametrize(
    "name, variant",
    [("inception_resnet_v1", "paper"), ("inception_resnet_v1", "facenet"),
     ("inception_resnet_v2", "paper"), ("inception_resnet_v2", "released")],
)  # fmt: skip
def test_inception_resnets_start_xavier_uniform_everywhere(name, variant):
    found = kernels(name, variant, block_counts=(1, 1, 2))
    large = {layer: kernel for layer, kernel in found.items() if kernel.size > 20_000}
    assert {"Logits", "AuxLogits_Logits", "AuxLogits_Conv2d_2a_5x5", "block17_1_Conv2d_1x1",
            "block8_2_Branch_1_Conv2d_0b_1x3", "Mixed_6a_Branch_1_Conv2d_1a_3x3"} <= set(
        large
    )  # fmt: skip
    for kernel in large.values():
        check_xavier(kernel)
