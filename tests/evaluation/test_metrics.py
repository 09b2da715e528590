"""Counts and cross-entropy against NumPy written from their definitions."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.evaluation.metrics import (
    BAD_LABELS,
    EXAMPLES,
    NON_FINITE,
    NUM_COUNTS,
    TOP1,
    TOP5,
    EvaluationResult,
    batch_counts,
    label_ranks,
    result_from_counts,
)


def counts_of(logits, labels, valid=None):
    logits = np.asarray(logits, np.float32)
    valid = np.ones(len(logits), bool) if valid is None else np.asarray(valid)
    return batch_counts(tf.constant(logits), tf.constant(labels, tf.int32), tf.constant(valid))


def numpy_loss(logits, label):
    logits = np.asarray(logits, np.float64)
    top = logits.max()
    return math.log(math.fsum(np.exp(logits - top))) + top - logits[label]


def numpy_rank(logits, label):
    order = sorted(range(len(logits)), key=lambda index: (-logits[index], index))
    return order.index(label)


def test_the_background_is_ranked_like_any_output_as_the_released_evaluations_do():
    counts = counts_of([[5.0, 1.0, 0.0, -1.0], [0.0, 1.0, 5.0, -1.0]], [1, 2]).numpy()
    assert (counts[EXAMPLES], counts[TOP1], counts[TOP5]) == (2, 1, 2)


def test_counts_and_loss_are_the_definitions():
    generator = np.random.default_rng(7)
    # A coarse grid of logits, so that ties occur in most rows.
    logits = np.round(generator.normal(size=(200, 12)) * 2).astype(np.float32)
    labels = generator.integers(0, 12, 200)
    result = result_from_counts(counts_of(logits, labels).numpy())
    ranks = [numpy_rank(row, label) for row, label in zip(logits, labels)]
    losses = [numpy_loss(row, label) for row, label in zip(logits, labels)]
    assert result.num_examples == 200 and result.num_non_finite == 0
    assert result.top1_count == sum(rank < 1 for rank in ranks)
    assert result.top5_count == sum(rank < 5 for rank in ranks)
    assert result.loss_nats == pytest.approx(math.fsum(losses) / 200, rel=1e-9)


def test_ties_go_to_the_lower_index_as_in_top_k():
    logits = np.array([[1, 3, 3, 3, 0, 3, 3], [2, 2, 2, 2, 2, 2, 2]], np.float32)
    listed = tf.math.top_k(logits, k=7).indices.numpy()
    for row, order in zip(logits, listed):
        tiled = tf.constant(np.tile(row, (7, 1)))
        ranks = label_ranks(tiled, tf.range(7)).numpy()
        assert ranks[order].tolist() == list(range(7))


def test_a_network_that_scores_all_classes_alike_is_right_by_chance_only():
    counts = counts_of(np.zeros([10, 10]), np.arange(10)).numpy()
    assert (counts[TOP1], counts[TOP5]) == (1, 5)


def test_padding_adds_nothing_whatever_it_holds():
    logits = np.array([[0.0, 1.0], [np.nan, 0.0], [5.0, np.inf]])
    counts = counts_of(logits, [1, 0, 77], [True, False, False])
    assert counts.numpy().tolist() == counts_of(logits[:1], [1]).numpy().tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_loss_is_counted_and_never_wraps(bad):
    counts = counts_of([[0.0, bad], [0.0, 3.0]], [1, 1]).numpy()
    result = result_from_counts(counts)
    assert counts[NON_FINITE] == result.num_non_finite == 1
    assert math.isnan(result.loss_nats)
    assert result.as_row()["eval/num_non_finite"] == 1


def test_an_image_with_a_nan_logit_is_wrong():
    counts = counts_of([[9.0, np.nan, 0.0]], [0]).numpy()
    assert (counts[EXAMPLES], counts[TOP1], counts[TOP5]) == (1, 0, 0)


def test_a_loss_beyond_the_grid_is_counted_and_the_largest_inside_it_is_exact():
    assert counts_of([[0.0, -(2.0**31)]], [1]).numpy()[NON_FINITE] == 1
    largest = 2.0**31 - 128  # the next float32 below the limit
    counts = counts_of([[0.0, -largest]] * 64, [1] * 64).numpy()
    assert counts[NON_FINITE] == 0
    assert result_from_counts(counts).loss_nats == largest


def test_labels_without_an_output_are_counted():
    assert counts_of(np.zeros([3, 4]), [4, -1, 3]).numpy()[BAD_LABELS] == 2


def test_sums_do_not_depend_on_order():
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(64, 5)).astype(np.float32) * 50
    labels = generator.integers(0, 5, 64)
    parts = [counts_of(logits[i : i + 8], labels[i : i + 8]).numpy() for i in range(0, 64, 8)]
    whole = counts_of(logits, labels).numpy()
    assert whole.shape == (NUM_COUNTS,) and whole.dtype == np.int64
    for order in (range(8), reversed(range(8)), generator.permutation(8)):
        total = np.zeros(NUM_COUNTS, np.int64)
        for index in order:
            total += parts[index]
        assert total.tolist() == whole.tolist()


def test_row_names_shares_and_loss():
    result = EvaluationResult(num_examples=50, top1_count=20, top5_count=40, loss_nats=1.5)
    assert result.as_row("eval_averaged") == {
        "eval_averaged/top1": 0.4,
        "eval_averaged/top5": 0.8,
        "eval_averaged/loss_nats": 1.5,
    }
    others = EvaluationResult(
        num_examples=10, top1_count=5, top5_count=9, loss_nats=math.nan, num_non_finite=2
    )
    row = dataclasses.replace(result, without_blacklist=others).as_row()
    assert math.isnan(row.pop("eval/loss_nats_without_blacklist"))
    assert row == {
        **result.as_row(),
        "eval/top1_without_blacklist": 0.5,
        "eval/top5_without_blacklist": 0.9,
        "eval/num_non_finite_without_blacklist": 2,
    }
