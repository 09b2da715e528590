"""The TensorFlow Lite files: whole levels in, probabilities out; float16 weights, or int8.

They take uint8 [N, H, W, 3], the evaluation crop rounded to whole levels, and give float32 [N, K].
The metadata lie in the file as `metadata.json` of a zip archive at its end, which is how TensorFlow
Lite files carry others; interpreters do not read that far.
"""

import json
import warnings
import zipfile

import numpy as np
import tensorflow as tf

from inception_tf.data.image import to_input
from inception_tf.serving.formats import ExportError
from inception_tf.serving.graph import FoldedGraph

METADATA_NAME = "metadata.json"
INPUT, OUTPUT = "images", "probabilities"


def write_file(path, network, content, *, precision, calibration=None):
    """Writes the file, without metadata.

    Args:
      path: of the file.
      network: a FoldedNetwork.
      content: a Content.
      precision: 'float16', of the weights; or 'int8', of weights and activations.
      calibration: uint8 [M, H, W, 3], for int8: images whose activations give the ranges.
    """
    graph = FoldedGraph(network)
    images = tf.TensorSpec([None, *network.input_shape], tf.uint8, name=INPUT)

    @tf.function(input_signature=[images])
    def answer(images):
        _, logits = graph(to_input(images))
        return {OUTPUT: tf.nn.softmax(logits)[:, int(content.background_class) :]}

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [answer.get_concrete_function()], tf.Module()
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    else:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in calibration)
    path.write_bytes(converter.convert())


def add_metadata(path, metadata_text):
    """Appends the metadata to a file that has none; what the interpreter reads stays as it is."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_NAME, metadata_text)


def read_metadata(path) -> dict:
    """What a file says of itself.

    Raises:
      ExportError: it is not one of this project.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(METADATA_NAME))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(
            "A TensorFlow Lite file must be one that `python -m inception_tf.export` wrote.",
            received=f"{path}: {error}",
        ) from error


def open_file(path):
    """Function uint8 [N, H, W, 3] -> float32 [N, K] of a file.

    Raises:
      ExportError: it does not load.
    """
    try:
        with warnings.catch_warnings():
            # That the interpreter will move to a package of its own; this TensorFlow has it.
            warnings.simplefilter("ignore", UserWarning)
            interpreter = tf.lite.Interpreter(str(path))
    except (OSError, ValueError, RuntimeError) as error:
        raise ExportError("An export must load.", received=f"{path}: {error}") from error
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    ready_for = []

    def run(levels):
        if ready_for != [levels.shape]:
            interpreter.resize_tensor_input(source, levels.shape)
            interpreter.allocate_tensors()
            ready_for[:] = [levels.shape]
        interpreter.set_tensor(source, levels)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return run
