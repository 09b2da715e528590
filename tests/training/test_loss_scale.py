"""The loss scale of mixed_float16, which tests the reduced gradients."""

import numpy as np
import pytest
from small_run import SmallRun, constant_rate, dense_model

from inception_tf.errors import ConfigError
from inception_tf.training.optimizer import Momentum
from inception_tf.training.recipe import LossScale

LABELS = np.int32([[0], [0]])


def float16_run(*, initial, growth_steps, learning_rate=1e-4, num_values=2, num_replicas=2):
    return SmallRun(
        lambda: dense_model(num_values=num_values, policy="mixed_float16"),
        num_replicas=num_replicas,
        replica_batch=1,
        num_outputs=2,
        optimizer=Momentum(momentum=0.0),
        learning_rate=constant_rate(learning_rate),
        label_smoothing=0.0,
        loss_scale=LossScale(initial=initial, growth_steps=growth_steps),
    )


def test_overflow_of_the_reduced_gradient_skips_the_step_and_halves_the_scale():
    # The gradient of the second image is 8 x 0.5 x scale: above float16's 65,504 until the scale
    # is 2^13. The first image alone would pass.
    run = float16_run(initial=2.0**15, growth_steps=3)
    images = np.float32([[[0.25, 0.0]], [[0.0, 8.0]]])
    start, scales = run.state.values()["model/logits/kernel"], []
    for _ in range(2):
        outputs = run.take(images, LABELS)
        scales.append(run.state.values()["loss_scale"])
        assert outputs["failed_step"] == -1 and outputs["non_finite"] == 1
        # The loss did not overflow; the gradient has no norm, and none is made up.
        np.testing.assert_allclose(outputs["data_loss_nats"], np.log(2.0), rtol=1e-3)
        assert np.isnan(outputs["gradient_norm"])
    values = run.state.values()
    assert scales == [2.0**14, 2.0**13]
    assert values["step"] == 2
    for name, value in run.initial.items():
        if name not in ("step", "loss_scale"):
            assert value.tobytes() == values[name].tobytes(), name
    # From here on it fits, and after three good steps it doubles; the gradient is unscaled.
    for good in (1, 2):
        run.take(images, LABELS)
        assert run.state.values()["loss_scale_good_steps"] == good
        assert run.state.values()["loss_scale"] == 2.0**13
        if good == 1:
            kernel = run.state.values()["model/logits/kernel"]
            expected = start + 1e-4 * np.float32([[0.0625, -0.0625], [2.0, -2.0]])
            np.testing.assert_allclose(kernel, expected, rtol=1e-3)
    run.take(images, LABELS)
    values = run.state.values()
    assert values["loss_scale"] == 2.0**14 and values["loss_scale_good_steps"] == 0
    assert values["step"] == 5


def test_a_step_that_overflows_without_a_scale_has_failed():
    run = float16_run(initial=2.0, growth_steps=1000)
    images = np.float32([[[1.0, 0.0]], [[np.nan, 1.0]]])
    assert run.take(images, LABELS)["failed_step"] == -1
    assert run.state.values()["loss_scale"] == 1.0
    before = run.bits()
    assert run.take(images, LABELS)["failed_step"] == 1
    assert run.bits() == before


def test_a_gradient_too_large_for_the_sums_is_not_the_scales_to_mend():
    # Finite in float16 at scale 2 (3e4 a value), and 6.7e5 in norm: above 2^22 / 8.
    run = float16_run(initial=2.0, growth_steps=1000, num_values=1000, num_replicas=8)
    before = run.bits()
    outputs = run.take(np.full([8, 1, 1000], 3e4, np.float32), np.zeros([8, 1], np.int32))
    assert outputs["too_large"] == 8 and outputs["non_finite"] == 0
    assert outputs["failed_step"] == 0
    assert run.bits() == before


@pytest.mark.parametrize(
    "options", [{"initial": 1000.0}, {"initial": 0.5}, {"growth_steps": 0}]
)
def test_loss_scales_that_would_round_or_never_grow_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        LossScale(**options)
