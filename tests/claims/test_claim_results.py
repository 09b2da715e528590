"""Whether a claim holds is decided by the means of its runs and by nothing else."""

import dataclasses

import pytest

from inception_tf.claims import figure, results
from inception_tf.claims.spec import ClaimSpec
from inception_tf.errors import ConfigError

SPEC = ClaimSpec(
    number=7,
    title="a is better",
    criterion="a ends below b",
    arms={"a": ("x.gin",), "b": ("x.gin",)},
    seeds=(0, 1, 2),
    checks=("final_error[a] < final_error[b]", "final_error[a] <= 0.25"),
    measures=("final_error", "epochs_to_50"),
    target_errors=(0.5,),
)


def arm(name, *errors, epochs=None):
    runs = [
        {
            "seed": seed,
            "measures": {"final_error": error, "epochs_to_50": epochs},
            "curves": {"averaged_error": [(0.5, 0.9), (1.0, error)]},
        }
        for seed, error in enumerate(errors)
    ]
    return {"name": name, "multiply_adds": 3_702_384, "runs": runs}


def decided(a, b, spec=SPEC):
    return results.outcome(spec, [arm("a", *a), arm("b", *b)])


@pytest.mark.parametrize(
    "a, b, held, holds",
    [
        ((0.1, 0.3, 0.2), (0.2, 0.4, 0.3), [True, True], True),
        ((0.1, 0.5, 0.3), (0.2, 0.5, 0.5), [True, False], False),
        ((0.2, 0.2, 0.2), (0.2, 0.2, 0.2), [False, True], False),  # equal is not below
        ((0.2, 0.2), (0.3, 0.3, 0.3), [True, True], None),  # a seed is missing
        ((), (0.3, 0.3, 0.3), [None, None], None),
    ],
)
def test_the_means_decide(a, b, held, holds):
    content = decided(a, b)
    assert [check["held"] for check in content["checks"]] == held
    assert content["holds"] is holds


def test_what_never_came_is_later_than_everything_that_came():
    spec = ClaimSpec(
        arms=SPEC.arms, seeds=(0, 1, 2), target_errors=(0.5,),
        checks=("epochs_to_50[a] < epochs_to_50[b]", "epochs_to_50[b] < epochs_to_50[a]"),
    )  # fmt: skip
    arms = [arm("a", 0.1, epochs=0.5), arm("b", 0.1)]
    assert [c["held"] for c in results.outcome(spec, arms)["checks"]] == [True, False]
    both = [arm("a", 0.1), arm("b", 0.1)]
    assert [c["held"] for c in results.outcome(spec, both)["checks"]] == [False, False]


def test_a_run_without_a_measure_decides_nothing():
    spec = ClaimSpec(
        arms=SPEC.arms, seeds=(0, 1, 2),
        checks=("mean_raw_excess[a] > 0", "final_error[b] > 0"),
    )  # fmt: skip
    arms = [arm("a", 0.1, 0.1, 0.1), arm("b", 0.1, 0.1, 0.1)]
    for run in arms[0]["runs"][:2]:  # the third is no longer finite
        run["measures"]["mean_raw_excess"] = -0.05
    content = results.outcome(spec, arms)
    assert [check["held"] for check in content["checks"]] == [None, True]
    assert content["holds"] is None
    assert "never" not in results.text_of(content)


@pytest.mark.parametrize(
    "given, named",
    [
        ({"checks": ("final_eror[a] < final_error[b]",)}, "final_eror"),
        ({"checks": ("epochs_to_75[a] < epochs_to_75[b]",)}, "epochs_to_75"),  # no such target
        ({"measures": ("final_eror",)}, "final_eror"),
        ({"curves": ("averaged_eror",)}, "averaged_eror"),
        ({"probe": "zeroes"}, "zeroes"),
        ({"data": "cifar100"}, "cifar100"),
        ({"references": {"a": "c"}}, "'c'"),
        ({"target_errors": (0.755, 0.756)}, "0.756"),
    ],
)
def test_names_that_there_are_not_are_refused_before_any_run(given, named):
    with pytest.raises(ConfigError, match=named):
        ClaimSpec(arms=SPEC.arms, **given)


def test_the_table_has_mean_and_single_runs():
    content = decided((0.1, 0.3, 0.2), (0.2, 0.4, 0.3))
    text = results.text_of(content)
    assert "0.200 (0.100, 0.300, 0.200)" in text and "3.702" in text and "  never" in text
    assert text.endswith("the claim: holds")
    assert results.text_of(decided((0.1, 0.5, 0.3), (0.2, 0.5, 0.5))).endswith("the claim: failed")
    assert "open: final_error[a] <= 0.25\n" in results.text_of(decided((), (0.3, 0.3, 0.3)))


def test_the_papers_own_run_costs_what_the_measured_step_says():
    paper = {"config": "v3.gin", "epochs": 2, "multiply_adds": 5_000_000_000}
    runs = [{"seed": 0, "measures": {"secs_per_step": secs}, "curves": {}} for secs in (0.5, 1.5)]
    one = {"name": "a", "multiply_adds": 10**7, "images_per_step": 100, "imagenet": paper}
    content = results.outcome(SPEC, [{**one, "runs": runs}, arm("b", 0.1)])
    # The faster run: 2 x 10^9 a second; 2 x 1,281,167 x 5 x 10^9 multiply-adds are 6,405,835 s.
    (line,) = results.imagenet_lines(content)
    assert line.startswith("ImageNet, v3.gin: not run.") and line.endswith("74 days")
    assert "2.00 G/s" in line


def test_costs_that_are_to_be_equal_are_held_so():
    spec = ClaimSpec(arms=SPEC.arms, equal_cost=(("a", "b"),))
    assert "2.9% apart" in results.check_costs(spec, {"a": 1000, "b": 1029})[0]
    with pytest.raises(ConfigError, match="a 1,000, b 1,031 multiply-adds, 3.1% apart"):
        results.check_costs(spec, {"a": 1000, "b": 1031})


def test_an_outcome_is_read_as_it_was_written(tmp_path):
    content = decided((0.1, 0.3, 0.2), (0.2, 0.4, 0.3))
    results.save(tmp_path / "claim_7.json", content)
    again = results.read(tmp_path / "claim_7.json")
    assert results.text_of(again) == results.text_of(content)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match="outcome of a claim"):
        results.read(tmp_path / "other.json")
    assert figure.png_of(content).startswith(b"\x89PNG")
    assert figure.png_of(again) == figure.png_of(content)


def test_one_or_two_seeds_decide_nothing():
    spec = dataclasses.replace(SPEC, seeds=(0, 1))
    content = decided((0.1, 0.1), (0.3, 0.3), spec)
    assert content["holds"] is None and [c["held"] for c in content["checks"]] == [True, True]


def test_the_section_of_the_results_has_everything_in_it():
    content = decided((0.1, 0.3, 0.2), (0.2, 0.4, 0.3))
    content |= {"command": "python tools/reproduce.py 7", "date": "2026-01-01", "machine": "m"}
    text = results.markdown_of(content)
    for part in (
        "### Claim 7: a is better", "a ends below b. **Holds.**", "python tools/reproduce.py 7\n",
        "| a | 3.702 | 0.200 (0.100, 0.300, 0.200) | never |", "2026-01-01, m.",
        "- yes: final_error[a] < final_error[b]: 0.200 against 0.300",
    ):  # fmt: skip
        assert part in text
