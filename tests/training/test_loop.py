"""What the loop calls in which order, by a step that is made up."""

import inspect
import itertools
import types

import pytest
import tensorflow as tf

from inception_tf.errors import ConfigError, NonFiniteError
from inception_tf.session import Session
from inception_tf.training import watchdog
from inception_tf.training.loop import SAVE_FLAG, STOP_FLAG, Cadence, Hooks, train


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


class FakeTrainStep:
    """Takes batches and answers with fixed outputs; notes the size of each loop.

    Attributes:
      steps: batches consumed.
      sizes: steps of each call of `run`.
    """

    def __init__(
        self, *, start_step=0, peers=(0, 0), secs_per_step=1.0, tracing_secs=0.0, **outputs
    ):
        self.steps, self.sizes, self.taken = start_step, [], []
        self.peers, self.secs_per_step, self.secs = peers, secs_per_step, 0.0
        self.tracing_secs = tracing_secs
        self.outputs = {
            "data_loss_nats": tf.constant(2.5),
            "gradient_norm": tf.constant(0.75),
            "non_finite": tf.constant(0, tf.int64),
            "too_large": tf.constant(0, tf.int64),
            "failed_step": tf.constant(-1, tf.int64),
            **outputs,
        }

    def clock(self):
        return self.secs

    def run(self, iterator, num_steps, host_flags):
        self.sizes.append(int(num_steps))
        for _ in range(int(num_steps)):
            outputs = self.run_one(next(iterator), host_flags)
        return {**outputs, "data_wait_secs": tf.constant(0.25 * int(num_steps), tf.float64)}

    def run_one(self, batch, host_flags):
        self.taken.append(batch)
        self.steps += 1
        self.secs += self.secs_per_step + (self.tracing_secs if len(self.taken) == 1 else 0.0)
        peers = tf.constant(self.peers, tf.int64) * tf.cast(self.steps >= 12, tf.int64)
        return {**self.outputs, "host_flags": host_flags + peers}


def record(train_step, made, *, steps_per_loop=1, start_step=0, save_at=(), stop_at=(), left=()):
    """Runs the loop, of which a stop leaves some evaluations; (step reached, what it called)."""
    calls = []

    def note(name):
        return lambda *arguments: calls.append((name, *arguments))

    hooks = types.SimpleNamespace(
        started=note("started"),
        progress=lambda step, outputs, interval: calls.append(("progress", step)),
        log=lambda step, outputs, interval: calls.append(("log", step, interval)),
        evaluate=lambda *arguments: calls.append(("evaluate", *arguments)) or arguments[0] in left,
        save=note("save"),
        enter=note("enter"),
        profile=lambda is_start: calls.append(("profile", is_start, train_step.steps)),
        save_is_due=lambda: train_step.steps in save_at,
        stop_is_due=lambda: train_step.steps in stop_at,
        clock=train_step.clock,
        keep_failed_step=lambda step, outputs, batch: (
            "replica 3 first", f"Look at {batch} of step {step}."
        ),
    )
    reached = train(
        train_step,
        itertools.count(start_step),
        start_step=start_step,
        steps_per_loop=steps_per_loop,
        cadence=made,
        hooks=hooks,
    )
    return reached, calls


def steps_of(calls, name):
    return [call[1] for call in calls if call[0] == name]


@pytest.mark.parametrize("steps_per_loop", [1, 4, 100])
def test_everything_is_called_at_its_step_whatever_the_size_of_a_loop(steps_per_loop):
    made = cadence(total_steps=25, save_every_steps=8, evaluate_every_epochs=0.5)
    step = FakeTrainStep()
    reached, calls = record(step, made, steps_per_loop=steps_per_loop)
    assert reached == 25 and step.taken == list(range(25))
    assert steps_of(calls, "log") == [10, 20, 25]
    assert steps_of(calls, "evaluate") == [12, 23, 25]
    assert steps_of(calls, "save") == [8, 12, 16, 23, 24, 25]
    assert max(step.sizes, default=1) <= steps_per_loop
    last = [call[0] for call in calls if call[1] == 25]
    assert [call[2] for call in calls if call[0] == "save"] == [False] * 5 + [True]
    assert last == ["progress", "log", "evaluate", "save"]
    if steps_per_loop == 100:
        assert step.sizes == [1, 1, 6, 2, 2, 4, 4, 3, 1, 1]


@pytest.mark.parametrize("steps_per_loop", [1, 5, 1000])
@pytest.mark.parametrize("start_step", [0, 400])
def test_rate_is_told_once_after_the_second_step_of_the_process(steps_per_loop, start_step):
    step = FakeTrainStep(start_step=start_step, secs_per_step=2.0, tracing_secs=60.0)
    made = cadence(total_steps=start_step + 20, log_every_steps=7)
    _, calls = record(step, made, steps_per_loop=steps_per_loop, start_step=start_step)
    told = [call for call in calls if call[0] == "started"]
    assert told == [("started", start_step + 2, 2.0)]
    if steps_per_loop == 5 and start_step == 0:
        assert step.sizes == [1, 1, 5, 5, 2, 5, 1]


@pytest.mark.parametrize(
    ("steps_per_loop", "data_wait_secs"), [(1, [0.0, 0.0, 0.0]), (4, [2.25, 2.5, 1.0])]
)
def test_a_row_covers_the_steps_since_the_last_one_but_not_the_tracing(
    steps_per_loop, data_wait_secs
):
    step = FakeTrainStep(secs_per_step=0.5, tracing_secs=60.0)
    _, calls = record(step, cadence(total_steps=24), steps_per_loop=steps_per_loop)
    intervals = [call[2] for call in calls if call[0] == "log"]
    assert [interval.num_steps for interval in intervals] == [9, 10, 4]
    assert [interval.secs for interval in intervals] == [4.5, 5.0, 2.0]
    assert [interval.data_wait_secs for interval in intervals] == data_wait_secs


def test_a_row_of_the_first_step_alone_has_no_other_time():
    step = FakeTrainStep(secs_per_step=0.5, tracing_secs=60.0)
    _, calls = record(step, cadence(total_steps=3, log_every_steps=1))
    intervals = [call[2] for call in calls if call[0] == "log"]
    assert [interval.num_steps for interval in intervals] == [1, 1, 1]
    assert [interval.secs for interval in intervals] == [60.5, 0.5, 0.5]


def test_chiefs_clock_saves_between_two_intervals():
    reached, calls = record(FakeTrainStep(), cadence(total_steps=20), save_at=(3, 12))
    assert reached == 20
    assert steps_of(calls, "save") == [4, 13, 20]


def test_stop_saves_after_the_loop_and_ends():
    step = FakeTrainStep()
    reached, calls = record(step, cadence(save_every_steps=50), steps_per_loop=4, stop_at=(6,))
    # Asked while steps 6 to 9 ran, told with those that end at the row's.
    assert step.sizes == [1, 1, 4, 4] and reached == 10
    assert steps_of(calls, "save") == [10]


def test_a_stop_leaves_the_evaluation_of_its_step_and_saves():
    made = cadence(total_steps=40, evaluate_every_epochs=0.5)
    reached, calls = record(FakeTrainStep(), made, stop_at=(11,))
    assert reached == 12
    assert [call for call in calls if call[0] in ("evaluate", "save")] == [
        ("evaluate", 12, True), ("save", 12, True)
    ]  # fmt: skip


def test_an_evaluation_that_a_stop_breaks_off_ends_the_run_with_a_checkpoint():
    made = cadence(total_steps=40, evaluate_every_epochs=0.5)
    reached, calls = record(FakeTrainStep(), made, left=(23,))
    assert reached == 23
    assert [call for call in calls if call[0] in ("evaluate", "save")] == [
        ("evaluate", 12, False), ("save", 12, False), ("evaluate", 23, False), ("save", 23, True)
    ]  # fmt: skip


@pytest.mark.parametrize(("steps_per_loop", "sizes"), [(1, [1] * 5), (3, [1, 1, 3])])
def test_the_watchdog_hears_of_every_loop_with_its_length(steps_per_loop, sizes):
    _, calls = record(FakeTrainStep(), cadence(total_steps=5), steps_per_loop=steps_per_loop)
    entered = [call[1:] for call in calls if call[0] == "enter"]
    steps = [call for call in entered if call[0] != watchdog.WAITING]
    assert [call[0] for call in steps if call[1] == 0][-1] == watchdog.FIRST_STEP
    assert {call[0] for call in steps if call[1] > 0} == {watchdog.STEP}
    assert [call[2] for call in steps][-len(sizes) :] == sizes
    waits = [call[1] for call in entered if call[0] == watchdog.WAITING]
    assert waits == ([1, 2, 3, 4] if steps_per_loop == 1 else [])


@pytest.mark.parametrize("flag", [SAVE_FLAG, STOP_FLAG])
def test_another_workers_flag_counts_as_this_ones(flag):
    peers = [0, 0]
    peers[flag] = 1
    reached, calls = record(FakeTrainStep(peers=peers), cadence(total_steps=13))
    assert reached == (12 if flag == STOP_FLAG else 13)
    assert steps_of(calls, "save") == ([12] if flag == STOP_FLAG else [12, 13])


def test_a_resumed_run_goes_on_from_its_step():
    step = FakeTrainStep(start_step=17)
    made = cadence(total_steps=30, save_every_steps=20)
    reached, calls = record(step, made, start_step=17)
    assert reached == 30 and step.taken == list(range(17, 30))
    assert steps_of(calls, "log") == [20, 30]
    assert steps_of(calls, "save") == [20, 30]


def test_a_finished_run_takes_no_step():
    step = FakeTrainStep()
    assert record(step, cadence(total_steps=30), start_step=30) == (30, [])
    assert not step.taken


@pytest.mark.parametrize(
    ("profile_steps", "start_step", "edges"),
    [
        ((3, 6), 0, [(True, 3), (False, 6)]),
        ((0, 2), 0, [(True, 0), (False, 2)]),
        ((15, 20), 0, [(True, 15), (False, 20)]),  # the end of the run writes the trace too
        ((3, 9), 5, [(True, 5), (False, 9)]),  # resumed in the middle: the rest is traced
        ((3, 6), 8, []),
    ],
)
@pytest.mark.parametrize("steps_per_loop", [1, 50])
def test_the_steps_between_two_edges_are_traced(profile_steps, start_step, edges, steps_per_loop):
    made = cadence(total_steps=20, profile_steps=profile_steps)
    step = FakeTrainStep(start_step=start_step)
    _, calls = record(step, made, start_step=start_step, steps_per_loop=steps_per_loop)
    assert [call[1:] for call in calls if call[0] == "profile"] == edges


def test_a_stop_ends_the_trace():
    made = cadence(profile_steps=(2, 50))
    _, calls = record(FakeTrainStep(), made, stop_at=(7,))
    assert [call[1:] for call in calls if call[0] == "profile"] == [(True, 2), (False, 8)]


def test_an_error_ends_the_trace():
    made = cadence(profile_steps=(2, 50))
    calls = []
    step = FakeTrainStep()

    def fail(*_):
        raise RuntimeError("the disk is full")

    hooks = types.SimpleNamespace(
        enter=lambda *_: None,
        started=lambda *_: None,
        progress=lambda *_: None,
        log=fail,
        profile=lambda is_start: calls.append((is_start, step.steps)),
        save_is_due=lambda: False,
        stop_is_due=lambda: False,
        clock=step.clock,
    )
    with pytest.raises(RuntimeError, match="disk"):
        train(
            step, itertools.count(), start_step=0, steps_per_loop=1, cadence=made, hooks=hooks
        )
    assert calls == [(True, 2), (False, 10)]


def test_a_session_has_every_hook():
    hooks = {name: kind for name, kind in vars(Hooks).items() if inspect.isfunction(kind)}
    hooks = {name: kind for name, kind in hooks.items() if not name.startswith("_")}
    assert hooks.pop("clock")  # an attribute of the session
    assert len(hooks) == 10
    for name, hook in hooks.items():
        own = inspect.signature(getattr(Session, name)).parameters
        assert list(own) == list(inspect.signature(hook).parameters), name


@pytest.mark.parametrize(
    ("flag", "what"), [("non_finite", "not finite"), ("too_large", "too large for exact sums")]
)
def test_a_failed_step_stops_the_run_and_is_named(flag, what):
    step = FakeTrainStep(
        **{flag: tf.constant(2, tf.int64)},
        failed_step=tf.constant(1234, tf.int64),
        data_loss_nats=tf.constant(float("nan")),
        gradient_norm=tf.constant(float("nan")),
    )
    with pytest.raises(NonFiniteError) as caught:
        record(step, cadence())
    message = str(caught.value)
    assert f"at step 1,234 they were {what}" in message
    assert "No update was applied" in message and "loss nan, gradient norm nan" in message
    assert "; replica 3 first." in message and message.endswith("Look at 0 of step 1234.")
    assert caught.value.exit_status == 3


def test_nothing_is_saved_or_logged_after_a_failed_step():
    step = FakeTrainStep(failed_step=tf.constant(3, tf.int64))
    calls = []
    hooks = types.SimpleNamespace(
        **{
            name: lambda *arguments, name=name: calls.append(name)
            for name in ("started", "progress", "log", "evaluate", "save", "profile")
        },
        save_is_due=lambda: True,
        stop_is_due=lambda: True,
        clock=step.clock,
        enter=lambda *_: None,
        keep_failed_step=lambda *_: ("", ""),
    )
    with pytest.raises(NonFiniteError):
        train(
            step, itertools.count(), start_step=9, steps_per_loop=1, cadence=cadence(), hooks=hooks
        )
    assert not calls


def test_a_loop_has_at_least_one_step():
    with pytest.raises(ConfigError, match="steps_per_loop"):
        record(FakeTrainStep(), cadence(), steps_per_loop=0)
