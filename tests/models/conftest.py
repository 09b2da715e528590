import keras
import pytest
from filled_weights import fill_randomly


def keras_application(build):
    """keras.applications' network for any input size, 1000 classes, logits; filled with seed 0."""
    trunk = build(weights=None, include_top=False, input_shape=(None, None, 3))
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(trunk.output)
    model = keras.Model(trunk.input, keras.layers.Dense(1000, name="predictions")(x))
    fill_randomly(model, seed=0)
    return model


@pytest.fixture(scope="session")
def keras_twin():
    """keras.applications' Inception-ResNet-v2 with random weights and statistics, any size."""
    return keras_application(keras.applications.InceptionResNetV2)


@pytest.fixture(scope="session")
def keras_twin_v3():
    """keras.applications' Inception-v3 with random weights and statistics, any size."""
    return keras_application(keras.applications.InceptionV3)
