"""Runs that begin with the weights of another: what they take, leave, and no longer need."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import config, evaluations, experiment, initial_weights, preparation, run_config
from inception_tf.data.build import build_records
from inception_tf.data.sources import FolderSource
from inception_tf.errors import CheckpointError, ConfigError, DataError
from inception_tf.models import catalog
from inception_tf.models.weights.identity import identity_of_spec
from inception_tf.models.weights.own_format import save_own_weights
from inception_tf.parameters import SECTIONS
from inception_tf.run_directory import RunDirectory
from inception_tf.training.checkpoint import CheckpointStore

SOURCE_CLASSES = ("ash", "birch", "cedar")
OTHER_CLASSES = ("dog", "emu")
SMALL = (
    "model.width_multiplier = 0.05",
    "model.block_counts = (1, 1, 1)",
    "training.num_epochs = None",
    "training.num_steps = 4",
    "training.num_replicas = 1",
    "training.replica_batch = 4",
    "checkpoints.every_steps = 2",
    "evaluation.every_epochs = None",
    "evaluation.replica_batch = 4",
    "export.check_images = 2",
)


@pytest.fixture(scope="module", autouse=True)
def one_device(cluster):
    """Every run of these tests is in this process, on its one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "join_cluster", lambda experiment, directory: cluster)
        yield cluster


def records(folder, classes):
    """Records of random images, 8 to train and 3 to evaluate in each class."""
    rng = np.random.default_rng(len(classes))
    for split, count in (("train", 8), ("val", 3)):
        for name in classes:
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = tf.constant(rng.integers(0, 256, size=(80, 80, 3)), tf.uint8)
                path = folder / "images" / split / name / f"{number}.jpg"
                path.write_bytes(tf.io.encode_jpeg(pixels).numpy())
    build_records(FolderSource(folder / "images"), folder / "records", processes=1)
    return folder / "records"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Number of classes -> records."""
    folder = tmp_path_factory.mktemp("data")
    return {
        len(classes): records(folder / str(len(classes)), classes)
        for classes in (SOURCE_CLASSES, OTHER_CLASSES)
    }


def resolve(data_dir, *params):
    bindings = {text.split(" =")[0]: text for text in [*SMALL, *params]}
    return config.resolve(
        gin_files=["digits"],
        gin_params=bindings.values(),
        overrides={"data.data_dir": str(data_dir)},
        reads=SECTIONS,
    )


def prepare(data_dir, run_dir, *params):
    """A run that is ready for its next step."""
    resolved = resolve(data_dir, *params)
    declared = experiment.Experiment(**resolved.sections)
    directory = RunDirectory(run_dir)
    cluster = preparation.join_cluster(declared, directory)
    return preparation.prepare(declared, directory, cluster, is_synthetic=False)


def train(data_dir, run_dir, *params):
    resolved, _ = run_config.reconcile(resolve(data_dir, *params), run_dir)
    return experiment.train(
        experiment.Experiment(**resolved.sections),
        run_dir=run_dir,
        config_text=resolved.text(),
        start_values=resolved.plain_values(),
        recipe_hash=resolved.recipe_hash(),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory, data):
    """(run directory, its variables): every one random, averages and slots unlike the weights."""
    run_dir = tmp_path_factory.mktemp("source") / "run"
    prepared = prepare(data[3], run_dir)
    rng = np.random.default_rng(0)

    def drawn(name, value):
        # Small enough for activations that stay finite; a variance is positive.
        offset = 1.0 if name.endswith("moving_variance") else 0.0
        return (rng.uniform(-0.1, 0.1, size=value.shape) + offset).astype(value.dtype)

    values = {name: drawn(name, value) for name, value in prepared.state.values().items()}
    directory = RunDirectory(run_dir)
    directory.save_config(resolve(data[3]).text())
    cluster = preparation.join_cluster(None, directory)
    directory.save_facts(preparation.facts_of(prepared.experiment, prepared.inputs, cluster))
    CheckpointStore.of_run(run_dir).save(step=7, values=values, facts={})
    return run_dir, values


def init_from(place):
    return f"training.init_from = '{place}'"


NEW_HEAD = "training.new_head = True"


# -- what a run takes ------------------------------------------------------------------------------


def test_weights_and_averages_are_the_sources_averages_and_the_slots_are_new(
    source, data, tmp_path
):
    run_dir, values = source
    prepared = prepare(data[3], tmp_path / "run", init_from(run_dir))
    fresh = prepare(data[3], tmp_path / "fresh").state.values()
    assert prepared.start_step == 0
    found = prepared.state.values()
    assert any(name.startswith("model/") for name in found)
    for name, value in found.items():
        kind, _, path = name.partition("/")
        wanted = values[f"average/{path}"] if kind in ("model", "average") else fresh[name]
        assert value.tobytes() == wanted.tobytes(), name


def test_a_frozen_stage_has_the_sources_weights_too(source, data, tmp_path):
    run_dir, values = source
    freeze = "variables.freeze_up_to = 'Mixed_6a'"
    found = prepare(data[3], tmp_path / "run", init_from(run_dir), freeze).state.values()
    name = "Conv2d_1a_3x3/moving_mean"
    assert f"average/{name}" not in found
    assert found[f"model/{name}"].tobytes() == values[f"average/{name}"].tobytes()


def test_a_new_head_is_the_seeds_and_the_rest_is_the_sources(source, data, tmp_path):
    run_dir, values = source
    prepared = prepare(data[2], tmp_path / "run", init_from(run_dir), NEW_HEAD)
    drawn = prepare(data[2], tmp_path / "drawn").state.values()
    for name, value in prepared.state.values().items():
        kind, _, path = name.partition("/")
        if path.startswith("Logits"):
            assert value.tobytes() == drawn[name].tobytes(), name
        elif kind in ("model", "average"):
            assert value.tobytes() == values[f"average/{path}"].tobytes(), name
    assert prepared.state.values()["model/Logits/kernel"].shape[-1] == 2
    for text in (f"averaged weights of {run_dir} at step 7", "Logits/bias", "new head"):
        assert text in prepared.imported


def test_a_file_of_weights_is_taken_as_it_is(data, tmp_path):
    spec = resolve(data[3]).sections["model"]
    model = catalog.build_model(spec, num_classes=3, seed=5)
    identity = identity_of_spec(spec, num_classes=3, evaluation_crop=None)
    path = tmp_path / "mine.weights.h5"
    save_own_weights(model, path, identity=identity)
    found = prepare(data[3], tmp_path / "run", init_from(path)).state.values()
    for variable in model.weights:
        if not variable.path.endswith("seed_generator_state"):
            value = variable.value.numpy()
            assert found[f"model/{variable.path}"].tobytes() == value.tobytes(), variable.path
            assert found[f"average/{variable.path}"].tobytes() == value.tobytes(), variable.path


# -- what it refuses -------------------------------------------------------------------------------


def test_another_number_of_classes_asks_for_a_new_head(source, data, tmp_path):
    with pytest.raises(ConfigError, match=r"3 classes in .*, 2 in the data\. training.new_head"):
        prepare(data[2], tmp_path / "run", init_from(source[0]))


def test_classes_of_other_names_under_a_kept_head_are_warned_of(source, data, tmp_path):
    run_dir = tmp_path / "renamed"
    shutil.copytree(source[0], run_dir)
    facts = RunDirectory(run_dir).read_facts()
    renamed = dataclasses.replace(facts, class_names=("ash", "beech", "cedar"))
    RunDirectory(run_dir).save_facts(renamed)
    prepared = prepare(data[3], tmp_path / "run", init_from(run_dir))
    assert "other names (beech, here birch); training.new_head = True" in prepared.imported
    assert "WARNING" not in prepare(data[3], tmp_path / "b", init_from(source[0])).imported


def test_a_network_of_another_width_names_both_shapes(source, data, tmp_path):
    wide = "model.width_multiplier = 0.4"
    with pytest.raises(DataError, match=r"Conv2d_1a_3x3/kernel \(3, 3, 3, 8\).*\(3, 3, 3, 13\)"):
        prepare(data[3], tmp_path / "run", init_from(source[0]), wide)


OTHER_SCALES = "model.residual_scales = (1.0, 1.0, 1.0)"


@pytest.mark.parametrize("other", [OTHER_SCALES, "model.batch_norm_epsilon = 0.01"])
def test_a_network_that_computes_something_else_names_both_sides(source, data, tmp_path, other):
    name = other.split(" ")[0].removeprefix("model.")
    for head in ((), (NEW_HEAD,)):
        with pytest.raises(DataError, match=rf"{name} = .* for a model with .*{name} = "):
            prepare(data[3], tmp_path / "run", init_from(source[0]), other, *head)


@pytest.mark.parametrize("silence", ["an older run", "another network since"])
def test_a_run_that_does_not_say_its_network_is_taken_with_a_note(
    source, data, tmp_path, silence
):
    run_dir = tmp_path / "silent"
    shutil.copytree(source[0], run_dir)
    directory = RunDirectory(run_dir)
    if silence == "an older run":
        facts = json.loads(directory.facts_file.read_text())
        del facts["identity"]
        directory.facts_file.write_text(json.dumps(facts))
    else:
        directory.add_changes(3, [("model.residual_scales", None, (1.0, 1.0, 1.0))])
    prepared = prepare(data[3], tmp_path / "run", init_from(run_dir), OTHER_SCALES)
    assert "do not say what their network computes" in prepared.imported
    directory.add_changes(4, [("training.num_epochs", 1, 2)])
    assert "do not say" not in prepare(data[3], tmp_path / "b", init_from(source[0])).imported


def test_raw_weights_are_called_raw(source, data, tmp_path):
    run_dir, values = source
    shutil.copytree(run_dir, tmp_path / "raw")
    store = CheckpointStore.of_run(tmp_path / "raw")
    raw = {name: value for name, value in values.items() if not name.startswith("average/")}
    store.save(step=8, values=raw, facts={})
    prepared = prepare(data[3], tmp_path / "run", init_from(tmp_path / "raw"))
    assert "raw weights (it keeps no averages)" in prepared.imported
    assert "averaged" not in prepared.imported
    name = "model/Conv2d_1a_3x3/kernel"
    assert prepared.state.values()[name].tobytes() == values[name].tobytes()


def test_a_run_without_a_checkpoint_that_verifies_is_refused(source, data, tmp_path):
    run_dir = tmp_path / "damaged"
    shutil.copytree(source[0], run_dir)
    for path in (run_dir / "checkpoints").glob("step-*/*.index"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="begin from must hold a run with a checkpoint"):
        prepare(data[3], tmp_path / "run", init_from(run_dir))
    with pytest.raises(DataError):
        prepare(data[3], tmp_path / "run", init_from(tmp_path / "nowhere"))


def test_a_new_head_needs_weights_to_stand_on(data):
    with pytest.raises(ConfigError, match="new_head is for a run.*training.init_from"):
        resolve(data[3], NEW_HEAD)


def test_a_run_goes_on_only_with_the_source_it_began_with(data, tmp_path):
    begun = resolve(data[3], init_from("a"), NEW_HEAD)
    RunDirectory(tmp_path).save_config(begun.text())
    assert run_config.reconcile(begun, tmp_path)[1] == []
    for other in ([init_from("b"), NEW_HEAD], [init_from("a")], []):
        with pytest.raises(ConfigError, match="goes on only with the recipe"):
            run_config.reconcile(resolve(data[3], *other), tmp_path)


def test_the_digest_that_workers_compare_is_of_the_weights(data):
    spec = resolve(data[3]).sections["model"]
    digests = [
        initial_weights.digest_of(catalog.build_model(spec, num_classes=3, seed=seed))
        for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("INCEPTION_TF_CACHE", "/somewhere")
    assert initial_weights.cache_dir() == pathlib.Path("/somewhere")
    monkeypatch.delenv("INCEPTION_TF_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    assert initial_weights.cache_dir() == pathlib.Path("/home/me/.cache/inception_tf")


# -- what it no longer needs -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_fine_tuned_run_resumes_evaluates_and_exports_without_its_source(
    source, data, tmp_path, monkeypatch
):
    # What a run shows at its end is what is asked for below, of its directory alone.
    monkeypatch.setattr(experiment, "_finish", lambda *_: True)
    taken = tmp_path / "taken"
    shutil.copytree(source[0], taken)
    params = (
        init_from(taken),
        NEW_HEAD,
        "variables.freeze_up_to = 'Mixed_6a'",
        "checkpoints.keep_last = 100",
    )
    run_dir, resumed = tmp_path / "run", tmp_path / "resumed"
    assert train(data[2], run_dir, *params).is_complete
    shutil.rmtree(taken)

    shutil.copytree(run_dir, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step-000000004")
    assert train(data[2], resumed, *params).step == 4
    straight, again = (variables_of(path) for path in (run_dir, resumed))
    assert straight.keys() == again.keys()
    assert [n for n in straight if straight[n].tobytes() != again[n].tobytes()] == []

    frozen = "model/Conv2d_1a_3x3/kernel"
    assert straight[frozen].tobytes() == source[1][frozen.replace("model", "average")].tobytes()
    saved = run_config.resolve_saved(run_dir)
    declared = experiment.Experiment(**saved.sections)
    assert declared.training.init_from == str(taken)
    request = evaluations.Request(sources=(str(run_dir),))
    told = evaluations.evaluate(declared, request, resolve_run=lambda _: declared)
    assert f"averaged weights of {run_dir} at step 4" in told
    done = experiment.export(declared, run_dir=run_dir, out_dir=tmp_path / "export")
    assert "exported averaged weights of step 4" in done


def variables_of(run_dir):
    store = CheckpointStore.of_run(run_dir)
    info, _ = store.newest_verified()
    assert info.step == 4
    return store.read(info)


# -- batch norm's decay from the number of steps ---------------------------------------------------


@pytest.mark.parametrize(
    ("num_replicas", "total_steps", "expected"),
    [
        (1, 1250, 1251 / 1260),  # the last ninth: 140 steps
        (1, 90, 0.91),
        (1, 1, 2 / 11),
        (1, 320_292, 0.9997),  # what one replica of the released networks keeps
        (20, 1250, 1251 / 1260),
        (20, 320_292, 0.99401707),  # 0.9997 ** 20
        (20, None, 0.99401707),
    ],
)
def test_without_a_decay_the_statistics_remember_the_last_ninth_of_a_run(
    num_replicas, total_steps, expected
):
    spec = catalog.ModelSpec(batch_norm_decay=None)
    found = catalog.batch_norm_momentum(spec, num_replicas=num_replicas, total_steps=total_steps)
    assert found == pytest.approx(expected, rel=1e-7)


def test_a_given_decay_is_per_replica_whatever_the_number_of_steps():
    spec = catalog.ModelSpec(batch_norm_decay=0.99)
    assert catalog.batch_norm_momentum(spec, num_replicas=4, total_steps=100) == 0.99**4


def test_the_networks_layers_and_the_summary_have_the_decay_that_holds(data, tmp_path):
    params = ["model.batch_norm_decay = None", "training.num_steps = 90"]
    prepared = prepare(data[3], tmp_path / "run", *params)
    assert prepared.state.model.get_layer("Conv2d_1a_3x3").momentum == pytest.approx(0.91)
    text = experiment.overview.start_text(prepared)
    assert "batch norm keeps 0.91000 of its moving statistics a step" in text
    assert "batch_norm_decay" not in text  # no warning
