"""A run on photographs that were turned and shrunk has its export do so to the files of users."""

import io
import json
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from inception_tf import config, exports, inputs, model_source, preparation
from inception_tf.data import build
from inception_tf.data.image import decode_evaluation
from inception_tf.data.photo import PhotoEdits
from inception_tf.data.sources import FolderSource
from inception_tf.errors import CheckpointError
from inception_tf.experiment import Experiment
from inception_tf.models.catalog import build_model
from inception_tf.parameters import SECTIONS
from inception_tf.run_directory import RunDirectory
from inception_tf.serving.content import METADATA_FILE
from inception_tf.training.checkpoint import CheckpointStore
from tests.test_features import CLASSES, PARAMS, facts_of_tiny, photograph, randomise

PILLOW = pytest.importorskip("PIL.Image", reason="needs Pillow")
OPS = pytest.importorskip("PIL.ImageOps", reason="needs Pillow")
TURN = PhotoEdits(turn_upright=True)
CPU = types.SimpleNamespace(
    strategy=tf.distribute.get_strategy(), device_kind="CPU", intra_op_threads=1,
    deterministic=True, num_physical=1, num_workers=1, device_names=["CPU:0"],
)  # fmt: skip


def photo_of(orientation, *, height=90, width=140):
    """A JPEG with an orientation, and the same picture as viewers show it, without loss."""
    data = PILLOW.Exif()
    data[274] = orientation
    jpeg, png, stored = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pixels = photograph(5, height=height, width=width)
    PILLOW.fromarray(pixels).save(jpeg, "JPEG", exif=data, quality=95)
    # TensorFlow's pixels, which differ from Pillow's by a level here and there, as Pillow turns.
    PILLOW.fromarray(tf.io.decode_jpeg(jpeg.getvalue()).numpy()).save(stored, "PNG", exif=data)
    OPS.exif_transpose(PILLOW.open(stored)).save(png, "PNG")
    return jpeg.getvalue(), png.getvalue()


@pytest.fixture(scope="module")
def experiment():
    params = [*PARAMS, "export.check_images = 0"]
    resolved = config.resolve(gin_files=["digits.gin"], gin_params=params, reads=SECTIONS)
    return Experiment(**resolved.sections), resolved.text()


@pytest.fixture(scope="module")
def model(experiment):
    model = build_model(experiment[0].model, num_classes=3, seed=1)
    randomise(model, 1)
    return model


def exported(experiment, model, out_dir, edits):
    values = (model.trainable_variables, model.non_trainable_variables)
    exported = exports.write_export(
        experiment[0], model, values, cluster=None, inputs=None, class_names=CLASSES,
        photo_edits=edits, step=7, directory=RunDirectory(out_dir / "run"), out_dir=out_dir,
    )  # fmt: skip
    return exported.written["saved_model"].path


def answers(path, images):
    signature = tf.saved_model.load(str(path)).signatures["all_probabilities"]
    return signature(image_bytes=tf.constant(images))["probabilities"].numpy()


@pytest.mark.slow
def test_an_export_sees_a_photograph_as_a_viewer_shows_it(experiment, model, tmp_path):
    path = exported(experiment, model, tmp_path, TURN)
    jpegs, pngs = zip(*map(photo_of, range(1, 9)))
    found = answers(path, jpegs)
    np.testing.assert_allclose(found, answers(path, pngs), atol=1e-6)
    assert np.ptp(answers(path, jpegs[:1] + pngs[5:6]), axis=0).max() > 1e-3
    for index in range(8):  # alone, as in a batch with others
        np.testing.assert_allclose(answers(path, jpegs[index : index + 1])[0], found[index],
                                   atol=1e-6)  # fmt: skip
    about = json.loads((path / METADATA_FILE).read_text())
    assert about["photo_edits"] == {"turn_upright": True, "max_side_px": None}


def test_an_export_of_other_records_turns_nothing(experiment, model, tmp_path):
    path = exported(experiment, model, tmp_path, PhotoEdits())
    jpegs, _ = zip(*map(photo_of, (1, 6, 8)))
    found = answers(path, jpegs)
    np.testing.assert_allclose(found - found[:1], 0, atol=1e-6)


@pytest.mark.slow
def test_an_export_shrinks_as_the_records_were(experiment, model, tmp_path):
    edits = PhotoEdits(turn_upright=True, max_side_px=100)
    path = exported(experiment, model, tmp_path, edits)
    jpeg, png = photo_of(6, height=300, width=400)
    small = tf.image.resize(tf.io.decode_png(png), [100, 75], method="bicubic", antialias=True)
    small = tf.io.encode_png(tf.cast(tf.round(tf.clip_by_value(small, 0, 255)), tf.uint8)).numpy()
    found = answers(path, [jpeg, png, small])
    np.testing.assert_allclose(found - found[:1], 0, atol=1e-6)
    unshrunk = answers(exported(experiment, model, tmp_path, TURN), [jpeg])
    assert np.abs(found[0] - unshrunk[0]).max() > 1e-5


def test_an_export_needs_no_python(experiment, model, tmp_path):
    path = exported(experiment, model, tmp_path, PhotoEdits(turn_upright=True, max_side_px=9))
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    ops = {node.op for function in graph.library.function for node in function.node_def}
    assert "EncodePng" in ops and not [op for op in ops if "PyFunc" in op]


def test_a_run_keeps_what_its_records_say(experiment, tmp_path):
    for split in ("train", "validation"):
        for number, name in enumerate(CLASSES):
            folder = tmp_path / "in" / split / name
            folder.mkdir(parents=True)
            (folder / f"{split}.jpg").write_bytes(photo_of(1 + number, width=95 + 9 * number)[0])
    build.build_records(
        FolderSource(tmp_path / "in", max_side_px=60), tmp_path / "out", processes=1
    )
    spec = types.SimpleNamespace(
        data_dir=str(tmp_path / "out"), label_base=None, train_split="train"
    )
    found = inputs.open_inputs(spec, experiment[0].model, run_dir=tmp_path, splits=["train"])
    assert found.photo_edits == PhotoEdits(turn_upright=True, max_side_px=60)
    directory = RunDirectory(tmp_path / "run")
    directory.save_facts(preparation.facts_of(experiment[0], found, CPU))
    assert directory.read_facts().photo_edits == found.photo_edits
    assert inputs.generated_inputs(experiment[0].model).photo_edits == PhotoEdits()


def test_a_run_of_before_it_was_kept_turns_nothing_and_a_wrong_one_is_refused(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.save_facts(facts_of_tiny())
    stored = json.loads(directory.facts_file.read_text())
    del stored["photo_edits"]
    directory.facts_file.write_text(json.dumps(stored))
    assert directory.read_facts().photo_edits == PhotoEdits()
    directory.facts_file.write_text(json.dumps({**stored, "photo_edits": {"turn": 1}}))
    with pytest.raises(CheckpointError, match="run.json"):
        directory.read_facts()


@pytest.fixture(scope="module")
def photo_run(experiment, model, tmp_path_factory):
    """Directory of a run on turned photographs, with the model's weights."""
    path = tmp_path_factory.mktemp("runs") / "photos"
    directory = RunDirectory(path)
    directory.save_config(experiment[1])
    directory.save_facts(facts_of_tiny())
    stored = json.loads(directory.facts_file.read_text())
    stored["photo_edits"] = {"turn_upright": True, "max_side_px": None}
    directory.facts_file.write_text(json.dumps(stored))
    values = {f"model/{weight.path}": weight.value.numpy() for weight in model.weights}
    CheckpointStore.of_run(path).save(
        step=40, values={"step": np.int64(40), **values}, facts={}
    )
    return path


def test_features_of_a_run_are_of_the_picture_that_a_viewer_shows(experiment, photo_run):
    opened = model_source.open_run(experiment[0], photo_run)
    crop = experiment[0].evaluation_crop
    for orientation in (1, 6, 7):
        jpeg, png = photo_of(orientation)
        size = opened.input_height_px, opened.input_width_px
        expected = decode_evaluation(png, crop=crop, height_px=size[0], width_px=size[1])
        np.testing.assert_array_equal(opened.decode(tf.constant(jpeg)), expected)


@pytest.mark.slow
def test_the_door_exports_what_the_run_keeps(photo_run, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "inception_tf.export", str(photo_run),
         f"--out={tmp_path / 'out'}", "--gin_param=export.weights = 'raw'"],
        check=True,
    )  # fmt: skip
    jpeg, png = photo_of(6)
    found = answers(tmp_path / "out" / "1", [jpeg, png])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
