"""What a run exports: its folded network in every format, held against the evaluator."""

import dataclasses
import functools
import hashlib

import numpy as np
import tensorflow as tf

import inception_tf
from inception_tf import products
from inception_tf.data.image import (
    decode_evaluation,
    decode_whole,
    evaluation_levels,
    evaluation_pixels,
    to_input,
)
from inception_tf.data.photo import edit_as_built, edit_pixels_as_built
from inception_tf.models import catalog
from inception_tf.reporting.summary import Prediction
from inception_tf.serving.check import ReferenceImages, agreement_of
from inception_tf.serving.content import Content, Preprocessing
from inception_tf.serving.fold import fold, values_by_path
from inception_tf.serving.signatures import CHECK_BATCH, classify
from inception_tf.serving.spec import SAVED_MODEL, TFLITE_INT8
from inception_tf.serving.writing import WrittenExport
from inception_tf.serving.writing import write_export as write_all_formats

_NUM_SHOWN = 8  # held-out images that the exported model classifies at the end of a run


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export in all its formats.

    Attributes:
      written: format -> WrittenExport.
      lines: for the user: what went where, and how it compares with the evaluator.
    """

    written: dict[str, WrittenExport]
    lines: tuple[str, ...]


def splits_for(experiment):
    """The splits whose records an export needs: for its check, and to calibrate int8."""
    spec, data = experiment.export, experiment.data
    splits = [data.train_split] if TFLITE_INT8 in spec.formats else []
    return splits + ([data.eval_split] if spec.check_images else [])


def write_export(
    experiment, model, values, *, cluster, inputs, class_names, photo_edits, step, directory,
    out_dir,
) -> Exported:  # fmt: skip
    """Writes every format of the spec; they give the evaluator's probabilities.

    Records were edited when they were built, the files of users were not: the export edits them.

    Args:
      experiment: an Experiment.
      model: the network; it is not changed.
      values: (trainable, non-trainable) in the order of its lists.
      photo_edits: the PhotoEdits of the records that were trained on.
      inputs: of the splits that `splits_for` names; None where these are none.
      directory: RunDirectory of the run.
      out_dir: gets the versions.

    Raises:
      ExportError: an export differs from the evaluator; nothing is left of any format.
    """
    spec = experiment.export
    reference = calibration = None
    if spec.check_images:
        reference = _reference_images(experiment, model, values, cluster=cluster, inputs=inputs)
    if TFLITE_INT8 in spec.formats:
        _, files, _ = _spread(inputs, experiment.data.train_split, spec.calibration_images)
        calibration = np.stack([_levels(experiment, file) for file in files])
    metadata = _metadata(experiment, directory, step=step, photo_edits=photo_edits)
    rounding = None
    if reference is not None and reference.levels is not None:
        rounding = agreement_of(reference.probabilities_of_levels, reference.probabilities)
        metadata["rounding"] = dataclasses.asdict(rounding)
    written = write_all_formats(
        fold(model, values),
        Content(
            class_names=tuple(class_names),
            background_class=experiment.model.background_class,
            preprocessing=_preprocessing(experiment, photo_edits),
            metadata=metadata,
        ),
        out_dir=out_dir,
        spec=spec,
        reference=reference,
        calibration=calibration,
    )
    return Exported(written, tuple(_lines(experiment, written, rounding, step=step)))


def classify_some(path, experiment, inputs):
    """What an exported SavedModel says of a few held-out images."""
    split = experiment.data.eval_split
    record_ids, files, labels = _spread(inputs, split, _NUM_SHOWN)
    return [
        Prediction(
            image=f"{split} record {record_id}",
            true_class=inputs.class_names[label],
            predicted_class=answers[0].name,
            probability=answers[0].probability,
        )
        for record_id, label, answers in zip(record_ids, labels, classify(path, files))
    ]


def _lines(experiment, written, rounding, *, step):
    spec = experiment.export
    for form, export in written.items():
        what = f"{spec.weights} weights of step {step:,} to {export.path}"
        yield f"exported {what} ({form}, {spec.precision_of(form)})"
        if export.agreement is not None:
            yield f"  against the evaluator: {export.agreement}"
    if rounding is not None:
        yield f"rounding an image to whole levels, which all but saved_model need: {rounding}"


def _reference_images(experiment, model, values, *, cluster, inputs):
    """Evaluation images with the evaluator's answers, in float32 whatever the run computes in."""
    spec = experiment.export
    _, files, _ = _spread(inputs, experiment.data.eval_split, spec.check_images)
    if experiment.model.precision != "float32":
        model, values = _in_float32(experiment, model, values, cluster)
    evaluator = products.build_evaluator(experiment, model, cluster, inputs)
    decode = functools.partial(decode_evaluation, **_crop(experiment))

    def probabilities(image_of, items):
        return np.concatenate(
            [
                evaluator.probabilities(
                    tf.stack([image_of(item) for item in items[start : start + CHECK_BATCH]]),
                    values,
                )
                for start in range(0, len(items), CHECK_BATCH)
            ]
        )

    reference = ReferenceImages(files=files, probabilities=probabilities(decode, files))
    if set(spec.formats) == {SAVED_MODEL}:
        return reference
    levels = np.stack([_levels(experiment, file) for file in files])
    return dataclasses.replace(
        reference, levels=levels, probabilities_of_levels=probabilities(to_input, levels)
    )


def _in_float32(experiment, model, values, cluster):
    """(network, its values) of a run in 16 bits, as a network that computes in float32."""
    by_path = values_by_path(model, values)
    spec = dataclasses.replace(experiment.model, precision="float32", aux_head=False)
    num_outputs = (model.output["logits"] if isinstance(model.output, dict) else model.output).shape
    with cluster.strategy.scope():
        exact = catalog.build_model(
            spec, num_classes=num_outputs[-1] - int(spec.background_class)
        )
    return exact, tuple(
        [by_path.get(variable.path, variable.value) for variable in variables]
        for variables in (exact.trainable_variables, exact.non_trainable_variables)
    )


def _spread(inputs, split, count):
    """Ids, image bytes and labels of records spread over a split, at most all of it."""
    reader = inputs.readers[split]
    count = min(count, reader.num_examples)
    record_ids = np.arange(count, dtype=np.int64) * reader.num_examples // count
    files, labels = reader.read(record_ids)
    return record_ids.tolist(), list(files), labels.tolist()


def _crop(experiment):
    """The keyword arguments of the evaluation's functions."""
    return {
        "crop": experiment.evaluation_crop,
        "height_px": experiment.model.input_height_px,
        "width_px": experiment.model.input_width_px,
    }


def _levels(experiment, file):
    """uint8 [H, W, 3] of a record's image: the evaluation crop in whole levels."""
    return evaluation_pixels(decode_whole(file), **_crop(experiment)).numpy()


def _preprocessing(experiment, photo_edits):
    crop = _crop(experiment)

    def of_pixels(pixels):
        edited = edit_pixels_as_built(pixels, edits=photo_edits)
        return to_input(evaluation_levels(edited, **crop))

    return Preprocessing(
        of_file=lambda file: decode_evaluation(edit_as_built(file, edits=photo_edits), **crop),
        of_pixels=of_pixels,
    )


def _metadata(experiment, directory, *, step, photo_edits):
    """Where the weights come from, and what is done to images."""
    config = directory.config_file
    return {
        "run": str(directory.path),
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest() if config.exists() else "",
        "step": step,
        "weights": experiment.export.weights,
        "model": dataclasses.asdict(experiment.model),
        "evaluation_crop": dataclasses.asdict(experiment.evaluation_crop),
        "photo_edits": dataclasses.asdict(photo_edits),
        "inception_tf": inception_tf.__version__,
    }
