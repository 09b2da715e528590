"""What a claim's config may say, and what is refused."""

import pytest

from inception_tf.claims.spec import ClaimSpec, parse_check
from inception_tf.errors import ConfigError

ARMS = {"a": ("x.gin",), "scale 1.0": ("x.gin", "y.gin", "model.name = 'v'", "workers = 2")}


@pytest.mark.parametrize(
    "text, left, relation, right, offset",
    [
        ("final_error[a] < final_error[b]", ("final_error", "a"), "<", ("final_error", "b"), 0.0),
        ("e[a, b] <= e[scale 1.0] + 0.02", ("e", "a, b"), "<=", ("e", "scale 1.0"), 0.02),
        ("e[a] > e[b] - 1.5", ("e", "a"), ">", ("e", "b"), -1.5),
        ("zeros[a] >= 0.99", ("zeros", "a"), ">=", None, 0.99),
    ],
)
def test_a_check_is_read(text, left, relation, right, offset):
    check = parse_check(text)
    assert (check.left, check.relation, check.right) == (left, relation, right)
    assert check.offset == offset and check.text == text


@pytest.mark.parametrize("text", ["", "e[a] = e[b]", "e < 1", "e[a] < e[b] * 2", "e[a] < e[b] + x"])
def test_what_is_no_comparison_is_refused(text):
    with pytest.raises(ConfigError, match="check compares means"):
        ClaimSpec(arms=ARMS, checks=(text,))


def test_arms_are_files_bindings_and_workers():
    one, two = ClaimSpec(arms=ARMS).parsed_arms()
    assert (one.name, one.gin_files, one.gin_params, one.num_workers) == ("a", ("x.gin",), (), 1)
    assert two.gin_files == ("x.gin", "y.gin")
    assert two.gin_params == ("model.name = 'v'",) and two.num_workers == 2


@pytest.mark.parametrize(
    "given, message",
    [
        ({"checks": ("died[b] < 1",)}, "'b' in died"),
        ({"checks": ("died[a] < died[scale 1] + 1",)}, "Did you mean scale 1.0"),
        ({"equal_cost": (("a", "c"),)}, "'c' in claim.equal_cost"),
        ({"imagenet": {"c": "v3.gin"}}, "claim.imagenet"),
        ({"target_errors": (1.0,)}, "target_errors"),
    ],
)
def test_what_speaks_of_no_arm_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        ClaimSpec(arms=ARMS, **given)


def test_an_arm_without_a_config_is_refused():
    with pytest.raises(ConfigError, match="needs a config"):
        ClaimSpec(arms={"a": ("model.name = 'v'",)}).parsed_arms()
