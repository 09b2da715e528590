"""A run is exported in every format, against the evaluator, from its own records."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import experiment, exports, preparation, products
from inception_tf.data.image import EvaluationCrop, decode_whole, evaluation_pixels
from inception_tf.errors import ConfigError
from inception_tf.run_directory import RunDirectory
from inception_tf.serving.content import METADATA_FILE
from inception_tf.serving.formats import ExportError
from inception_tf.serving.loaded import load_export
from inception_tf.serving.spec import ExportSpec
from tests.test_network_predictions import (  # noqa: F401
    CLASSES, NUM_IMAGES, data_dir, inputs, resolve_run, run_dir,
)  # fmt: skip


@pytest.fixture
def declared(run_dir, cluster, monkeypatch):  # noqa: F811
    monkeypatch.setattr(preparation, "join_cluster", lambda *_: cluster)
    return resolve_run(run_dir)


def with_export(declared, **fields):
    return dataclasses.replace(declared, export=dataclasses.replace(declared.export, **fields))


@pytest.mark.slow
def test_every_format_gives_what_the_run_evaluates(declared, run_dir, inputs, tmp_path):  # noqa: F811
    forms = ("saved_model", "tflite_float16", "tflite_int8")
    # Drawn weights, whose rounding is amplified as that of trained ones is not.
    spec = {"float16_max_difference": 0.2, "float16_min_agreement": 0.5, "int8_min_agreement": 0.1}
    declared = with_export(declared, formats=forms, calibration_images=5, **spec)
    text = experiment.export(declared, run_dir=run_dir, out_dir=tmp_path)
    paths = [tmp_path / "1", tmp_path / "tflite_float16/1/model_float16.tflite",
             tmp_path / "tflite_int8/1/model_int8.tflite"]  # fmt: skip
    loaded = {form: load_export(path) for form, path in zip(forms, paths)}
    for form, path in zip(forms, paths):
        assert f"averaged weights of step 7 to {path} ({form}" in text
    assert text.count("against the evaluator: largest difference") == 3
    assert "rounding an image to whole levels" in text
    jpegs, _ = inputs.readers["validation"].read(np.arange(NUM_IMAGES))
    levels = np.stack(
        [evaluation_pixels(decode_whole(jpeg), crop=EvaluationCrop(
            **loaded["saved_model"].metadata["evaluation_crop"]), height_px=75, width_px=75)
         for jpeg in jpegs]
    )  # fmt: skip
    for form, export in loaded.items():
        about = export.metadata
        assert (about["format"], about["step"], about["run"]) == (form, 7, str(run_dir))
        assert about["class_names"] == list(CLASSES) and about["check"]["num_images"] == NUM_IMAGES
        assert about["rounding"]["num_images"] == NUM_IMAGES and len(about["config_sha256"]) == 64
        assert about["input_height_px"] == about["input_width_px"] == 75
        assert export.probabilities(levels).shape == (NUM_IMAGES, len(CLASSES))
    assert loaded["tflite_int8"].metadata["calibration_images"] == 5
    # Whole levels through the SavedModel are what the check compared the float16 file with.
    of_levels = loaded["saved_model"].probabilities(levels)
    differences = np.abs(loaded["tflite_float16"].probabilities(levels) - of_levels)
    check = loaded["tflite_float16"].metadata["check"]
    assert differences.max() == pytest.approx(check["max_difference"], abs=2e-5)


@pytest.mark.slow
def test_a_run_in_16_bits_is_held_against_the_evaluator_in_32(
    declared, run_dir, cluster, inputs, tmp_path  # noqa: F811
):
    model_spec = dataclasses.replace(declared.model, precision="mixed_bfloat16")
    declared = dataclasses.replace(declared, model=model_spec)
    trained = products.read_run(declared, RunDirectory(run_dir), cluster)
    written = exports.write_export(
        declared, trained.model, trained.values(averaged=True), cluster=cluster, inputs=inputs,
        class_names=CLASSES, photo_edits=trained.facts.photo_edits, step=7,
        directory=RunDirectory(run_dir), out_dir=tmp_path,
    ).written["saved_model"]  # fmt: skip
    assert written.agreement.max_difference <= 1e-5  # bfloat16 rounds by 1e-3 and more
    about = json.loads((written.path / METADATA_FILE).read_text())
    assert (about["precision"], about["model"]["precision"]) == ("float32", "mixed_bfloat16")


@pytest.mark.slow
def test_a_format_over_its_bound_leaves_none(declared, run_dir, tmp_path):  # noqa: F811
    declared = with_export(
        declared, formats=("saved_model", "tflite_float16"), float16_max_difference=0.0
    )
    with pytest.raises(ExportError, match="tflite_float16 in float16 with a difference"):
        experiment.export(declared, run_dir=run_dir, out_dir=tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.slow
def test_bfloat16_is_held_to_its_own_bound(declared, run_dir, tmp_path):  # noqa: F811
    loose = {"bfloat16_max_difference": 1.0, "bfloat16_min_agreement": 0.1}
    declared = with_export(declared, precision="bfloat16", **loose)
    experiment.export(declared, run_dir=run_dir, out_dir=tmp_path)
    about = load_export(tmp_path).metadata
    assert about["precision"] == "bfloat16" and about["bound"]["max_difference"] == 1.0
    assert about["check"]["max_difference"] > 1e-5


@pytest.mark.slow
def test_tensorflows_own_command_line_runs_the_export(declared, run_dir, inputs, tmp_path):  # noqa: F811
    experiment.export(declared, run_dir=run_dir, out_dir=tmp_path / "out")
    jpegs, _ = inputs.readers["validation"].read(np.arange(3))
    np.save(tmp_path / "files.npy", np.array(list(jpegs)))
    cli = "from tensorflow.python.tools.saved_model_cli import main; main()"
    subprocess.run(
        [sys.executable, "-I", "-c", cli, "run", "--dir", tmp_path / "out" / "1", "--tag_set",
         "serve", "--signature_def", "all_probabilities", "--inputs",
         f"image_bytes={tmp_path / 'files.npy'}", "--outdir", tmp_path / "answers"],
        check=True, cwd=tmp_path, timeout=240,
    )  # fmt: skip
    found = np.load(tmp_path / "answers" / "probabilities.npy")
    signature = tf.saved_model.load(str(tmp_path / "out" / "1")).signatures["all_probabilities"]
    expected = signature(image_bytes=tf.constant(list(jpegs)))["probabilities"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_which_records_an_export_reads():
    def splits(**fields):
        spec = dataclasses.replace(ExportSpec(), **fields)
        data = dataclasses.make_dataclass("Data", ["train_split", "eval_split"])("train", "val")
        whole = dataclasses.make_dataclass("Whole", ["export", "data"])(spec, data)
        return exports.splits_for(whole)

    assert splits() == ["val"]
    assert splits(check_images=0) == []
    assert splits(formats=("tflite_int8",)) == ["train", "val"]
    assert splits(formats=("tflite_int8",), check_images=0) == ["train"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"formats": ("saved_model", "tflite")}, "formats must be some of"),
        ({"formats": ("onnx", "onnx")}, "each once"),
        ({"precision": "float16"}, "'float32', 'bfloat16'"),
        ({"on_bad_image": "skip"}, "'error', 'flag'"),
        ({"int8_min_agreement": 97.0}, "int8_min_agreement must lie in"),
        ({"float32_max_difference": float("nan")}, "float32_max_difference must lie in"),
        ({"calibration_images": 0}, "calibration_images must be at least 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_exports_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        ExportSpec(**fields)


def test_an_export_of_no_format_is_refused(declared, run_dir, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match="--formats=saved_model"):
        experiment.export(
            with_export(declared, formats=()), run_dir=run_dir, out_dir=tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()
