"""The arithmetic of a scaling plan, against published clusters, hand arithmetic and the cluster."""

import dataclasses
import itertools
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_tf.cluster import Assignment
from inception_tf.errors import ConfigError
from inception_tf.reporting import scaling
from inception_tf.training.reduction import REDUCTIONS

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
# A published efficiency may lie outside of [without overlap, with overlap] by this much: published
# rates have three digits, and two of them are above 100%.
BAND = 0.01
INCEPTION_V3_BYTES = 4 * 23_851_784  # docs/results.md
VGG16_BYTES = 4 * 138_357_544  # keras.applications
# images/s of one Pascal (P100), batch 64, and of K80s on EC2, batch 64 each, from
# tensorflow/docs site/en/r1/guide/performance/benchmarks.md, May 2017, synthetic data.
P100_INCEPTION_V3, P100_VGG16 = 142, 154
K80_IN_ONE_INSTANCE = 229  # 8 of them
PCI_EXPRESS_GBITS = 8 * 16 * 128 / 130  # 3.0: 8 GT/s x 16 lanes, 128 of 130 bits


def predicted(*, step_secs, num_workers, parameter_bytes, gbits, **options):
    """A row of weak scaling with float32 sums, as the published runs were, or as told."""
    names = ("num_replicas", "replica_batch", "update_secs", "devices_per_worker")
    measured = {name: options.pop(name) for name in names if name in options}
    measured = {"num_replicas": 1, "replica_batch": 64, **measured}
    latency_secs = options.pop("latency_secs", 1e-5)
    return scaling.predict(
        scaling.MeasuredStep(step_secs=step_secs, **measured),
        num_workers=num_workers,
        parameter_bytes=parameter_bytes,
        link=scaling.Link(gbits_per_sec=gbits, latency_secs=latency_secs),
        **{"reduction": "float32", "scaling": "weak", "overlap": scaling.Overlap(), **options},
    )


PUBLISHED = {
    # Horovod docs/benchmarks.rst: 128 servers of 4 Pascal GPUs, 25 Gb/s, batch 64 in its command.
    "Horovod, 128 x 4 Pascal": (64 / P100_INCEPTION_V3, 128, INCEPTION_V3_BYTES, 25, 0.90),
    "Horovod, 128 x 4 Pascal, VGG-16": (64 / P100_VGG16, 128, VGG16_BYTES, 25, 0.68),
    # TensorFlow: a worker is a GPU of one machine, and PCI Express its link.
    **{
        f"TensorFlow, {num} P100": (64 / P100_INCEPTION_V3, num, INCEPTION_V3_BYTES,
                                   PCI_EXPRESS_GBITS, rate / (num * P100_INCEPTION_V3))
        for num, rate in ((2, 284), (4, 569), (8, 1131))
    },
    # TensorFlow: a worker is an instance of 8 K80, and 10 Gb/s its link. Parameter servers spread
    # over the instances send as many bytes per instance as a ring does.
    **{
        f"TensorFlow, {num} x 8 K80": (8 * 64 / K80_IN_ONE_INSTANCE, num, INCEPTION_V3_BYTES, 10,
                                      rate / (num * K80_IN_ONE_INSTANCE))
        for num, rate in ((2, 459), (4, 902), (8, 1783))
    },
}  # fmt: skip


@pytest.mark.parametrize("run", PUBLISHED)
def test_published_efficiencies_lie_between_both_predictions(run):
    step_secs, num_workers, parameter_bytes, gbits, published = PUBLISHED[run]
    row = predicted(
        step_secs=step_secs, num_workers=num_workers, parameter_bytes=parameter_bytes, gbits=gbits
    )
    assert row.efficiency - BAND <= published <= row.overlapped_efficiency + BAND


def test_the_page_has_the_same_figures():
    page = (CHECKOUT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for run, (step_secs, num_workers, num_bytes, gbits, published) in PUBLISHED.items():
        row = predicted(
            step_secs=step_secs, num_workers=num_workers, parameter_bytes=num_bytes, gbits=gbits
        )
        shares = (row.efficiency, row.overlapped_efficiency, published)
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        assert f"\n| {run} | {gbits:.0f} Gb/s | {cells} |\n" in page


# "without / with overlap" in %, of 55.9 M parameters at 10, 25, 100 and 400 Gb/s, computed
# separately with the same assumptions: 10 us a hop, 2/3 of the step, 10% exposed.
TABLES = {
    (600, "float32"): {20: "14/15 28/35 61/94 86/98", 64: "13/14 27/33 59/94 84/98",
                       256: "13/14 27/32 57/91 79/97", 1024: "12/13 25/29 49/72 64/95"},
    (1600, "float32"): {20: "6/6 13/14 37/49 69/96", 1024: "5/5 11/12 26/32 40/55"},
    (600, "bfloat16"): {20: "24/28 44/62 75/97 92/99", 1024: "21/25 37/49 58/93 68/96"},
}  # fmt: skip
CELLS = [
    (rate, reduction, num_workers, gbits, cell)
    for (rate, reduction), rows in TABLES.items()
    for num_workers, cells in rows.items()
    for gbits, cell in zip((10, 25, 100, 400), cells.split(), strict=True)
]


@pytest.mark.parametrize("rate, reduction, num_workers, gbits, cell", CELLS)
def test_efficiencies_equal_a_separate_computation(rate, reduction, num_workers, gbits, cell):
    row = predicted(
        step_secs=32 / rate, num_workers=num_workers, parameter_bytes=4 * 55.9e6, gbits=gbits,
        reduction=reduction,
    )  # fmt: skip
    for expected, share in zip(cell.split("/"), (row.efficiency, row.overlapped_efficiency)):
        assert 100 * share == pytest.approx(int(expected), abs=0.6)  # rounded to whole percents


@pytest.mark.parametrize("reduction, value_bytes", [("exact", 8), ("float32", 4), ("bfloat16", 2)])
def test_a_row_equals_hand_arithmetic(reduction, value_bytes):
    row = predicted(
        step_secs=1.1, update_secs=0.1, num_replicas=20, replica_batch=32, num_workers=8,
        parameter_bytes=4_000_000, gbits=8, latency_secs=0.001, reduction=reduction,
        scaling="strong",
    )  # fmt: skip
    # A million values; 2 x 7/8 of them over 10^9 bytes a second, and 14 hops of a millisecond.
    sent = 1_750_000 * value_bytes
    communication = sent / 1e9 + 0.014
    step = 3 * 0.05 + 0.1 + communication  # ceil(20 / 8) rounds of 50 ms, and the update
    hidden = 0.9 * communication  # less than two thirds of the last round
    assert row.sent_bytes == sent
    assert row.communication_secs == pytest.approx(communication)
    assert row.step_secs == pytest.approx(step)
    assert row.overlapped_step_secs == pytest.approx(step - hidden)
    assert row.images_per_sec == pytest.approx(640 / step)
    assert row.efficiency == pytest.approx(1.1 / (8 * step))
    assert row.overlapped_efficiency == pytest.approx(1.1 / (8 * (step - hidden)))
    assert (row.num_rounds, row.global_batch) == (3, 640)


def test_no_more_hides_than_the_last_round_can_cover():
    row = predicted(
        step_secs=2.0, num_replicas=20, num_workers=10, parameter_bytes=1e9, gbits=8,
        latency_secs=0.0, scaling="strong",
    )  # fmt: skip
    assert row.communication_secs == pytest.approx(1.8)
    # Two rounds of 100 ms; what is sent waits for both, and two thirds of one can cover it.
    assert row.step_secs - row.overlapped_step_secs == pytest.approx(0.2 / 3)


def test_the_reductions_are_those_of_training():
    assert tuple(scaling.VALUE_BYTES) == REDUCTIONS


@pytest.mark.parametrize("num_replicas", [1, 4, 20, 50])
@pytest.mark.parametrize("devices_per_worker", [1, 2, 4])
def test_rounds_of_strong_scaling_are_those_of_the_cluster(num_replicas, devices_per_worker):
    for num_workers in range(1, num_replicas // devices_per_worker + 1):
        assignment = Assignment(
            num_replicas=num_replicas,
            replica_batch=32,
            num_physical=num_workers * devices_per_worker,
        )
        row = predicted(
            step_secs=1.0, num_replicas=num_replicas, replica_batch=32, scaling="strong",
            devices_per_worker=devices_per_worker, num_workers=num_workers, parameter_bytes=4e6,
            gbits=25,
        )  # fmt: skip
        assert (row.num_rounds, row.global_batch) == (assignment.rounds, assignment.global_batch)


# A busy machine is no fault, and every run tries the same plans.
steady = settings(deadline=None, derandomize=True)
PLANS = {
    "step_secs": st.floats(1e-3, 1e3),
    "parameter_bytes": st.floats(1e3, 1e12),
    "gbits": st.floats(0.1, 1e4),
    "latency_secs": st.floats(0, 1e-2),
    "reduction": st.sampled_from(REDUCTIONS),
    "scaling": st.sampled_from(scaling.SCALINGS),
    "num_replicas": st.integers(1, 64),
}


@steady
@given(st.fixed_dictionaries(PLANS))
def test_one_worker_communicates_nothing_and_keeps_its_step(plan):
    row = predicted(num_workers=1, **plan)
    assert row.communication_secs == row.sent_bytes == 0
    for step_secs in (row.step_secs, row.overlapped_step_secs):
        assert step_secs == pytest.approx(plan["step_secs"])
    assert row.efficiency == pytest.approx(1) and row.overlapped_efficiency == pytest.approx(1)


@steady
@given(st.fixed_dictionaries(PLANS))
def test_more_workers_send_more_and_are_never_more_efficient(plan):
    measured = scaling.MeasuredStep(step_secs=1.0, num_replicas=plan["num_replicas"])
    numbers = scaling.usual_workers(measured, scaling=plan["scaling"])
    if plan["scaling"] == "strong":  # 3 workers for 3 replicas are more efficient than 2
        numbers = [number for number in numbers if plan["num_replicas"] % number == 0]
    rows = [predicted(num_workers=number, **plan) for number in numbers]
    summed = scaling.summed_bytes(
        parameter_bytes=plan["parameter_bytes"], reduction=plan["reduction"]
    )
    slack = 1 + 1e-9
    for few, many in itertools.pairwise(rows):
        assert few.sent_bytes < many.sent_bytes < 2 * summed
        assert few.communication_secs < many.communication_secs
        assert many.efficiency <= few.efficiency * slack
        assert many.overlapped_efficiency <= few.overlapped_efficiency * slack
    for row in rows:
        assert row.step_secs >= row.overlapped_step_secs > 0
        assert 0 < row.efficiency <= row.overlapped_efficiency <= slack


@steady
@given(st.fixed_dictionaries(PLANS), st.sampled_from(["gbits", "latency_secs", "reduction"]))
def test_a_better_network_or_fewer_bytes_are_never_slower(plan, improved):
    plan = {**plan, "num_replicas": 64, "reduction": "exact"}
    better = {"gbits": 2 * plan["gbits"], "latency_secs": plan["latency_secs"] / 2,
              "reduction": "float32"}  # fmt: skip
    for num_workers in (2, 20, 64):
        before = predicted(num_workers=num_workers, **plan)
        after = predicted(num_workers=num_workers, **{**plan, improved: better[improved]})
        assert after.step_secs <= before.step_secs
        assert after.overlapped_step_secs <= before.overlapped_step_secs * (1 + 1e-9)


def test_usual_workers_reach_what_may_be_planned():
    paper = scaling.MeasuredStep(step_secs=1.0)
    assert scaling.usual_workers(paper, scaling="strong") == [1, 2, 4, 5, 8, 10, 16, 20]
    assert scaling.usual_workers(paper, scaling="weak") == [2**e for e in range(11)]
    fours = dataclasses.replace(paper, devices_per_worker=4)
    assert scaling.usual_workers(fours, scaling="strong") == [1, 2, 4, 5]


def test_more_workers_than_declared_replicas_need_weak_scaling():
    options = {"step_secs": 1.0, "num_replicas": 20, "parameter_bytes": 4e6, "gbits": 25}
    with pytest.raises(ConfigError, match="Received: 21 x 1 devices for 20 .* --scaling=weak"):
        predicted(num_workers=21, scaling="strong", **options)
    assert predicted(num_workers=21, scaling="weak", **options).global_batch == 21 * 20 * 64
    with pytest.raises(ConfigError, match="Received: 1 x 21 devices"):
        scaling.MeasuredStep(step_secs=1.0, devices_per_worker=21)


@pytest.mark.parametrize("value", [0, 0.0, -1, float("nan"), float("inf"), "1", None, True])
@pytest.mark.parametrize("name", ["step_secs", "parameter_bytes", "gbits", "num_workers"])
def test_what_is_no_positive_number_is_refused(name, value):
    plan = {"step_secs": 1.0, "parameter_bytes": 4e6, "gbits": 25, "num_workers": 2, name: value}
    with pytest.raises(ConfigError, match="must be .* Received: .* Give "):
        predicted(**plan)


@pytest.mark.parametrize(
    "fault",
    [
        {"latency_secs": -1e-9},
        {"update_secs": 1.0},
        {"num_replicas": 1.5},
        {"replica_batch": 0},
        {"reduction": "int64"},
        {"scaling": "wek"},
    ],
)
def test_other_values_that_cannot_be_are_refused(fault):
    with pytest.raises(ConfigError, match="Received: "):
        predicted(step_secs=1.0, num_workers=2, parameter_bytes=4e6, gbits=25, **fault)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_are_between_0_and_1(share):
    for name in ("backward_share", "least_exposed_share"):
        with pytest.raises(ConfigError, match=name):
            scaling.Overlap(**{name: share})
