"""The reference forward pass and the files it reads, held against Keras and published counts."""

import keras
import numpy as np
import pytest
from reference.forward import logits_of
from reference.keras_names import keras_values, randomize_batch_norm
from reference.layer_rows import read_rows
from reference.slim_files import random_slim_arrays
from reference.timm_files import random_timm_arrays, timm_paths

# A last grid of 2x3, so that every kernel meets more than its middle row and column.
HEIGHT_PX, WIDTH_PX = 107, 139


@pytest.mark.parametrize(
    "network, builder",
    [
        ("inception_v3", keras.applications.InceptionV3),
        pytest.param(
            "inception_resnet_v2",
            keras.applications.InceptionResNetV2,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_reference_gives_the_logits_of_keras_applications(network, builder):
    keras.utils.set_random_seed(2)
    model = builder(weights=None, classifier_activation=None, input_shape=(HEIGHT_PX, WIDTH_PX, 3))
    randomize_batch_norm(model, seed=2)
    images = np.random.default_rng(3).uniform(-1, 1, (2, HEIGHT_PX, WIDTH_PX, 3))
    images = images.astype(np.float32)
    theirs = model(images).numpy()
    ours = logits_of(network, images, keras_values(model, network))["logits"]
    assert theirs.std() > 0.1
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(
    "network, num_variables, num_trainable_variables, num_values",
    [
        ("inception_v3", 388, 196, 27_182_194),
        ("inception_v4", 608, 306, 46_074_066),
        ("inception_resnet_v2", 908, 496, 59_244_594),
    ],
)
def test_slim_variables_are_as_many_as_in_the_released_checkpoints(
    network, num_variables, num_trainable_variables, num_values
):
    arrays = random_slim_arrays(network, seed=0)
    assert len(arrays) == num_variables
    assert sum("/moving_" not in name for name in arrays) == num_trainable_variables
    assert sum(array.size for array in arrays.values()) == num_values


@pytest.mark.parametrize(
    "network, aux_head, num_trainable",
    [
        ("inception_v3", False, 23_834_568),  # timm's table: 23.83 M
        ("inception_v3", True, 27_161_264),  # torchvision's count
        ("inception_v4", False, 42_679_816),  # 42.68 M
        ("inception_resnet_v2", False, 55_843_464),  # 55.84 M
    ],
)
def test_timm_tensors_are_as_many_as_timm_counts(network, aux_head, num_trainable):
    arrays = random_timm_arrays(network, seed=0, aux_head=aux_head)
    assert num_trainable == sum(
        array.size
        for key, array in arrays.items()
        if not key.split(".")[-1].startswith(("running_", "num_batches"))
    )


@pytest.mark.parametrize(
    "network, scope, path",
    [
        ("inception_v3", "Mixed_5c/Branch_1/Conv_1_0c_5x5", "Mixed_5c.branch5x5_2"),
        ("inception_v3", "Mixed_6a/Branch_0/Conv2d_1a_1x1", "Mixed_6a.branch3x3"),
        ("inception_v3", "Mixed_6e/Branch_2/Conv2d_0e_1x7", "Mixed_6e.branch7x7dbl_5"),
        ("inception_v3", "Mixed_7a/Branch_1/Conv2d_1a_3x3", "Mixed_7a.branch7x7x3_4"),
        ("inception_v3", "Mixed_7b/Branch_1/Conv2d_0b_3x1", "Mixed_7b.branch3x3_2b"),
        ("inception_v3", "Mixed_7c/Branch_2/Conv2d_0c_1x3", "Mixed_7c.branch3x3dbl_3a"),
        ("inception_v4", "Mixed_3a/Branch_1/Conv2d_0a_3x3", "features.3.conv"),
        ("inception_v4", "Mixed_4a/Branch_1/Conv2d_1a_3x3", "features.4.branch1.3"),
        ("inception_v4", "Mixed_6a/Branch_0/Conv2d_1a_3x3", "features.10.branch0"),
        ("inception_v4", "Mixed_6h/Branch_3/Conv2d_0b_1x1", "features.17.branch3.1"),
        ("inception_v4", "Mixed_7d/Branch_2/Conv2d_0c_1x3", "features.21.branch2_2"),
        ("inception_v4", "Mixed_7d/Branch_2/Conv2d_0d_1x3", "features.21.branch2_3a"),
        ("inception_resnet_v2", "Conv2d_7b_1x1", "conv2d_7b"),
        ("inception_resnet_v2", "Repeat/block35_10/Conv2d_1x1", "repeat.9.conv2d"),
        ("inception_resnet_v2", "Repeat_1/block17_1/Branch_0/Conv2d_1x1", "repeat_1.0.branch0"),
        ("inception_resnet_v2", "Block8/Branch_1/Conv2d_0c_3x1", "block8.branch1.2"),
    ],
)
def test_timm_paths(network, scope, path):
    paths = timm_paths(network)
    assert {name.partition("/")[2]: path for name, path in paths.items()}[scope] == path
    assert len(set(paths.values())) == len(read_rows(network)) - 3  # without the auxiliary head
