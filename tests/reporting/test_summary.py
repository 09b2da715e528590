"""The exact words of a run's start and end."""

import dataclasses
import types

from inception_tf.reporting import facts
from inception_tf.reporting import summary

DATA = facts.DataFacts(
    data_dir="/data/imagenet",
    where_from="--data_dir",
    split_examples={"train": 1281167, "validation": 50000},
    num_train_examples=1281167,
    num_classes=1000,
    label_base=1,
)
BATCH = facts.BatchFacts(num_replicas=20, replica_batch=32, num_physical=8)
SCHEDULE = facts.ScheduleFacts(
    total_steps=320320,
    steps_per_epoch=1281167 / 640,
    words="0.045 x 0.94 every 2 epochs, staircase",
    first_rates=((0, 0.045), (4004, 0.0423)),
)
MODEL = facts.ModelFacts(
    name="inception_resnet_v2",
    variant="released",
    num_parameters=55873736,
    num_trained=55813192,
    input_height_px=299,
    input_width_px=299,
    precision="float32",
    batch_norm_momentum=0.9997**20,
)
MACHINE = facts.MachineFacts(
    devices=("NVIDIA H200",) * 8,
    intra_op_threads=1,
    is_deterministic=True,
    reduction="exact",
    workers_from="no TF_CONFIG, no Slurm step",
)


def test_the_batch_arithmetic_counts_rounds_and_idle_devices():
    assert summary.batch_arithmetic(BATCH) == (
        "640 images a step = 20 declared replicas x 32; 8 devices: 3 rounds, 83% busy"
    )
    one = dataclasses.replace(BATCH, num_replicas=1, num_physical=1)
    assert summary.batch_arithmetic(one) == (
        "32 images a step = 1 declared replica x 32; 1 device: 1 round, 100% busy"
    )
    two = dataclasses.replace(BATCH, num_physical=20, num_workers=5)
    assert summary.batch_arithmetic(two).endswith("20 devices of 5 workers: 1 round, 100% busy")


def test_going_on_says_where_the_run_is_and_how_to_start_another():
    assert summary.going_on("runs/irv2", 41200, 320320, 1281167 / 640) == (
        "run runs/irv2 is at step 41,200 of 320,320 (epoch 20.6 of 160): going on; "
        "for a new run give another --run_dir"
    )


def test_the_first_rate_says_what_the_run_will_take():
    assert summary.first_estimate(3.2, 320320) == (
        "at 3.2 s a step the steps take about 11 days 20 h"
    )
    assert summary.first_estimate(0.085, 1000, is_resumed=True) == (
        "at 85 ms a step the remaining steps take about 1 min 25 s"
    )


def test_the_start_summary_does_the_arithmetic():
    memory = facts.memory_guess(
        num_parameters=55873736,
        num_trained=55813192,
        num_slots=2,
        has_averages=True,
        reduction="exact",
        replica_batch=32,
        num_rounds=3,
        values_per_image=299 * 299 * 3,
        activation_values_per_image=50_000_000,
        activation_bytes=4,
    )
    text = summary.start_summary(
        run_dir="runs/irv2",
        seed=0,
        data=DATA,
        batch=BATCH,
        schedule=SCHEDULE,
        model=MODEL,
        machine=MACHINE,
        memory=memory,
        warnings=["block8_9 normalises over 8 values a channel; below 16 its statistics are noise"],
    )
    assert text.splitlines() == [
        "run        runs/irv2, seed 0",
        "data       /data/imagenet (from --data_dir)",
        "           train 1,281,167, validation 50,000 images of 1,000 classes, labels 1 to 1,000",
        "batch      640 images a step = 20 declared replicas x 32; 8 devices: 3 rounds, 83% busy",
        "length     320,320 steps = 160.01 epochs of 2,001.82 steps (1,281,167 images / 640)",
        "schedule   0.045 x 0.94 every 2 epochs, staircase",
        "           0.045 from step 0, 0.0423 from step 4,004",
        "model      inception_resnet_v2 (released), 299 x 299 px, float32: 55,873,736 parameters, "
        "55,813,192 of them trained",
        "           batch norm keeps 0.99402 of its moving statistics a step",
        "           the other variant is `paper`: figure 15 of arXiv 1602.07261 to the letter, "
        "32,450,360 parameters at full width: --gin_file=configs/irv2_paper.gin",
        "memory     about 7.5 GiB a device: weights 213 MiB, slots 426 MiB, averages 213 MiB, "
        "gradients 213 MiB, accumulators 426 MiB, activations 6.0 GiB, "
        "images 98 MiB",
        "devices    8 x NVIDIA H200; 1 worker (no TF_CONFIG, no Slurm step)",
        "same bits  reduction 'exact': the same bits on any number of devices and workers, with "
        "this device type, precision and thread count",
        "           intra-op threads: 1 a process",
        "WARNING    block8_9 normalises over 8 values a channel; below 16 its statistics are noise",
    ]


def test_the_length_is_that_of_the_split_that_is_trained_on_whatever_its_name():
    data = dataclasses.replace(
        DATA, split_examples={"validation": 50, "part_a": 1000}, num_train_examples=1000
    )
    schedule = dataclasses.replace(SCHEDULE, total_steps=250, steps_per_epoch=1000 / 640)
    text = summary.start_summary(
        run_dir="r", seed=0, data=data, batch=BATCH, schedule=schedule, model=MODEL, machine=MACHINE
    )
    assert "250 steps = 160 epochs of 1.56 steps (1,000 images / 640)" in text


def test_the_memory_guess_is_the_sum_of_its_formula():
    guess = facts.memory_guess(
        num_parameters=100,
        num_trained=90,
        num_slots=1,
        has_averages=False,
        reduction="float32",
        replica_batch=2,
        num_rounds=3,
        values_per_image=10,
        activation_values_per_image=1000,
        activation_bytes=2,
    )
    assert guess.total_bytes == 400 + 360 + 0 + 360 + 400 + 4000 + 240
    assert "averages" not in summary.memory_line(guess)


def test_each_reduction_states_the_promise_that_holds():
    exact, _ = summary.promise_lines(MACHINE, BATCH)
    assert "any number of devices" in exact
    for reduction in ("float32", "bfloat16"):
        machine = dataclasses.replace(MACHINE, reduction=reduction)
        line, _ = summary.promise_lines(machine, BATCH)
        assert line == (
            f"reduction '{reduction}': only this fixed topology (8 devices of 1 worker) repeats "
            "its bits; on another one the run is equal in distribution only"
        )
    loose = dataclasses.replace(MACHINE, is_deterministic=False)
    line, threads = summary.promise_lines(loose, BATCH)
    assert threads == "intra-op threads: 1 a process"
    assert line.startswith("deterministic=False: two runs of this very command differ")


def test_several_workers_are_told_with_who_named_them():
    batch = dataclasses.replace(BATCH, num_physical=16, num_workers=2)
    machine = dataclasses.replace(MACHINE, workers_from="Slurm")
    text = summary.start_summary(
        run_dir="runs/irv2", seed=0, data=DATA, batch=batch, schedule=SCHEDULE, model=MODEL,
        machine=machine,
    )  # fmt: skip
    assert "8 x NVIDIA H200 on this worker; 2 workers (Slurm), 16 devices in all\n" in text


def test_generated_batches_are_called_so():
    data = dataclasses.replace(DATA, data_dir=None, split_examples={"train": 640}, label_base=None)
    assert summary.data_lines(data) == [
        "generated batches (no data set is read)",
        "train 640 images of 1,000 classes",
    ]


def test_records_of_others_are_named():
    data = dataclasses.replace(DATA, origin="research/inception")
    assert summary.data_lines(data) == [
        *summary.data_lines(DATA),
        "records: research/inception",
    ]


def test_only_networks_with_two_variants_name_the_other():
    assert "32,450,360" in summary.other_variant("inception_resnet_v2", "released")
    assert "configs/irv2.gin" in summary.other_variant("inception_resnet_v2", "paper")
    assert summary.other_variant("inception_v4", "released") is None


def test_the_paper_table_shows_only_what_differs():
    rows = [("declared replicas", 20, 4), ("label smoothing", 0.1, 0.1), ("crop area", 0.05, 0.5)]
    assert summary.paper_table(rows) == (
        "recipe value       paper  this run\n"
        "-----------------  -----  --------\n"
        "declared replicas  20     4\n"
        "crop area          0.05   0.5"
    )
    assert summary.paper_table(rows[1:2]) == "every recipe value is the paper's"
    last = summary.paper_table([("groups", "x" * 200, "x" * 199)]).splitlines()[-1]
    assert last == f"groups        {'x' * 37}...  {'x' * 37}..."  # different, though cut alike


def test_the_evaluation_table_divides_the_counts():
    def counts(top1_count, loss_nats):
        return types.SimpleNamespace(
            num_examples=360, top1_count=top1_count, top5_count=360, loss_nats=loss_nats,
            without_blacklist=None,
        )  # fmt: skip

    assert summary.evaluation_table({"averaged": counts(357, 0.0831), "raw": counts(9, 1.5)}) == (
        "weights   images   top-1    top-5  cross-entropy (nats)\n"
        "--------  ------  ------  -------  --------------------\n"
        "averaged     360  99.17%  100.00%                0.0831\n"
        "raw          360   2.50%  100.00%                1.5000"
    )


def test_the_evaluation_table_has_a_line_for_the_images_without_the_blacklist():
    def counts(num_examples, top1_count, others=None):
        return types.SimpleNamespace(
            num_examples=num_examples, top1_count=top1_count, top5_count=num_examples,
            loss_nats=1.0, without_blacklist=others,
        )  # fmt: skip

    results = {"averaged": counts(50_000, 40_000, counts(48_238, 38_800)), "raw": counts(10, 5)}
    assert summary.evaluation_table(results).splitlines()[2:] == [
        "averaged                         50,000  80.00%  100.00%                1.0000",
        "averaged, without the blacklist  48,238  80.43%  100.00%                1.0000",
        "raw                                  10  50.00%  100.00%                1.0000",
    ]


def test_the_predictions_table_marks_what_is_wrong():
    def prediction(image, true_class, predicted_class, probability):
        return summary.Prediction(
            image=image,
            true_class=true_class,
            predicted_class=predicted_class,
            probability=probability,
        )

    table = summary.predictions_table(
        [prediction("digit_0012", "7", "7", 0.9914), prediction("digit_0033", "8", "1", 0.5)]
    )
    assert table == (
        "image       true class  predicted  probability\n"
        "----------  ----------  ---------  -----------\n"
        "digit_0012  7           7                99.1%\n"
        "digit_0033  8           1                50.0%  wrong\n"
        "1 of 2 right"
    )
