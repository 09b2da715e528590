"""When something is due: pure arithmetic on the step number."""

import fractions

import pytest

from inception_tf.errors import ConfigError
from inception_tf.training.loop import Cadence


def cadence(**options):
    return Cadence(
        **{
            "total_steps": 100,
            "num_examples": 1437,
            "global_batch": 64,
            "log_every_steps": 10,
            **options,
        }
    )


@pytest.mark.parametrize(
    ("num_examples", "global_batch", "every_epochs"),
    [(1437, 64, 1.0), (1437, 64, 0.1), (1000, 7, 0.3), (90, 39, 3.0), (10, 64, 1.0), (50, 64, 0.5)],
)
def test_each_multiple_of_epochs_is_evaluated_once_at_the_first_step_past_it(
    num_examples, global_batch, every_epochs
):
    total_steps = 200
    made = cadence(
        total_steps=total_steps,
        num_examples=num_examples,
        global_batch=global_batch,
        evaluate_every_epochs=every_epochs,
    )
    # Smallest step with step x batch >= multiple x examples, in exact arithmetic.
    period = fractions.Fraction(str(every_epochs)) * fractions.Fraction(num_examples, global_batch)
    due = {-int(-multiple * period // 1) for multiple in range(1, total_steps * 20)}
    due = {step for step in due if step <= total_steps} | {total_steps}
    assert {step for step in range(1, total_steps + 1) if made.evaluates(step)} == due


def test_without_an_interval_only_the_end_is_evaluated():
    assert [step for step in range(1, 101) if cadence().evaluates(step)] == [100]


def test_rows_are_due_at_every_multiple_and_at_the_end():
    made = cadence(total_steps=35)
    assert [step for step in range(1, 36) if made.logs(step)] == [10, 20, 30, 35]


def test_checkpoints_are_due_at_every_multiple_after_evaluations_and_at_the_end():
    made = cadence(total_steps=50, save_every_steps=15, evaluate_every_epochs=1.0)
    assert [step for step in range(1, 51) if made.saves(step)] == [15, 23, 30, 45, 50]
    assert [step for step in range(1, 101) if cadence().saves(step)] == [100]


@pytest.mark.parametrize("save_every_steps", [None, 7])
@pytest.mark.parametrize("evaluate_every_epochs", [None, 0.7])
@pytest.mark.parametrize("profile_steps", [None, (3, 12)])
def test_a_loop_ends_exactly_where_something_is_due(
    save_every_steps, evaluate_every_epochs, profile_steps
):
    made = cadence(
        total_steps=61,
        save_every_steps=save_every_steps,
        evaluate_every_epochs=evaluate_every_epochs,
        profile_steps=profile_steps,
    )
    edges = set(profile_steps or ())
    due = [
        step
        for step in range(1, 62)
        if made.logs(step) or made.saves(step) or made.evaluates(step) or step in edges
    ]
    for step in range(61):
        assert made.next_stop(step) == min(stop for stop in due if stop > step)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"log_every_steps": 0}, "logging.every_steps"),
        ({"save_every_steps": 0}, "checkpoints.every_steps"),
        ({"evaluate_every_epochs": 0.0}, "evaluation.every_epochs"),
    ],
)
def test_intervals_that_never_end_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        cadence(**options)
