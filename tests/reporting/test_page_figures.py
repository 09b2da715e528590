"""What the report's figures draw: curves, published marks, restarts, and which axis."""

import math
import struct

import pytest

from inception_tf.reporting import page_figures, published
from inception_tf.reporting.page_contents import Restart, Run

START = 1.7e9


def evaluation(step, top1, **more):
    row = {"step": step, "kind": "eval", "eval_averaged/top1": top1, "eval/top1": 0.0}
    return {**row, "eval_averaged/top5": 1.0, **more}


def training(step, *, secs=None, **more):
    row = {"step": step, "kind": "train", "train/learning_rate": 0.045, "train/loss_nats": 2.0,
           "perf/images_per_sec": 100.0, "perf/data_wait_share": 0.25}  # fmt: skip
    return {**row, **({} if secs is None else {"perf/unix_secs": START + secs}), **more}


def run(**changes):
    fields = {"label": "a", "path": "runs/a", "network": "inception_v4", "variant": "released",
              "num_classes": 1000, "steps_per_epoch": 10.0, "total_steps": 1600}  # fmt: skip
    return Run(**{**fields, **changes})


def test_a_curve_is_the_error_of_the_averaged_weights_over_epochs():
    rows = [evaluation(10, 0.1), evaluation(25, 0.75), evaluation(30, float("nan"))]
    found = page_figures.error_curve(
        run(eval_rows=rows, restarts=[Restart(step=20, unix_secs=START)]), "top1"
    )
    assert found.x == (1.0, 2.5, 3.0) and found.y[:2] == pytest.approx((90.0, 25.0))
    assert math.isnan(found.y[2])
    assert found.restarts == (2.0,)
    assert found.label == "a (all images)"


def test_rows_without_the_blacklist_are_drawn_where_a_run_has_them():
    rows = [
        evaluation(10, 0.5),
        evaluation(20, 0.6, **{"eval_averaged/top1_without_blacklist": 0.7}),
    ]
    found = page_figures.error_curve(run(eval_rows=rows), "top1")
    assert found.x == (2.0,) and found.y == pytest.approx((30.0,))
    assert found.label == "a (48,238 images)"


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("top1", {"inception_v3": (200, 21.2), "inception_resnet_v1": (200, 21.3),
                  "inception_v4": (160, 20.0), "inception_resnet_v2": (160, 19.9)}),
        ("top5", {"inception_v3": (200, 5.6), "inception_resnet_v1": (200, 5.5),
                  "inception_v4": (160, 5.0), "inception_resnet_v2": (160, 4.9)}),
    ],
)  # fmt: skip
def test_published_end_points_stand_where_the_papers_curves_end(metric, expected):
    number = {"top1": 26, "top5": 25}[metric]
    marks = page_figures.end_points([run()], published.FIGURES[number][1], metric)
    assert {point.network: (epoch, error) for point, epoch, error in marks} == expected


def test_on_another_data_set_the_marks_stand_within_the_runs():
    marks = page_figures.end_points([run(num_classes=10)], ("inception_v3", "inception_v4"), "top1")
    assert [epoch for _, epoch, _ in marks] == pytest.approx([152.0, 160.0])


def test_the_pairs_of_figures_21_to_24_are_those_of_the_runs_networks():
    v4, v1 = run(), run(label="b", network="inception_resnet_v1")
    assert page_figures.runs_of_pairs([v4]) == {23: [v4], 24: [v4]}
    assert page_figures.runs_of_pairs([v4, v1]) == {21: [v1], 22: [v1], 23: [v4], 24: [v4]}
    (first, second) = page_figures.pair_figures([v4])
    assert (first.name, second.name) == ("figure_23", "figure_24")
    assert "top-1 error of a" in first.alt and "top-5 error of a" in second.alt


def test_the_beginning_may_leave_the_axis_but_nothing_that_follows():
    rows = [evaluation(step, top1) for step, top1 in ((1, 0.0), (2, 0.5), (3, 0.6), (4, 0.7))]
    curve = page_figures.error_curve(run(eval_rows=rows), "top1")
    assert page_figures.error_limits([curve], []) == pytest.approx((24.0, 57.5))
    assert page_figures.error_limits([curve], [(None, 1.0, 80.0)]) == pytest.approx((24.0, 92.0))
    assert page_figures.error_limits([], []) == (0.0, 101.0)


def test_time_counts_from_the_first_start_and_restarts_stand_in_it():
    long = run(
        train_rows=[training(10, secs=3600), training(20, secs=9000)],
        begun_secs=START,
        restarts=[Restart(step=10, unix_secs=START + 7200)],
    )
    assert page_figures.timeline_axis([long]) == "hours"
    found = page_figures.timeline_curve(
        long, "perf/data_wait_share", axis="hours", factor=100.0
    )
    assert found.x == pytest.approx((1.0, 2.5)) and found.y == (25.0, 25.0)
    assert found.restarts == pytest.approx((2.0,))
    short = run(train_rows=[training(10, secs=30), training(20, secs=90)])
    assert page_figures.timeline_axis([short]) == "minutes"
    found = page_figures.timeline_curve(short, "train/loss_nats", axis="minutes")
    assert found.x == pytest.approx((0.0, 1.0))  # nobody says when it began
    assert page_figures.timeline_axis([short, long]) == "hours"


def test_rows_without_wall_time_put_every_run_over_epochs():
    old = run(train_rows=[training(10), training(20)])
    assert page_figures.timeline_axis([old, run(train_rows=[training(10, secs=1)])]) == "epochs"
    assert page_figures.timeline_curve(old, "train/loss_nats", axis="epochs").x == (1.0, 2.0)
    assert page_figures.timeline_axis([run(steps_per_epoch=None)]) == "steps"


def test_figures_are_png_whatever_a_run_lacks():
    rows = [training(10, secs=1), training(20, secs=2, **{"train/loss_nats": float("inf")})]
    runs = [
        run(train_rows=rows, eval_rows=[evaluation(20, 0.5)]),
        run(label="_$x$", num_classes=None, steps_per_epoch=None, total_steps=None),
    ]
    figures = [*page_figures.main_figures(runs), page_figures.timeline_figures(runs)[1]]
    for figure in figures:
        width, height = struct.unpack(">II", figure.png[16:24])
        assert figure.png.startswith(b"\x89PNG") and min(width, height) > 600
    assert "published end points" in figures[0].alt


def test_no_two_of_seven_runs_look_alike():
    assert len(set(page_figures.COLORS)) == len(page_figures.COLORS) == 7
