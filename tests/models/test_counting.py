"""What is counted of a model, on one small enough to count by hand."""

import keras
import pytest

from inception_tf.errors import ConfigError
from inception_tf.models import counting
from inception_tf.models.layers import ConvUnit, Dropout


@pytest.fixture(scope="module")
def model():
    x = keras.Input((8, 10, 3), name="images")
    y = ConvUnit(4, (3, 2), strides=2, name="unit")(x)
    y = keras.layers.GlobalAveragePooling2D(name="pool")(y)
    y = Dropout(0.5, name="dropout")(y)
    return keras.Model(x, keras.layers.Dense(5, name="dense")(y))


def test_parameters_with_statistics_and_without_random_state(model):
    assert counting.count_parameters(model) == (3 * 2 * 3 * 4 + 3 * 4) + (4 * 5 + 5)
    assert counting.count_values(model.trainable_weights) == 3 * 2 * 3 * 4 + 4 + 4 * 5 + 5


def test_multiply_adds_of_convolutions_and_dense_layers(model):
    assert counting.layer_multiply_adds(model.get_layer("unit")) == 3 * 2 * 3 * 4 * 4 * 5
    assert counting.layer_multiply_adds(model.get_layer("pool")) == 0
    assert counting.count_multiply_adds(model) == 3 * 2 * 3 * 4 * 4 * 5 + 4 * 5


def test_activations_are_all_outputs_the_images_too(model):
    assert counting.count_activation_values(model) == 8 * 10 * 3 + 4 * 5 * 4 + 4 + 4 + 5


def test_a_free_input_size_cannot_be_counted():
    x = keras.Input((None, 8, 3))
    free = keras.Model(x, ConvUnit(4, 3)(x))
    for count in (counting.count_activation_values, counting.count_multiply_adds):
        with pytest.raises(ConfigError, match="fixed"):
            count(free)
