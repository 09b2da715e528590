"""The SavedModel: image files in, classes and probabilities out."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from inception_tf.serving import requests
from inception_tf.serving.formats import ExportError, newest_version
from inception_tf.serving.graph import FoldedGraph

CHECK_BATCH = 16  # images at once when an export is loaded back


@dataclasses.dataclass(frozen=True)
class Answer:
    """One of the classes that an exported model names for an image."""

    class_index: int  # in [0, classes), without background
    name: str
    probability: float


def write_saved_model(directory, network, content, *, spec):
    """Fills a directory with a SavedModel; its metadata are the caller's.

    Signatures (N images, K classes, k = min(`spec.top_k`, K)):
      serving_default(image_bytes: string [N], each an image file) -> classes: int64 [N, k] in
        [0, K), names: string [N, k], probabilities: float32 [N, k], highest first
      all_probabilities(image_bytes: string [N]) -> probabilities: float32 [N, K]
      features(image_bytes: string [N]) -> features: float32 [N, C], the last grid's mean
      pixels(images: uint8 [N, h, w, 3] of any one size) -> as `serving_default`
      logits(images: float32 [N, H, W, 3] in [-1, 1]) -> logits: float32 [N, outputs]

    A background output has its share in the softmax and a place in `logits`, but is no class: the
    probabilities of the classes are the evaluator's and add up to one minus the background's.

    With `spec.on_bad_image = 'flag'` the first three answer bad images too, with one more output
    ok: bool [N]; where it is false the numbers are 0, the classes -1 and the names empty.

    Args:
      directory: that there is, and is empty.
      network: a FoldedNetwork.
      content: a Content that fits it.
      spec: an ExportSpec.
    """
    module = tf.Module(name="inception_tf_export")
    module.network = FoldedGraph(network, precision=spec.precision)
    signatures = _signatures(module.network, content, spec, input_shape=network.input_shape)
    tf.saved_model.save(module, str(directory), signatures=signatures)


def classify(path, files) -> list[list[Answer]]:
    """The classes that an export names for each image, the most probable first.

    Args:
      path: the SavedModel, or a directory of versions (then the newest).
      files: list of image files as bytes.
    """
    if not files:
        return []
    answers = answers_of(path, "serving_default", files)
    return [
        [
            Answer(int(index), name.decode("utf-8"), float(probability))
            for index, name, probability in zip(*image)
        ]
        for image in zip(answers["classes"], answers["names"], answers["probabilities"])
    ]


def answers_of(path, signature, files) -> dict[str, np.ndarray]:
    """Output name -> array over all image files (at least one), of a signature of the export.

    Raises:
      ExportError: it does not load.
    """
    path = newest_version(pathlib.Path(path))
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ExportError("An export must load.", received=f"{path}: {error}") from error
    function = loaded.signatures[signature]
    parts = [
        function(image_bytes=tf.constant(files[start : start + CHECK_BATCH], tf.string))
        for start in range(0, len(files), CHECK_BATCH)
    ]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}


def _signatures(graph, content, spec, *, input_shape):
    """Name -> tf.function of every signature."""
    names = tf.constant(content.class_names, tf.string)
    top_k = min(spec.top_k, len(content.class_names))
    has_flag = spec.on_bad_image == "flag"
    files = tf.TensorSpec([None], tf.string, name="image_bytes")

    # Functions of their own: traced once, and once in the file, for all the signatures.
    @tf.function(input_signature=[files])
    def decoded(image_bytes):
        preprocess = content.preprocessing.of_file
        images, is_ok = requests.decode_each(image_bytes, preprocess, shape=input_shape)
        if not has_flag:
            requests.refuse_bad(is_ok)
        return images, is_ok

    def where_ok(outputs, is_ok, instead):
        """The outputs, with `instead` of them where an image is bad."""
        if not has_flag:
            return outputs
        is_ok_column = is_ok[:, tf.newaxis]
        told = {
            name: tf.where(is_ok_column, value, tf.constant(instead.get(name, 0), value.dtype))
            for name, value in outputs.items()
        }
        return {**told, "ok": is_ok}

    images_spec = tf.TensorSpec([None, *input_shape], tf.float32, name="images")
    network = tf.function(graph, input_signature=[images_spec])

    def probabilities_of(images):
        _, logits = network(images)
        return tf.nn.softmax(logits)[:, int(content.background_class) :]

    def ranked(images):
        # Equal probabilities come in the order of their classes, as the evaluator ranks them.
        probabilities, classes = tf.math.top_k(probabilities_of(images), k=top_k)
        return {
            "classes": tf.cast(classes, tf.int64),
            "names": tf.gather(names, classes),
            "probabilities": probabilities,
        }

    @tf.function(input_signature=[files])
    def serving_default(image_bytes):
        images, is_ok = decoded(image_bytes)
        return where_ok(ranked(images), is_ok, {"classes": -1, "names": ""})

    @tf.function(input_signature=[files])
    def all_probabilities(image_bytes):
        images, is_ok = decoded(image_bytes)
        return where_ok({"probabilities": probabilities_of(images)}, is_ok, {})

    @tf.function(input_signature=[files])
    def features(image_bytes):
        images, is_ok = decoded(image_bytes)
        return where_ok({"features": network(images)[0]}, is_ok, {})

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def pixels(images):
        prepared = tf.map_fn(
            content.preprocessing.of_pixels,
            images,
            fn_output_signature=tf.TensorSpec(input_shape, tf.float32),
        )
        return ranked(prepared)

    @tf.function(input_signature=[images_spec])
    def logits(images):
        return {"logits": network(images)[1]}

    return {
        "serving_default": serving_default,
        "all_probabilities": all_probabilities,
        "features": features,
        "pixels": pixels,
        "logits": logits,
    }
