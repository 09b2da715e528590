"""What a config says of an export: its formats, its numbers, and what it is held to."""

import dataclasses

from inception_tf.errors import ConfigError

SAVED_MODEL, ONNX = "saved_model", "onnx"
TFLITE_FLOAT16, TFLITE_INT8 = "tflite_float16", "tflite_int8"
FORMATS = (SAVED_MODEL, ONNX, TFLITE_FLOAT16, TFLITE_INT8)
FILES = {
    ONNX: "model.onnx",
    TFLITE_FLOAT16: "model_float16.tflite",
    TFLITE_INT8: "model_int8.tflite",
}
_CHOICES = {
    "weights": ("averaged", "raw"),
    "precision": ("float32", "bfloat16"),
    "on_bad_image": ("error", "flag"),
}


@dataclasses.dataclass(frozen=True)
class Bound:
    """How far an export may be from the evaluator.

    Attributes:
      max_difference: of a probability; None for no bound.
      min_agreement: share of images on which both have the same top class.
    """

    max_difference: float | None
    min_agreement: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """The export (gin section `export`).

    Attributes:
      weights: 'averaged' or 'raw'.
      formats: of 'saved_model', 'onnx', 'tflite_float16' and 'tflite_int8'; none: a run that ends
        exports nothing.
      precision: of the SavedModel: 'float32' or 'bfloat16'. The other formats have their own.
      top_k: classes that the answer of `serving_default` names.
      on_bad_image: of a request to the SavedModel: 'error' refuses the request and says which
        images are bad; 'flag' answers it, with `ok` false for these alone.
      check_images: evaluation images on which a written export is held against the evaluator, all
        where the split has fewer; 0 leaves it unchecked.
      calibration_images: training images from which 'tflite_int8' takes its ranges.
      float32_max_difference, float16_max_difference, bfloat16_max_difference: bound on the
        difference of a probability. int8 has none: its probabilities have 8 bits.
      float32_min_agreement, float16_min_agreement, bfloat16_min_agreement, int8_min_agreement:
        least share of images with the evaluator's top class. Images on which the evaluator itself
        has the two within 1e-5 count as agreeing.
    """

    weights: str = "averaged"
    formats: tuple[str, ...] = (SAVED_MODEL,)
    precision: str = "float32"
    top_k: int = 5
    on_bad_image: str = "error"
    check_images: int = 500
    calibration_images: int = 200
    float32_max_difference: float = 1e-5
    float32_min_agreement: float = 1.0
    float16_max_difference: float = 1e-2
    float16_min_agreement: float = 0.995
    bfloat16_max_difference: float = 3e-2
    bfloat16_min_agreement: float = 0.99
    int8_min_agreement: float = 0.97

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"export.{name} must be one of {', '.join(map(repr, choices))}.",
                    received=repr(getattr(self, name)),
                )
        unknown = [one for one in self.formats if one not in FORMATS]
        if unknown or len(set(self.formats)) < len(self.formats):
            raise ConfigError(
                f"export.formats must be some of {', '.join(FORMATS)}, each once.",
                received=repr(list(self.formats)),
            )
        for name, least in (("top_k", 1), ("check_images", 0), ("calibration_images", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"export.{name} must be at least {least}.", received=getattr(self, name)
                )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("_difference", "_agreement")) and not 0.0 <= value <= 1.0:
                raise ConfigError(f"export.{field.name} must lie in [0, 1].", received=value)

    def precision_of(self, form: str) -> str:
        """'float32', 'bfloat16', 'float16' or 'int8' of a format."""
        own = {SAVED_MODEL: self.precision, ONNX: "float32"}
        return own.get(form) or form.removeprefix("tflite_")

    def bound_of(self, form: str) -> Bound:
        """What an export of a format is held to."""
        precision = self.precision_of(form)
        return Bound(
            getattr(self, f"{precision}_max_difference", None),
            getattr(self, f"{precision}_min_agreement"),
        )
