"""Numbers of a run from its rows, against numbers worked out by hand."""

import pytest

from inception_tf.claims import measures
from inception_tf.claims.measures import RunRecord


def record(averaged=(0.2, 0.4, 0.7), raw=(0.1, 0.5, 0.6), **others):
    eval_rows = [
        {"kind": "eval", "step": 10 * (i + 1), "eval_averaged/top1": a, "eval/top1": r}
        for i, (a, r) in enumerate(zip(averaged, raw, strict=True))
    ]
    train_rows = [
        {"kind": "train", "step": step, "perf/secs_per_step": secs}
        for step, secs in ((5, 9.0), (10, 1.0), (15, 2.0))
    ]
    given = {"steps_per_epoch": 20.0, "num_classes": 10, "eval_rows": eval_rows}
    return RunRecord(**{**given, "train_rows": train_rows, **others})


def test_errors_and_time_of_a_finished_run():
    found = measures.measures_of(record(peak_bytes=3 * 2**20), target_errors=(0.7, 0.3, 0.1))
    assert found["final_error"] == pytest.approx(0.3)
    assert found["final_raw_error"] == pytest.approx(0.4)
    assert found["secs_per_step"] == 2.0  # the median: the first steps trace
    assert found["mean_raw_excess"] == pytest.approx((0.1 - 0.1 + 0.1) / 3)
    assert found["share_averaged_better"] == pytest.approx(2 / 3)
    assert found["peak_mib"] == 3.0
    # 0.8 at 0.5 epochs, 0.6 at 1.0, 0.3 at 1.5.
    assert found["epochs_to_70"] == pytest.approx(0.75)
    assert found["epochs_to_30"] == pytest.approx(1.5)
    assert found["epochs_to_10"] is None


@pytest.mark.parametrize(
    "points, target, epochs",
    [
        ([(0.5, 0.6)], 0.7, 0.5),  # there from the first look
        ([(1.0, 0.9), (2.0, 0.5), (3.0, 0.8)], 0.7, 1.5),  # the first time, not the last
        ([(1.0, 0.9), (2.0, 0.7)], 0.7, 2.0),
        ([], 0.7, None),
    ],
)
def test_epochs_to_an_error(points, target, epochs):
    assert measures.epochs_to_error(points, target) == (
        None if epochs is None else pytest.approx(epochs)
    )


def test_a_run_that_is_no_longer_finite_guesses():
    lost = record(is_finite=False, train_rows=[{"kind": "train", "step": 36}])
    assert measures.curve(lost, "averaged_error")[-1] == (1.8, 0.9)
    found = measures.measures_of(lost)
    assert found["final_error"] == found["final_raw_error"] == 0.9
    assert "mean_raw_excess" not in found
    never = measures.measures_of(record((), (), is_finite=False, train_rows=[]))
    assert never["final_error"] == 0.9 and never["secs_per_step"] is None


def test_every_measure_has_a_label():
    for name in measures.measures_of(record(peak_bytes=1), target_errors=(0.65,)):
        assert measures.label_of(name)
    assert measures.label_of("epochs_to_65") == "epochs to 65% error"
    assert measures.label_of("gain_at_144") == "gain, 144 crops"
