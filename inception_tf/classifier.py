"""A trained network of any form that names the classes of image files."""

import collections.abc
import dataclasses
import functools

import numpy as np
import tensorflow as tf

from inception_tf import model_source
from inception_tf.data import image_files
from inception_tf.data.image import (
    EvaluationCrop,
    decode_evaluation,
    decode_whole,
    evaluation_pixels,
    to_pixels,
)
from inception_tf.data.photo import PhotoEdits, edit_as_built
from inception_tf.errors import ConfigError
from inception_tf.serving.formats import is_export, is_export_file
from inception_tf.serving.loaded import LoadedFile, load_export
from inception_tf.serving.signatures import Answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
    """What every form of a network is here: from an image file's bytes to its classes.

    Attributes:
      what: a sentence that says which network and weights these are.
      class_names: K names, without background; None where nobody said them.
      num_classes: K.
      input_height_px, input_width_px: of the images that it takes.
      decode: from an image file's bytes, string scalar, to what the network takes of it: float32
        [H, W, 3] in [-1, 1], or uint8; in TensorFlow operations.
      probabilities: from images [n, H, W, 3], as of `decode`, to float32 [n, K], tensor or array; a
        background has its share in the softmax, so that a row may add up to less than one.
      notes: what else the user should know, one line each.
    """

    what: str
    class_names: tuple[str, ...] | None
    num_classes: int
    input_height_px: int
    input_width_px: int
    decode: collections.abc.Callable
    probabilities: collections.abc.Callable
    notes: tuple[str, ...] = ()

    def best(self, probabilities, top_k: int) -> list[Answer]:
        """The most probable classes of one image, the best first, equal ones in their order.

        Args:
          probabilities: float32 [K].
          top_k: how many; all where there are fewer. A class without a name has ''.
        """
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        names = self.class_names or [""] * self.num_classes
        # The shortest number that is this float32, not the 17 digits of the float64 that it is too.
        shares = [float(str(probabilities[index])) for index in order]
        return [Answer(index, names[index], share) for index, share in zip(order.tolist(), shares)]

    def pixels(self, image) -> np.ndarray:
        """What the network sees as a picture: uint8 [H, W, 3] of one image as of `decode`."""
        return (image if image.dtype == tf.uint8 else to_pixels(image)).numpy()


def open_classifier(source, *, resolve_run, **choices) -> Classifier:
    """A run directory, an export of any format, a file of weights or published ones, alike.

    Args:
      source: a path, or a name of published weights.
      resolve_run: from a run directory to its Experiment.
      **choices: weights, step, network, variant and input_px of `model_source.open_model`.

    Raises:
      UserError: the source cannot be used, has no such choice, or no classifier.
    """
    if is_export(source) or is_export_file(source):
        model_source.refuse_choices(source, **choices)
        return _of_export(load_export(source))
    opened = model_source.open_model(source, resolve_run=resolve_run, **choices)
    if opened.num_classes is None:
        raise ConfigError("To name classes a network needs its classifier.", received=opened.what)
    return Classifier(
        what=opened.what,
        class_names=opened.class_names,
        num_classes=opened.num_classes,
        input_height_px=opened.input_height_px,
        input_width_px=opened.input_width_px,
        decode=opened.decode,
        probabilities=of_network(opened.model, background_class=opened.background_class),
        notes=opened.notes,
    )


def of_network(model, *, background_class: bool) -> collections.abc.Callable:
    """`Classifier.probabilities` of a keras.Model, images -> logits, compiled once."""

    @tf.function(input_signature=[tf.TensorSpec([None, *model.input.shape[1:]], tf.float32)])
    def probabilities(images):
        logits = tf.cast(model(images, training=False), tf.float32)
        return tf.nn.softmax(logits)[:, int(background_class) :]

    return probabilities


def _of_export(export):
    """The Classifier of a SavedModel, fed as its own signatures feed it, or of another format.

    Files of other formats take the evaluation's crop in whole levels.
    """
    about = export.metadata
    names = tuple(about["class_names"])
    crop = EvaluationCrop(**about["evaluation_crop"])
    edits = PhotoEdits(**about.get("photo_edits", {}))
    size = {"height_px": about["input_height_px"], "width_px": about["input_width_px"]}

    def decode(image_bytes):
        edited = edit_as_built(image_bytes, edits=edits)
        if isinstance(export, LoadedFile):
            return evaluation_pixels(decode_whole(edited), crop=crop, **size)
        return decode_evaluation(edited, crop=crop, **size)

    return Classifier(
        what=f"export {export.path} of step {about['step']:,}, {about['weights']} weights",
        class_names=names,
        num_classes=len(names),
        input_height_px=size["height_px"],
        input_width_px=size["width_px"],
        decode=decode,
        probabilities=export.probabilities,
    )


def classify_files(
    classifier, paths, *, batch: int, top_k: int
) -> collections.abc.Iterator[list[tuple[str, list[Answer] | None, str]]]:
    """The classes of image files, in the order of the paths, several being decoded ahead.

    Args:
      classifier: a Classifier.
      paths: of the files.
      batch: images that the network takes at once.
      top_k: classes to name of each.

    Yields:
      Lists of (path, answers, ''), or (path, None, reason) of a file that cannot be read.
    """
    batches = image_files.images_or_reasons(paths, decode=classifier.decode, batch=batch)

    def answered(indices, probabilities, reasons):
        rows = () if probabilities is None else np.asarray(probabilities)
        found = [(index, None, reason) for index, reason in reasons]
        found += [
            (index, classifier.best(row, top_k), "") for index, row in zip(indices.tolist(), rows)
        ]
        return [(paths[index], *rest) for index, *rest in sorted(found, key=lambda one: one[0])]

    # One batch behind, so that a GPU has its next one while the answers of the last are written.
    behind = None
    for indices, images, reasons in batches:
        ahead = None if images is None else classifier.probabilities(images)
        if behind is not None:
            yield behind()
        behind = functools.partial(answered, indices, ahead, reasons)
    if behind is not None:
        yield behind()
