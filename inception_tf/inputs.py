"""The data of a run: what was found, and this worker's batches of it."""

import dataclasses
import functools
import os
import pathlib

import numpy as np
import tensorflow as tf

from inception_tf.cluster import Assignment
from inception_tf.data import evaluation_pipeline, order, pipeline
from inception_tf.data.manifest import Manifest, find_data_dir, open_index
from inception_tf.data.photo import PhotoEdits, edits_of
from inception_tf.data.records import RecordReader
from inception_tf.errors import ConfigError, DataError
from inception_tf.evaluation import official_lists

SYNTHETIC_CLASSES = 1000
SYNTHETIC_EXAMPLES = 1_281_167  # an epoch as long as ImageNet's
_NAMES_TRIED = 64  # read at the start, spread over the split; the others while they are evaluated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Records found on disk, or batches that are generated.

    Attributes:
      data_dir, where_from: directory of the records and what named it; None when generated.
      manifest: label convention, classes and splits; None when generated.
      readers: split -> RecordReader.
      num_classes: K without background.
      class_names: K names; () when generated.
      num_train_examples: length of an epoch.
      stays: bool [50,001]: whether ImageNet's blacklist leaves the validation image of a number in;
        None where the images without it are not counted apart.
    """

    data_dir: str | None = None
    where_from: str | None = None
    manifest: Manifest | None = None
    readers: dict[str, RecordReader] = dataclasses.field(default_factory=dict)
    num_classes: int
    class_names: tuple[str, ...] = ()
    num_train_examples: int
    stays: np.ndarray | None = None

    @property
    def is_synthetic(self) -> bool:
        """Whether batches are generated."""
        return self.manifest is None

    @property
    def photo_edits(self) -> PhotoEdits:
        """What was done to the images when they became records; nothing where nobody says it."""
        return PhotoEdits() if self.manifest is None else edits_of(self.manifest.options)


def generated_inputs(model_spec):
    """Inputs without a data set, as large as ImageNet unless the config says how many classes."""
    return Inputs(
        num_classes=model_spec.num_classes or SYNTHETIC_CLASSES,
        num_train_examples=SYNTHETIC_EXAMPLES,
    )


def open_inputs(data_spec, model_spec, *, run_dir, splits, trains=False, blacklist=None):
    """Finds the records and opens an index of every split that is needed.

    Args:
      data_spec: a DataSpec.
      model_spec: a ModelSpec, whose classes must be the records'.
      run_dir: keeps the indices where the data directory is read-only.
      splits: splits to open, the training split first where it is among them.
      trains: whether the training split is trained on, where bad records may be left out.
      blacklist: `evaluation.blacklist`, where the evaluation split is evaluated with it.

    Raises:
      DataError: no records where they are looked for, damaged ones, or other images than those
        that the blacklist is about.
      ConfigError: the model has another number of classes than the records.
    """
    stays = None if blacklist is None else official_lists.read_blacklist(blacklist)
    data_dir, where_from = find_data_dir(_places(data_spec), splits[0])
    readers = {}
    for split in splits:
        manifest, index = open_index(
            data_dir,
            split,
            cache_dir=pathlib.Path(run_dir) / "index",
            label_base=data_spec.label_base,
        )
        # A bad image of an evaluation is never left out: the count would not be the split's.
        may_skip = trains and split == data_spec.train_split
        readers[split] = RecordReader(
            index,
            manifest,
            on_bad_record=data_spec.on_bad_record if may_skip else "raise",
            max_bad_records=data_spec.max_bad_records if may_skip else 0,
            max_bad_share=data_spec.max_bad_share if may_skip else 1.0,
        )
    if model_spec.num_classes not in (None, manifest.num_classes):
        raise ConfigError(
            "model.num_classes must be the number of classes in the records.",
            received=f"{model_spec.num_classes}, where {data_dir} has {manifest.num_classes}",
            remedy="Leave model.num_classes out, or give the records that it was meant for.",
        )
    if stays is not None:
        where = f"split {data_spec.eval_split} of {data_dir}"
        _check_official(stays, readers[data_spec.eval_split], where=where)
    first = readers[splits[0]]
    return Inputs(
        data_dir=data_dir,
        where_from=where_from,
        manifest=manifest,
        readers=readers,
        num_classes=manifest.num_classes,
        class_names=manifest.class_names,
        num_train_examples=first.num_examples,
        stays=stays,
    )


def _places(data_spec):
    """(what names it, directory) of each place where the records may be."""
    if data_spec.data_dir is not None:
        # A place that was named is the only one: falling back would train on other data.
        return [("--data_dir or data.data_dir", data_spec.data_dir)]
    return [
        ("--data_dir or data.data_dir", None),
        ("$TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR")),
        ("the default", os.path.expanduser("~/tensorflow_datasets")),
    ]


def _check_official(stays, reader, *, where):
    """Raises DataError unless the records seem to be ImageNet's 50,000 validation images."""
    if reader.num_examples != official_lists.NUM_VALIDATION:
        raise _not_official(f"{reader.num_examples:,} records in {where}")
    last = reader.num_examples - 1
    ids = np.unique(np.linspace(0, last, _NAMES_TRIED).astype(np.int64))
    _staying(stays, reader.read_with_names(ids)[2])


def _staying(stays, file_names):
    """Bool [n]: which images stay; DataError where a file name is none of ImageNet's."""
    numbers = [official_lists.official_number(name) for name in file_names]
    if 0 in numbers:
        raise _not_official(f"an image named {file_names[numbers.index(0)]!r}")
    return stays[numbers]


def _not_official(received):
    return DataError(
        f"evaluation.blacklist is about ImageNet's {official_lists.NUM_VALIDATION:,} validation"
        " images under their official names, ILSVRC2012_val_00000001.JPEG up to 50000.",
        received=received,
        remedy="Leave it out, or evaluate those: python -m inception_tf.records build imagenet, "
        "or TensorFlow Datasets' imagenet2012.",
    )


def train_batches(inputs, experiment, cluster, assignment, *, start_step):
    """Distributed iterator of training batches whose first one is that of `start_step`."""
    dataset = _train_dataset(inputs, experiment, assignment, start_step=start_step)
    return iter(_distribute(dataset, cluster.strategy))


def declared_batch(inputs, experiment, *, declared, step):
    """The images and labels of one declared replica in one step, made again from the records.

    Returns:
      float32 [n, H, W, 3] in [-1, 1] and int32 [n]: the bits that every run of them is fed.

    Raises:
      DataError: a bad record.
    """
    training = experiment.training
    # A device for each declared replica, and this process has the one that is asked for.
    assignment = Assignment(
        num_replicas=training.num_replicas,
        replica_batch=training.replica_batch,
        num_physical=training.num_replicas,
        first_local=declared,
    )
    data = dataclasses.replace(experiment.data, prefetch_steps=0)
    experiment = dataclasses.replace(experiment, data=data)
    try:
        batch = next(iter(_train_dataset(inputs, experiment, assignment, start_step=step)))
    except tf.errors.OpError as error:
        positions = order.step_positions(step, declared, assignment=assignment)
        record_ids = order.record_ids(
            positions, seed=training.seed, num_examples=inputs.num_train_examples
        )
        reader = inputs.readers[data.train_split]
        raise_data_error(error, reader, record_ids=record_ids)
    return batch["images"][0].numpy(), batch["labels"][0].numpy()


def _train_dataset(inputs, experiment, assignment, *, start_step):
    model = experiment.model
    place = {
        "assignment": assignment,
        "start_step": start_step,
        "seed": experiment.training.seed,
        "height_px": model.input_height_px,
        "width_px": model.input_width_px,
        "spec": experiment.data,
        "label_offset": int(model.background_class),
    }
    if inputs.is_synthetic:
        return pipeline.synthetic_dataset(num_classes=inputs.num_classes, **place)
    return pipeline.train_dataset(
        inputs.readers[experiment.data.train_split],
        num_examples=inputs.num_train_examples,
        augmentation=experiment.augmentation,
        **place,
    )


def eval_batches(inputs, experiment, cluster):
    """Distributed data set of the evaluation split, every record once."""
    reader = inputs.readers[experiment.data.eval_split]
    is_counted = None if inputs.stays is None else functools.partial(_staying, inputs.stays)
    dataset = evaluation_pipeline.eval_dataset(
        reader,
        num_examples=reader.num_examples,
        replica_batch=experiment.evaluation.replica_batch,
        num_physical=cluster.num_physical,
        first_local=cluster.worker_index * cluster.num_local,
        num_local=cluster.num_local,
        crop=experiment.evaluation_crop,
        height_px=experiment.model.input_height_px,
        width_px=experiment.model.input_width_px,
        spec=experiment.data,
        label_offset=int(experiment.model.background_class),
        is_counted=is_counted,
    )
    return _distribute(dataset, cluster.strategy)


def _distribute(dataset, strategy):
    # The dataset yields one element per local replica in turn: tf.distribute deals them out and
    # fetches them to the devices, and splits nothing.
    return strategy.distribute_datasets_from_function(lambda context: dataset)


def raise_data_error(error, reader, *, record_ids=()):
    """Turns TensorFlow's wrapper of a data error into the error itself.

    Args:
      error: tf.errors.OpError raised while a batch was fetched or used.
      reader: the RecordReader behind it.
      record_ids: where the reader itself found no fault, the records whose decoding in the graph
        may have failed.

    Raises:
      DataError: the record's own error, with shard and offset.
      tf.errors.OpError: the data has no fault.
    """
    if reader.first_error is not None:
        raise reader.first_error from None
    # What a decoder raises; anything else (memory, a lost worker) is not the data's fault.
    if isinstance(error, (tf.errors.InvalidArgumentError, tf.errors.DataLossError)):
        reader.diagnose(np.asarray(record_ids, np.int64))
    raise error


def upcoming_record_ids(step, *, assignment, seed, num_examples, num_steps):
    """Record ids of the batches that may be in flight after `step` steps (global, int64)."""
    first = step * assignment.global_batch
    positions = tf.range(first, first + num_steps * assignment.global_batch, dtype=tf.int64)
    return order.record_ids(positions, seed=seed, num_examples=num_examples).numpy()
