"""Configs: what is refused and how, what resolves, and that a resolved config resolves again."""

import dataclasses
import json
import re

import pytest

from inception_tf import config
from inception_tf.errors import ConfigError
from inception_tf.parameters import (
    OPERATION,
    REFERABLE,
    SECTIONS,
    default_of,
    is_operation,
    parameter_names,
)
from inception_tf.resolved import NOT_READ, describe_differences, differences
from inception_tf.training.optimizer import Momentum, RmsProp
from inception_tf.training.schedule import ExponentialDecay, TwoPhase

ALL = tuple(SECTIONS)
LENGTH = "training.num_steps = 10\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory of its own, with a function that writes a gin file into it."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="my.gin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return name

    return write


def resolve(*gin_files, reads=ALL, **others):
    return config.resolve(gin_files=gin_files, reads=reads, **others)


# name -> (a gin file whose line 2 is wrong, what the message says)
REFUSED = {
    "unknown section": ("modle.name = 'x'", ["no section 'modle'", "Did you mean model?"]),
    "section of another name": ("optimizer.epsilon = 1.0", ["Did you mean rmsprop.epsilon?"]),
    "no section near": ("zzz.zzz = 1", ["no section 'zzz'", "Sections: model, data"]),
    "unknown parameter": (
        "model.varient = 'paper'",
        ["'model' has no parameter 'varient'", "Did you mean model.variant?"],
    ),
    "parameter of another section": (
        "training.label_smoothing = 0.1",
        ["Did you mean objective.label_smoothing?"],
    ),
    "no parameter near": ("logging.zzz = 1", ["Its parameters: every_steps"]),
    "string for integer": (
        "training.num_replicas = '3'",
        ["must be an integer", "num_replicas = '3'", "Did you mean 3, without quotes?"],
    ),
    "integer for bool": ("averages.warm_start = 1", ["must be True or False"]),
    "bool for integer": ("training.seed = True", ["must be an integer"]),
    "bool for float": ("rmsprop.decay = True", ["must be a finite number"]),
    "float for integer": ("training.replica_batch = 3.5", ["must be an integer"]),
    "number for string": ("model.name = 5", ["must be a string in quotes"]),
    "string for float": ("rmsprop.decay = 'abc'", ["must be a finite number"]),
    "infinite": ("rmsprop.decay = 1e999", ["must be a finite number"]),
    "None where there is no None": ("training.seed = None", ["must be an integer."]),
    "tuple of the wrong length": (
        "augmentation.area_range = (0.1, 0.2, 0.3)",
        ["must be a tuple of 2: a finite number, a finite number"],
    ),
    "tuple with a wrong item": (
        "model.block_counts = (1, 2.0, 3)",
        ["must be a tuple, each item an integer or None"],
    ),
    "dict with a wrong value": (
        "objective.output_weights = {'logits': '1'}",
        ["must be a dict with values that are a finite number or None"],
    ),
    "value where a reference belongs": (
        "training.optimizer = 'rmsprop'",
        ["must be @rmsprop() or @momentum()"],
    ),
    "reference of the wrong kind": (
        "training.optimizer = @two_phase()",
        ["must be @rmsprop() or @momentum()", "training.optimizer = @two_phase()"],
    ),
    "reference where a value belongs": ("model.name = @rmsprop()", ["must be a string"]),
    "reference to nothing": (
        "training.optimizer = @rmsprob()",
        ["@rmsprob refers to nothing", "Did you mean rmsprop?"],
    ),
    "reference to a fixed section": ("model.name = @data()", ["There are @rmsprop(), @momentum()"]),
    "reference without parentheses": ("training.optimizer = @momentum", ["Write @momentum()"]),
    "scope": ("train/model.name = 'x'", ["There are no scopes", "Write model.name"]),
    "scope of a reference": ("training.optimizer = @a/rmsprop()", ["There are no scopes"]),
    "undefined macro": ("training.seed = %SEED", ["%SEED is not defined", "SEED = value"]),
    "unused macro": ("SEED = 3", ["SEED is defined and nothing uses it"]),
    "parameter without its section": ("epsilon = 1.0", ["Did you mean rmsprop.epsilon?"]),
    "required": ("training.seed = %gin.REQUIRED", ["training.seed has to be given", "--gin_param"]),
    "expression": ("rmsprop.decay = 1/2", ["rmsprop.decay = 1/2", "there are no expressions"]),
    "bare word": (
        "averages.warm_start = true",
        ["'true' is no value", "warm_start = true", "Python literals"],
    ),
    "call": ("model.name = __import__('os')", ["there are no expressions"]),
    "open bracket": ("model.block_counts = (1, 2", ["must read section.parameter = value"]),
    "list as a key": ("objective.output_weights = {[1]: 1.0}", ["unhashable", "[1]: 1.0"]),
    "macro as a key": ("variables.groups = ({%A: '.*'},)\nA = 'pattern'", ["each item a dict"]),
    "no binding": ("model.name", ["must read section.parameter = value"]),
    "import": ("import antigravity", ["imports nothing", "import antigravity"]),
    "dynamic registration": (
        "from __gin__ import dynamic_registration",
        ["imports nothing", "from __gin__ import dynamic_registration"],
    ),
    "missing include": ("include 'nowhere.gin'", ["include 'nowhere.gin'", "Configs there:"]),
    "include of itself": ("include 'my.gin'", ["read once"]),
    "value out of range": (
        "averages.decay = 1.5",
        ["averages.decay", "decay must be at least 0 and below 1", "1.5"],
    ),
    "nothing refers": (
        "momentum.momentum = 0.8",
        ["Nothing refers to @momentum()", "training.optimizer = @rmsprop()"],
    ),
    "loss scale without float16": (
        "loss_scale.initial = 1024.0",
        ["only with model.precision = 'mixed_float16'", "'float32'"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_line_that_cannot_mean_what_it_says_is_refused_with_its_place(case, here):
    line, expected = REFUSED[case]
    name = here(f"{LENGTH}{line}\n")
    with pytest.raises(ConfigError) as refused:
        resolve(name)
    message = str(refused.value)
    for part in expected:
        assert part in message
    # A bracket that is never closed is found at another line by each Python.
    assert re.search(r"my\.gin:\d" if case == "open bracket" else r"my\.gin:2", message)


def test_the_command_line_is_refused_alike_and_named(here):
    name = here(LENGTH)
    with pytest.raises(ConfigError, match=r"modle.name = 'x' \(--gin_param\).*mean model\?"):
        resolve(name, gin_params=["modle.name = 'x'"])
    with pytest.raises(ConfigError, match="bound twice.*seed = 1.*seed = 2"):
        resolve(name, gin_params=["training.seed = 1", "training.seed = 2"])
    with pytest.raises(ConfigError, match=r"must be a string.*data_dir = 3 \(--data_dir\)"):
        resolve(name, overrides={"data.data_dir": 3})
    with pytest.raises(ConfigError, match="--gin_param takes bindings.*--gin_file"):
        resolve(name, gin_params=["include 'irv2.gin'"])
    with pytest.raises(ConfigError, match="imports nothing"):
        resolve(name, gin_params=["import os"])


def test_an_import_line_runs_nothing(here):
    here("raise SystemExit('ran')", "ran_by_a_config.py")
    with pytest.raises(ConfigError, match="imports nothing"):
        resolve(here("import ran_by_a_config\n"))


def test_double_bindings_are_refused_in_one_file_and_allowed_over_an_include(here):
    twice = here(f"{LENGTH}training.seed = 1\ntraining.seed = 2\n", "twice.gin")
    with pytest.raises(ConfigError, match=r"twice.*twice\.gin:2.*twice\.gin:3"):
        resolve(twice)
    base = here(f"{LENGTH}training.seed = 1\n", "parts/base.gin")
    over = here("include 'parts/base.gin'\ntraining.seed = 2\n", "over.gin")
    assert resolve(over).sections["training"].seed == 2
    undone = here("training.seed = 2\ninclude 'parts/base.gin'\n", "undone.gin")
    with pytest.raises(ConfigError, match=r"undone\.gin:1.*base\.gin:2.*Move the include up"):
        resolve(undone)
    # Later files of the command line win as well, and a macro is a name like any other.
    assert resolve(base, here("training.seed = 3\n", "later.gin")).sections["training"].seed == 3
    with pytest.raises(ConfigError, match="A is bound twice"):
        resolve(here("A = 1\nA = 2\ntraining.seed = %A\n"))
    with pytest.raises(ConfigError, match="read once"):
        resolve(over, base)


def test_macros_are_replaced_wherever_they_stand_and_may_be_overridden(here):
    name = here(
        "STEPS = 10\nSHARE = 0.9\nBOTH = (%SHARE, 1)\nOPTIMIZER = @momentum()\n"
        "training.num_steps = %STEPS\naugmentation.area_range = %BOTH\n"
        "training.optimizer = %OPTIMIZER\nmomentum.momentum = %SHARE\n"
    )
    resolved = resolve(name, gin_params=["SHARE = 0.5"])
    assert resolved.sections["augmentation"].area_range == (0.5, 1.0)
    assert resolved.sections["training"].optimizer == Momentum(momentum=0.5)
    with pytest.raises(ConfigError, match="must not need itself"):
        resolve(here("A = %B\nB = %A\ntraining.seed = %A\n"))
    with pytest.raises(ConfigError, match="Did you mean STEPS"):
        resolve(here("STEPS = 1\ntraining.num_steps = %STEPS\ntraining.seed = %STEP\n"))


def test_values_become_what_the_dataclass_declares(here):
    resolved = resolve(
        here(
            f"{LENGTH}model:\n  block_counts = [1, 2, 3]  # a list\n  batch_norm_epsilon = 1\n"
            "objective.output_weights = {'logits': 1}\naugmentation.area_range = [0.5, 1]\n"
        )
    )
    model = resolved.sections["model"]
    assert model.block_counts == (1, 2, 3)
    assert type(model.batch_norm_epsilon) is float and model.batch_norm_epsilon == 1.0
    assert type(resolved.sections["objective"].output_weights["logits"]) is float
    least, most = resolved.sections["augmentation"].area_range
    assert type(most) is float and (least, most) == (0.5, 1.0)
    assert resolved.bound["model.block_counts"].where == "my.gin:3"


def test_references_are_built_from_their_sections(here):
    resolved = resolve(
        here(
            f"{LENGTH}training.schedule = @two_phase()\ntwo_phase.first_epochs = 2\n"
            "exponential_decay.factor = 0.5\nrmsprop.decay = 0.8\n"
        )
    )
    expected = TwoPhase(first_epochs=2.0, then=ExponentialDecay(factor=0.5))
    assert resolved.sections["training"].schedule == expected
    # A default object is read as well: its section needs no reference of its own.
    assert resolved.sections["training"].optimizer == RmsProp(decay=0.8)
    assert resolved.recipe()["two_phase.then"] == "@exponential_decay()"
    for section in REFERABLE:
        for name in parameter_names(section):
            assert default_of(f"{section}.{name}") is not dataclasses.MISSING


def test_an_overridden_choice_takes_its_section_along_unless_one_file_contradicts_itself(here):
    resolved = resolve("irv2", gin_params=["training.optimizer = @momentum()"])
    assert "rmsprop.decay" not in resolved.values
    here(f"{LENGTH}model.precision = 'mixed_float16'\nloss_scale.initial = 4.0\n", "half.gin")
    assert resolve("half.gin").recipe()["loss_scale.initial"] == 4.0
    resolved = resolve("half.gin", gin_params=["model.precision = 'float32'"])
    assert "loss_scale.initial" not in resolved.recipe()
    with pytest.raises(ConfigError, match="Nothing refers to @rmsprop"):
        resolve("irv2", gin_params=["training.optimizer = @momentum()", "rmsprop.decay = 0.8"])
    contradiction = here("include 'irv2'\nrmsprop.decay = 0.8\ntraining.optimizer = @momentum()\n")
    with pytest.raises(ConfigError, match=r"Nothing refers to @rmsprop.*my\.gin:2"):
        resolve(contradiction)


def test_a_section_of_another_command_is_refused_except_in_a_saved_config(here):
    name = here(f"{LENGTH}rmsprop.decay = 0.8\n")
    reads = ("model", "data", "evaluation")
    with pytest.raises(ConfigError, match=r"does not read the section 'training'.*my\.gin:1"):
        resolve(name, reads=reads)
    resolved = resolve(name, reads=reads, exempt_unread=True)
    assert resolved.sections["training"].optimizer.decay == 0.8
    assert {parameter.split(".")[0] for parameter in resolved.values} == set(reads)
    # What is said to this command itself must have an effect.
    with pytest.raises(ConfigError, match="training.seed = 3 .--gin_param."):
        resolve(name, reads=reads, exempt_unread=True, gin_params=["training.seed = 3"])
    with pytest.raises(ConfigError, match="no parameter 'nam'"):
        resolve(here("model.nam = 'x'\n"), reads=reads, exempt_unread=True)


@pytest.mark.parametrize("bindings", [[], ["training.num_epochs = 1.0", "training.num_steps = 2"]])
def test_a_run_has_exactly_one_length(bindings, here):
    name = here("training.seed = 1\n")
    with pytest.raises(ConfigError, match="exactly one of training.num_epochs and training.num_s"):
        resolve(name, gin_params=bindings)


def test_every_parameter_is_recipe_or_operation_and_never_both():
    resolved = resolve("irv2", gin_params=["model.precision = 'mixed_float16'"])
    recipe, operation = resolved.recipe(), resolved.operation()
    assert not set(recipe) & set(operation)
    assert set(recipe) | set(operation) == set(resolved.values)
    everything = {f"{s}.{name}" for s in (*SECTIONS, *REFERABLE) for name in parameter_names(s)}
    unread = {name for name in everything if name.split(".")[0] in ("momentum", "two_phase")}
    assert everything - unread == set(resolved.values)
    assert all(name in SECTIONS or name in everything for name in OPERATION)
    assert is_operation("data.data_dir") and not is_operation("data.train_split")
    assert is_operation("cluster.device") and not is_operation("training.seed")
    json.dumps(recipe)  # it is kept in manifests


def test_overrides_win_over_files_and_params_and_are_recorded():
    resolved = resolve(
        "digits",
        gin_params=["data.data_dir = 'param'", "training.seed = 7"],
        overrides={"data.data_dir": "flag"},
    )
    assert resolved.sections["data"].data_dir == "flag"
    assert resolved.bound["data.data_dir"].where == "--data_dir"
    assert resolved.bound["training.seed"].where == "--gin_param"
    assert "training.seed = 7  # --gin_param\n" in resolved.text()
    assert re.search(r"^model.name = .*  # configs/parts/\S+gin:\d+$", resolved.text(), re.M)
    assert "training.reduction = 'exact'  # default\n" in resolved.text()


def test_text_keeps_every_kind_of_value(here):
    path = "it's \\ \"quoted\" é # no comment\n"
    name = here(f"{LENGTH}objective.output_weights = {{'logits': -1e-5}}\n")
    resolved = resolve(name, overrides={"data.data_dir": path})
    again = resolve(here(resolved.text(), "config.gin"))
    assert again == resolved
    assert again.sections["data"].data_dir == path


def test_a_resolved_config_leaves_nothing_behind_for_the_next(here):
    before = resolve("digits")
    resolve(here(f"{LENGTH}training.seed = 9\nmodel.variant = 'paper'\n"))
    with pytest.raises(ConfigError):
        resolve(here(f"{LENGTH}training.seed = 9\nmodel.nam = 'x'\n"))
    assert resolve("digits") == before
    assert resolve(here(LENGTH)).sections["training"].seed == 0


def test_differences_name_both_values_through_json_too(here):
    saved = resolve("irv2")
    given = resolve("irv2", gin_params=["training.optimizer = @momentum()", "training.seed = 1"])
    expected = [
        ("training.seed", 0, 1),
        ("training.optimizer", "@rmsprop()", "@momentum()"),
        ("rmsprop.decay", 0.9, NOT_READ),
        ("rmsprop.momentum", 0.9, NOT_READ),
        ("rmsprop.epsilon", 1.0, NOT_READ),
        ("momentum.momentum", NOT_READ, 0.9),
    ]
    assert differences(saved, given) == expected
    kept = json.loads(json.dumps(saved.recipe()))
    assert differences(kept, given) == expected
    assert differences(kept, saved) == []
    assert saved.recipe_hash() != given.recipe_hash()
    table = describe_differences(expected, saved="saved run", given="this command")
    assert re.search(r"parameter +saved run +this command\n +training.seed +0 +1\n", table)
    assert "'@momentum()'" in table and NOT_READ in table


def test_operation_is_no_part_of_the_recipe():
    other = resolve("irv2", overrides={"data.data_dir": "x"}, gin_params=["cluster.tf32 = True"])
    assert differences(resolve("irv2"), other) == []
    assert other.recipe_hash() == resolve("irv2").recipe_hash()
