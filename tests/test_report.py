"""The report door: what it reads of runs and evaluation files, and what it refuses."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import config, report, report_sources, run_config
from inception_tf.claims import results
from inception_tf.claims.spec import ClaimSpec
from inception_tf.data.build import build_records
from inception_tf.data.sources import FolderSource
from inception_tf.errors import EXIT_USER_ERROR, ConfigError
from inception_tf.parameters import SECTIONS
from inception_tf.reporting import page_tables, published
from inception_tf.reporting.page_contents import Measured, MeasuredNetwork, Share
from inception_tf.run_directory import STARTS_FILE, RunDirectory, RunFacts, Start
from tests.data.conftest import write_folder

CLASSES = ("ant", "bee", "cow")
TRAIN = {"train/loss_nats": 1.0, "train/learning_rate": 0.045, "perf/unix_secs": 1.7e9}
EVAL = {"eval_averaged/top1": 0.5, "eval_averaged/top5": 1.0, "eval/top1": 0.4, "eval/top5": 1.0}


@pytest.fixture(scope="module")
def built_records(tmp_path_factory):
    """14 images to train and 6 to evaluate, of CLASSES."""
    folder = tmp_path_factory.mktemp("report")
    build_records(FolderSource(write_folder(folder / "images")), folder / "records")
    return folder / "records"


@functools.cache
def resolved(name, *gin_params):
    return config.resolve(gin_files=[name], gin_params=gin_params, reads=tuple(SECTIONS))


def make_run(path, *gin_params, rows=(), starts=(), has_facts=True):
    """A run directory as a run of `digits.gin` on 160 images leaves it."""
    directory = RunDirectory(path)
    directory.save_config(resolved("digits.gin", *gin_params).text())
    if has_facts:
        directory.save_facts(
            RunFacts(
                num_classes=3, class_names=CLASSES, num_examples=160, device_kind="CPU",
                intra_op_threads=1, deterministic=True, topology="", kernels={},
            )
        )  # fmt: skip
    lines = [row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows]
    (path / "metrics.jsonl").write_text("".join(lines))
    for start in starts:
        directory.add_start(start)
    return path


def start(step, secs):
    return Start(step=step, unix_secs=1.7e9 + secs, num_workers=1, num_devices=1)


def evaluation(source, data_dir, **changes):
    """The content of an evaluation file: 6 images of 3 classes, ants all wrong, half the bees."""
    classes = [
        {"index": i, "name": name, "num_examples": 2, "top1_count": i, "top5_count": 2}
        for i, name in enumerate(CLASSES)
    ]
    confusion = {"label": 0, "label_name": "ant", "predicted": 2, "predicted_name": "cow",
                 "count": 2, "label_examples": 2}  # fmt: skip
    share = {"count": 3, "error": 0.5, "error_interval": [0.2, 0.8]}
    subset = {"subset": "all", "labels": "original", "num_examples": 6, "top1": share,
              "top5": share, "classes": classes, "confusions": [confusion]}  # fmt: skip
    network = {"source": str(source), "what": f"averaged weights of {source} at step 9: x, y",
               "weights": "averaged", "step": 9, "details": {}}  # fmt: skip
    model = {"title": f"{source} averaged", "is_ensemble": False, "crops": "1_recipe",
             "num_crops": 1, "average": "probabilities", "networks": [network],
             "subsets": [subset]}  # fmt: skip
    data = {"data_dir": str(data_dir), "split": "validation", "num_classes": 3}
    content = {"format": "inception_tf.evaluation", "version": 1, "data": data, "models": [model]}
    return json.dumps({**content, **changes})


def gather(*runs, evaluations=(), data_dir=None):
    return report_sources.gather(
        list(map(str, runs)),
        list(map(str, evaluations)),
        resolve=run_config.resolve_saved,
        differences_from_paper=run_config.differences_from_paper,
        data_dir=data_dir,
    )


def test_a_run_is_read_with_its_rows_restarts_and_length(tmp_path):
    rows = [
        {"step": 5, "kind": "train", **TRAIN},
        {"step": 5, "kind": "eval", **EVAL},
        {"step": 6, "kind": "train", **TRAIN, "train/loss_nats": "NaN"},
        '{"kind": "train", "step": 7, "tra',  # a kill left it so
    ]
    made = make_run(tmp_path / "run", rows=rows, starts=[start(0, 0), start(4, 60)])
    (tmp_path / "run" / "evaluations").mkdir()
    counted = {"eval_averaged/top1": 0.1, "eval_averaged/top1_without_blacklist": 0.6}
    watched = [{"step": step, "kind": "eval", **EVAL, **counted} for step in (3, 5)]
    (made / "evaluations" / "metrics.jsonl").write_text("\n".join(map(json.dumps, watched)) + "\n")
    found = gather(made)
    (run,) = found.runs
    assert (run.label, run.network, run.num_classes) == ("run", "inception_resnet_v2", 3)
    # 160 images, 64 a step, 30 epochs
    assert (run.steps_per_epoch, run.total_steps, run.last_step) == (2.5, 75, 6)
    assert [row["step"] for row in run.train_rows] == [5, 6]
    assert [row["step"] for row in run.eval_rows] == [3, 5]
    assert [row["eval_averaged/top1"] for row in run.eval_rows] == [0.1, 0.5]
    assert all("eval_averaged/top1_without_blacklist" in row for row in run.eval_rows)
    assert run.begun_secs == 1.7e9
    assert [(one.step, one.unix_secs) for one in run.restarts] == [(4, 1.7e9 + 60)]
    assert ("model.input_height_px", 299, 75) in run.differences
    assert found.notes == ()


def test_a_run_that_has_only_begun_or_is_old_is_read_too(tmp_path):
    row = {"step": 1, "kind": "train", "train/loss_nats": 1.0}
    old = make_run(tmp_path / "old", rows=[row])
    new = make_run(tmp_path / "new", has_facts=False)
    damaged = make_run(tmp_path / "damaged")
    (damaged / STARTS_FILE).write_text("no JSON\n")
    found = gather(old, new, damaged)
    assert [run.restarts for run in found.runs] == [(), (), ()]
    assert (found.runs[1].total_steps, found.runs[1].steps_per_epoch) == (None, None)
    said = "\n".join(found.notes)
    assert "old: rows without wall time" in said and "damaged: restarts are not shown" in said


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / place / "run") for place in ("a", "b")]
    other = make_run(tmp_path / "a" / "other")
    assert [run.label for run in gather(*runs, other).runs] == ["a/run", "b/run", "other"]
    with pytest.raises(ConfigError, match="Every run is given once"):
        gather(runs[0], tmp_path / "b" / ".." / "a" / "run")


def test_the_worst_classes_come_with_their_own_images(tmp_path, built_records):
    made = make_run(tmp_path / "run")
    (made / "evaluations").mkdir()
    (made / "evaluations" / "step.json").write_text(evaluation(made, built_records))
    found = gather(made)
    (worst,) = found.worst
    assert [(one.name, one.num_wrong) for one in worst.classes] == [("ant", 2), ("bee", 1)]
    assert worst.classes[0].taken_for == (("cow", 2),)
    ants = [tf.io.decode_jpeg(image).numpy().astype(int) for image in worst.classes[0].images]
    expected = [tf.io.decode_jpeg(tf.io.encode_jpeg(pixels, quality=95)) for pixels in ant_images()]
    assert len(ants) == 2
    for image in ants:  # in the records' own order
        assert min(np.abs(image - other.numpy()).mean() for other in expected) < 4
    (measured,) = found.measured
    assert (measured.label, measured.step, measured.num_examples) == ("run", 9, 6)
    network = measured.networks[0]
    assert (network.name, network.input_px) == ("inception_resnet_v2", (75, 75))


def ant_images():
    """The validation ants of the folder that the records were built from."""
    for number in range(2):
        y, x = np.mgrid[:40, :48] / 16.0
        waves = [np.sin(x * (1 + c) + number) * np.cos(y + c * number) for c in range(3)]
        yield np.rint(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


def test_what_lacks_for_the_worst_classes_is_said(tmp_path, built_records):
    made = make_run(tmp_path / "run")
    (worst,) = gather(made).worst
    assert worst.classes == () and f"python -m inception_tf.evaluate {made}" in worst.note
    (made / "evaluations").mkdir()
    (made / "evaluations" / "step.json").write_text(evaluation(made, tmp_path / "gone"))
    (worst,) = gather(made).worst
    assert len(worst.classes) == 2 and worst.classes[0].images == ()
    assert "--data_dir" in worst.note
    (worst,) = gather(made, data_dir=str(built_records)).worst
    assert len(worst.classes[0].images) == 2 and worst.note == ""


def test_evaluations_that_lie_in_no_run_are_taken_by_file_and_by_directory(tmp_path, capsys):
    text = evaluation("keras:inception_v3", tmp_path / "gone")
    text = text.replace(": x, y", ": inception_v3, released").replace('"averaged"', '""')
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "other.json").write_text("{}")
    for place in (tmp_path, tmp_path / "a.json"):
        (measured,) = gather(evaluations=[place]).measured
        network = measured.networks[0]
        assert (network.name, network.variant) == ("inception_v3", "released")
        assert measured.label == "" and network.recipe is None
    assert "other.json" in gather(evaluations=[tmp_path]).notes[0]
    (tmp_path / "newer.json").write_text(evaluation("x", "y", version=2))
    (tmp_path / "less.json").write_text(evaluation("x", "y").replace('"num_crops"', '"num"'))
    for wrong in ("other.json", "nothing", "newer.json", "less.json"):
        wrong = tmp_path / wrong
        given = [f"--evaluations={wrong}", f"--out={tmp_path / 'out'}"]
        assert report.main(given) == EXIT_USER_ERROR
        assert str(wrong) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_is_refused_with_a_remedy(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert f"{tmp_path}, which holds no config.gin" in said and "--evaluations" in said
    assert report.main([]) == EXIT_USER_ERROR
    assert "runs/NAME" in capsys.readouterr().err


def test_the_page_of_a_run_is_written_where_the_command_says(tmp_path, capsys):
    rows = [{"step": 5, "kind": "train", **TRAIN}, {"step": 5, "kind": "eval", **EVAL}]
    made = make_run(tmp_path / "run", rows=rows, starts=[start(0, -9)])
    assert report.main([str(made), f"--out={tmp_path / 'a'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a' / 'index.html'}\n"
    assert "50.00%" in (tmp_path / "a" / "index.html").read_text()


LADDER = {
    "ladder/1_inception_v2": "Inception-v2",
    "ladder/2_rmsprop": "Inception-v2, RMSProp",
    "ladder/3_label_smoothing": "Inception-v2, Label Smoothing",
    "ladder/4_factorized_7x7": "Inception-v2, Factorized 7x7",
    "ladder/5_bn_auxiliary": "Inception-v2, BN-auxiliary = Inception-v3",
    "v3": "Inception-v2, BN-auxiliary = Inception-v3",
    "receptive_field/79": "79 x 79",
    "receptive_field/151": "151 x 151",
    "receptive_field/299": "299 x 299",
    "v4": "Inception-v4",
    "v4_paper": "Inception-v4",
    "irv1": "Inception-ResNet-v1",
    "irv2": "Inception-ResNet-v2",
    "irv2_paper": "Inception-ResNet-v2",
}


@pytest.mark.parametrize("name", LADDER)
def test_a_run_of_a_papers_config_stands_on_its_own_line_alone(name):
    recipe = report_sources.complete_recipe(resolved(f"{name}.gin"))
    network = MeasuredNetwork(
        source="run", name=recipe["model.name"], variant=recipe["model.variant"],
        input_px=(recipe["model.input_height_px"], recipe["model.input_width_px"]),
        weights="averaged", recipe=recipe,
    )  # fmt: skip
    share = Share(error=0.2, low=0.1, high=0.3)
    one = Measured(
        label="run", title="run", step=1, networks=(network,), crops="1_recipe", num_crops=1,
        average="probabilities", subset="without_blacklist", labels="original",
        num_examples=48_238, num_classes=1000, top1=share, top5=share, path="x",
    )  # fmt: skip
    lines = {
        row.name
        for table in published.TABLES
        for row in table.rows
        if page_tables.measured_for(row, table, [one])
    }
    plain = {"Inception-v3"} if LADDER[name].endswith("Inception-v3") else set()
    assert lines == {LADDER[name]} | plain


def test_claims_are_shown_with_their_verdict_and_numbers(tmp_path):
    spec = ClaimSpec(
        number=3, title="a < b & c", source="section 3", criterion="a ends below",
        arms={"a": ("x.gin",)}, seeds=(0, 1, 2), checks=("final_error[a] < 0.2",),
    )  # fmt: skip
    runs = [{"seed": n, "measures": {"final_error": 0.25}, "curves": {}} for n in range(3)]
    facts = {"command": "python tools/reproduce.py 3", "date": "2026-01-01", "machine": "m"}
    arms = [{"name": "a", "multiply_adds": 10**6, "runs": runs}]
    results.save(tmp_path / "claim_3.json", results.outcome(spec, arms) | facts)
    assert report.main(["--claims", str(tmp_path), "--out", str(tmp_path / "page")]) == 0
    text = (tmp_path / "page" / "index.html").read_text()
    assert "Claim 3: a &lt; b &amp; c: failed" in text
    assert "no: final_error[a] &lt; 0.2: 0.250 against 0.200" in text
    assert text.count("data:image/png") == 1
    with pytest.raises(ConfigError, match="reproduce.py wrote"):
        report_sources.gather(
            [], [], resolve=None, differences_from_paper=None, claims_dir=tmp_path / "page"
        )
