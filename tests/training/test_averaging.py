"""Running averages, against TF1's ExponentialMovingAverage."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.models.layers import ConvUnit
from inception_tf.training.averaging import Averages, apply_averages, decay_at
from inception_tf.training.groups import VariableGroups, apply_groups
from inception_tf.training.optimizer import RmsProp
from inception_tf.training.state import RunState


@pytest.mark.parametrize(
    ("step", "decay"),
    [(0, 0.1), (9, 0.526316), (99, 0.917431), (999, 0.991080), (9999, 0.999101), (89_990, 0.9999)],
)
def test_decay_starts_low_as_published(step, decay):
    value = decay_at(tf.constant(step, tf.int64), Averages())
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, decay, rtol=1e-6)


def test_decay_reaches_its_limit_at_the_published_step():
    averages = Averages(decay=0.9997)
    assert decay_at(tf.constant(29_900, tf.int64), averages) < np.float32(0.9997)
    assert decay_at(tf.constant(29_991, tf.int64), averages) == np.float32(0.9997)
    assert decay_at(tf.constant(10**7, tf.int64), averages) == np.float32(0.9997)


def test_without_warm_start_the_decay_is_constant():
    averages = Averages(decay=0.9, warm_start=False)
    assert decay_at(tf.constant(0, tf.int64), averages) == np.float32(0.9)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_out_of_range_is_refused(decay):
    with pytest.raises(ConfigError, match="decay"):
        Averages(decay=decay)


def averages_of_tf1(values, *, decay):
    """TF1's averages after each value, values[0] being the variable's initial one."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable(
            "weight", initializer=values[0], use_resource=False
        )
        step = tf.compat.v1.placeholder(tf.int64, [])
        average = tf.train.ExponentialMovingAverage(decay, num_updates=step)
        apply_op = average.apply([variable])
        value = tf.compat.v1.placeholder(tf.float32, values[0].shape)
        assign = tf.compat.v1.assign(variable, value)
        session.run(variable.initializer)  # the average starts at what it holds
        session.run(average.average(variable).initializer)
        results = []
        for index, new in enumerate(values[1:]):
            session.run(assign, {value: new})
            session.run(apply_op, {step: index})
            results.append(session.run(average.average(variable)))
    return results


@pytest.mark.parametrize("decay", [0.9999, 0.6])
def test_averages_are_those_of_tf1_to_the_bit(decay):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 5, 7)).astype(np.float32)
    average = tf.Variable(values[0])
    expected = averages_of_tf1(values, decay=decay)
    for step, (value, after) in enumerate(zip(values[1:], expected)):
        share = decay_at(tf.constant(step, tf.int64), Averages(decay=decay))
        apply_averages([(average.handle, tf.constant(value))], share)
        np.testing.assert_array_equal(average.numpy(), after)


def test_run_averages_weights_and_statistics_from_their_initial_values():
    inputs = keras.Input([4, 4, 3])
    x = ConvUnit(2, 3, name="averaged_conv")(inputs)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="averaged_logits")(x))
    conv = model.get_layer("averaged_conv")
    conv.moving_variance.assign([0.25, 4.0])
    state = RunState(model, apply_groups(model, VariableGroups()), optimizer=RmsProp())
    assert sorted(state.averages) == [
        "averaged_conv/beta",
        "averaged_conv/kernel",
        "averaged_conv/moving_mean",
        "averaged_conv/moving_variance",
        "averaged_logits/bias",
        "averaged_logits/kernel",
    ]
    np.testing.assert_array_equal(state.averages["averaged_conv/moving_variance"], [0.25, 4.0])
    # Its own variable, not another name for the weight.
    before = state.averages["averaged_conv/kernel"].numpy()
    conv.kernel.assign(conv.kernel + 1.0)
    np.testing.assert_array_equal(state.averages["averaged_conv/kernel"], before)
    trained, fixed = state.evaluated_variables(averaged=True)
    assert [variable.numpy().shape for variable in trained] == [
        tuple(variable.shape) for variable in model.trainable_variables
    ]
    np.testing.assert_array_equal(trained[0], before)
    np.testing.assert_array_equal(fixed[1], [0.25, 4.0])
    raw, _ = state.evaluated_variables(averaged=False)
    np.testing.assert_array_equal(raw[0], before + 1.0)
