"""`python -m inception_tf.features`: a folder of images becomes rows and names, from any source."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf import checkpoints, config, features, model_source
from inception_tf.data.image import EvaluationCrop, decode_evaluation
from inception_tf.errors import CheckpointError, ConfigError, DataError
from inception_tf.evaluation.evaluator import Evaluator
from inception_tf.experiment import Experiment
from inception_tf.models.catalog import build_model
from inception_tf.models.inception_v3 import inception_v3
from inception_tf.models.weights.identity import NetworkIdentity
from inception_tf.models.weights.own_format import save_own_weights
from inception_tf.parameters import SECTIONS
from inception_tf.run_directory import RunDirectory, RunFacts
from inception_tf.training.checkpoint import CheckpointStore

SIDE_PX = 75
CLASSES = ("one", "two", "three")
PARAMS = [
    "model.width_multiplier = 0.1",
    "model.block_counts = (1, 1, 1)",
    "evaluation_crop.central_fraction = 0.8",  # not the default: it has to be the run's
]


def randomise(model, seed):
    """Random weights and batch-norm statistics; a drawn network's features are nearly all equal."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith("moving_variance"):
            weight.assign(rng.uniform(0.3, 0.9, weight.shape))
        elif weight.path.endswith(("beta", "moving_mean")):
            weight.assign(rng.normal(0.0, 0.1, weight.shape))


def facts_of_tiny():
    return RunFacts(
        num_classes=len(CLASSES),
        class_names=CLASSES,
        num_examples=9,
        device_kind="CPU",
        intra_op_threads=1,
        deterministic=True,
        topology="",
        kernels={},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(run directory, Experiment, model with the averaged weights, model with the raw ones)."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    resolved = config.resolve(gin_files=["digits.gin"], gin_params=PARAMS, reads=SECTIONS)
    experiment = Experiment(**resolved.sections)
    directory = RunDirectory(path)
    directory.save_config(resolved.text())
    directory.save_facts(facts_of_tiny())
    averaged, raw = (build_model(experiment.model, num_classes=3, seed=seed) for seed in (1, 2))
    values = {"step": np.int64(40)}
    for seed, (group, model) in enumerate({"average": averaged, "model": raw}.items()):
        randomise(model, seed)
        values |= {f"{group}/{weight.path}": weight.value.numpy() for weight in model.weights}
    CheckpointStore.of_run(path).save(step=40, values=values, facts={})
    return path, experiment, averaged, raw


def photograph(number, *, height, width):
    """uint8 [height, width, 3] of slow waves, unlike from number to number."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width] / 40.0
    waves = [np.sin(y * a + x * b + c) for a, b, c in rng.uniform(-3, 3, [3, 3])]
    return np.uint8(127.5 + 127.0 * np.stack(waves, axis=-1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven images of several sizes and formats in two folders, and a file that is none."""
    root = tmp_path_factory.mktemp("images")
    (root / "sub").mkdir()
    for number, name in enumerate(
        ["a.jpg", "b.png", "c.JPEG", "sub/a.jpg", "sub/d.jpg", "x.jpg", "y.jpg"]
    ):
        pixels = photograph(number, height=60 + 13 * number, width=90 - 9 * number)
        encode = tf.io.encode_png if name.endswith("png") else tf.io.encode_jpeg
        (root / name).write_bytes(encode(pixels).numpy())
    (root / "labels.csv").write_text("none\n")
    return root


def images_of(folder):
    return sorted(str(p) for p in folder.rglob("*.*") if p.suffix != ".csv")


def decoded(paths, *, crop, side_px=SIDE_PX):
    """The evaluation's input of image files, one call each."""
    return tf.stack(
        [
            decode_evaluation(tf.io.read_file(p), crop=crop, height_px=side_px, width_px=side_px)
            for p in paths
        ]
    )


def pooled(model, images, endpoint):
    """Means over an endpoint's grid, by plain Keras and NumPy."""
    grid = keras.Model(model.input, model.get_layer(endpoint).output)(images, training=False)
    return np.mean(grid.numpy(), axis=(1, 2), dtype=np.float64)


def door(*arguments):
    return features.main([str(argument) for argument in arguments])


def rows_and_names(out):
    return np.load(out), out.with_name(f"{out.stem}.names.txt").read_text().splitlines()


def assert_close(rows, expected):
    assert rows.shape == expected.shape and rows.dtype == np.float32
    bound = 3e-5 * np.abs(expected).max()
    assert expected.std(axis=0).max() > 100 * bound  # rows in another order would be seen
    np.testing.assert_allclose(rows, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_folder_gives_the_pooled_features_of_the_evaluations_images(
    run, folder, tmp_path, capsys, batch
):
    run_dir, experiment, averaged, _ = run
    out = tmp_path / "f.npy"
    assert door(run_dir, folder, "--out", out, "--batch", batch) == 0
    rows, names = rows_and_names(out)
    assert names == images_of(folder)
    images = decoded(names, crop=experiment.evaluation_crop)
    assert_close(rows, pooled(averaged, images, "Conv2d_7b_1x1"))
    said = capsys.readouterr().out
    assert "averaged weights of" in said and "step 40" in said
    assert "1 other files in the folders were passed over" in said


@pytest.mark.parametrize(
    ("options", "which", "endpoint"),
    [
        (["--weights=raw"], 3, "Conv2d_7b_1x1"),
        (["--weights=averaged", "--endpoint=Mixed_6a"], 2, "Mixed_6a"),
        (["--endpoint=block35_1", "--input_px=96"], 2, "block35_1"),
    ],
)
def test_weights_endpoint_and_size_can_be_chosen(run, folder, tmp_path, options, which, endpoint):
    out = tmp_path / "f.npy"
    assert door(run[0], folder, "--out", out, *options) == 0
    rows, names = rows_and_names(out)
    side_px = 96 if "--input_px=96" in options else SIDE_PX
    model = run[which]
    if side_px != SIDE_PX:
        model = resized(run[1].model, model, side_px)
    images = decoded(names, crop=run[1].evaluation_crop, side_px=side_px)
    assert_close(rows, pooled(model, images, endpoint))


def resized(spec, model, side_px):
    """The same network for images of another size."""
    spec = dataclasses.replace(spec, input_height_px=side_px, input_width_px=side_px)
    other = build_model(spec, num_classes=len(CLASSES))
    other.set_weights(model.get_weights())
    return other


def test_pooling_max_and_none(run, folder, tmp_path):
    _, experiment, averaged, _ = run
    images = decoded(images_of(folder), crop=experiment.evaluation_crop)
    grid = keras.Model(averaged.input, averaged.get_layer("Mixed_6a").output)(images).numpy()
    for pooling, expected in {"max": grid.max(axis=(1, 2)), "none": grid}.items():
        out = tmp_path / f"{pooling}.npy"
        assert door(
            run[0], folder, "--out", out, "--endpoint=Mixed_6a", "--pooling", pooling, "--batch=4"
        ) == 0
        assert_close(np.load(out), expected)


def test_bad_files_are_told_and_left_out_with_status_1(run, folder, tmp_path, capsys):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    good = images_of(folder)
    for number, path in enumerate(good):
        os.link(path, mixed / f"{number}_{os.path.basename(path)}")
    (mixed / "0.jpg").write_bytes(b"")
    (mixed / "3_cut.jpg").write_bytes(open(good[0], "rb").read()[:700])
    (mixed / "9.png").write_text("<html>")
    out = tmp_path / "f.npy"
    assert door(run[0], mixed, "--out", out, "--batch=2") == 1
    rows, names = rows_and_names(out)
    assert [os.path.basename(n) for n in names] == sorted(
        f"{number}_{os.path.basename(path)}" for number, path in enumerate(good)
    )
    images = decoded(names, crop=run[1].evaluation_crop)
    assert_close(rows, pooled(run[2], images, "Conv2d_7b_1x1"))
    told = capsys.readouterr().err
    assert f"left out {mixed / '0.jpg'}: the image is empty" in told
    assert "3_cut.jpg: the JPEG cannot be decoded" in told and "9.png: the image cannot" in told
    assert "3 images could not be read" in told


def test_where_no_image_can_be_read_nothing_is_written(run, tmp_path, capsys):
    (tmp_path / "x.jpg").write_bytes(b"x")
    assert door(run[0], tmp_path / "x.jpg", "--out", tmp_path / "f.npy") == 2
    assert "At least one image must be readable" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]


def test_a_name_of_two_lines_is_left_out(run, folder, tmp_path, capsys):
    for name in ("a\nb.jpg", "c.jpg"):
        os.link(images_of(folder)[0], tmp_path / name)
    out = tmp_path / "f.npy"
    assert door(run[0], tmp_path, "--out", out) == 1
    assert rows_and_names(out)[1] == [str(tmp_path / "c.jpg")]
    assert "line break" in capsys.readouterr().err


def test_endpoints_are_listed_with_their_grids(run, capsys):
    assert door(run[0], "--list_endpoints") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines[0] == ["Conv2d_1a_3x3", "37x37x8"]
    channels = run[2].get_layer("Mixed_6a").output.shape[-1]
    assert ["Mixed_6a", f"3x3x{channels}"] in lines and lines[-1][0] == "Conv2d_7b_1x1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "{folder}"], "Features need images and a place"),
        (["{run}", "--out=f.npy"], "Features need images and a place"),
        (["{run}", "{folder}", "--out=f.npz"], r"\.npy file in a folder that exists"),
        (["{run}", "{folder}/nothing", "--out={tmp}/f.npy"], "files and folders that exist"),
        (["{run}", "{tmp}", "--out={tmp}/f.npy"], "There must be an image"),
        (["{run}", "{folder}", "--out={tmp}/f.npy", "--batch=0"], "at least 1"),
        (["{run}", "{folder}", "--out={tmp}/f.npy", "--endpoint=Mixed_6"], "Did you mean Mixed_6a"),
        (["{run}", "{folder}", "--out={tmp}/f.npy", "--input_px=70"], "at least 75 px"),
        (["{run}", "{folder}", "--out={tmp}/f.npy", "--network=inception_v4"], "own config says"),
        (["{tmp}/none.h5", "{folder}", "--out={tmp}/f.npy"], "must be a file"),
        (["{tmp}/none.h5", "{folder}", "--out={tmp}/f.npy", "--weights=raw"], "of a run directory"),
    ],
)
def test_a_mistake_is_told_with_status_2(run, folder, tmp_path, capsys, arguments, message):
    places = {"run": run[0], "folder": folder, "tmp": tmp_path}
    assert door(*(text.format(**places) for text in arguments)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_does_not_exist_ends_with_status_2(run):
    with pytest.raises(SystemExit) as ended:
        door(run[0], "--pooling=sum")
    assert ended.value.code == 2


def test_the_tool_starts_the_door_and_help_needs_no_tensorflow():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = (
        "import runpy, sys; sys.modules['tensorflow'] = None; sys.argv = ['x', '--help']; "
        "runpy.run_path('tools/extract_features.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "--list_endpoints" in done.stdout, done.stderr


# model_source


def resolve(run):
    return lambda run_dir: run[1]


def test_an_opened_run_answers_as_the_evaluator_does(run, folder):
    run_dir, experiment, averaged, _ = run
    opened = model_source.open_model(run_dir, resolve_run=resolve(run))
    paths = images_of(folder)
    images = tf.stack([opened.decode(tf.io.read_file(path)) for path in paths])
    assert np.array_equal(images, decoded(paths, crop=experiment.evaluation_crop))
    evaluator = Evaluator(averaged, tf.distribute.get_strategy(), num_outputs=3)
    values = averaged.trainable_variables, averaged.non_trainable_variables
    expected = evaluator.probabilities(images, values)
    given = tf.nn.softmax(opened.model(images, training=False)).numpy()
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert expected.std(axis=0).max() > 1e-3
    assert opened.class_names == CLASSES and opened.num_classes == 3 and opened.step == 40
    assert (opened.network, opened.variant) == ("inception_resnet_v2", "released")
    assert not opened.background_class


def test_a_run_with_auxiliary_head_is_opened_without_it(run, tmp_path):
    _, experiment, averaged, _ = run
    spec = dataclasses.replace(experiment.model, aux_head=True)
    experiment = dataclasses.replace(experiment, model=spec)
    source = build_model(spec, num_classes=3)
    directory = RunDirectory(tmp_path)
    directory.save_config("")
    directory.save_facts(RunDirectory(run[0]).read_facts())
    values = {f"model/{weight.path}": weight.value.numpy() for weight in source.weights}
    CheckpointStore.of_run(tmp_path).save(step=1, values=values, facts={})
    opened = model_source.open_model(tmp_path, resolve_run=lambda _: experiment, input_px=80)
    assert opened.model.output.shape == (None, 3) and opened.input_width_px == 80
    assert "raw weights (it keeps no averages)" in opened.what


def test_a_damaged_newest_checkpoint_is_told(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    store = CheckpointStore.of_run(tmp_path / "run")
    info, _ = store.newest_verified()
    store.save(step=50, values=store.read(info), facts={})
    (data,) = (tmp_path / "run/checkpoints/step-000000050").glob("variables.data*")
    data.write_bytes(data.read_bytes()[:-1])
    opened = model_source.open_model(tmp_path / "run", resolve_run=resolve(run))
    assert opened.step == 40 and any("step-000000050" in note for note in opened.notes)
    for entry in (tmp_path / "run/checkpoints").glob("step-*"):
        shutil.rmtree(entry)
    with pytest.raises(CheckpointError, match="checkpoint that verifies"):
        model_source.open_model(tmp_path / "run", resolve_run=resolve(run))


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """(file of a narrow Inception-v3 of this project, its model)."""
    options = {"width_multiplier": 0.1, "batch_norm_scale": True}
    model = inception_v3(num_classes=5, input_shape=(SIDE_PX, SIDE_PX, 3), **options)
    randomise(model, 3)
    path = tmp_path_factory.mktemp("weights") / "narrow.weights.h5"
    identity = NetworkIdentity(
        network="inception_v3",
        variant="released",
        num_outputs=5,
        background_class=True,
        options=options,
    )
    save_own_weights(model, path, identity=identity)
    return path, model


def test_features_of_a_file_of_weights(weights_file, folder, tmp_path):
    path, model = weights_file
    out = tmp_path / "f.npy"
    assert door(path, folder, "--out", out, f"--input_px={SIDE_PX}") == 0
    rows, names = rows_and_names(out)
    images = decoded(names, crop=EvaluationCrop())
    assert_close(rows, pooled(model, images, "Mixed_7c"))


@pytest.mark.parametrize("ending", [".weights.h5", ".safetensors"])
@pytest.mark.parametrize("kind", ["averaged", "raw"])
def test_a_converted_run_gives_the_runs_features(run, folder, tmp_path, capsys, ending, kind):
    file, out = tmp_path / f"w{ending}", tmp_path / "file.npy"
    convert = ["convert", str(run[0]), "--out", str(file), "--weights", kind]
    assert checkpoints.main(convert) == 0
    assert door(file, folder, "--out", out) == 0
    assert "do not say" not in capsys.readouterr().out
    rows, names = rows_and_names(out)
    assert door(run[0], folder, "--out", out, "--weights", kind) == 0
    assert "in place of what was there" in capsys.readouterr().out
    expected = rows_and_names(out)
    np.testing.assert_array_equal(rows, expected[0])
    assert names == expected[1]


def test_a_converted_run_keeps_what_its_tensors_do_not_show(tmp_path):
    params = ["model.width_multiplier = 0.1", "model.block_counts = (1, 1, 2)",
              "model.residual_scales = (1.0, 0.5, 0.3)", "model.batch_norm_epsilon = 0.3",
              "model.background_class = True", "model.aux_head = False",
              "model.input_width_px = 83"]  # fmt: skip
    resolved = config.resolve(gin_files=["digits.gin"], gin_params=params, reads=SECTIONS)
    spec = resolved.sections["model"]
    model = build_model(spec, num_classes=3)
    randomise(model, 5)
    directory = RunDirectory(tmp_path / "run")
    directory.save_config(resolved.text())
    directory.save_facts(facts_of_tiny())
    values = {f"model/{weight.path}": weight.value.numpy() for weight in model.weights}
    CheckpointStore.of_run(directory.path).save(step=1, values=values, facts={})
    images = tf.random.stateless_uniform((2, 75, 83, 3), [0, 1], -1.0, 1.0)
    for ending in (".weights.h5", ".safetensors"):
        file = str(tmp_path / f"w{ending}")
        convert = ["convert", str(directory.path), "--out", file, "--weights=raw"]
        assert checkpoints.main(convert) == 0
        opened = model_source.open_model(file, resolve_run=None)
        np.testing.assert_array_equal(opened.model(images), model(images))
        assert (opened.num_classes, opened.background_class) == (3, True)
        assert (opened.input_height_px, opened.input_width_px) == (75, 83)
        assert opened.crop == resolved.sections["evaluation_crop"]


def test_a_file_of_weights_says_its_network_and_classes(weights_file):
    opened = model_source.open_model(weights_file[0], resolve_run=None)
    assert (opened.network, opened.variant) == ("inception_v3", "released")
    assert (opened.num_classes, opened.background_class) == (4, True)
    assert opened.class_names is None and opened.step is None
    assert opened.model.input.shape == (None, 299, 299, 3)
    assert opened.crop == EvaluationCrop()
    assert "images of them are 299x299 px, the crop slim_tf1 of 87.5%" in opened.notes[0]
    with pytest.raises(ConfigError, match="variant of inception_v3"):
        model_source.open_model(weights_file[0], resolve_run=None, variant="paper")
    with pytest.raises(DataError, match="must be of the model's network"):
        model_source.open_model(weights_file[0], resolve_run=None, network="inception_resnet_v2")


def test_a_crop_that_there_is_not_is_an_error_of_its_file(weights_file, tmp_path):
    for number, crop in enumerate(
        ({"central_fraction": 7}, {"central_fraction": "x"}, {"recipe": []}, {"other": 1})
    ):
        identity = NetworkIdentity(
            network="inception_v3", evaluation_crop=crop, options={"width_multiplier": 0.1}
        )
        path = tmp_path / f"{number}.weights.h5"
        save_own_weights(weights_file[1], path, identity=identity)
        with pytest.raises(DataError, match="evaluation crop"):
            model_source.open_model(path, resolve_run=None)


def test_weights_without_a_classifier_are_opened_without_top(tmp_path):
    model = inception_v3(include_top=False, width_multiplier=0.1, input_shape=(75, 75, 3))
    identity = NetworkIdentity(network="inception_v3", options={"width_multiplier": 0.1})
    save_own_weights(model, tmp_path / "trunk.weights.h5", identity=identity)
    opened = model_source.open_model(tmp_path / "trunk.weights.h5", resolve_run=None, input_px=75)
    assert opened.num_classes is None and opened.model.output.shape[-1] == model.output.shape[-1]


@pytest.mark.slow
def test_published_weights_of_keras_give_keras_own_features(folder, tmp_path):
    """The whole network, its weights in keras.applications' file, against its own forward pass."""
    theirs = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(SIDE_PX, SIDE_PX, 3), pooling="avg"
    )
    randomise(theirs, 4)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    out = tmp_path / "f.npy"
    arguments = ["--out", out, f"--input_px={SIDE_PX}"]
    assert door(tmp_path / "theirs.weights.h5", folder, *arguments) == 0
    rows, names = rows_and_names(out)
    assert_close(rows, theirs(decoded(names, crop=EvaluationCrop()), training=False).numpy())


def test_real_photographs_and_odd_files(run, shared_images, tmp_path, capsys):
    with tarfile.open(shared_images / "imagenet_natural.tar") as archive:
        members = [m for m in archive.getmembers() if m.name.endswith(".JPEG")][:20]
        archive.extractall(tmp_path / "images", members=members, filter="data")
    odd = shared_images / "odd_images"
    out = tmp_path / "f.npy"
    assert door(run[0], tmp_path / "images", odd, "--out", out, "--batch=8") == 1
    rows, names = rows_and_names(out)
    assert names[:20] == images_of(tmp_path / "images")
    told = capsys.readouterr().err
    for name in ("crafted/empty", "crafted/truncated_half", "crafted/huge_dimensions_65500",
                 "crafted/text_named_jpeg", "pillow/broken", "pillow/truncated_jpeg"):  # fmt: skip
        assert name not in " ".join(names) and f"left out {odd / name}" in told
    for name in ("crafted/png_named_jpeg", "crafted/cmyk", "crafted/one_pixel", "crafted/gray"):
        assert name in " ".join(names)
    assert_close(
        rows, pooled(run[2], decoded(names, crop=run[1].evaluation_crop), "Conv2d_7b_1x1")
    )
