"""An export answers as the evaluator does, or does not exist."""

import functools
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from inception_tf.data.image import EvaluationCrop, decode_evaluation
from inception_tf.errors import ConfigError
from inception_tf.evaluation.evaluator import Evaluator
from inception_tf.data.image import decode_whole, evaluation_levels, to_input
from inception_tf.serving.check import ReferenceImages, agreement_of
from inception_tf.serving.content import METADATA_FILE, Content, Preprocessing
from inception_tf.serving.fold import fold
from inception_tf.serving.formats import ExportError
from inception_tf.serving.loaded import load_export
from inception_tf.serving.signatures import answers_of, classify
from inception_tf.serving.spec import ExportSpec
from inception_tf.serving.writing import write_export

HERE = pathlib.Path(__file__).resolve().parent
SIDE_PX = 32
NAMES = [f"class {index}" for index in range(6)] + ["Käfer"]
CLASSES = len(NAMES)

CROP = {"crop": EvaluationCrop(), "height_px": SIDE_PX, "width_px": SIDE_PX}
decode = functools.partial(decode_evaluation, **CROP)
PREPROCESSING = Preprocessing(
    of_file=decode, of_pixels=lambda pixels: to_input(evaluation_levels(pixels, **CROP))
)


def build_model(*, num_outputs=CLASSES, seed=3):
    inputs = keras.Input([SIDE_PX, SIDE_PX, 3])
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.5, name="drop")(x)
    outputs = {
        "logits": keras.layers.Dense(num_outputs, name="logits")(x),
        "aux_logits": keras.layers.Dense(num_outputs, name="aux")(x),
    }
    model = keras.Model(inputs, outputs)
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if not variable.path.endswith("seed_generator_state"):
            draw = generator.normal(size=variable.shape)
            variable.assign(np.abs(draw) + 0.1 if "variance" in variable.path else draw)
    return model


def values_of(model, scale=1.0):
    """The model's values; with `scale` others than the model holds, as averages are."""

    def scaled(variable):
        return variable.numpy() * np.asarray(scale, variable.dtype)

    return (
        [scaled(variable) for variable in model.trainable_variables],
        [scaled(variable) for variable in model.non_trainable_variables],
    )


def drawn_jpegs(count):
    generator = np.random.default_rng(1)
    jpegs = []
    for _ in range(count):
        coarse = generator.uniform(0, 255, (5, 7, 3)).astype(np.float32)
        pixels = tf.image.resize(coarse, generator.integers(40, 90, 2))
        jpegs.append(tf.io.encode_jpeg(tf.cast(pixels, tf.uint8)).numpy())
    return jpegs


def evaluated(model, values, jpegs, *, background_class=False):
    strategy = tf.distribute.get_strategy()
    evaluator = Evaluator(
        model,
        strategy,
        num_outputs=model.output["logits"].shape[-1],
        background_class=background_class,
    )
    return evaluator.probabilities(tf.stack([decode(jpeg) for jpeg in jpegs]), values)


def export(
    model, values, out_dir, *, class_names=NAMES, metadata=None, background_class=False,
    spec=ExportSpec(top_k=3), reference=None,
):  # fmt: skip
    content = Content(
        class_names=tuple(class_names), background_class=background_class,
        preprocessing=PREPROCESSING, metadata=metadata or {"step": 70},
    )  # fmt: skip
    written = write_export(
        fold(model, values), content, out_dir=out_dir, spec=spec, reference=reference
    )
    return written["saved_model"].path


def difference(path, jpegs, expected):
    """Largest difference of an export's probabilities from the expected ones."""
    found = answers_of(path, "all_probabilities", jpegs)["probabilities"]
    return agreement_of(found, expected).max_difference


@pytest.fixture(scope="module")
def model():
    return build_model()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """(path of the export, values in it, JPEGs, the evaluator's probabilities)."""
    values, jpegs = values_of(model, scale=0.5), drawn_jpegs(20)
    before = [variable.numpy().tobytes() for variable in model.variables]
    expected = evaluated(model, values, jpegs)
    path = export(
        model,
        values,
        tmp_path_factory.mktemp("out"),
        reference=ReferenceImages(files=jpegs, probabilities=expected),
    )
    assert before == [variable.numpy().tobytes() for variable in model.variables]
    return path, values, jpegs, expected


def answers_elsewhere(path, jpegs, directory):
    """What the export answers in a fresh process without this package."""
    inputs, outputs = directory / "jpegs.npy", directory / "answers.npz"
    np.save(inputs, np.array(jpegs, dtype=object), allow_pickle=True)
    # -I and another directory: neither PYTHONPATH nor the checkout is on the path. An editable
    # installation would be, so the script gets the dependencies without the .pth files.
    site = str(pathlib.Path(tf.__file__).parents[1])
    code = f"import sys, runpy; sys.path.append({site!r}); " + (
        "sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    arguments = [str(HERE / "load_and_answer.py"), str(path), str(inputs), str(outputs)]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        cwd=directory,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return np.load(outputs, allow_pickle=True)


def test_a_process_without_the_package_gets_the_evaluators_probabilities(exported, tmp_path):
    path, _, jpegs, expected = exported
    answers = answers_elsewhere(path, jpegs, tmp_path)
    np.testing.assert_allclose(answers["all_probabilities"], expected, rtol=0, atol=1e-5)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :3]
    assert answers["classes"].dtype == np.int64
    assert answers["classes"].tolist() == order.tolist()
    np.testing.assert_allclose(
        answers["probabilities"], np.take_along_axis(expected, order, axis=1), rtol=0, atol=1e-5
    )
    names = [[name.decode("utf-8") for name in image] for image in answers["names"]]
    assert names == [[NAMES[index] for index in image] for image in order]


def test_real_images_give_the_evaluators_probabilities(shared_images, exported):
    path, values, _, _ = exported
    with tarfile.open(shared_images / "imagenet_natural.tar") as archive:
        members = [member for member in archive if member.name.endswith((".JPEG", ".jpg"))][:50]
        jpegs = [archive.extractfile(member).read() for member in members]
    assert len(jpegs) == 50
    assert difference(path, jpegs, evaluated(build_model(), values, jpegs)) <= 1e-5


def test_first_export_is_version_1_and_complete(exported):
    path, *_ = exported
    assert path.name == "1"
    assert sorted(os.listdir(path.parent)) == ["1"]
    about = json.loads((path / METADATA_FILE).read_text(encoding="utf-8"))
    assert about["class_names"] == NAMES and about["step"] == 70
    assert (about["input_height_px"], about["input_width_px"]) == (SIDE_PX, SIDE_PX)


def test_images_that_are_decoded_already_have_a_signature(exported):
    path, _, jpegs, expected = exported
    images = tf.stack([decode(jpeg) for jpeg in jpegs])
    logits = tf.saved_model.load(str(path)).signatures["logits"](images=images)["logits"]
    np.testing.assert_allclose(tf.nn.softmax(logits), expected, rtol=0, atol=1e-5)


def test_classify_names_the_most_probable_classes_first(exported):
    path, _, jpegs, expected = exported
    answers = classify(path.parent, jpegs)
    assert len(answers) == len(jpegs)
    for image, row in zip(answers, expected):
        assert [answer.class_index for answer in image] == np.argsort(-row)[:3].tolist()
        assert image[0].name == NAMES[image[0].class_index]
        assert image[0].probability == pytest.approx(row.max(), abs=1e-5)


def test_no_images_give_no_answers(exported):
    assert classify(exported[0], []) == []
    with pytest.raises(ExportError, match="at least one image"):
        agreement_of(np.zeros([0, CLASSES]), np.zeros([0, CLASSES]))


def test_the_auxiliary_head_stays_behind(exported):
    saved = saved_model_pb2.SavedModel.FromString((exported[0] / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    nodes = [node for function in functions for node in function.node_def]
    # One classifier, in one function that all signatures call, and no batch norm.
    assert sum(node.op == "MatMul" for node in nodes) == 1
    assert sum(node.op == "Conv2D" for node in nodes) == 1
    assert not [node for node in nodes if "BatchNorm" in node.op or "Variable" in node.op]


def test_wrong_weights_are_refused_and_nothing_is_left(model, exported, tmp_path):
    _, values, jpegs, expected = exported
    perturbed = ([value.copy() for value in values[0]], values[1])
    perturbed[0][0][0, 0, 0, 0] += 0.05
    with pytest.raises(ExportError, match="evaluator's probabilities.*bound 1e-05"):
        export(
            model,
            perturbed,
            tmp_path / "out",
            reference=ReferenceImages(files=jpegs, probabilities=expected),
        )
    assert os.listdir(tmp_path / "out") == []


def test_nan_probabilities_are_refused(exported):
    path, _, jpegs, expected = exported
    with pytest.raises(ExportError, match="evaluator's probabilities"):
        difference(path, jpegs, np.full_like(expected, np.nan))


def test_frozen_layers_keep_their_own_values(model, exported, tmp_path):
    """Freezing moves variables to the other list: they must still be told apart."""
    _, values, jpegs, expected = exported
    frozen = keras.models.clone_model(model)
    frozen.get_layer("conv").trainable = False
    by_path = {
        variable.path: value
        for variable, value in zip(
            [*model.trainable_variables, *model.non_trainable_variables], [*values[0], *values[1]]
        )
    }
    frozen_values = tuple(
        [by_path.get(variable.path, variable) for variable in part]
        for part in (frozen.trainable_variables, frozen.non_trainable_variables)
    )
    path = export(frozen, frozen_values, tmp_path)
    assert difference(path, jpegs, expected) <= 1e-5


def test_the_background_output_is_no_class(tmp_path):
    model, jpegs = build_model(num_outputs=CLASSES + 1, seed=9), drawn_jpegs(5)
    expected = evaluated(model, values_of(model), jpegs, background_class=True)
    path = export(
        model, values_of(model), tmp_path, background_class=True, spec=ExportSpec(top_k=50)
    )
    assert difference(path, jpegs, expected) <= 1e-5
    assert expected.shape[1] == CLASSES
    assert np.all(expected.sum(axis=1) < 1)  # the background keeps its share
    for image in classify(path, jpegs):
        assert sorted(answer.class_index for answer in image) == list(range(CLASSES))


def test_names_must_fit_the_outputs(model, tmp_path):
    with pytest.raises(ConfigError, match="6 names for 7 classes"):
        export(model, values_of(model), tmp_path, class_names=NAMES[:6])
    with pytest.raises(ConfigError, match="7 names for 6 classes"):
        export(model, values_of(model), tmp_path, background_class=True)


def test_metadata_must_be_json(model, tmp_path):
    with pytest.raises(ConfigError, match="JSON"):
        export(model, values_of(model), tmp_path / "out", metadata={"step": object()})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "field", [{"weights": "best"}, {"top_k": 0}, {"check_images": -1}], ids=lambda f: next(iter(f))
)
def test_impossible_specs_are_refused(field):
    with pytest.raises(ConfigError, match=f"export.{next(iter(field))}"):
        ExportSpec(**field)
