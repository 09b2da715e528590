"""What an exported model answers: JPEG bytes in, classes and probabilities out."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

from inception_tf.errors import ConfigError
from inception_tf.models.layers import is_seed_state
from inception_tf.serving.formats import ExportError, newest_version, save_version

METADATA_FILE = "assets.extra/metadata.json"
CHECK_BATCH = 16  # images at once when an export is loaded back

_PARALLEL_DECODES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """The export (gin section `export`).

    Attributes:
      weights: 'averaged' or 'raw'.
      top_k: classes that the answer of `serving_default` names.
      check_images: evaluation images on which the written export is held against the evaluator.
    """

    weights: str = "averaged"
    top_k: int = 5
    check_images: int = 50

    def __post_init__(self):
        if self.weights not in ("averaged", "raw"):
            raise ConfigError(
                "export.weights must be 'averaged' or 'raw'.", received=repr(self.weights)
            )
        if self.top_k < 1:
            raise ConfigError("export.top_k must be at least 1.", received=self.top_k)
        if self.check_images < 0:
            raise ConfigError("export.check_images must be at least 0.", received=self.check_images)


@dataclasses.dataclass(frozen=True)
class Answer:
    """One of the classes that an exported model names for an image."""

    class_index: int  # in [0, classes), without background
    name: str
    probability: float


def export_saved_model(
    model,
    values,
    *,
    out_dir,
    class_names,
    decode,
    metadata,
    spec: ExportSpec,
    background_class: bool = False,
    check=None,
) -> pathlib.Path:
    """Path of a new SavedModel `out_dir`/1, /2, ... with the preprocessing inside.

    Signatures (N images, K classes, k = min(`spec.top_k`, K)):
      serving_default(image_bytes: string [N], each a JPEG file) -> classes: int64 [N, k] in
        [0, K), names: string [N, k], probabilities: float32 [N, k], highest first
      all_probabilities(image_bytes: string [N]) -> probabilities: float32 [N, K]
      logits(images: float32 [N, H, W, 3] in [-1, 1]) -> logits: float32 [N, outputs]

    A background output has its share in the softmax and a place in `logits`, but is no class: the
    probabilities of the classes are the evaluator's and add up to one minus the background's.

    Args:
      model: keras.Model, images -> logits or a dict with 'logits'; it is cloned, never changed.
      values: (trainable, non-trainable) in the order of the model's lists: variables, tensors or
        arrays.
      out_dir: directory of the versions.
      class_names: K names.
      decode: JPEG scalar string -> float32 [H, W, 3] in [-1, 1]; the evaluation's own function.
      metadata: what can be written as JSON; goes into assets.extra/metadata.json.
      spec: the number of classes to name.
      background_class: whether output 0 is the background.
      check: called with the directory before it gets its name; raises to refuse the export.

    Raises:
      ConfigError: names, outputs or metadata do not fit each other.
      ExportError: `out_dir` cannot hold versions. Whatever is raised, no version appears.
    """
    network = _network_with(model, values)
    num_dropped = int(background_class)
    _check_names(class_names, num_classes=network.output.shape[-1] - num_dropped)
    top_k = min(spec.top_k, len(class_names))
    module, signatures = _serving_module(
        network, decode, class_names=class_names, top_k=top_k, num_dropped=num_dropped
    )
    about = _metadata_text(network, class_names, metadata, background_class=background_class)

    def write(directory):
        tf.saved_model.save(module, str(directory), signatures=signatures)
        (directory / METADATA_FILE).parent.mkdir(exist_ok=True)
        (directory / METADATA_FILE).write_text(about, encoding="utf-8")
        if check is not None:
            check(directory)

    return save_version(out_dir, write)


def check_export(path, jpegs, expected_probabilities, *, bound: float = 1e-5) -> float:
    """Largest difference of the loaded export's probabilities from the expected ones.

    Args:
      path: the SavedModel, or a directory of versions (then the newest).
      jpegs: list of M JPEG files as bytes, at least one.
      expected_probabilities: float [M, K], the evaluator's on the same images.
      bound: difference above which the export is refused.

    Raises:
      ExportError: it differs by more, or is not a number; or there is no image to tell.
    """
    if not jpegs:
        raise ExportError("The check of an export needs at least one image.", received="none")
    expected = np.asarray(expected_probabilities)
    answered = _answers(path, "all_probabilities", jpegs)["probabilities"]
    if answered.shape != expected.shape:
        raise ExportError(
            "An export must give each class of each image a probability.",
            received=f"shape {list(answered.shape)}, expected {list(expected.shape)}",
        )
    difference = float(np.max(np.abs(answered - expected)))
    if not difference <= bound:  # NaN is refused too
        worst = int(np.argmax(np.max(np.abs(answered - expected), axis=1)))
        raise ExportError(
            "An export must give the evaluator's probabilities.",
            received=f"a difference of {difference:.3g} on image {worst} of {len(jpegs)}, "
            f"bound {bound:.3g}",
            remedy="Nothing was kept. Export with the weights, crop and size that were evaluated.",
        )
    return difference


def classify(path, jpegs) -> list[list[Answer]]:
    """The classes that an export names for each image, the most probable first.

    Args:
      path: the SavedModel, or a directory of versions (then the newest).
      jpegs: list of JPEG files as bytes.
    """
    if not jpegs:
        return []
    answers = _answers(path, "serving_default", jpegs)
    return [
        [
            Answer(int(index), name.decode("utf-8"), float(probability))
            for index, name, probability in zip(*image)
        ]
        for image in zip(answers["classes"], answers["names"], answers["probabilities"])
    ]


def _check_names(class_names, *, num_classes):
    if len(class_names) != num_classes:
        raise ConfigError(
            "An export needs one name for each class of the network.",
            received=f"{len(class_names)} names for {num_classes} classes",
            remedy="Set model.background_class as the network was trained.",
        )


def _network_with(model, values):
    """A model of its own, images -> float32 logits, that holds the values."""
    clone = keras.models.clone_model(model)
    output = clone.output["logits"] if isinstance(clone.output, dict) else clone.output
    # Without the auxiliary head, which only training uses.
    network = keras.Model(clone.input, output)
    variables = list(model.trainable_variables) + list(model.non_trainable_variables)
    # By path and not by place: freezing moves variables from one list to the other.
    by_path = {variable.path: value for variable, value in zip(variables, [*values[0], *values[1]])}
    for variable in network.variables:
        if not is_seed_state(variable.path):  # inference draws nothing
            value = by_path[variable.path]
            variable.assign(value.numpy() if hasattr(value, "numpy") else value)
    return network


def _serving_module(network, decode, *, class_names, top_k, num_dropped):
    """A tf.Module with the weights, and the signatures of an export."""
    height_px, width_px, channels = network.input_shape[1:]
    pixels = tf.TensorSpec([height_px, width_px, channels], tf.float32)
    names = tf.constant(class_names, tf.string)

    def logits_of(images):
        return tf.cast(network(images, training=False), tf.float32)

    def probabilities_of(image_bytes):
        images = tf.map_fn(
            decode,
            image_bytes,
            fn_output_signature=pixels,
            parallel_iterations=_PARALLEL_DECODES,
        )
        return tf.nn.softmax(logits_of(images))[:, num_dropped:]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_default(image_bytes):
        # Equal probabilities come in the order of their classes, as the evaluator ranks them.
        probabilities, classes = tf.math.top_k(probabilities_of(image_bytes), k=top_k)
        return {
            "classes": tf.cast(classes, tf.int64),
            "names": tf.gather(names, classes),
            "probabilities": probabilities,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def all_probabilities(image_bytes):
        return {"probabilities": probabilities_of(image_bytes)}

    @tf.function(input_signature=[tf.TensorSpec([None, *pixels.shape], tf.float32, name="images")])
    def logits(images):
        return {"logits": logits_of(images)}

    module = tf.Module(name="inception_tf_export")
    # The bare variables: with the Keras layers a loader would meet their Python objects.
    module.weights = [variable.value for variable in network.variables]
    signatures = {
        "serving_default": serving_default,
        "all_probabilities": all_probabilities,
        "logits": logits,
    }
    return module, signatures


def _metadata_text(network, class_names, metadata, *, background_class):
    height_px, width_px, _ = network.input_shape[1:]
    described = {
        **metadata,
        "class_names": list(class_names),
        "background_class": background_class,
        "input_height_px": height_px,
        "input_width_px": width_px,
    }
    try:
        return json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise ConfigError("The metadata of an export must be JSON.", received=error) from error


def _answers(path, signature, jpegs):
    """Output name -> array over all images (at least one), of a signature of the export."""
    path = newest_version(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ExportError("An export must load.", received=f"{path}: {error}") from error
    function = loaded.signatures[signature]
    parts = [
        function(image_bytes=tf.constant(jpegs[start : start + CHECK_BATCH], tf.string))
        for start in range(0, len(jpegs), CHECK_BATCH)
    ]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
