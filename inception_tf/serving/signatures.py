"""The SavedModel: image files in, classes and probabilities out."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from inception_tf.serving import requests
from inception_tf.serving.formats import ExportError, newest_version
from inception_tf.serving.graph import FoldedGraph

CHECK_BATCH = 16  # images at once when an export is loaded back

_MAX_WEIGHT_BYTES = 1_900_000_000  # a protocol buffer ends at 2^31
_FILES = tf.TensorSpec([None], tf.string, name="image_bytes")
_EMPTY = {"classes": -1, "names": ""}  # of a bad image that is flagged; numbers are 0


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

    Raises:
      ExportError: more weights than one file can hold.
    """
    graph = FoldedGraph(network, precision=spec.precision)
    if graph.size_bytes > _MAX_WEIGHT_BYTES:
        raise ExportError(
            f"A SavedModel of a folded network holds at most {_MAX_WEIGHT_BYTES:,} bytes of "
            "weights: they are part of its graph, which is one protocol buffer.",
            received=f"{graph.size_bytes:,}",
            remedy="Export a network with a smaller model.width_multiplier, or in bfloat16.",
        )
    program = _Program(graph, content, spec, input_shape=network.input_shape)
    module = tf.Module(name="inception_tf_export")  # of no variables
    tf.saved_model.save(module, str(directory), signatures=_signatures(program))


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


class _Program:
    """What the signatures have in common; see `write_saved_model`."""

    def __init__(self, graph, content, spec, *, input_shape):
        self.images = tf.TensorSpec([None, *input_shape], tf.float32, name="images")
        # Functions of their own: traced once, and once in the file, for all the signatures.
        self.network = tf.function(graph, input_signature=[self.images])
        self._decoded = tf.function(self._decode, input_signature=[_FILES])
        self._content = content
        self._names = tf.constant(content.class_names, tf.string)
        self._top_k = min(spec.top_k, len(content.class_names))
        self._has_flag = spec.on_bad_image == "flag"

    def probabilities(self, images):
        """The classes' probabilities, float32 [N, K], of prepared images."""
        _, logits = self.network(images)
        return tf.nn.softmax(logits)[:, int(self._content.background_class) :]

    def ranked(self, images):
        """The most probable classes of prepared images, as outputs."""
        # Equal probabilities come in the order of their classes, as the evaluator ranks them.
        probabilities, classes = tf.math.top_k(self.probabilities(images), k=self._top_k)
        return {
            "classes": tf.cast(classes, tf.int64),
            "names": tf.gather(self._names, classes),
            "probabilities": probabilities,
        }

    def of_files(self, image_bytes, outputs_of):
        """The outputs of image files; where bad ones are flagged, those of bad ones empty."""
        images, is_ok = self._decoded(image_bytes)
        outputs = outputs_of(images)
        return requests.emptied(outputs, is_ok, _EMPTY) if self._has_flag else outputs

    def of_pixels(self, images):
        """The most probable classes of decoded images."""
        prepared = tf.map_fn(
            self._content.preprocessing.of_pixels,
            images,
            fn_output_signature=tf.TensorSpec(self.images.shape[1:], tf.float32),
        )
        return self.ranked(prepared)

    def _decode(self, image_bytes):
        images, is_ok = requests.decode_each(
            image_bytes, self._content.preprocessing.of_file, shape=self.images.shape[1:]
        )
        if not self._has_flag:
            requests.refuse_bad(is_ok)
        return images, is_ok


def _signatures(program):
    """Name -> tf.function of every signature."""

    @tf.function(input_signature=[_FILES])
    def serving_default(image_bytes):
        return program.of_files(image_bytes, program.ranked)

    @tf.function(input_signature=[_FILES])
    def all_probabilities(image_bytes):
        return program.of_files(
            image_bytes, lambda images: {"probabilities": program.probabilities(images)}
        )

    @tf.function(input_signature=[_FILES])
    def features(image_bytes):
        return program.of_files(
            image_bytes, lambda images: {"features": program.network(images)[0]}
        )

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def pixels(images):
        return program.of_pixels(images)

    @tf.function(input_signature=[program.images])
    def logits(images):
        return {"logits": program.network(images)[1]}

    return {
        "serving_default": serving_default,
        "all_probabilities": all_probabilities,
        "features": features,
        "pixels": pixels,
        "logits": logits,
    }
