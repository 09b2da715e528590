"""The configs of the papers' networks: what each says, builds, and promises in its header."""

import dataclasses
import functools
import math
import pathlib
import re

import pytest

from inception_tf import config, run_config
from inception_tf.models import catalog, counting
from inception_tf.models.blocks import smallest_input_px
from inception_tf.models.inception_v3 import inception_v3_stages
from inception_tf.parameters import SECTIONS
from inception_tf.resolved import NOT_READ, differences
from inception_tf.training.groups import apply_groups

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
RUNS = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in CONFIGS.rglob("*.gin")
    if path.parent.name not in ("parts", "claims")  # what claims are made of: test_reproduce.py
)
IMAGENET_EXAMPLES = 1_281_167
DIGITS_EXAMPLES = 1_437
RUNG_1, RUNG_2, RUNG_3, RUNG_4, RUNG_5 = (
    "ladder/1_inception_v2",
    "ladder/2_rmsprop",
    "ladder/3_label_smoothing",
    "ladder/4_factorized_7x7",
    "ladder/5_bn_auxiliary",
)


@functools.cache
def resolve(name, *gin_params):
    return config.resolve(gin_files=[name], gin_params=gin_params, reads=tuple(SECTIONS))


@functools.cache
def narrow_network(spec):
    """A tenth of every filter count: the same layers, built in little time."""
    narrow = dataclasses.replace(spec, width_multiplier=min(spec.width_multiplier, 0.1))
    return catalog.build_model(narrow, num_classes=10)


def trained_by(name):
    """The TrainedVariables of a config's network."""
    sections = resolve(name).sections
    return apply_groups(narrow_network(sections["model"]), sections["variables"])


def header(name):
    """The words before the first binding of a config."""
    comments = re.match(r"(?:#.*\n|\n|include .*\n)*", (CONFIGS / f"{name}.gin").read_text())[0]
    return " ".join(line.lstrip("# ") for line in comments.splitlines())


@pytest.mark.parametrize("name", RUNS)
def test_every_config_builds_its_network(name):
    spec = resolve(name).sections["model"]
    network = narrow_network(spec)
    assert network.input_shape == (None, spec.input_height_px, spec.input_width_px, 3)
    assert network.name == spec.name
    has_aux_logits = isinstance(network.output, dict) and "aux_logits" in network.output
    assert has_aux_logits is spec.aux_head


# arXiv 1512.00567 sections 7 and 8; 1602.07261 section 4, figures 9, 15, and 21 to 26.
RECIPES = {
    "v3": ("inception_v3", "released", 50, 100.0, {"logits": 1.0, "aux_logits": 0.4}),
    "v4": ("inception_v4", "released", 20, 160.0, None),
    "v4_paper": ("inception_v4", "paper", 20, 160.0, None),
    "irv1": ("inception_resnet_v1", "paper", 20, 200.0, None),
    "irv2": ("inception_resnet_v2", "released", 20, 160.0, None),
    "irv2_paper": ("inception_resnet_v2", "paper", 20, 160.0, None),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_network_has_the_papers_recipe(name):
    recipe = resolve(name).recipe()
    network, variant, num_replicas, num_epochs, output_weights = RECIPES[name]
    expected = {
        "model.name": network,
        "model.variant": variant,
        "model.input_height_px": 299,
        "model.input_width_px": 299,
        "model.dropout_rate": 0.2,
        "model.aux_head": output_weights is not None,
        "model.batch_norm_decay": 0.9997,
        "model.batch_norm_epsilon": 0.001,
        "training.num_replicas": num_replicas,
        "training.replica_batch": 32,
        "training.num_epochs": num_epochs,
        "training.clip_global_norm": 2.0,
        "training.warmup_epochs": 0.0,
        "training.learning_rate_per_256_images": False,
        "training.optimizer": "@rmsprop()",
        "rmsprop.decay": 0.9,
        "rmsprop.momentum": 0.9,
        "rmsprop.epsilon": 1.0,
        "training.schedule": "@exponential_decay()",
        "exponential_decay.learning_rate": 0.045,
        "exponential_decay.factor": 0.94,
        "exponential_decay.epochs_per_decay": 2.0,
        "exponential_decay.staircase": True,
        "objective.label_smoothing": 0.1,
        "objective.smoothing_prior": "uniform",
        "objective.output_weights": output_weights,
        "averages.decay": 0.9999,
        "averages.warm_start": True,
        "evaluation_crop.central_fraction": 0.875,
        "augmentation.area_range": (0.05, 1.0),
    }
    assert {parameter: recipe[parameter] for parameter in expected} == expected


@pytest.mark.parametrize(("released", "paper"), [("v4", "v4_paper"), ("irv2", "irv2_paper")])
def test_the_config_of_the_figures_differs_in_the_variant_alone(released, paper):
    found = differences(resolve(released), resolve(paper))
    assert found == [("model.variant", "released", "paper")]


@pytest.mark.parametrize("name", ["irv1", "v4", "v4_paper"])
def test_nothing_of_the_network_of_irv2_is_left_in_a_config_that_includes_it(name):
    resolved = resolve(name)
    of_the_network = [p for p in resolved.bound if p.startswith(("model.", "variables."))]
    assert len(of_the_network) > 10
    for parameter in of_the_network:
        assert "resnet_v2" not in resolved.bound[parameter].origin, parameter


# Layers with batch norm, and layers with a bias: the 1x1 that ends a residual block, and the dense
# ones. Inception-v3 has its auxiliary head: two convolutions and a dense layer.
@pytest.mark.parametrize(
    ("name", "num_normalised", "num_biased", "on_biases"),
    [
        ("v3", 94 + 2, 1 + 1, False),
        ("v4", 149, 1, False),
        ("irv1", 107, 21, True),
        ("irv2", 204, 41, True),
        ("irv2_paper", 112, 21, True),
        (RUNG_1, 92 + 1, 1 + 2, False),  # one 7x7 for three 3x3; the auxiliary 5x5 has a bias
    ],
)
def test_l2_is_where_the_released_code_of_the_network_puts_it(
    name, num_normalised, num_biased, on_biases
):
    trained = trained_by(name)
    kernels = {item.path for item in trained if item.path.endswith("/kernel")}
    biases = {item.path for item in trained if item.path.endswith("/bias")}
    assert len(kernels) == num_normalised + num_biased
    assert len(biases) == num_biased
    expected = kernels | biases if on_biases else kernels
    assert {item.path for item in trained if item.l2} == expected
    assert {item.l2 for item in trained} == {0.0, 4e-5}
    assert len(trained) == 2 * (num_normalised + num_biased)  # the others are batch norm's beta


@pytest.mark.parametrize("name", [run for run in RUNS if run != "finetune"])
def test_a_header_says_how_many_steps_its_run_has(name):
    training = resolve(name).sections["training"]
    examples = DIGITS_EXAMPLES if name == "digits" else IMAGENET_EXAMPLES
    per_epoch = examples / (training.num_replicas * training.replica_batch)
    words = header(name)
    totals = re.findall(r"steps an epoch, ([\d,]+) in all", words)
    totals += re.findall(r"([\d,]+) steps(?! an epoch)", words)
    assert {int(total.replace(",", "")) for total in totals} == {
        math.ceil(training.num_epochs * per_epoch)
    }
    for written in re.findall(r"([\d,.]+) steps an epoch", words):
        decimals = len(written.partition(".")[2])
        assert written == f"{per_epoch:,.{decimals}f}"
    for replicas, images in re.findall(r"(\d+) replicas of (\d+) images", words):
        assert (int(replicas), int(images)) == (training.num_replicas, training.replica_batch)


@pytest.mark.parametrize(
    ("name", "errors"),
    [  # arXiv 1602.07261 table 2; 1512.00567 tables 3 and 2
        ("irv1", ("21.3% top-1", "5.5% top-5", "table 2")),
        ("irv2", ("19.9% top-1", "4.9% top-5", "table 2")),
        ("v4", ("20.0% top-1", "5.0% top-5", "table 2")),
        ("v3", ("21.2% top-1", "5.6% top-5", "table 3")),
        (RUNG_1, ("23.4% top-1", "3.8 Bn", "table 3", '"Inception-v2"')),
        (RUNG_2, ("23.1% top-1", "6.3% top-5", "3.8 Bn", "table 3", '"RMSProp"')),
        (RUNG_3, ("22.8% top-1", "6.1% top-5", "3.8 Bn", "table 3", '"Label Smoothing"')),
        (RUNG_4, ("21.6% top-1", "5.8% top-5", "4.8 Bn", "table 3", '"Factorized 7x7"')),
        (RUNG_5, ("21.2% top-1", "5.6% top-5", "4.8 Bn", "table 3", '"BN-auxiliary"')),
        ("receptive_field/299", ("76.6% top-1", "table 2")),
        ("receptive_field/151", ("76.4% top-1", "table 2")),
        ("receptive_field/79", ("75.2% top-1", "table 2")),
    ],
)
def test_a_header_names_the_row_it_aims_at(name, errors):
    for words in errors:
        assert words in header(name)


def test_each_rung_of_the_ladder_is_the_one_before_and_its_own_step():
    steps = {
        (RUNG_1, RUNG_2): {
            ("training.optimizer", "@momentum()", "@rmsprop()"),
            ("momentum.momentum", 0.9, NOT_READ),
            ("rmsprop.decay", NOT_READ, 0.9),
            ("rmsprop.momentum", NOT_READ, 0.9),
            ("rmsprop.epsilon", NOT_READ, 1.0),
        },
        (RUNG_2, RUNG_3): {("objective.label_smoothing", 0.0, 0.1)},
        (RUNG_3, RUNG_4): {("model.stem", "7x7", "factorised")},
        (RUNG_4, RUNG_5): {("model.aux_norm", "convolutions", "all")},
        (RUNG_5, "v3"): set(),
    }
    for (below, above), expected in steps.items():
        assert set(differences(resolve(below), resolve(above))) == expected


def test_the_receptive_fields_differ_in_what_section_9_names():
    base = resolve("receptive_field/299")
    assert differences(resolve(RUNG_1), base) == [("model.stem", "7x7", "factorised")]
    for size_px, has_pool in ((151, True), (79, False)):
        expected = {
            ("model.input_height_px", 299, size_px),
            ("model.input_width_px", 299, size_px),
            ("model.first_stride", 2, 1),
        } | ({("model.first_pool", True, False)} if not has_pool else set())
        assert set(differences(base, resolve(f"receptive_field/{size_px}"))) == expected


@pytest.mark.parametrize(
    ("name", "stem", "billions"),
    [
        (RUNG_1, "7x7", "5.300"),
        ("receptive_field/151", "factorised", "5.713"),
        ("receptive_field/79", "factorised", "5.362"),
        ("receptive_field/151", "7x7", "4.746"),  # why that config does not keep rung 1's stem
    ],
)
def test_the_costs_in_the_headers_are_counted(name, stem, billions):
    spec = dataclasses.replace(resolve(name).sections["model"], aux_head=False, stem=stem)
    cost = counting.count_multiply_adds(catalog.build_model(spec, num_classes=1000)) / 1e9
    assert f"{cost:.3f}" == billions
    assert billions in header("receptive_field/299") or f"{cost:.2f} G" in header(name)


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, variant) for name, variants in catalog.CATALOG.items() for variant in variants],
)
def test_every_network_of_the_catalog_has_a_papers_run_to_be_compared_with(name, variant):
    given = resolve("irv2", f"model.name = '{name}'", f"model.variant = '{variant}'")
    found = dict(row[::2] for row in run_config.differences_from_paper(given))
    assert "model.name" not in found  # the same network, whatever else differs
    assert found.get("model.variant", variant) == variant
    assert ("model.variant" in found) is (variant == "facenet")


def test_the_page_of_the_networks_has_the_counts_of_the_catalog_and_what_the_fields_need():
    page = (CONFIGS.parent / "docs" / "networks.md").read_text()
    for name, variants in catalog.CATALOG.items():
        for variant, entry in variants.items():
            counts = f"{entry.num_parameters:,} | {entry.num_multiply_adds / 1e9:.2f} G"
            assert f"| `{name}` | `{variant}` | {counts} |" in page
    for size_px in (299, 151, 79):
        spec = resolve(f"receptive_field/{size_px}").sections["model"]
        stages = inception_v3_stages(first_stride=spec.first_stride, first_pool=spec.first_pool)
        least_px = smallest_input_px((*stages[0], *stages[1]))
        row = re.search(rf"^.*receptive_field/{size_px}.gin.*$", page, re.MULTILINE)[0]
        assert row.endswith(f"| {least_px} px |")


@pytest.mark.parametrize("name", RECIPES)
def test_a_papers_run_differs_from_the_paper_in_nothing(name):
    assert run_config.differences_from_paper(resolve(name)) == []


def test_an_option_that_is_left_out_is_the_builders_default():
    options = {"stem", "first_stride", "first_pool", "branch_5x5", "factorisation", "aux_norm"}
    given = resolve("irv2", "model.name = 'inception_v3'", "model.first_stride = 1")
    assert {given.values[f"model.{name}"] for name in options - {"first_stride"}} == {None}
    found = run_config.differences_from_paper(given)
    assert [row for row in found if row[0].removeprefix("model.") in options] == [
        ("model.first_stride", 2, 1)
    ]
