"""The text of a run's start and end, from plain values: it does the arithmetic for the reader."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from inception_tf.reporting import quantities
from inception_tf.reporting.facts import BatchFacts
from inception_tf.reporting.facts import DataFacts
from inception_tf.reporting.facts import MachineFacts
from inception_tf.reporting.facts import MemoryGuess
from inception_tf.reporting.facts import ModelFacts
from inception_tf.reporting.facts import ScheduleFacts
from inception_tf.reporting.table import aligned_table

_LONGEST_CELL = 40  # of a table that is read in a terminal

# Parameters at full width with 1,000 classes.
_OTHER_VARIANTS = {
    ("inception_resnet_v2", "released"): (
        "the other variant is `paper`: figure 15 of arXiv 1602.07261 to the letter, 32,450,360 "
        "parameters at full width: --gin_file=configs/irv2_paper.gin"
    ),
    ("inception_resnet_v2", "paper"): (
        "the other variant is `released`: the authors' code, whose cost matches Inception-v4, "
        "55,873,736 parameters at full width: --gin_file=configs/irv2.gin"
    ),
}


class Counts(Protocol):
    """What the table reads of an evaluation."""

    num_examples: int
    top1_count: int
    top5_count: int
    loss_nats: float
    without_blacklist: "Counts | None"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """One image as the exported model sees it.

    Attributes:
      image: file name or record id.
      true_class, predicted_class: names, or numbers as text.
      probability: of the predicted class, in [0, 1].
    """

    image: str
    true_class: str
    predicted_class: str
    probability: float


def start_summary(
    *,
    run_dir: str,
    seed: int,
    data: DataFacts,
    batch: BatchFacts,
    schedule: ScheduleFacts,
    model: ModelFacts,
    machine: MachineFacts,
    memory: MemoryGuess | None = None,
    warnings: Sequence[str] = (),
) -> str:
    """What is going to happen, line by line, before the first step."""
    rows = [("run", f"{run_dir}, seed {seed}")]
    rows += _labelled("data", data_lines(data))
    rows += _labelled("batch", [batch_arithmetic(batch)])
    rows += _labelled("length", [_length_line(schedule, data, batch)])
    rows += _labelled("schedule", _schedule_lines(schedule))
    rows += _labelled("model", _model_lines(model))
    if memory is not None:
        rows += _labelled("memory", [memory_line(memory)])
    rows += _labelled("devices", [_devices_line(machine, batch)])
    rows += _labelled("same bits", promise_lines(machine, batch))
    rows += [("WARNING", warning) for warning in warnings]
    return aligned_table(rows)


def data_lines(data: DataFacts) -> list[str]:
    """Where the records lie and what they hold."""
    place = "generated batches (no data set is read)"
    if data.data_dir is not None:
        place = data.data_dir + (f" (from {data.where_from})" if data.where_from else "")
    splits = ", ".join(
        f"{split} {quantities.count(examples)}" for split, examples in data.split_examples.items()
    )
    content = f"{splits} images of {quantities.count(data.num_classes)} classes"
    if data.label_base is not None:
        last = data.label_base + data.num_classes - 1
        content += f", labels {data.label_base} to {quantities.count(last)}"
    return [place, content, *([f"records: {data.origin}"] if data.origin else [])]


def batch_arithmetic(batch: BatchFacts) -> str:
    """'640 images a step = 20 declared replicas x 32; 8 devices: 3 rounds, 83% busy'."""
    rounds = -(-batch.num_replicas // batch.num_physical)
    busy = batch.num_replicas / (rounds * batch.num_physical)
    devices = quantities.count_of(batch.num_physical, "device")
    if batch.num_workers > 1:
        devices += f" of {quantities.count_of(batch.num_workers, 'worker')}"
    return (
        f"{quantities.count(batch.num_replicas * batch.replica_batch)} images a step = "
        f"{quantities.count_of(batch.num_replicas, 'declared replica')} x {batch.replica_batch}; "
        f"{devices}: {quantities.count_of(rounds, 'round')}, {quantities.percent(busy)} busy"
    )


def memory_line(memory: MemoryGuess) -> str:
    """The guess for one device with its parts."""
    parts = ", ".join(
        f"{field.name.removesuffix('_bytes')} {quantities.byte_size(value)}"
        for field in dataclasses.fields(memory)
        if (value := getattr(memory, field.name))
    )
    return f"about {quantities.byte_size(memory.total_bytes)} a device: {parts}"


def other_variant(name: str, variant: str) -> str | None:
    """The sentence that names the other variant of a network, None where there is only one."""
    return _OTHER_VARIANTS.get((name, variant))


def promise_lines(machine: MachineFacts, batch: BatchFacts) -> list[str]:
    """Which promise of repeatability holds for these settings, and which does not."""
    topology = quantities.count_of(batch.num_physical, "device")
    topology += f" of {quantities.count_of(batch.num_workers, 'worker')}"
    if not machine.is_deterministic:
        lines = [
            "deterministic=False: two runs of this very command differ in their last digits, and "
            "a resumed run ends near a straight one, not equal to it"
        ]
    elif machine.reduction == "exact":
        lines = [
            "reduction 'exact': the same bits on any number of devices and workers, with this "
            "device type, precision and thread count"
        ]
    else:
        lines = [
            f"reduction '{machine.reduction}': only this fixed topology ({topology}) repeats its "
            f"bits; on another one the run is equal in distribution only"
        ]
    return [*lines, f"intra-op threads: {machine.intra_op_threads} a process"]


def paper_table(rows: Sequence[tuple[str, object, object]]) -> str:
    """The recipe values in which this run differs from the paper.

    Args:
      rows: (recipe value, in the paper, in this run), of which equal ones are left out.
    """
    differing = [
        (name, _shortened(paper), _shortened(own))
        for name, paper, own in rows
        if str(paper) != str(own)
    ]
    if not differing:
        return "every recipe value is the paper's"
    return aligned_table(differing, header=("recipe value", "paper", "this run"))


def _shortened(value):
    """A value in one cell; --print_config and the run's config.gin have it whole."""
    text = str(value)
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 3]}..."


def going_on(run_dir: str, step: int, total_steps: int, steps_per_epoch: float) -> str:
    """The sentence of a command that finds its run already begun."""
    epoch = quantities.rounded(step / steps_per_epoch)
    total_epochs = quantities.rounded(total_steps / steps_per_epoch)
    return (
        f"run {run_dir} is at step {quantities.count(step)} of {quantities.count(total_steps)} "
        f"(epoch {epoch} of {total_epochs}): going on; for a new run give another --run_dir"
    )


def first_estimate(secs_per_step: float, remaining_steps: int, *, is_resumed: bool = False) -> str:
    """What the first measured rate makes of the whole run, or of the rest of a resumed one."""
    what = "the remaining steps take" if is_resumed else "the steps take"
    secs = secs_per_step * remaining_steps
    length = quantities.duration(secs) if secs < 1 else f"about {quantities.duration(secs)}"
    return f"at {quantities.step_secs_text(secs_per_step)} a step {what} {length}"


def evaluation_table(results: Mapping[str, Counts]) -> str:
    """Accuracy and cross-entropy (mean, nats) per set of weights.

    Args:
      results: 'averaged' / 'raw' -> counts over every image of the split once. Those of the images
        without the blacklist, where there are any, have a line below.
    """
    results = {
        title: counts
        for weights, all_images in results.items()
        for title, counts in (
            (weights, all_images),
            (f"{weights}, without the blacklist", all_images.without_blacklist),
        )
        if counts is not None
    }
    rows = [
        (
            weights,
            quantities.count(result.num_examples),
            quantities.percent(result.top1_count / result.num_examples, decimals=2),
            quantities.percent(result.top5_count / result.num_examples, decimals=2),
            f"{result.loss_nats:.4f}",
        )
        for weights, result in results.items()
    ]
    return aligned_table(
        rows,
        header=("weights", "images", "top-1", "top-5", "cross-entropy (nats)"),
        align="lrrrr",
    )


def predictions_table(predictions: Sequence[Prediction]) -> str:
    """A few images with their true and their predicted class, and how many are right."""
    rows = [
        (
            one.image,
            one.true_class,
            one.predicted_class,
            quantities.percent(one.probability, decimals=1),
            "" if one.predicted_class == one.true_class else "wrong",
        )
        for one in predictions
    ]
    right = sum(one.predicted_class == one.true_class for one in predictions)
    table = aligned_table(
        rows, header=("image", "true class", "predicted", "probability", ""), align="lllrl"
    )
    return f"{table}\n{right} of {len(predictions)} right"


def _labelled(label, lines):
    """Rows of which the first one carries the label."""
    return [(label if place == 0 else "", line) for place, line in enumerate(lines)]


def _length_line(schedule, data, batch):
    global_batch = batch.num_replicas * batch.replica_batch
    images = quantities.count(data.num_train_examples)
    per_epoch = quantities.rounded(schedule.steps_per_epoch, decimals=2)
    epochs = quantities.rounded(schedule.total_steps / schedule.steps_per_epoch, decimals=2)
    steps = quantities.count_of(schedule.total_steps, "step")
    return (
        f"{steps} = {epochs} epochs of {per_epoch} steps "
        f"({images} images / {quantities.count(global_batch)})"
    )


def _schedule_lines(schedule):
    rates = ", ".join(
        f"{rate:.4g} from step {quantities.count(step)}" for step, rate in schedule.first_rates
    )
    return [schedule.words] + ([rates] if rates else [])


def _model_lines(model):
    lines = [
        f"{model.name} ({model.variant}), {model.input_height_px} x {model.input_width_px} px, "
        f"{model.precision}: {quantities.count(model.num_parameters)} parameters, "
        f"{quantities.count(model.num_trained)} of them trained",
        f"batch norm keeps {model.batch_norm_momentum:.5f} of its moving statistics a step",
    ]
    other = other_variant(model.name, model.variant)
    return lines + ([other] if other else [])


def _devices_line(machine, batch):
    local = ", ".join(
        f"{number} x {device}" for device, number in Counter(machine.devices).items()
    )
    workers = f"{quantities.count_of(batch.num_workers, 'worker')} ({machine.workers_from})"
    if batch.num_workers == 1:
        return f"{local}; {workers}"
    return f"{local} on this worker; {workers}, {batch.num_physical} devices in all"
