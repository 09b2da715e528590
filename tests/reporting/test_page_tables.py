"""The tables of the report: which measurement stands in which cell, and what stays blank."""

import dataclasses

import pytest

from inception_tf.reporting import page_tables, published
from inception_tf.reporting.page_contents import Measured, MeasuredNetwork, Run, Share

V3_RECIPE = {
    "model.width_multiplier": 1.0, "model.block_counts": None, "model.stem": "factorised",
    "model.first_stride": 2, "model.first_pool": True, "model.branch_5x5": "5x5",
    "model.factorisation": "relu", "model.aux_norm": "all", "training.optimizer": "@rmsprop()",
    "objective.label_smoothing": 0.1,
}  # fmt: skip
WIDE = {"model.width_multiplier": 1.0, "model.block_counts": None}


def network(name, **changes):
    fields = {"source": "weights", "variant": "released", "input_px": (299, 299), "weights": ""}
    return MeasuredNetwork(name=name, **{**fields, **changes})


def measured(*networks, crops="1_recipe", num_crops=1, subset="all", **changes):
    fields = {
        "label": "", "title": "the network", "step": None, "average": "probabilities",
        "labels": "original", "num_classes": 1000, "path": "x.json",
        "num_examples": {"all": 50_000, "without_blacklist": 48_238}.get(subset, 7),
        "top1": Share(error=0.2034, low=0.20, high=0.21),
        "top5": Share(error=0.0512, low=0.05, high=0.06),
    }  # fmt: skip
    return Measured(
        networks=networks, crops=crops, num_crops=num_crops, subset=subset, **{**fields, **changes}
    )


def filled(*found):
    """{(paper, table, printed name and cells): measured cells} of every cell that is not blank."""
    cells = {}
    for table, drawn in zip(
        published.TABLES, page_tables.published_tables(found), strict=True
    ):
        width = len(table.columns) + (1 if table.is_accuracy else 2)
        assert len({len(row) for row in (drawn.header, *drawn.rows)}) == 1
        printed = ()
        for row in drawn.rows:
            printed = row[: len(table.columns)] if row[0] else printed
            if any(row[width:]):
                cells.setdefault((table.paper, table.number, *printed), []).append(row[width:])
    return cells


V4 = network("inception_v4")


@pytest.mark.parametrize(
    ("crops", "num_crops", "subset", "where"),
    [
        ("1_recipe", 1, "without_blacklist", ("1602.07261", 2, "Inception-v4")),
        ("12_soeaver", 12, "all", ("1602.07261", 3, "Inception-v4", "12")),
        ("144_googlenet_ratio", 144, "all", ("1602.07261", 4, "Inception-v4", "144")),
    ],
)
def test_a_measurement_stands_in_the_one_cell_of_its_crops_and_images(
    crops, num_crops, subset, where
):
    one = measured(V4, crops=crops, num_crops=num_crops, subset=subset)
    assert filled(one) == {where: [("20.34", "5.12", f"the network, {crops}")]}


@pytest.mark.parametrize(
    "changes",
    [
        {"subset": "all"},  # of one crop the papers have the 48,238 alone
        {"subset": "without_blacklist", "crops": "12_soeaver", "num_crops": 12},
        {"subset": "all", "crops": "10_alexnet", "num_crops": 10},
        {"subset": "five.txt"},
        {"subset": "without_blacklist", "num_examples": 48_239},
        {"subset": "without_blacklist", "num_classes": 1001},
        {"subset": "without_blacklist", "labels": "real", "top5": None},
        {"crops": "12_soeaver", "num_crops": 12, "average": "logits"},
    ],
)
def test_other_images_crops_or_averages_leave_every_cell_blank(changes):
    assert filled(measured(V4, **changes)) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "raw", "recipe": WIDE},
        {"input_px": (331, 331)},
        {"weights": "averaged", "recipe": {**WIDE, "model.width_multiplier": 0.5}},
        {"name": "inception_resnet_v1", "variant": "facenet"},
        {"name": None},
    ],
)
def test_another_network_than_the_papers_leaves_every_cell_blank(changes):
    one = network(**{"name": "inception_v4", **changes})
    assert filled(measured(one, subset="without_blacklist")) == {}


def test_inception_v3_stands_in_both_papers():
    one = network("inception_v3", weights="averaged", recipe=V3_RECIPE)
    cells = filled(measured(one, subset="without_blacklist", step=7, label="runs/a"))
    last_rung = "Inception-v2, BN-auxiliary = Inception-v3"
    cell = [("20.34", "5.12", "runs/a averaged, step 7, 1_recipe")]
    assert cells == {
        ("1512.00567", 3, last_rung, "4.8"): cell,
        ("1602.07261", 2, "Inception-v3"): cell,
    }


def test_an_ensemble_is_matched_by_its_members_in_any_order():
    members = [network("inception_resnet_v2"), V4, *[network("inception_resnet_v2")] * 2]
    options = {"crops": "144_googlenet_ratio", "num_crops": 144, "title": "ensemble of 4"}
    where = ("1602.07261", 5, "Inception-v4 + 3 x Inception-ResNet-v2", "4")
    found = filled(measured(*members, **options))
    assert found == {where: [("20.34", "5.12", "ensemble of 4, 144_googlenet_ratio")]}
    assert filled(measured(V4, *members, **options)) == {}
    assert filled(measured(V4, V4, *members[2:], **options)) == {}
    four = filled(measured(*[network("inception_v3")] * 4, **options))
    assert set(four) == {
        ("1512.00567", 5, "Inception-v3", "4", "144"), ("1602.07261", 5, "Inception-v3", "4")
    }  # fmt: skip


def test_of_two_evaluations_that_differ_in_the_step_the_later_one_stands_there():
    one = network("inception_v4", weights="averaged", recipe=WIDE)
    early, late = (
        measured(one, subset="without_blacklist", step=step, label="a") for step in (90, 700)
    )
    (cell,) = filled(late, early).values()
    assert [row[-1] for row in cell] == ["a averaged, step 700, 1_recipe"]
    other = dataclasses.replace(early, label="b")
    (cell,) = filled(late, other).values()
    assert len(cell) == 2


def test_what_was_measured_is_listed_with_its_interval():
    table = page_tables.measured_table([measured(V4), measured(V4, labels="real", top5=None)])
    assert table.rows[0][3:] == ("all", "50,000", "20.34 [20.00, 21.00]", "5.12 [5.00, 6.00]")
    assert table.rows[1][3] == "all, ReaL labels" and table.rows[1][-1] == ""


def run(**changes):
    fields = {"label": "a", "path": "runs/a", "network": "inception_v4", "variant": "released",
              "num_classes": 10, "steps_per_epoch": 10.0, "total_steps": 40}  # fmt: skip
    return Run(**{**fields, **changes})


def test_the_result_is_the_last_evaluation_of_the_averaged_weights():
    rows = [
        {"step": 10, "kind": "eval", "eval_averaged/top1": 0.9, "eval_averaged/top5": 0.99},
        {"step": 20, "kind": "eval", "eval_averaged/top1": 0.75, "eval_averaged/top5": 1.0},
    ]
    found = page_tables.result_of(run(eval_rows=rows))
    assert (found.top1, found.top5) == ("25.00%", "0.00%")
    assert found.progress == "step 20 of 40, epoch 2 of 4"
    assert found.details == (
        "averaged weights, step 20, all evaluation images", "best top-1 error: 10.00% at step 10"
    )  # fmt: skip
    rows[1]["eval_averaged/top1_without_blacklist"] = 0.8
    rows[1]["eval_averaged/top5_without_blacklist"] = 0.96
    found = page_tables.result_of(run(eval_rows=rows))
    assert (found.top1, found.top5) == ("20.00%", "4.00%")
    assert "48,238 images (without the blacklist)" in found.details[0]
    assert page_tables.result_of(run()).top1 == ""


def test_values_that_differ_between_runs_are_listed_and_others_not():
    same = {"a.b": (1,)}
    runs = [
        run(values={"training.seed": 1, **same}),
        run(label="b", values={"training.seed": 2, **same, "c.d": None}),
    ]
    table = page_tables.run_differences(runs)
    assert table.header == ("value", "a", "b")
    assert table.rows == (("training.seed", "1", "2"), ("c.d", "(not read)", "None"))


def test_what_differs_from_the_paper_is_one_table_for_each_network():
    runs = [
        run(differences=[("training.seed", 1, 2), ("model.x", None, (1,))]),
        run(label="b", differences=[("training.seed", 1, 3)]),
        run(label="c", network="inception_v3"),
    ]
    first, second = page_tables.paper_differences(runs)
    assert first.header == ("recipe value", "paper", "a", "b")
    assert first.rows == (("training.seed", "1", "2", "3"), ("model.x", "None", "(1,)", ""))
    assert (second.title, second.rows) == ("inception_v3, released", ())
    assert "is the paper's" in second.note
    assert page_tables.difference_line(runs[0]) == (
        "2 recipe values differ from the paper's: training.seed, model.x"
    )
