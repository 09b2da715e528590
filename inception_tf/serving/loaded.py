"""An exported model that is read back: what it says of itself, and its logits."""

import dataclasses
import json
import pathlib

import tensorflow as tf

from inception_tf.serving.formats import ExportError, newest_version
from inception_tf.serving.signatures import METADATA_FILE


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


def load_export(path) -> LoadedExport:
    """The SavedModel at `path`, or its newest version.

    Raises:
      ExportError: there is none, it does not load, or it is not one of this project.
    """
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
