"""The start-up summary's own arithmetic, and what it warns of."""

import dataclasses

import keras
import pytest
import tensorflow as tf

from inception_tf import overview
from inception_tf.cluster import Assignment
from inception_tf.errors import ConfigError
from inception_tf.models.layers import ConvUnit
from inception_tf.training.averaging import Averages
from inception_tf.training.schedule import ExponentialDecay, TwoPhase, learning_rate_at

EPOCH = 1_281_167 / 640


def rates(schedule, **options):
    return lambda step: learning_rate_at(step, schedule, steps_per_epoch=EPOCH, **options)


def test_first_rates_begin_at_the_very_step():
    # Two epochs of 2,001.82 steps: 4,003.6, so the first whole step past them is 4,004.
    found = overview.first_rates(rates(ExponentialDecay()), 320_292, EPOCH)
    assert [step for step, _ in found] == [0, 4004, 8008]
    assert [rate for _, rate in found] == pytest.approx([0.045, 0.0423, 0.039762])


def test_first_rates_of_two_phases_begin_where_the_phases_do():
    schedule = TwoPhase(first_learning_rate=0.001, first_epochs=0.5)
    found = overview.first_rates(rates(schedule), 320_292, EPOCH, most=2)
    assert found[0] == (0, pytest.approx(0.001))
    assert found[1] == (1001, pytest.approx(0.045))


def test_rates_that_change_at_every_step_are_shown_at_whole_epochs():
    found = overview.first_rates(rates(ExponentialDecay(), warmup_epochs=4.0), 320_292, EPOCH)
    assert [step for step, _ in found] == [0, 2002, 4004]


def test_a_constant_rate_is_one_row():
    assert len(overview.first_rates(lambda step: tf.constant(0.1), 1000, 10.0)) == 1


@dataclasses.dataclass
class Model:
    batch_norm_decay: float


@dataclasses.dataclass
class Config:
    model: Model
    averages: Averages


def network(side_px):
    inputs = keras.Input([side_px, side_px, 3])
    x = ConvUnit(4, 1, name="first")(inputs)
    return keras.Model(inputs, ConvUnit(4, side_px, padding="valid", name="last")(x))


def warnings_of(model, *, replica_batch, decay=0.9, total_steps=10**6, num_replicas=2):
    return overview.warnings_of(
        Config(Model(decay), Averages()),
        model,
        Assignment(num_replicas=num_replicas, replica_batch=replica_batch),
        total_steps=total_steps,
    )


def test_a_batch_norm_with_one_value_per_channel_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"1 in layer last \(training.replica_batch = 1\)"):
        warnings_of(network(5), replica_batch=1)


def test_a_batch_norm_with_few_values_per_channel_is_warned_of_by_name_and_count():
    (warning,) = warnings_of(network(5), replica_batch=15)
    assert "layer last sees 15 values per channel" in warning
    assert warnings_of(network(5), replica_batch=16) == []


def test_a_frozen_batch_norm_needs_no_values():
    model = network(5)
    model.get_layer("last").trainable = False
    assert warnings_of(model, replica_batch=1) == []


def test_a_run_shorter_than_three_time_constants_of_its_batch_norm_is_warned_of():
    # 0.9997 ** 20 keeps 0.99402 a step: a time constant of 167 steps.
    options = {"replica_batch": 16, "decay": 0.9997, "num_replicas": 20}
    (warning,) = warnings_of(network(5), total_steps=500, **options)
    assert "model.batch_norm_decay" in warning and "167 steps" in warning
    assert warnings_of(network(5), total_steps=503, **options) == []
