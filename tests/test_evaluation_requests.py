"""What `evaluate` is asked for: nothing of it is ignored."""

import pytest

from inception_tf.errors import ConfigError
from inception_tf.evaluations import Request
from inception_tf.run_directory import CONFIG_FILE


@pytest.fixture
def sources(tmp_path):
    """One source of each kind."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG_FILE).write_text("")
    (tmp_path / "export" / "1").mkdir(parents=True)
    (tmp_path / "export" / "1" / "saved_model.pb").write_bytes(b"")
    return {kind: str(tmp_path / kind) for kind in ("run", "export", "weights.h5")}


def test_a_run_has_both_weights_and_several_networks_the_averaged_ones(sources):
    assert Request(sources=(sources["run"],)).weights == ("averaged", "raw")
    assert Request(sources=tuple(sources.values())).weights == ("averaged",)
    assert Request(sources=(sources["run"],), weights=("raw",)).weights == ("raw",)


def test_a_number_of_crops_stands_for_its_protocol(sources):
    request = Request(sources=(sources["run"],), crops=("1", "144"))
    assert request.crops == ("1_recipe", "144_googlenet_ratio")


@pytest.mark.parametrize(
    ("kinds", "options", "message"),
    [
        (["export"], {"step": 3}, "step is a choice of a run directory"),
        (["weights.h5"], {"weights": ("raw",)}, "weights is a choice of a run directory"),
        (["run", "export"], {"of_weights": {"network": "v4"}}, "choice of a file of weights"),
        (["run"], {"crops": ("1", "1_recipe")}, "crops must be .* 1_recipe twice"),
        (["run"], {"crops": ()}, "crops must be at least one"),
        (["run"], {"crops": ("11",)}, "There are 1_recipe"),
        (["run", "run"], {}, "sources must be"),
        (["run"], {"weights": ("raw", "raw")}, "weights must be"),
        (["run"], {"weights": ("rough",)}, "averaged, raw or both.*rough"),
        (["export"], {"is_ensemble": True}, "at least two networks"),
        (["run"], {"weights": ("raw",), "is_ensemble": True}, "at least two networks"),
        (["run"], {"average": "logits"}, "needs several crops or an ensemble"),
    ],
)
def test_what_would_be_ignored_is_refused(sources, kinds, options, message):
    with pytest.raises(ConfigError, match=message):
        Request(sources=tuple(sources[kind] for kind in kinds), **options)


def test_an_average_counts_with_crops_or_members(sources):
    Request(sources=(sources["run"],), average="logits", crops=("10",))
    Request(sources=(sources["run"], sources["export"]), average="logits", is_ensemble=True)
