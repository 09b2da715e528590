"""The configs that come with the package: found from anywhere, resolved, sourced."""

import pathlib

import pytest

from inception_tf import config
from inception_tf.errors import ConfigError
from inception_tf.parameters import SECTIONS

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
RUNS = sorted(p for p in CONFIGS.rglob("*.gin") if p.parent.name not in ("parts", "claims"))
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


def resolve(*gin_files, **others):
    return config.resolve(gin_files=gin_files, reads=tuple(SECTIONS), **others)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_config_resolves_and_its_text_resolves_to_the_same(path, here):
    resolved = resolve(str(path))
    assert resolved.name == path.stem
    again = resolve(here(resolved.text(), "config.gin"))
    assert again == resolved
    assert again.recipe_hash() == resolved.recipe_hash()
    assert set(again.bound) == set(resolved.values)  # every parameter is written
    assert str(CONFIGS) not in resolved.text()


def test_every_line_of_a_config_names_its_source_or_reason():
    for path in sorted(CONFIGS.rglob("*.gin")):
        text = path.read_text()
        assert max(map(len, text.splitlines())) <= 100
        if path.parent.name == "claims":  # no run: text and comparisons that say themselves
            continue
        # Beside the line, or above it in the paragraph that it stands in.
        for paragraph in text.split("\n\n"):
            above = ""
            for line in paragraph.splitlines():
                above += line
                assert " = " not in line or "#" in above, f"{path.name}: {line}"


@pytest.mark.parametrize(
    "name",
    [
        "configs/irv2.gin",
        "irv2.gin",
        "irv2",
        "parts/imagenet.gin",
        "configs/ladder/2_rmsprop.gin",
        "ladder/2_rmsprop",
        "configs/receptive_field/79.gin",
    ],
)
def test_installed_configs_are_found_from_any_directory(name, here):
    assert config.find_gin_file(name).is_relative_to(CONFIGS)


def test_a_path_comes_before_the_installed_configs_and_includes_reach_both(here, tmp_path):
    here(LENGTH, "irv2.gin")
    assert config.find_gin_file("irv2") == tmp_path / "irv2.gin"
    here("include 'near.gin'\ninclude 'parts/imagenet.gin'\n", "below/mine.gin")
    here(LENGTH, "below/near.gin")
    resolved = resolve("below/mine.gin")
    assert resolved.bound["training.num_steps"].where == "below/near.gin:1"
    assert resolved.bound["training.num_steps"].origin == "near.gin:1"
    assert resolved.bound["data.train_split"].origin.startswith("configs/parts/imagenet.gin:")


def test_a_missing_file_is_answered_with_the_places_and_the_names(here, tmp_path):
    with pytest.raises(ConfigError) as refused:
        config.find_gin_file("configs/irv3.gin")
    message = str(refused.value)
    for part in ("'configs/irv3.gin'", str(tmp_path), str(CONFIGS), "Did you mean", "digits.gin"):
        assert part in message


def test_a_file_that_is_no_text_is_refused(here, tmp_path):
    (tmp_path / "binary.gin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="readable as UTF-8.*binary.gin"):
        resolve("binary.gin")


def test_the_package_folder_wins_where_the_configs_are_installed(tmp_path, monkeypatch):
    installed = tmp_path / "inception_tf"
    monkeypatch.setattr(config, "_PACKAGE", installed)
    assert config.config_folder() == tmp_path / "configs"
    (installed / "configs").mkdir(parents=True)
    assert config.config_folder() == installed / "configs"
