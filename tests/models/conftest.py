import keras
import numpy as np
import pytest

from inception_tf.models.inception_resnet_v2 import inception_resnet_v2


@pytest.fixture(scope="session")
def full_models():
    """Variant -> model at 299 px, full width, 1000 classes, auxiliary head; not to be changed."""
    return {
        variant: inception_resnet_v2(variant=variant, aux_head=True)
        for variant in ("paper", "released")
    }


@pytest.fixture(scope="session")
def free_trunks():
    """Variant -> full-width model without top for any input size; its weights may change."""
    return {
        variant: inception_resnet_v2(
            variant=variant, include_top=False, input_shape=(None, None, 3)
        )
        for variant in ("paper", "released")
    }


@pytest.fixture(scope="session")
def keras_twin():
    """keras.applications' network with random weights and statistics, 1000 classes, 139 px."""
    keras.utils.set_random_seed(0)
    model = keras.applications.InceptionResNetV2(
        weights=None, classifier_activation=None, input_shape=(139, 139, 3)
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.beta.shape
            layer.beta.assign(rng.normal(scale=0.1, size=shape))
            layer.moving_mean.assign(rng.normal(scale=0.1, size=shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, size=shape))
    return model
