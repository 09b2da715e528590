"""What every format of an export holds beside the network: names, preprocessing, metadata."""

import collections.abc
import dataclasses
import json

from inception_tf.errors import ConfigError

METADATA_FILE = "assets.extra/metadata.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The evaluation's own functions, in TensorFlow operations.

    Attributes:
      of_file: image file, string scalar -> float32 [H, W, 3] in [-1, 1].
      of_pixels: decoded image, uint8 [h, w, 3] of any size -> float32 [H, W, 3] in [-1, 1].
    """

    of_file: collections.abc.Callable
    of_pixels: collections.abc.Callable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """An export but for its weights.

    Attributes:
      class_names: K names.
      background_class: whether output 0 is the background.
      preprocessing: a Preprocessing.
      metadata: what can be written as JSON: where the weights come from.
    """

    class_names: tuple[str, ...]
    background_class: bool
    preprocessing: Preprocessing
    metadata: dict

    def check(self, network):
        """Raises ConfigError unless names and metadata fit a FoldedNetwork."""
        num_classes = network.num_outputs - int(self.background_class)
        if len(self.class_names) != num_classes:
            raise ConfigError(
                "An export needs one name for each class of the network.",
                received=f"{len(self.class_names)} names for {num_classes} classes",
                remedy="Set model.background_class as the network was trained.",
            )
        self.metadata_text(network, {})

    def metadata_text(self, network, more):
        """JSON of the metadata, with what the network says and `more` of the format."""
        height_px, width_px, _ = network.input_shape
        described = {
            **self.metadata,
            "class_names": list(self.class_names),
            "background_class": self.background_class,
            "input_height_px": height_px,
            "input_width_px": width_px,
            **more,
        }
        try:
            return json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        except TypeError as error:
            raise ConfigError("The metadata of an export must be JSON.", received=error) from error
