"""`python -m inception_tf.predict`: every image gets its classes, from a network of any form."""

import csv
import functools
import importlib.util
import io
import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf import classifier, predict
from inception_tf.data.image import (
    EvaluationCrop,
    decode_evaluation,
    decode_whole,
    evaluation_levels,
)
from inception_tf.models.inception_v3 import inception_v3
from inception_tf.models.weights.identity import NetworkIdentity
from inception_tf.models.weights.own_format import save_own_weights
from inception_tf.serving.content import Content, Preprocessing
from inception_tf.serving.fold import fold
from inception_tf.serving.signatures import classify
from inception_tf.serving.spec import ExportSpec
from inception_tf.serving.writing import write_export
from tests.test_features import (  # noqa: F401  fixtures among them
    CLASSES,
    SIDE_PX,
    decoded,
    folder,
    images_of,
    randomise,
    run,
)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TINY_PX = 16
CROP = EvaluationCrop(central_fraction=0.8)


def door(*arguments):
    return predict.main([str(argument) for argument in arguments])


def expected_of(model, images, *, background=False):
    """Probabilities by plain Keras and NumPy in float64, without the background's."""
    logits = np.asarray(model(images, training=False), np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True))[:, int(background) :]


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def assert_answers(rows, paths, expected, *, top_k=5, names=CLASSES):
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert expected.std(axis=0).max() > 1e-3  # rows in another order would be seen
    for row, probabilities in zip(rows, expected, strict=True):
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        assert [one["class"] for one in row["classes"]] == order.tolist()
        found = [one["probability"] for one in row["classes"]]
        np.testing.assert_allclose(found, probabilities[order], atol=1e-5)
        given = [one["name"] for one in row["classes"]]
        assert given == [names[index] if names else None for index in order]


@pytest.fixture(scope="module")
def tiny():
    """(Classifier, its keras.Model): three classes and a background, of images of 16 x 16."""
    inputs = keras.Input([TINY_PX, TINY_PX, 3])
    grid = keras.layers.Conv2D(8, 5, strides=3, activation="relu")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(grid)
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(pooled))
    draw = np.random.default_rng(7)
    model.set_weights([draw.normal(size=weight.shape) for weight in model.get_weights()])
    size = {"height_px": TINY_PX, "width_px": TINY_PX}
    made = classifier.Classifier(
        what="tiny weights",
        class_names=CLASSES,
        num_classes=3,
        input_height_px=TINY_PX,
        input_width_px=TINY_PX,
        decode=functools.partial(decode_evaluation, crop=CROP, **size),
        probabilities=classifier.of_network(model, background_class=True),
    )
    return made, model


@pytest.fixture
def opened(tiny, monkeypatch):
    """The tiny network, which the door opens in place of what it is given; 'MODEL' will do."""

    def open_classifier(source, **choices):
        assert source == "MODEL"
        return tiny[0]

    monkeypatch.setattr(classifier, "open_classifier", open_classifier)
    return tiny


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_folder_gets_the_networks_probabilities_in_order(opened, folder, capsys, batch):
    assert door("MODEL", folder, "--format=jsonl", "--batch", batch) == 0
    out, err = capsys.readouterr()
    paths = images_of(folder)
    images = decoded(paths, crop=CROP, side_px=TINY_PX)
    assert_answers(json_lines(out), paths, expected_of(opened[1], images, background=True))
    assert "tiny weights" in err and "1 other files in the folders were passed over" in err


def test_the_same_file_twice_is_answered_twice(opened, folder, capsys):
    path = images_of(folder)[2]
    assert door("MODEL", path, folder, path, "--format=jsonl", "--top_k=2") == 0
    rows = json_lines(capsys.readouterr().out)
    assert [row["path"] for row in rows] == [path, *images_of(folder), path]
    assert rows[0] == rows[3] == rows[-1] and len(rows[0]["classes"]) == 2


@pytest.fixture
def mixed(folder, tmp_path):
    """Good images with bad ones before, between and after them, in sorted order."""
    place = tmp_path / "mixed"
    place.mkdir()
    for number, path in enumerate(images_of(folder)[:3]):
        os.link(path, place / f"{2 * number + 1}.jpg")
    (place / "0.jpg").write_bytes(b"")
    (place / "4.png").write_text("<html>")
    (place / "6.jpg").symlink_to(place / "gone")
    (place / "7.jpg").write_bytes(open(images_of(folder)[0], "rb").read()[:700])
    return place


BAD = ["0.jpg", "4.png", "6.jpg", "7.jpg"]


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_bad_files_are_told_in_their_place_and_the_rest_goes_on(opened, mixed, capsys, batch):
    assert door("MODEL", mixed, "--format=jsonl", "--batch", batch) == 1
    out, err = capsys.readouterr()
    rows = json_lines(out)
    assert [os.path.basename(row["path"]) for row in rows] == sorted(os.listdir(mixed))
    assert [os.path.basename(row["path"]) for row in rows if "error" in row] == BAD
    reasons = [row["error"] for row in rows if "error" in row]
    assert reasons[0] == "the image is empty" and "No such file" in reasons[2]
    for name in BAD:
        assert f"left out {mixed / name}: " in err
    assert "4 of 7 images could not be read" in err


def test_the_table_and_csv_say_the_same(opened, mixed, tmp_path, capsys):
    assert door("MODEL", mixed, "--format=jsonl") == 1
    rows = json_lines(capsys.readouterr().out)
    assert door("MODEL", mixed, "--format=csv", f"--out={tmp_path / 'a.csv'}") == 1
    assert capsys.readouterr().out == ""
    records = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    expected = []
    for row in rows:
        if "error" in row:
            expected.append([row["path"], "", "", "", "", row["error"]])
        for rank, one in enumerate(row.get("classes", ()), start=1):
            values = [rank, one["class"], one["name"], one["probability"], ""]
            expected.append([row["path"], *map(str, values)])
    assert [list(record.values()) for record in records] == expected
    assert door("MODEL", mixed, "--top_k=1") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(mixed / "0.jpg"), "  error: the image is empty"]
    best = rows[1]["classes"][0]
    assert lines[2] == str(mixed / "1.jpg")
    assert lines[3].split() == [f"{best['probability']:.2%}", str(best["class"]), best["name"]]


def test_what_a_file_is_called_does_no_harm(opened, folder, tmp_path, capsysbinary):
    names = [b"\xff.jpg", "ä\x1b[31m\n.jpg".encode()]
    for name in names:
        os.link(images_of(folder)[0], os.fsencode(tmp_path) + b"/" + name)
    assert door("MODEL", tmp_path, "--format=jsonl") == 0
    rows = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert {os.path.basename(os.fsencode(row["path"])) for row in rows} == set(names)
    assert door("MODEL", tmp_path, "--top_k=1") == 0
    out = capsysbinary.readouterr().out
    assert b"\x1b" not in out and out.count(b"\n") == 4 and rb"\x1b[31m\n.jpg" in out


def test_patterns_and_paths_in_stdin(opened, folder, capsys, monkeypatch):
    listed = [folder / "gone.jpg", folder / "x.jpg", folder / "sub"]
    text = "\n".join(map(str, listed)).encode() + b"\n\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert door("MODEL", f"{folder}/**/a.jpg", "-", "--format=jsonl") == 1
    rows = json_lines(capsys.readouterr().out)
    names = ["a.jpg", "sub/a.jpg", "gone.jpg", "x.jpg", "sub/a.jpg", "sub/d.jpg"]
    assert [os.path.relpath(row["path"], folder) for row in rows] == names
    assert "error" in rows[2] and rows[1] == rows[4]


def test_where_no_image_can_be_read_nothing_is_written(opened, tmp_path, capsys):
    (tmp_path / "x.jpg").write_bytes(b"x")
    assert door("MODEL", tmp_path / "x.jpg", "--out", tmp_path / "a.csv") == 2
    assert "At least one image must be readable" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Predictions need images"),
        (["{folder}", "--top_k=0"], "top_k must be at least 1"),
        (["{folder}", "--batch=0"], "batch must be at least 1"),
        (["{folder}", "--out={tmp}/no/f"], "a folder that exists"),
        (["{folder}/*.tiff"], "files and folders that exist"),
        (["{folder}", "--port=1"], "Only the page has.* --port=1"),
        (["{folder}", "--serve"], "The page gets its images in the browser"),
        (["--serve", "--format=csv"], "in the browser.* --format=csv"),
        (["--serve", "--port=77777"], "address of this machine and a free port"),
        (["--serve", "--host=192.0.2.1"], "address of this machine"),
    ],
)
def test_a_mistake_is_told_with_status_2(opened, folder, tmp_path, capsys, arguments, message):
    words = (text.format(folder=folder, tmp=tmp_path) for text in arguments)
    assert door("MODEL", *words) == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_an_image_in_stdin_is_no_list(opened, capsys, monkeypatch):
    data = tf.io.encode_jpeg(np.zeros([9, 9, 3], np.uint8)).numpy()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert door("MODEL", "-") == 2
    assert "paths in stdin, one a line" in capsys.readouterr().err


def test_help_needs_no_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = None;"
        "from inception_tf import predict; predict.main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "--serve" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("options", "which"), [(["--weights=raw"], 3), (["--step=40"], 2)])
def test_a_run_gives_the_evaluations_probabilities(run, folder, capsys, options, which):
    assert door(run[0], folder, "--format=jsonl", *options) == 0
    out, err = capsys.readouterr()
    paths = images_of(folder)
    images = decoded(paths, crop=run[1].evaluation_crop)
    assert_answers(json_lines(out), paths, expected_of(run[which], images))
    assert "weights of" in err and "step 40" in err
    assert "1 other files in the folders were passed over" in err


@pytest.fixture(scope="module")
def export(tiny, tmp_path_factory):
    """Format -> path of an export of the tiny network."""
    content = Content(
        class_names=CLASSES,
        background_class=True,
        preprocessing=Preprocessing(of_file=tiny[0].decode, of_pixels=lambda pixels: pixels),
        metadata={
            "step": 40,
            "weights": "averaged",
            "evaluation_crop": {"recipe": "slim_tf1", "central_fraction": 0.8},
        },
    )
    formats = ["saved_model", "tflite_float16"]
    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
        formats.append("onnx")
    written = write_export(
        fold(tiny[1]), content, out_dir=tmp_path_factory.mktemp("export"),
        spec=ExportSpec(formats=tuple(formats)),
    )  # fmt: skip
    return {form: one.path for form, one in written.items()}


def test_an_export_answers_as_its_own_signature_does(export, folder, capsys):
    path = export["saved_model"]
    paths = images_of(folder)
    assert door(path.parent, folder, "--format=jsonl") == 0
    out, err = capsys.readouterr()
    rows = json_lines(out)
    assert [row["path"] for row in rows] == paths
    for row, answers in zip(rows, classify(path, [open(path, "rb").read() for path in paths])):
        assert [one["name"] for one in row["classes"]] == [one.name for one in answers]
        found = [one["probability"] for one in row["classes"]]
        np.testing.assert_allclose(found, [one.probability for one in answers], atol=1e-6)
    assert f"export {path} of step 40, averaged weights" in err
    assert door(path, folder, "--weights=raw") == 2
    assert "An export is used as it was written. Received: --weights=raw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "bound"), [("onnx", 1e-5), pytest.param("tflite_float16", 1e-2, id="tflite")]
)
def test_a_file_of_another_format_answers_as_the_network_does(
    tiny, export, mixed, capsys, form, bound
):
    if form not in export:
        pytest.skip("needs the extra [onnx]")
    assert door(export[form], mixed, "--format=jsonl", "--top_k=3", "--batch=2") == 1
    rows = json_lines(capsys.readouterr().out)
    assert [os.path.basename(row["path"]) for row in rows if "error" in row] == BAD
    good = [row for row in rows if "classes" in row]
    files = [open(row["path"], "rb").read() for row in good]
    size = {"height_px": TINY_PX, "width_px": TINY_PX}
    crops = [evaluation_levels(decode_whole(data), crop=CROP, **size) for data in files]
    levels = np.rint(np.stack(crops))  # these files take whole levels
    expected = expected_of(tiny[1], levels / 127.5 - 1.0, background=True)
    assert expected.std(axis=0).max() > 10 * bound
    for row, probabilities in zip(good, expected, strict=True):
        found = {one["class"]: one["probability"] for one in row["classes"]}
        np.testing.assert_allclose([found[i] for i in range(3)], probabilities, atol=bound)
        assert [one["name"] for one in row["classes"]] == [CLASSES[i] for i in found]
    opened = classifier.open_classifier(export[form], resolve_run=None)
    seen = opened.pixels(opened.decode(files[0]))
    assert seen.dtype == np.uint8 and np.array_equal(seen, levels[0])


@pytest.mark.slow
def test_weights_without_names_give_numbers_without_the_background(tmp_path, folder, capsys):
    options = {"width_multiplier": 0.1, "batch_norm_scale": True}
    model = inception_v3(num_classes=5, input_shape=(SIDE_PX, SIDE_PX, 3), **options)
    randomise(model, 3)
    logits = next(weight for weight in model.weights if "logits" in weight.path.lower())
    logits.assign(0.01 * logits)  # or every image would have one class for sure
    identity = NetworkIdentity(
        network="inception_v3", variant="released", num_outputs=5, background_class=True,
        options=options,
    )  # fmt: skip
    save_own_weights(model, tmp_path / "w.weights.h5", identity=identity)
    arguments = ["--format=jsonl", "--top_k=9", f"--input_px={SIDE_PX}"]
    assert door(tmp_path / "w.weights.h5", folder, *arguments) == 0
    rows = json_lines(capsys.readouterr().out)
    paths = images_of(folder)
    images = decoded(paths, crop=EvaluationCrop())
    expected = expected_of(model, images, background=True)
    assert expected.shape == (len(paths), 4)  # five outputs, one is the background
    assert_answers(rows, paths, expected, top_k=9, names=None)


@pytest.mark.slow
def test_a_reader_that_has_read_enough_ends_it_quietly(run, folder, tmp_path):
    command = [sys.executable, "-m", "inception_tf.predict", run[0], *[folder] * 300, "--batch=1"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline().endswith(b".jpg\n")  # streamed: it is not at its end
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(timeout=60) == 0
    assert "Error" not in err and "Exception" not in err
    full = subprocess.run(
        [sys.executable, "-m", "inception_tf.predict", run[0], folder],
        cwd=ROOT, stdout=open("/dev/full", "wb"), stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert full.returncode == 2 and "No space left" in full.stderr
