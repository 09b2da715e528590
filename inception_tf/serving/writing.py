"""Writes an export in all its formats, each run by its own runtime before it gets its name."""

import dataclasses
import importlib.metadata
import pathlib

import numpy as np

from inception_tf.serving import onnx_file, tflite_file
from inception_tf.serving.check import Agreement, check_probabilities
from inception_tf.serving.content import METADATA_FILE
from inception_tf.serving.formats import save_versions
from inception_tf.serving.signatures import CHECK_BATCH, answers_of, write_saved_model
from inception_tf.serving.spec import FILES, ONNX, SAVED_MODEL, TFLITE_INT8

_PACKAGES = ("tensorflow", "keras", "numpy")
_ROUNDING = (
    "uint8: the evaluation crop (evaluation_crop) at input_height_px x input_width_px, rounded to "
    "whole levels 0..255, RGB"
)


@dataclasses.dataclass(frozen=True)
class WrittenExport:
    """One format of an export.

    Attributes:
      path: of the version's directory (SavedModel), or of the file.
      agreement: with the evaluator; None where nobody asked.
    """

    path: pathlib.Path
    agreement: Agreement | None


def write_export(
    network, content, *, out_dir, spec, reference=None, calibration=None
) -> dict[str, WrittenExport]:
    """Format -> what was written of it, for every format that the spec names.

    SavedModels go to `out_dir`/1, /2, ...; other formats to `out_dir`/<format>/1, ... All of one
    call have the same number and appear when all of them are complete and within their bounds.

    Args:
      network: a FoldedNetwork.
      content: a Content.
      out_dir: directory of the versions.
      spec: an ExportSpec.
      reference: ReferenceImages on which every format is held against the evaluator, the formats
        that take whole levels against what the evaluator says of these; None writes unchecked.
      calibration: uint8 [M, H, W, 3], training images for int8.

    Raises:
      ConfigError: names or metadata do not fit, or a package is absent.
      ExportError: a format differs by more than its bound, or `out_dir` cannot hold versions.
        Whatever is raised, no version appears.
    """
    content.check(network)
    if ONNX in spec.formats:
        onnx_file.versions()  # raises before anything is written
    agreements = {}

    def writer_of(form):
        def write(directory):
            agreements[form] = _write(
                form, directory, network, content, spec, reference, calibration
            )

        return write

    places = {form: "" if form == SAVED_MODEL else form for form in spec.formats}
    paths = save_versions(out_dir, {form: writer_of(form) for form in spec.formats}, places=places)
    return {
        form: WrittenExport(path / FILES.get(form, ""), agreements[form])
        for form, path in paths.items()
    }


def _write(form, directory, network, content, spec, reference, calibration):
    """Fills a directory with one format; its agreement with the evaluator, or None."""
    path = directory / FILES.get(form, "")
    if form == SAVED_MODEL:
        write_saved_model(path, network, content, spec=spec)
    elif form == ONNX:
        onnx_file.write_file(path, network, content)
    else:
        precision = spec.precision_of(form)
        tflite_file.write_file(
            path, network, content, precision=precision, calibration=calibration
        )
    agreement = None if reference is None else _check(form, path, spec, reference)
    facts = _facts_of(form, spec, agreement)
    if form == TFLITE_INT8:
        facts["calibration_images"] = len(calibration)
    text = content.metadata_text(network, facts)
    if form == SAVED_MODEL:
        (path / METADATA_FILE).parent.mkdir(exist_ok=True)
        (path / METADATA_FILE).write_text(text, encoding="utf-8")
    else:
        _module_of(form).add_metadata(path, text)
    return agreement


def _module_of(form):
    return onnx_file if form == ONNX else tflite_file


def _check(form, path, spec, reference):
    what, bound = f"{form} in {spec.precision_of(form)}", spec.bound_of(form)
    if form == SAVED_MODEL:
        found = answers_of(path, "all_probabilities", reference.files)["probabilities"]
        return check_probabilities(found, reference.probabilities, bound=bound, what=what)
    run = _module_of(form).open_file(path)
    levels = reference.levels
    found = np.concatenate(
        [run(levels[start : start + CHECK_BATCH]) for start in range(0, len(levels), CHECK_BATCH)]
    )
    return check_probabilities(found, reference.probabilities_of_levels, bound=bound, what=what)


def _facts_of(form, spec, agreement):
    """What the metadata say of one format."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    facts = {
        "format": form,
        "precision": spec.precision_of(form),
        "versions": packages | (onnx_file.versions() if form == ONNX else {}),
        "bound": dataclasses.asdict(spec.bound_of(form)),
        "check": None,
    }
    if form == SAVED_MODEL:
        facts["on_bad_image"] = spec.on_bad_image
    else:
        facts["input"] = _ROUNDING
    if agreement is not None:
        facts["check"] = {
            **dataclasses.asdict(agreement), "top1_agreement": agreement.top1_agreement,
        }  # fmt: skip
    return facts
