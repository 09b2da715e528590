"""Label smoothing and the weighted loss, against targets that are written out."""

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.training.objective import (
    Objective,
    check_output_weights,
    data_loss,
    named_outputs,
    smoothed_cross_entropy,
    smoothing_prior,
)


def random_logits(num_examples, num_outputs, *, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3.0, size=(num_examples, num_outputs)).astype(np.float32)
    labels = rng.integers(num_outputs, size=num_examples).astype(np.int32)
    return logits, labels


def written_out(logits, labels, *, smoothing, prior):
    """-sum_k q'(k) log p(k) in float64, with q' written out."""
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = (1.0 - smoothing) * np.eye(logits.shape[1])[labels] + smoothing * np.asarray(prior)
    return -(target * log_p).sum(axis=1)


# Derivative of the loss by the logits = p - q'; where p is known, q' can be read from it.
@pytest.mark.parametrize(
    ("num_outputs", "true_class", "others"),
    [(1000, 0.9001, 0.0001), (1001, 0.900099900, 0.0000999001)],
)
def test_smoothed_target_has_the_published_values(num_outputs, true_class, others):
    logits = tf.zeros([1, num_outputs])
    prior = smoothing_prior(Objective(), num_outputs=num_outputs)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = smoothed_cross_entropy(logits, tf.constant([7]), smoothing=0.1, prior=prior)
    target = 1.0 / num_outputs - tape.gradient(loss, logits).numpy()[0]
    np.testing.assert_allclose(target[7], true_class, rtol=1e-6)
    np.testing.assert_allclose(np.delete(target, 7), others, rtol=1e-4)
    np.testing.assert_allclose(target.sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("prior_kind", ["uniform", "class_prior"])
def test_cross_entropy_is_that_of_the_written_out_target(smoothing, prior_kind):
    logits, labels = random_logits(16, 11)
    counts = np.arange(11) ** 2 + 3
    prior = smoothing_prior(
        Objective(smoothing_prior=prior_kind), num_outputs=11, class_counts=tuple(counts.tolist())
    )
    expected_prior = np.full(11, 1 / 11) if prior_kind == "uniform" else counts / counts.sum()
    np.testing.assert_allclose(prior, expected_prior, rtol=1e-6)
    loss = smoothed_cross_entropy(logits, labels, smoothing=smoothing, prior=prior)
    assert loss.dtype == tf.float32
    expected = written_out(logits, labels, smoothing=smoothing, prior=expected_prior)
    np.testing.assert_allclose(loss, expected, rtol=2e-6)


@pytest.mark.parametrize("prior_kind", ["uniform", "class_prior"])
def test_smoothing_mixes_two_cross_entropies(prior_kind):
    logits, labels = random_logits(9, 5, seed=1)
    prior = smoothing_prior(
        Objective(smoothing_prior=prior_kind), num_outputs=5, class_counts=(1, 2, 3, 4, 5)
    )

    def cross_entropy(target):
        return tf.nn.softmax_cross_entropy_with_logits(labels=target, logits=logits).numpy()

    hard = cross_entropy(np.eye(5, dtype=np.float32)[labels])
    soft = cross_entropy(np.tile(prior.numpy(), (9, 1)))
    loss = smoothed_cross_entropy(logits, labels, smoothing=0.1, prior=prior)
    np.testing.assert_allclose(loss, 0.9 * hard + 0.1 * soft, rtol=2e-6)


def test_data_loss_weighs_the_outputs_as_the_released_trainers():
    logits, labels = random_logits(6, 4)
    aux_logits, _ = random_logits(6, 4, seed=2)
    prior = np.full(4, 0.25, np.float32)
    outputs = {"logits": logits, "aux_logits": aux_logits}
    weights = check_output_weights(Objective(), outputs)
    assert weights == {"logits": 1.0, "aux_logits": 0.4}
    loss = data_loss(outputs, labels, weights=weights, smoothing=0.1, prior=prior)
    main, aux = (
        written_out(values, labels, smoothing=0.1, prior=prior).mean()
        for values in (logits, aux_logits)
    )
    np.testing.assert_allclose(loss, main + 0.4 * aux, rtol=1e-6)


def test_configured_weights_replace_the_released_ones():
    logits, labels = random_logits(6, 4)
    outputs = {"logits": logits, "aux_logits": np.full_like(logits, np.nan)}
    weights = check_output_weights(Objective(output_weights={"logits": 2.5}), outputs)
    loss = data_loss(outputs, labels, weights=weights, smoothing=0.0, prior=tf.fill([4], 0.25))
    expected = 2.5 * written_out(logits, labels, smoothing=0.0, prior=np.zeros(4)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_16_bit_logits_are_compared_in_float32():
    logits, labels = random_logits(6, 4)
    halves = tf.cast(logits, tf.bfloat16)
    prior = tf.fill([4], 0.25)
    loss = data_loss(
        {"logits": halves}, labels, weights={"logits": 1.0}, smoothing=0.1, prior=prior
    )
    assert loss.dtype == tf.float32
    rounded = tf.cast(halves, tf.float32).numpy()
    expected = written_out(rounded, labels, smoothing=0.1, prior=prior).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_a_single_output_is_called_logits():
    assert list(named_outputs(tf.zeros([1, 2]))) == ["logits"]
    assert list(named_outputs({"aux_logits": 1})) == ["aux_logits"]
    assert check_output_weights(Objective(), ["logits"]) == {"logits": 1.0}


def test_weight_of_an_output_that_does_not_exist_is_refused():
    objective = Objective(output_weights={"logits": 1.0, "aux_logits": 0.4})
    with pytest.raises(ConfigError, match=r"\['aux_logits'\].*aux_head"):
        check_output_weights(objective, ["logits"])


@pytest.mark.parametrize("class_counts", [None, (1, 2)])
def test_class_prior_needs_the_count_of_every_class(class_counts):
    objective = Objective(smoothing_prior="class_prior")
    with pytest.raises(ConfigError, match="class_prior.*for 3 outputs"):
        smoothing_prior(objective, num_outputs=3, class_counts=class_counts)


@pytest.mark.parametrize("options", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}])
def test_smoothing_out_of_range_is_refused(options):
    with pytest.raises(ConfigError, match="label_smoothing"):
        Objective(**options)


def test_unknown_prior_is_refused():
    with pytest.raises(ConfigError, match="'uniform' or 'class_prior'"):
        Objective(smoothing_prior="flat")


def test_a_prior_that_nothing_is_smoothed_with_is_refused():
    with pytest.raises(ConfigError, match="no effect.*label_smoothing"):
        Objective(label_smoothing=0.0, smoothing_prior="class_prior")
    assert Objective(label_smoothing=0.0).smoothing_prior == "uniform"
