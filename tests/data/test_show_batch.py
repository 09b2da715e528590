"""`python -m inception_tf.show_batch`: the sheet holds the very pixels of the step."""

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import config as configs
from inception_tf import show_batch
from inception_tf.data import build, image, order, sources
from inception_tf.data.manifest import open_index
from inception_tf.data.records import RecordReader
from inception_tf.errors import EXIT_USER_ERROR
from inception_tf.parameters import SECTIONS
from inception_tf.reporting import contact_sheet
from inception_tf.run_directory import RunDirectory

CONFIG = """
model.input_height_px = 120
model.input_width_px = 130
model.background_class = {background}
training.num_steps = 10
training.num_replicas = 3
training.replica_batch = 2
training.seed = 5
augmentation.color = 'fast'
evaluation.replica_batch = 4
evaluation_crop.recipe = 'keras_timm'
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text(CONFIG.format(background=True))
    return path


@pytest.fixture
def sheet(monkeypatch):
    """What is written on the sheets: images, captions, title."""
    seen = []
    real = contact_sheet.write_contact_sheet

    def write(path, images, captions, *, title):
        seen.append((images, captions, title))
        return real(path, images, captions, title=title)

    monkeypatch.setattr(contact_sheet, "write_contact_sheet", write)
    return seen


def run(config, records, out, *arguments):
    given = [f"--gin_file={config}", f"--data_dir={records}", f"--out={out}", *arguments]
    return show_batch.main(given)


def reader_of(records, split):
    manifest, index = open_index(records, split, cache_dir=records)
    return RecordReader(index, manifest), manifest


def test_the_sheet_shows_the_images_of_the_step(config, built_records, tmp_path, sheet, capsys):
    out = tmp_path / "sheet.png"
    assert run(config, built_records, out, "--step=4", "--count=8") == 0
    ((images, captions, title),) = sheet
    reader, manifest = reader_of(built_records, "train")
    positions = np.arange(24, 32)  # 6 images a step
    ids = order.record_ids(positions, seed=5, num_examples=reader.num_examples).numpy()
    jpegs, labels = reader.read(ids)
    for found, jpeg, position in zip(images, jpegs, positions, strict=True):
        expected = image.decode_training(
            tf.constant(jpeg),
            tf.constant([5, position], tf.int64),
            augmentation=image.Augmentation(color="fast"),
            height_px=120,
            width_px=130,
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)
    # What the reader gives counts from 0, the records' labels from 1.
    names = manifest.class_names
    assert captions == [f"{label + 1} {names[label]}" for label in labels]
    assert "mine: train" in title and "step 4, positions 24 to 31" in title
    printed = capsys.readouterr().out
    assert "8 images" in printed
    assert "labels from 1, as the records have them; the network's output is the same" in printed
    assert_holds(out, images)


def assert_holds(path, images):
    """Each image stands on the sheet, pixel for pixel, from left to right and top to bottom."""
    sheet = tf.io.decode_png(path.read_bytes(), channels=3).numpy().astype(int)
    last = -1
    for one in np.rint((images + 1) * 127.5).astype(int):
        height, width = one.shape[:2]
        starts = np.argwhere((sheet[: -height + 1, : -width + 1] == one[0, 0]).all(-1))
        places = [
            top * sheet.shape[1] + left
            for top, left in starts
            if np.array_equal(sheet[top : top + height, left : left + width], one)
        ]
        assert places and max(places) > last
        last = places[0]


def test_the_evaluation_is_shown_to_its_last_image(
    config, built_records, tmp_path, sheet, capsys
):
    out = tmp_path / "sheet.png"
    without_background = "--gin_param=model.background_class = False"
    assert run(config, built_records, out, "--split=eval", "--step=1", without_background) == 0
    ((images, captions, title),) = sheet
    reader, manifest = reader_of(built_records, "validation")
    assert reader.num_examples == 6  # of which the first batch has 4
    jpegs, labels = reader.read(np.array([4, 5]))
    crop = image.EvaluationCrop(recipe="keras_timm")
    for found, jpeg in zip(images, jpegs, strict=True):
        expected = image.decode_evaluation(jpeg, crop=crop, height_px=120, width_px=130)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    # The numbers of `records check`, whatever the network's outputs are.
    assert captions == [f"{label + 1} {manifest.class_names[label]}" for label in labels]
    assert "labels from 1, as the records have them; the network's output is the label less 1" in (
        capsys.readouterr().out
    )
    assert "batch 1, records 4 to 5; keras_timm" in title


def test_labels_from_0_are_shown_from_0(config, image_folder, tmp_path, sheet, capsys):
    out = tmp_path / "records"
    build.build_records(sources.FolderSource(image_folder), out, label_base=0, processes=1)
    assert run(config, out, tmp_path / "sheet.png", "--count=5", "--split=eval") == 0
    ((_, captions, _),) = sheet
    reader, manifest = reader_of(out, "validation")
    _, labels = reader.read(np.arange(5))
    assert captions == [f"{label} {manifest.class_names[label]}" for label in labels]
    assert "labels from 0, as the records have them; the network's output is the label plus 1" in (
        capsys.readouterr().out
    )


def test_a_run_shows_what_its_saved_config_says(config, built_records, tmp_path, sheet):
    assert run(config, built_records, tmp_path / "of_file.png", "--count=2") == 0
    resolved = configs.resolve(gin_files=[config], reads=tuple(SECTIONS))
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.save_config(resolved.text())
    arguments = [f"--run_dir={directory.path}", f"--data_dir={built_records}", "--count=2"]
    assert show_batch.main([*arguments, f"--out={tmp_path / 'of_run.png'}"]) == 0
    np.testing.assert_array_equal(sheet[0][0], sheet[1][0])


def test_small_images_are_enlarged_by_whole_pixels(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, [3, 10, 16, 3]).astype(np.float32)
    out = tmp_path / "sheet.png"
    captions = [r"$\frac$", "_" * 200, "grün"]  # no formula, cut off, not ASCII
    width, height = contact_sheet.write_contact_sheet(out, images, captions, title="three")
    assert tf.io.decode_png(out.read_bytes()).shape[:2] == (height, width)
    assert_holds(out, images.repeat(7, axis=1).repeat(7, axis=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split=eval", "--step=2"], "begins at record 8 of 6"),
        (["--count=0"], "--count at least 1"),
        (["--step=-1"], "--step must be at least 0"),
        (["--run_dir=runs/x"], "of a file or of a run"),
        (["--out=sheet.jpg"], ".png file"),
        (["--data_dir=/nowhere"], "/nowhere"),
        (["--gin_param=augmentation.colour = 'full'"], "augmentation.color"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    arguments, message, config, built_records, tmp_path, capsys
):
    assert run(config, built_records, tmp_path / "sheet.png", *arguments) == EXIT_USER_ERROR
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))


def test_a_damaged_record_is_named(config, records, tmp_path, capsys):
    shard = records / "train-00001-of-00003"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert run(config, records, tmp_path / "sheet.png", "--count=14") == EXIT_USER_ERROR
    assert "train-00001-of-00003" in capsys.readouterr().err
