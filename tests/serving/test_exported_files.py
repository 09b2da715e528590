"""ONNX and TensorFlow Lite: the evaluator's probabilities on the same pixels, or nothing."""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data.image import to_input
from inception_tf.errors import ConfigError
from inception_tf.serving import onnx_file
from inception_tf.serving.check import ReferenceImages
from inception_tf.serving.content import Content
from inception_tf.serving.fold import fold
from inception_tf.serving.formats import ExportError
from inception_tf.serving.loaded import load_export
from inception_tf.serving.spec import ExportSpec
from inception_tf.serving.writing import write_export
from tests.serving.test_fold import FAST, SLOW, images_of, network_of
from tests.serving.test_signatures import PREPROCESSING, SIDE_PX, build_model

HERE = pathlib.Path(__file__).resolve().parent
NAMES = tuple("abcdefg")
# Drawn weights amplify rounding, which trained ones do not: docs/results.md has those.
SPEC = ExportSpec(formats=("tflite_float16",), float32_max_difference=1e-4, int8_min_agreement=0.8)
BOUNDS = {"onnx": 1e-4, "tflite_float16": 1e-2, "tflite_int8": 0.1}


def has(package):
    return importlib.util.find_spec(package) is not None


needs_onnx = pytest.mark.skipif(
    not (has("onnx") and has("onnxruntime")), reason="needs the extra [onnx]"
)
needs_litert = pytest.mark.skipif(not has("ai_edge_litert"), reason="needs ai-edge-litert")
FORMATS = [
    pytest.param("onnx", marks=needs_onnx),
    pytest.param("tflite_float16", id="float16"),
    pytest.param("tflite_int8", id="int8", marks=pytest.mark.slow),
]
CLIENTS = [
    pytest.param("onnx", marks=needs_onnx),
    pytest.param("tflite_float16", id="float16", marks=needs_litert),
    pytest.param("tflite_int8", id="int8", marks=[needs_litert, pytest.mark.slow]),
]


def reference_of(model, count=12, *, num_dropped=0):
    """The network's own answers on drawn images in whole levels, which need no file."""
    noise = np.random.default_rng(2).uniform(0, 60, (count, *model.input_shape[1:]))
    levels = ((images_of(model, count) + 1) * 97 + noise).astype(np.uint8)
    logits = model(to_input(levels), training=False)
    logits = logits["logits"] if isinstance(logits, dict) else logits
    probabilities = tf.nn.softmax(logits).numpy()[:, num_dropped:]
    return ReferenceImages(
        files=[], probabilities=probabilities, levels=levels, probabilities_of_levels=probabilities
    )


def export(model, out_dir, *forms, reference, spec=SPEC, names=NAMES, background_class=False):
    content = Content(
        class_names=names, background_class=background_class, preprocessing=PREPROCESSING,
        metadata={"step": 70},
    )  # fmt: skip
    return write_export(
        fold(model), content, out_dir=out_dir, spec=dataclasses.replace(spec, formats=forms),
        reference=reference, calibration=reference.levels,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model():
    """Three layers: converting a network takes seconds; the slow tests do."""
    return build_model(num_outputs=len(NAMES))


@pytest.fixture(scope="module")
def reference(model):
    return reference_of(model)


@pytest.fixture(scope="module")
def written(model, reference, tmp_path_factory):
    """Function of a format: path of a file of it, written once."""
    found = {}

    def of(form):
        if form not in found:
            out_dir = tmp_path_factory.mktemp(form)
            found[form] = export(model, out_dir, form, reference=reference)[form]
        return found[form]

    return of


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_gives_the_networks_probabilities_and_says_what_it_is(form, written, reference):
    export = written(form)
    assert export.path.parent.name == "1" and export.path.parents[1].name == form
    loaded, expected = load_export(export.path), reference.probabilities
    found = loaded.probabilities(reference.levels)
    assert found.dtype == np.float32 and np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUNDS[form])
    few = loaded.probabilities(reference.levels[:3])  # another number of images
    np.testing.assert_allclose(few, found[:3], rtol=0, atol=1e-5)
    about = loaded.metadata
    assert about["class_names"] == list(NAMES) and about["step"] == 70
    assert about["format"] == form and about["background_class"] is False
    assert (about["input_height_px"], about["input_width_px"]) == (SIDE_PX, SIDE_PX)
    assert about["precision"] == {"onnx": "float32"}.get(form, form.removeprefix("tflite_"))
    assert about["check"]["max_difference"] == export.agreement.max_difference
    assert export.agreement.num_images == 12
    assert about["bound"]["max_difference"] == {"onnx": 1e-4, "tflite_float16": 1e-2}.get(form)


@pytest.mark.parametrize("form", CLIENTS)
def test_a_client_with_the_runtime_alone_gets_them_too(form, written, reference, tmp_path):
    images, answers = tmp_path / "images.npy", tmp_path / "answers.npy"
    np.save(images, reference.levels)
    runtime = {"onnx": "onnxruntime"}.get(form, "ai_edge_litert")
    # A folder with the runtime and what it imports, and nothing else.
    for name in (runtime, "numpy", "numpy.libs", "flatbuffers", "google", "packaging", "ml_dtypes",
                 "backports", "typing_extensions.py", "tqdm"):  # fmt: skip
        for site in map(pathlib.Path, sys.path):
            if (site / name).exists() and not (tmp_path / name).exists():
                (tmp_path / name).symlink_to(site / name)
    arguments = [str(HERE / "run_file.py"), str(written(form).path), str(images), str(answers)]
    code = f"import sys, runpy; sys.path.append({str(tmp_path)!r}); " + (
        "sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = load_export(written(form).path).probabilities(reference.levels)
    np.testing.assert_allclose(np.load(answers), found, rtol=0, atol=1e-4)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("fields", [pytest.param(f, id=n) for n, f in {**FAST, **SLOW}.items()])
def test_every_network_as_onnx(fields, tmp_path):
    model = network_of(fields)
    export(model, tmp_path, "onnx", reference=reference_of(model))


@pytest.mark.slow
@pytest.mark.parametrize("fields", [FAST["a residual network"], SLOW["facenet"]], ids=["v2", "v1"])
def test_networks_as_tensorflow_lite(fields, tmp_path):
    model, forms = network_of(fields), ("tflite_float16", "tflite_int8")
    written = export(model, tmp_path, *forms, reference=reference_of(model))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(forms)
    assert {one.path.parent.name for one in written.values()} == {"1"}


@pytest.mark.parametrize("form", FORMATS[:1] + FORMATS[2:])
def test_the_background_is_no_class_of_a_file(form, model, tmp_path):
    reference = reference_of(model, num_dropped=1)
    export(model, tmp_path, form, reference=reference, names=NAMES[1:], background_class=True)
    found = load_export(next(tmp_path.rglob("model*"))).probabilities(reference.levels)
    assert (reference.probabilities.sum(axis=1) < 1 - 1e-3).all()
    np.testing.assert_allclose(found, reference.probabilities, atol=BOUNDS[form])


@pytest.mark.parametrize("form", FORMATS)
def test_over_the_bound_nothing_is_left_of_any_format(form, model, reference, tmp_path):
    other = np.roll(reference.probabilities, 1, axis=1)
    wrong = dataclasses.replace(reference, probabilities_of_levels=other)
    with pytest.raises(ExportError, match=f"(?s){form} in .*bound"):
        export(model, tmp_path / "out", form, reference=wrong)
    assert os.listdir(tmp_path / "out") == []


def test_what_is_no_file_of_ours_is_refused(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"TFL3 and so on")
    with pytest.raises(ExportError, match="inception_tf.export"):
        load_export(tmp_path / "model.tflite")
    with pytest.raises(ExportError, match="inception_tf.export"):
        load_export(tmp_path / "absent.tflite")


def test_without_the_packages_onnx_says_what_to_install(model, reference, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"inception-tf\[onnx\]"):
        export(model, tmp_path / "out", "onnx", reference=reference)
    assert not (tmp_path / "out").exists()


@needs_onnx
def test_what_is_no_onnx_file_of_ours_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no")
    with pytest.raises(ExportError, match="inception_tf.export"):
        onnx_file.open_file(tmp_path / "model.onnx")
