"""Scores of hand-made probabilities, and against a second implementation image by image."""

import math

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError, DataError
from inception_tf.evaluation import scores
from inception_tf.evaluation.intervals import Share
from inception_tf.evaluation.metrics import label_ranks
from inception_tf.evaluation.outcomes import ensemble, outcomes_of


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def random_case(seed, *, num_images=400, num_outputs=9, first=0):
    """Coarse logits, so that many rows have ties, and labels that are often right."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(first, num_outputs, num_images).astype(np.int32)
    logits = np.round(generator.normal(size=(num_images, num_outputs)) * 2)
    logits[np.arange(num_images), labels] += generator.integers(0, 4, num_images)
    return softmax(logits), labels


def one_by_one(probabilities, labels):
    """(top-1, top-5, loss, calibration error) in plain Python, from their definitions."""
    top1, top5, losses, bins = 0, 0, [], {}
    for row, label in zip(probabilities.tolist(), labels.tolist()):
        order = sorted(range(len(row)), key=lambda index: (-row[index], index))
        top1 += order[0] == label
        top5 += label in order[:5]
        losses.append(-math.log(row[label]))
        confidence = row[order[0]]
        place = next(m for m in range(1, 16) if confidence <= m / 15)
        bins.setdefault(place, []).append((order[0] == label, confidence))
    number = len(labels)
    error = sum(
        len(found) / number * abs(
            sum(right for right, _ in found) / len(found)
            - sum(confidence for _, confidence in found) / len(found)
        )
        for found in bins.values()
    )  # fmt: skip
    return top1, top5, math.fsum(losses) / number, error


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_the_definitions(seed):
    probabilities, labels = random_case(seed)
    mask = np.random.default_rng(seed + 100).random(len(labels)) < 0.6
    for rows in (np.ones(len(labels), bool), mask):
        found = scores.score(probabilities, labels, mask=rows)
        top1, top5, loss, error = one_by_one(probabilities[rows], labels[rows])
        assert (found.num_examples, found.top1.count, found.top5.count) == (rows.sum(), top1, top5)
        assert found.loss_nats == pytest.approx(loss, rel=1e-12)
        assert found.calibration.value == pytest.approx(error, rel=1e-9)


def test_ties_stand_in_the_order_of_their_index_as_in_the_evaluation_of_training():
    probabilities, labels = random_case(5)
    ranks = label_ranks(tf.constant(probabilities), tf.constant(labels)).numpy()
    assert outcomes_of(probabilities, labels).ranks.tolist() == ranks.tolist()
    alike = np.full([10, 10], 0.1, np.float32)
    found = scores.score(alike, np.arange(10))
    assert (found.top1.count, found.top5.count) == (1, 5)


def test_no_figure_depends_on_the_order_of_the_images():
    probabilities, labels = random_case(7)
    order = np.random.default_rng(1).permutation(len(labels))
    assert scores.score(probabilities[order], labels[order]) == scores.score(probabilities, labels)


def test_rows_with_a_nan_are_wrong_and_counted_and_leave_no_mean():
    probabilities = np.array([[0.9, 0.1], [np.nan, 0.5], [0.2, 0.8], [np.nan, np.nan]], np.float32)
    found = scores.score(probabilities, np.array([0, 1, 1, 0]))
    assert (found.num_examples, found.top1.count, found.top5.count, found.num_nan) == (4, 2, 2, 2)
    assert math.isnan(found.loss_nats) and math.isnan(found.calibration.value)
    assert math.isnan(found.loss_interval.low) and math.isnan(found.calibration.interval.high)
    assert found.confusions == ()  # it named no class
    whole = scores.score(probabilities, np.array([0, 1, 1, 0]), mask=np.array([1, 0, 1, 0], bool))
    assert whole.num_nan == 0 and whole.loss_nats == pytest.approx(-math.log(0.72) / 2, rel=1e-6)


def test_a_probability_of_zero_costs_87_nats_and_is_counted():
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [2.0**-126, 1.0]], np.float32)
    found = scores.score(probabilities, np.array([0, 1, 0]))
    assert found.num_floored == 1
    assert found.loss_nats == pytest.approx(2 * 126 * math.log(2) / 3, rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "background", "word"),
    [([0, 2], False, "row 1"), ([-1, 0], False, "row 0"), ([0, 1], True, "1..1")],
)
def test_a_label_without_an_output_is_refused(labels, background, word):
    with pytest.raises(DataError, match=word):
        outcomes_of(np.full([2, 2], 0.5), np.array(labels), background=background)


@pytest.mark.parametrize("row", [[3.0, -2.0], [0.5, 0.4], [np.inf, 0.0], [1.5, -0.5]])
def test_what_is_no_softmax_is_refused_with_its_row(row):
    probabilities = np.full([2000, 2], 0.5)
    probabilities[1500] = row
    with pytest.raises(DataError, match="row 1,500"):
        outcomes_of(probabilities, np.zeros(2000, int))


def test_shapes_that_do_not_fit_are_refused():
    even = np.full([2, 2], 0.5)
    with pytest.raises(DataError, match="one label for each"):
        outcomes_of(even, np.zeros(3, int))
    with pytest.raises(DataError, match="one label for each"):
        outcomes_of(even[:0], np.zeros(0, int))
    with pytest.raises(DataError, match="whole numbers"):
        outcomes_of(even, np.zeros(2))
    with pytest.raises(DataError, match="empty subset"):
        scores.score(even, np.zeros(2, int), mask=np.zeros(2, bool))
    with pytest.raises(DataError, match="whether it counts"):
        scores.score(even, np.zeros(2, int), mask=np.array([0, 1]))  # indices are no mask
    with pytest.raises(DataError, match="3 names for 2"):
        scores.score(even, np.zeros(2, int), class_names=("a", "b", "c"))


def test_classes_and_confusions_by_hand():
    #         label:        a    a    a    b    b    c; answers: a, b, b, c, b, a
    answers = np.array([0, 1, 1, 2, 1, 0])
    probabilities = np.full([6, 4], 0.1, np.float32)
    probabilities[np.arange(6), answers] = 0.7
    labels = np.array([0, 0, 0, 1, 1, 2])
    found = scores.score(probabilities, labels, class_names=("a", "b", "c", "d"))
    told = [(c.name, c.num_examples, c.top1_count, c.top5_count) for c in found.classes]
    assert told == [("a", 3, 1, 3), ("b", 2, 1, 2), ("c", 1, 0, 1), ("d", 0, 0, 0)]
    pairs = [(c.label_name, c.predicted_name, c.count, c.label_examples) for c in found.confusions]
    assert pairs == [("a", "b", 2, 3), ("b", "c", 1, 2), ("c", "a", 1, 1)]


def test_a_background_is_ranked_but_is_no_class():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]], np.float32)
    found = scores.score(probabilities, np.array([1, 2]), class_names=("a", "b"), background=True)
    assert found.top1.count == 1
    assert [(c.index, c.name, c.top1_count) for c in found.classes] == [(1, "a", 0), (2, "b", 1)]
    assert [(c.label_name, c.predicted_name) for c in found.confusions] == [("a", "background")]


def test_real_labels_by_hand():
    answers = np.array([0, 1, 2, 2, 1])
    probabilities = np.full([5, 3], 0.1, np.float32)
    probabilities[np.arange(5), answers] = 0.8
    probabilities[4] = np.nan
    real = [(0, 2), (0, 2), (), (2,), (1,)]  # right, wrong, left out, right, no answer
    outcomes = outcomes_of(probabilities, np.array([1, 1, 1, 1, 1]))
    found = scores.real_score(outcomes, real)
    assert (found.num_examples, found.top1, found.num_left_out) == (4, Share(2, 4), 1)
    assert found.num_nan == 1
    found = scores.real_score(outcomes, real, mask=np.array([1, 0, 1, 0, 0], bool))
    assert (found.top1, found.num_left_out, found.num_nan) == (Share(1, 1), 1, 0)


def test_real_labels_count_from_zero_where_the_network_has_a_background_too():
    probabilities = np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], np.float32)
    outcomes = outcomes_of(probabilities, np.array([1, 1]), background=True)
    assert scores.real_score(outcomes, [(0,), (0, 1)]).top1 == Share(2, 2)
    assert scores.real_score(outcomes, [(1,), (0,)]).top1 == Share(0, 2)
    with pytest.raises(DataError, match="labels 0..2 for 2 classes"):
        scores.real_score(outcomes, [(0,), (2,)])
    with pytest.raises(DataError, match="1 lists for 2 images"):
        scores.real_score(outcomes, [(0,)])
    with pytest.raises(DataError, match="At least one"):
        scores.real_score(outcomes, [(), ()])


@pytest.mark.parametrize("seed", range(2))
def test_real_scores_are_what_their_authors_compute(seed):
    probabilities, labels = random_case(seed)
    generator = np.random.default_rng(seed)
    real_labels = [generator.permutation(9)[: generator.integers(0, 4)].tolist() for _ in labels]
    predictions = np.argmax(probabilities, -1)
    is_correct = [p in real_labels[i] for i, p in enumerate(predictions) if real_labels[i]]
    found = scores.real_score(outcomes_of(probabilities, labels), real_labels)
    assert (found.top1.count, found.num_examples) == (sum(is_correct), len(is_correct))


def test_an_ensemble_averages_probabilities_or_logits():
    first = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    second = np.array([[0.3, 0.7], [0.4, 0.6]], np.float32)
    assert ensemble([first, second]) == pytest.approx(np.array([[0.6, 0.4], [0.3, 0.7]]))
    logits = np.random.default_rng(0).normal(size=(3, 2500, 6)) * 3
    together = ensemble([softmax(one) for one in logits], mean="logits")
    assert together == pytest.approx(softmax(logits.mean(axis=0)), rel=1e-5, abs=1e-7)
    assert together.dtype == np.float32


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_the_order_of_members_changes_no_bit_and_one_member_stays_itself(mean):
    members = [random_case(seed, num_images=1500)[0] for seed in range(5)]
    together = ensemble(members, mean=mean)
    assert ensemble(members[::-1], mean=mean).tobytes() == together.tobytes()
    assert ensemble(members[2:] + members[:2], mean=mean).tobytes() == together.tobytes()
    assert ensemble(members[:1], mean=mean) == pytest.approx(members[0], rel=1e-6)


def test_a_nan_of_one_member_is_one_of_the_ensemble():
    broken = np.array([[0.5, np.nan], [0.5, 0.5]], np.float32)
    whole = np.array([[0.5, 0.5], [0.1, 0.9]], np.float32)
    for mean in ("probabilities", "logits"):
        together = ensemble([whole, broken], mean=mean)
        assert np.isnan(together).tolist() == [[True, True], [False, False]]


def test_one_member_cannot_rule_a_class_out():
    zero = np.array([[1.0, 0.0]], np.float32)
    other = np.array([[0.0, 1.0]], np.float32)
    assert ensemble([zero, other], mean="logits") == pytest.approx(np.array([[0.5, 0.5]]))


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_members_with_and_without_a_background_go_together(mean):
    with_one = np.array([[0.2, 0.6, 0.2], [0.5, 0.1, 0.4]], np.float32)
    without = np.array([[0.3, 0.7], [0.9, 0.1]], np.float32)
    for members, backgrounds in (([with_one, without], [1, 0]), ([without, with_one], [0, 1])):
        together = ensemble(members, mean=mean, backgrounds=backgrounds)
        if mean == "probabilities":
            expected = [[0.1, 0.45, 0.45], [0.25, 0.5, 0.25]]
            assert together == pytest.approx(np.array(expected), abs=1e-7)
        else:  # who has no background rules it out; the classes keep their ratio
            assert together[:, 0].max() < 1e-15
            ratio = np.sqrt([0.6 * 0.3 / (0.2 * 0.7), 0.1 * 0.9 / (0.4 * 0.1)])
            assert together[:, 1] / together[:, 2] == pytest.approx(ratio, rel=1e-6)
    alike = ensemble([without, without], mean=mean, backgrounds=[False, False])
    assert alike == pytest.approx(without)
    with pytest.raises(ConfigError, match="same classes"):
        ensemble([with_one, without], mean=mean, backgrounds=[True, True])
    with pytest.raises(ConfigError, match="same classes"):
        ensemble([with_one, without], mean=mean, backgrounds=[True])


def test_members_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"\(2, 2\), \(2, 3\)"):
        ensemble([np.full([2, 2], 0.5), np.full([2, 3], 1 / 3)])
    with pytest.raises(ConfigError, match="same images"):
        ensemble([])
    with pytest.raises(ConfigError, match="'median'"):
        ensemble([np.full([2, 2], 0.5)], mean="median")
    with pytest.raises(DataError, match="sum to 1"):
        ensemble([np.full([2, 2], 0.5), np.full([2, 2], 5.0)])


def test_networks_are_compared_image_by_image():
    right = np.array([[0.9, 0.1]], np.float32)
    wrong = np.array([[0.1, 0.9]], np.float32)
    labels = np.zeros(20, int)
    first = outcomes_of(np.repeat([right[0]] * 15 + [wrong[0]] * 5, 1, axis=0), labels)
    second = outcomes_of(np.array([right[0]] * 10 + [wrong[0]] * 9 + [right[0]]), labels)
    difference = scores.compare_networks(first, second)
    assert difference.value == (5 - 1) / 20
    assert difference.p_value == 2 * (1 + 6) / 2**6
    opposite = scores.compare_networks(second, first)
    assert (opposite.value, opposite.interval.low) == (-0.2, -difference.interval.high)
    with pytest.raises(DataError, match="same ones"):
        scores.compare_networks(first, outcomes_of(np.array([right[0]] * 20), labels + 1))


def test_a_subset_is_compared_with_all_images():
    generator = np.random.default_rng(3)
    probabilities, labels = random_case(3)
    outcomes = outcomes_of(probabilities, labels)
    rows, subset = np.ones(len(labels), bool), generator.random(len(labels)) < 0.7
    difference = scores.compare_subsets(outcomes, rows, subset)
    whole = scores.score_outcomes(outcomes)
    part = scores.score_outcomes(outcomes, mask=subset)
    assert difference.value == pytest.approx(whole.top1.share - part.top1.share, abs=1e-12)
    # As independent samples the two would have an interval of twice this width and more.
    assert difference.interval.high - difference.interval.low < 0.5 * (
        whole.top1.interval.high - whole.top1.interval.low
        + part.top1.interval.high - part.top1.interval.low
    )  # fmt: skip
    itself = scores.compare_subsets(outcomes, subset, subset)
    assert (itself.value, itself.interval.low, itself.interval.high) == (0, 0, 0)
