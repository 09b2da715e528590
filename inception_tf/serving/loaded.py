"""An export that is read back: what it says of itself, its probabilities and logits."""

import collections.abc
import dataclasses
import json
import pathlib

import numpy as np
import tensorflow as tf

from inception_tf.data.image import to_input
from inception_tf.serving import onnx_file, tflite_file
from inception_tf.serving.content import METADATA_FILE
from inception_tf.serving.formats import ExportError, is_export_file, newest_version


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedExport:
    """A SavedModel of this project.

    Attributes:
      path: of the version.
      metadata: what it says of itself (`assets.extra/metadata.json`).
      function: its signature `logits`, float32 [N, H, W, 3] in [-1, 1] -> {'logits'}.
      model: what TensorFlow loaded: its variables live as long as somebody holds it.
    """

    path: pathlib.Path
    metadata: dict
    function: object
    model: object

    def probabilities(self, images) -> tf.Tensor:
        """Float32 [N, K] of evaluation crops, float32 [N, H, W, 3] in [-1, 1] or whole levels."""
        images = tf.convert_to_tensor(images)
        if images.dtype == tf.uint8:
            images = to_input(images)
        logits = self.function(images=images)["logits"]
        return tf.nn.softmax(logits)[:, int(self.metadata["background_class"]) :]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedFile:
    """An ONNX or TensorFlow Lite file of this project.

    Attributes:
      path: of the file.
      metadata: what it says of itself.
      run: uint8 [N, H, W, 3] -> float32 [N, K], by the format's own runtime.
    """

    path: pathlib.Path
    metadata: dict
    run: collections.abc.Callable

    def probabilities(self, images) -> np.ndarray:
        """Float32 [N, K] of evaluation crops in whole levels, uint8 [N, H, W, 3]."""
        return self.run(np.asarray(images))


def load_export(path) -> LoadedExport | LoadedFile:
    """An export of any format: *.onnx, *.tflite, or a SavedModel or its newest version.

    Raises:
      ConfigError: a package that the format needs is absent.
      ExportError: there is none, it does not load, or it is not one of this project.
    """
    path = pathlib.Path(path)
    if is_export_file(path):
        form = onnx_file if path.suffix == ".onnx" else tflite_file
        return LoadedFile(path=path, metadata=form.read_metadata(path), run=form.open_file(path))
    path = newest_version(path)
    try:
        metadata = json.loads((path / METADATA_FILE).read_text(encoding="utf-8"))
        model = tf.saved_model.load(str(path))
        function = model.signatures["logits"]
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise ExportError(
            "A SavedModel must be one that `python -m inception_tf.export` wrote.",
            received=f"{path}: {error}",
        ) from error
    return LoadedExport(path=path, metadata=metadata, function=function, model=model)


class ExportInference:
    """An export's logits, with the methods of `evaluation.inference.Inference`.

    Args:
      export: a LoadedExport.
      strategy, num_local: on whose local devices it is asked, and how many those are.
    """

    def __init__(self, export: LoadedExport, strategy, *, num_local: int):
        self.strategy = strategy
        self.num_local = num_local
        self._export = export
        self._function = export.function

    @property
    def num_outputs(self) -> int:
        """Outputs of the network, the background's included."""
        return self._function.structured_outputs["logits"].shape[-1]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of an image."""
        return tuple(self._function.structured_input_signature[1]["images"].shape[1:])

    def local_tensors(self, values):
        """The values as they are: an export has its own."""
        return values

    def logits(self, images, values):
        """Float32 [n, num_outputs]."""
        del values
        return self._function(images=images)["logits"]
