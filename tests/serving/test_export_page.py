"""The clients of docs/export.md run as they are printed there, and agree."""

import contextlib
import dataclasses
import io
import json
import re

import pytest
import tensorflow as tf

from inception_tf.data.image import EvaluationCrop
from inception_tf.serving.content import Content
from inception_tf.serving.fold import fold
from inception_tf.serving.spec import FORMATS, ExportSpec
from inception_tf.serving.writing import write_export
from tests.serving.test_exported_files import HERE, has, needs_litert, needs_onnx, reference_of
from tests.serving.test_signatures import NAMES, PREPROCESSING, build_model, drawn_jpegs

TEXT = (HERE.parents[1] / "docs" / "export.md").read_text(encoding="utf-8")
CLIENTS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """What the page says lies there: an export in every format, and a photograph."""
    directory = tmp_path_factory.mktemp("page")
    (directory / "photo.jpg").write_bytes(drawn_jpegs(1)[0])
    forms = [form for form in FORMATS if form != "onnx" or (has("onnx") and has("onnxruntime"))]
    model = build_model(seed=7)  # sure of its class
    content = Content(
        class_names=tuple(NAMES), background_class=False, preprocessing=PREPROCESSING,
        metadata={"evaluation_crop": dataclasses.asdict(EvaluationCrop())},
    )  # fmt: skip
    write_export(
        fold(model), content, out_dir=directory / "exported" / "digits",
        spec=ExportSpec(formats=tuple(forms)), calibration=reference_of(model).levels,
    )  # fmt: skip
    return directory


def printed(directory, code):
    """(name, probability) that a client of the page prints."""
    text = io.StringIO()
    with contextlib.chdir(directory), contextlib.redirect_stdout(text):
        exec(compile(code, "docs/export.md", "exec"), {})
    name, probability = text.getvalue().strip().rsplit(" ", 1)
    return name, float(probability)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [1, pytest.param(2, marks=needs_onnx), pytest.param(3, marks=needs_litert)]
)
def test_every_client_names_the_same_class(directory, number):
    name, probability = printed(directory, CLIENTS[0])
    assert name in NAMES
    assert printed(directory, CLIENTS[1]) == (name, pytest.approx(probability, abs=0.15))
    assert printed(directory, CLIENTS[number]) == (name, pytest.approx(probability, abs=0.15))


@pytest.mark.slow
def test_the_answer_of_the_page_has_the_form_of_the_signature(directory):
    (answer,) = json.loads(re.search(r"^```json\n(.*?)^```", TEXT, re.M | re.S)[1])["predictions"]
    model = tf.saved_model.load(str(directory / "exported" / "digits" / "1"))
    outputs = model.signatures["serving_default"].structured_outputs
    assert answer.keys() == outputs.keys()
    assert {len(values) for values in answer.values()} == {outputs["classes"].shape[1]} == {5}
    named = set(re.findall(r"^\| `(\w+)` \| (?:`|the same)", TEXT, re.MULTILINE))
    assert set(model.signatures) <= named | {"tflite_float16"}


def test_the_page_names_every_parameter_of_the_export():
    for field in dataclasses.fields(ExportSpec):
        flag = {"formats": "--formats"}.get(field.name, f"export.{field.name}")
        assert flag in TEXT, field.name
