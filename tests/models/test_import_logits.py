"""Imported files give the logits of their own network: slim's and timm's, at full width.

The truth is `reference/`, a second forward pass on the source's own names and layouts.
"""

import keras
import numpy as np
import pytest
from reference.forward import logits_of
from reference.slim_files import random_slim_arrays, slim_values, write_slim_checkpoint
from reference.timm_files import random_timm_arrays, timm_values, write_safetensors

from inception_tf.models.catalog import ModelSpec, build_model
from inception_tf.models.stage_builder import endpoints
from inception_tf.models.weights.assignment import assign_weights, read_weights
from inception_tf.models.weights.identity import identity_of_spec

NUM_CLASSES = 1000
# The auxiliary head needs a 5x5 grid after its pool: its own is 17x17 to 19x19, here 17x18.
AUX_SIZE_PX = (299, 315)
# A last grid of 2x3, so that every kernel meets more than its middle row and column.
SMALL_SIZE_PX = (107, 139)


def import_into_new_model(path, network, *, size_px, **spec):
    """(new model with the file's weights, ImportReport)."""
    height_px, width_px = size_px
    declared = ModelSpec(name=network, input_height_px=height_px, input_width_px=width_px, **spec)
    model = build_model(declared, num_classes=NUM_CLASSES, seed=5)
    identity = identity_of_spec(declared, num_classes=NUM_CLASSES, evaluation_crop=None)
    return model, assign_weights(model, read_weights(str(path)), identity=identity)


def random_images(size_px):
    images = np.random.default_rng(6).uniform(-1, 1, (2, *size_px, 3))
    return images.astype(np.float32)


def share_of_largest(ours, theirs):
    """Largest difference as a share of the largest value."""
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.fixture
def weights_directory(tmp_path):
    """Directory for one test's files, emptied after it: together they have gigabytes."""
    yield tmp_path
    for path in tmp_path.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    "network, written, background_class",
    [
        ("inception_v3", "averages", True),
        pytest.param("inception_v4", "raw", False, marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2", "raw", True, marks=pytest.mark.slow),
        pytest.param("inception_v3", "averages, slots", False, marks=pytest.mark.slow),
        pytest.param("inception_v4", "averages", True, marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2", "averages", False, marks=pytest.mark.slow),
    ],
)
def test_slim_checkpoint_gives_its_own_logits(
    network, written, background_class, weights_directory
):
    raw = random_slim_arrays(network, seed=7)
    averages = random_slim_arrays(network, seed=8) if "averages" in written else None
    prefix = weights_directory / "model.ckpt-157585"
    write_slim_checkpoint(prefix, raw, averages=averages, has_slots="slots" in written)
    model, _ = import_into_new_model(
        prefix, network, size_px=AUX_SIZE_PX, aux_head=True, background_class=background_class
    )
    images = random_images(AUX_SIZE_PX)
    ours = model(images)
    # The averages are what a run evaluates: where a file has them, they are what is wanted.
    theirs = logits_of(network, images, slim_values(averages or raw), aux_head=True)
    first_class = 0 if background_class else 1
    for name in ("logits", "aux_logits"):
        assert share_of_largest(ours[name].numpy(), theirs[name][:, first_class:]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("network", ["inception_v4", "inception_resnet_v2"])
def test_timm_file_gives_its_own_logits(network, weights_directory):
    arrays = random_timm_arrays(network, seed=9)
    path = weights_directory / "model.safetensors"
    write_safetensors(path, arrays)
    model, _ = import_into_new_model(path, network, size_px=SMALL_SIZE_PX, batch_norm_scale=True)
    images = random_images(SMALL_SIZE_PX)
    theirs = logits_of(network, images, timm_values(arrays, network))
    assert share_of_largest(model(images).numpy(), theirs["logits"]) < 1e-4


def test_timm_inception_v3_differs_by_the_border_of_its_average_pools(weights_directory):
    arrays = random_timm_arrays("inception_v3", seed=10)
    path = weights_directory / "model.safetensors"
    write_safetensors(path, arrays)
    model, report = import_into_new_model(
        path, "inception_v3", size_px=SMALL_SIZE_PX, batch_norm_scale=True
    )
    with_grid = keras.Model(model.input, [model.output, endpoints(model)["Mixed_5b"]])
    images = random_images(SMALL_SIZE_PX)
    logits, first_mixed = (output.numpy() for output in with_grid(images))

    values = timm_values(arrays, "inception_v3")
    inside_only = logits_of("inception_v3", images, values)
    assert share_of_largest(logits, inside_only["logits"]) < 1e-4

    # timm divides by nine at the border as well, where our pools see four or six cells.
    as_in_timm = logits_of("inception_v3", images, values, counts_padding=True)
    assert share_of_largest(logits, as_in_timm["logits"]) > 1e-2
    difference = np.abs(first_mixed - as_in_timm["first_mixed"])
    num_pool_channels = 32  # the pool's branch comes last
    assert difference[..., :-num_pool_channels].max() < 1e-4
    pool_branch = difference[..., -num_pool_channels:].max(axis=(0, 3))
    assert pool_branch[1:-1, 1:-1].max() < 1e-4
    border = np.ones(pool_branch.shape, bool)
    border[1:-1, 1:-1] = False
    assert pool_branch[border].min() > 1e-2
    assert "average pool" in report.text()


@pytest.mark.slow
def test_torchvision_weights_bring_the_auxiliary_head_too(weights_directory):
    arrays = random_timm_arrays("inception_v3", seed=11, aux_head=True)
    path = weights_directory / "model.safetensors"
    write_safetensors(path, arrays)
    model, _ = import_into_new_model(
        path, "inception_v3", size_px=AUX_SIZE_PX, aux_head=True, batch_norm_scale=True
    )
    images = random_images(AUX_SIZE_PX)
    ours = model(images)
    theirs = logits_of("inception_v3", images, timm_values(arrays, "inception_v3"), aux_head=True)
    for name in ("logits", "aux_logits"):
        assert share_of_largest(ours[name].numpy(), theirs[name]) < 1e-4
