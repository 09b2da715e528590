"""What the network sees: the images of a step, through the run's own pipeline."""

import dataclasses
import itertools

import numpy as np
import tensorflow as tf

from inception_tf import inputs as run_inputs
from inception_tf.cluster import Assignment
from inception_tf.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeenImages:
    """Images as they enter the network.

    Attributes:
      images: float32 [N, H, W, 3] in [-1, 1].
      labels: int32 [N], as the records have them: the first class is their label base.
      names: N names of the classes.
      title: where they come from, a line.
      numbering: from what the labels count and which outputs of the network they are, a line.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    title: str
    numbering: str


@dataclasses.dataclass(frozen=True)
class _OneDevice:
    """What batches ask of a cluster, where there is none."""

    strategy: tf.distribute.Strategy
    num_physical: int = 1
    worker_index: int = 0
    num_local: int = 1


def read_seen_images(experiment, *, split, step, count, cache_dir) -> SeenImages:
    """The first images of a training step or of an evaluation's batch, and of those after it.

    Args:
      experiment: an Experiment.
      split: 'train' or 'eval'.
      step: number of the optimizer step, or of the evaluation's batch on one device.
      count: how many images; of an evaluation at most what is left of the split.
      cache_dir: keeps the index where the records' directory is read-only.

    Raises:
      ConfigError: the evaluation has no such batch.
      DataError: no records, or a bad one among those that are read.
    """
    # Nothing beyond what is shown has to be ready.
    data = dataclasses.replace(experiment.data, prefetch_steps=0)
    experiment = dataclasses.replace(experiment, data=data)
    name = data.train_split if split == "train" else data.eval_split
    inputs = run_inputs.open_inputs(data, experiment.model, run_dir=cache_dir, splits=[name],
                                    trains=split == "train")  # fmt: skip
    read = _training_images if split == "train" else _evaluation_images
    images, outputs, title = read(experiment, inputs, step=step, count=count)
    offset = int(experiment.model.background_class)
    base = inputs.manifest.label_base
    return SeenImages(
        images=images,
        labels=outputs - offset + base,
        names=tuple(inputs.class_names[output - offset] for output in outputs),
        title=f"{name} of {inputs.data_dir}, {title}",
        numbering=_numbering(base, offset),
    )


def _numbering(base, offset):
    """What the labels under the images are; `base` and `offset`: label and output of class one."""
    whose = {0: "the same", 1: "the label plus 1", -1: "the label less 1"}[offset - base]
    return f"labels from {base}, as the records have them; the network's output is {whose}"


def _training_images(experiment, inputs, *, step, count):
    training = experiment.training
    # A device for each declared replica: elements come in their order, and none is larger.
    assignment = Assignment(
        num_replicas=training.num_replicas,
        replica_batch=training.replica_batch,
        num_physical=training.num_replicas,
        num_local=training.num_replicas,
    )
    cluster = _OneDevice(tf.distribute.get_strategy())
    batches = run_inputs.train_batches(inputs, experiment, cluster, assignment, start_step=step)
    parts = ((batch["images"][0], batch["labels"][0]) for batch in batches)
    record_ids = run_inputs.upcoming_record_ids(
        step,
        assignment=assignment,
        seed=training.seed,
        num_examples=inputs.num_train_examples,
        num_steps=-(-count // assignment.global_batch) + 1,
    )
    reader = inputs.readers[experiment.data.train_split]
    images, labels = _first(parts, count, reader=reader, record_ids=record_ids)
    first = step * assignment.global_batch
    augmentation = experiment.augmentation
    return images, labels, (
        f"step {step:,}, positions {first:,} to {first + len(images) - 1:,}; "
        f"color {augmentation.color}, seed {training.seed}"
    )


def _evaluation_images(experiment, inputs, *, step, count):
    reader = inputs.readers[experiment.data.eval_split]
    first = step * experiment.evaluation.replica_batch
    if first >= reader.num_examples:
        raise ConfigError(
            "The evaluation must have a batch of this number.",
            received=f"{step:,}, which begins at record {first:,} of {reader.num_examples:,}",
        )
    cluster = _OneDevice(tf.distribute.get_strategy())
    batches = itertools.islice(run_inputs.eval_batches(inputs, experiment, cluster), step, None)
    parts = ((b["images"][b["valid"]], b["labels"][b["valid"]]) for b in batches)
    record_ids = range(first, min(first + count, reader.num_examples))
    images, labels = _first(parts, count, reader=reader, record_ids=record_ids)
    crop = experiment.evaluation_crop
    return images, labels, (
        f"batch {step:,}, records {first:,} to {first + len(images) - 1:,}; "
        f"{crop.recipe}, central fraction {crop.central_fraction:g}"
    )


def _first(parts, count, *, reader, record_ids):
    """The first `count` images and labels, or all where there are fewer."""
    images, labels = [], []
    try:
        while sum(map(len, labels)) < count and (part := next(parts, None)) is not None:
            images.append(part[0].numpy())
            labels.append(part[1].numpy())
    except tf.errors.OpError as error:
        run_inputs.raise_data_error(error, reader, record_ids=record_ids)
    return np.concatenate(images)[:count], np.concatenate(labels)[:count]
