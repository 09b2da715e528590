"""Dropout masks as a function of (seed, step, declared replica, layer), read from a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_run import NO_FLAGS, SmallRun

from inception_tf.models.layers import Dropout

NUM_VALUES = 64


def dropout_model():
    """Two branches with a dropout each, on zero weights: a dropped value has no gradient."""
    inputs = keras.Input([NUM_VALUES])
    branches = []
    for name in ("left", "right"):
        x = Dropout(0.5, name=f"{name}_dropout")(inputs)
        branches.append(keras.layers.Dense(2, kernel_initializer="zeros", name=name)(x))
    return keras.Model(inputs, keras.layers.Add(name="logits")(branches))


class Masks:
    """The dropout masks of a run, read from which weights one image moves."""

    def __init__(self, *, num_replicas, seed):
        self.num_replicas = num_replicas
        self.run = SmallRun(
            dropout_model,
            num_replicas=num_replicas,
            replica_batch=1,
            num_outputs=2,
            label_smoothing=0.0,
            seed=seed,
        )

    def of(self, *, step, declared, layer="left"):
        """Mask of a layer as a tuple of bools: only this declared replica's image is not zero."""
        images = np.zeros([self.num_replicas, 1, NUM_VALUES], np.float32)
        images[declared] = 1.0
        self.run.begin_again(step=np.int64(step))
        self.run.take(images, np.zeros([self.num_replicas, 1], np.int32))
        return tuple(self.run.state.values()[f"model/{layer}/kernel"][:, 0] != 0.0)


@pytest.fixture(scope="module")
def masks():
    return Masks(num_replicas=3, seed=5)


def share_kept(mask):
    return sum(mask) / len(mask)


def test_masks_differ_per_declared_replica_step_and_layer(masks):
    seen = {
        masks.of(step=step, declared=declared, layer=layer)
        for step in (0, 1, 2)
        for declared in range(3)
        for layer in ("left", "right")
    }
    assert len(seen) == 18
    assert abs(np.mean([share_kept(mask) for mask in seen]) - 0.5) < 0.06
    # Independent, and not shifted copies or complements: two of them agree in half the places.
    agreement = [
        np.mean(np.equal(one, other)) for one in seen for other in seen if one is not other
    ]
    assert 0.15 < min(agreement) and max(agreement) < 0.85


def test_masks_are_a_pure_function_of_seed_step_and_declared_replica(masks):
    expected = [masks.of(step=7, declared=declared) for declared in range(3)]
    assert [masks.of(step=7, declared=declared) for declared in range(3)] == expected
    # Another process would have built another number of layers before.
    keras.layers.Dropout(0.5)
    more = Masks(num_replicas=5, seed=5)
    assert [more.of(step=7, declared=declared) for declared in range(3)] == expected
    other = Masks(num_replicas=3, seed=6)
    assert all(other.of(step=7, declared=declared) != expected[declared] for declared in range(3))


def test_no_generator_is_left_to_the_device_to_choose(masks):
    batch = {"images": tf.zeros([3, 1, NUM_VALUES]), "labels": tf.zeros([3, 1], tf.int32)}
    graph = masks.run.step._run_one.get_concrete_function(batch, NO_FLAGS).graph.as_graph_def()
    operations = {node.op for node in graph.node}
    for function in graph.library.function:
        operations |= {node.op for node in function.node_def}
    assert "StatelessRandomUniformV2" in operations  # the masks
    assert "StatelessRandomUniformFullIntV2" in operations  # the keys
    # What TensorFlow asks a device where no generator was named.
    assert not {"StatelessRandomGetAlg", "StatelessRandomGetKeyCounter"} & operations


def test_masks_on_a_cpu_are_those_of_keras():
    values = np.ones([8, NUM_VALUES], np.float32)
    ours = Dropout(0.3, seed=7)(values, training=True)
    keras_own = keras.random.dropout(values, 0.3, seed=keras.random.SeedGenerator(7))
    np.testing.assert_array_equal(ours, keras_own)
