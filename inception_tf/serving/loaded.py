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
from inception_tf.serving.formats import ExportError, newest_version


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

    def probabilities(self, levels) -> np.ndarray:
        """Float32 [N, K] of evaluation crops, uint8 or float32 [N, H, W, 3] in 0..255."""
        logits = self.function(images=to_input(tf.convert_to_tensor(levels)))["logits"]
        num_dropped = int(self.metadata["background_class"])
        return tf.nn.softmax(logits)[:, num_dropped:].numpy()


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

    def probabilities(self, levels) -> np.ndarray:
        """Float32 [N, K] of evaluation crops, uint8 or float32 [N, H, W, 3] in 0..255.

        The file takes whole levels: others are rounded, halves to even.
        """
        levels = np.asarray(levels)
        if levels.dtype != np.uint8:
            levels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        return self.run(levels)


def load_export(path) -> LoadedExport | LoadedFile:
    """An export of any format: *.onnx, *.tflite, or a SavedModel or its newest version.

    Raises:
      ConfigError: a package that the format needs is absent.
      ExportError: there is none, it does not load, or it is not one of this project.
    """
    path = pathlib.Path(path)
    if path.suffix == ".onnx":
        metadata, run = onnx_file.open_onnx(path)
        return LoadedFile(path=path, metadata=metadata, run=run)
    if path.suffix == ".tflite":
        metadata = tflite_file.read_metadata(path)
        return LoadedFile(path=path, metadata=metadata, run=tflite_file.open_tflite(path))
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
