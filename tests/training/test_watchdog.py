"""What the watchdog makes of time that passes; no process, no TensorFlow."""

import json
import os
import threading
import time

import pytest

from inception_tf.errors import ConfigError, DataError
from inception_tf.training import watchdog
from inception_tf.training.watchdog import Limits, Watchdog, WatchdogSpec

SPEC = WatchdogSpec(
    start_secs=600.0,
    first_step_secs=900.0,
    first_step_secs_per_device=120.0,
    step_secs=120.0,
    step_factor=20.0,
    saving_secs=700.0,
    exporting_secs=1800.0,
)


class Left(Exception):
    """The process would have ended."""


@pytest.fixture(autouse=True)
def left(monkeypatch):
    """Statuses with which the process would have ended."""
    statuses = []

    def leave(status):
        statuses.append(status)
        raise Left

    monkeypatch.setattr(watchdog.os, "_exit", leave)
    monkeypatch.setattr(watchdog.time, "process_time", lambda: 0.0)
    return statuses


def dog(tmp_path, index=0, *, num_workers=2, asked=()):
    """A watchdog without its thread; it has told that it is there."""
    made = Watchdog(
        SPEC,
        run_dir=tmp_path,
        worker_index=index,
        num_workers=num_workers,
        is_stop_asked=lambda: bool(asked),
    )
    made._tell()
    return made


def secs_until_end(made, *, most=5000):
    """Whole seconds after which the process ends; `most` where it does not."""
    for passed in range(1, most):
        try:
            made.advance(1.0)
        except Left:
            return passed
    return most


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "secs"),
    [
        (watchdog.JOINING, 1200.0),  # after the meeting's own 600, which names who is missing
        (watchdog.PREPARING, 600.0),
        (watchdog.FIRST_STEP, 900.0),
        (watchdog.STEP, 900.0),  # nothing was measured: it may still have to be traced
        (watchdog.EVALUATING, 900.0),
        (watchdog.SAVING, 700.0),
        (watchdog.EXPORTING, 1800.0),
        (watchdog.ENDING, 700.0),
    ],
)
def test_each_phase_has_its_limit(phase, secs):
    assert Limits(SPEC).of(phase) == secs


def test_the_first_step_is_given_time_for_each_device_of_the_process():
    assert Limits(SPEC, 7).of(watchdog.FIRST_STEP) == 900.0
    assert Limits(SPEC, 20).of(watchdog.FIRST_STEP) == 2400.0


def test_a_step_is_given_twenty_medians_and_at_least_its_floor():
    limits = Limits(SPEC)
    for secs in (1.0, 1.0, 500.0):
        limits.took(watchdog.STEP, secs)
    assert limits.of(watchdog.STEP) == 120.0
    for _ in range(50):
        limits.took(watchdog.STEP, 9.0)
    assert limits.of(watchdog.STEP) == 180.0
    assert limits.of(watchdog.WAITING) == 900.0


def test_the_limit_of_a_loop_grows_with_its_steps():
    limits = Limits(SPEC)
    limits.took(watchdog.STEP, 90.0, num_steps=10)
    assert limits.of(watchdog.STEP) == 180.0
    assert limits.of(watchdog.STEP, num_steps=100) == 18000.0


@pytest.mark.parametrize("name", ["start_secs", "step_factor", "exporting_secs"])
def test_a_limit_is_above_zero(name):
    with pytest.raises(ConfigError, match=f"watchdog.{name} must be above 0"):
        WatchdogSpec(**{name: 0.0})


# -- expiry ----------------------------------------------------------------------------------------


def test_a_step_that_does_not_move_ends_the_process_with_stacks_and_reason(
    tmp_path, left, capfd
):
    made = dog(tmp_path)
    for step in range(3):
        made.enter(watchdog.STEP, step=step)
        made.advance(2.0)
    made.enter(watchdog.STEP, step=3)
    assert secs_until_end(made) == 121
    assert left == [138]
    said = capfd.readouterr().err
    assert "worker 0 is stuck in phase 'step' at step 3: nothing has moved for 121 s (" in said
    assert "(limit 120 s)" in said
    assert "worker 1: has not been heard of since this start" in said
    stacks = (tmp_path / "workers" / "0.stacks").read_text()
    assert said.splitlines()[0] in stacks
    for text in (said, stacks):
        assert "test_a_step_that_does_not_move" in text  # the stack of this very thread


def test_what_moves_lives(tmp_path, left):
    made = dog(tmp_path)
    made.enter(watchdog.EVALUATING, step=7)
    for _ in range(100):
        made.advance(100.0)
        made.moved()
    assert left == []


def test_the_limit_follows_the_measured_steps(tmp_path):
    made = dog(tmp_path)
    for step in range(5):
        made.enter(watchdog.STEP, step=step)
        made.advance(30.0)
    made.enter(watchdog.STEP, step=5)
    assert secs_until_end(made) == 601


def test_preparing_that_computes_is_not_stuck_and_nothing_else_is_excused(
    tmp_path, monkeypatch
):
    busy = iter(range(10**6))
    monkeypatch.setattr(watchdog.time, "process_time", lambda: float(next(busy)))
    made = dog(tmp_path, num_workers=1)
    made.enter(watchdog.PREPARING)
    assert secs_until_end(made) == 5000
    made.enter(watchdog.FIRST_STEP)
    assert secs_until_end(made) == 901


def test_start_up_waits_as_long_as_another_worker_moves(tmp_path, left):
    first, second = dog(tmp_path, 0), dog(tmp_path, 1)
    for made in (first, second):
        made.enter(watchdog.PREPARING)
    for _ in range(14):
        second.moved()
        first.advance(100.0)
        second.advance(100.0)
    assert left == []
    with pytest.raises(Left):
        for _ in range(7):
            first.advance(100.0)
            second.advance(100.0)


def test_time_in_which_the_whole_process_stood_still_does_not_count(tmp_path, left, monkeypatch):
    made = dog(tmp_path)
    made.enter(watchdog.STEP, step=1)
    clock = iter([0.0, 0.5, 7200.0, 7200.5])
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(made._ended, "wait", lambda secs: made._secs > 1.9)
    made._watch()
    assert made._secs == 2.0 and left == []


def test_the_thread_ends_with_the_with_and_leaves_no_state(tmp_path, left):
    made = dog(tmp_path)
    with made:
        assert (tmp_path / "workers" / "0.json").exists()
        assert made._thread.is_alive()
    assert not made._thread.is_alive()
    assert not (tmp_path / "workers" / "0.json").exists()


def test_a_worker_ends_once_all_have_come_to_their_end(tmp_path, left, monkeypatch):
    other = tmp_path / "workers" / "1.json"
    naps = []

    def nap(secs):
        naps.append(secs)
        if len(naps) == 3:
            other.unlink()

    with dog(tmp_path):
        other.write_text("{}")
        monkeypatch.setattr(watchdog.time, "sleep", nap)
    assert len(naps) == 3


def test_a_worker_waits_two_seconds_for_the_others_at_most(tmp_path, left, monkeypatch):
    naps = []
    with dog(tmp_path):
        (tmp_path / "workers" / "1.json").write_text("{}")
        monkeypatch.setattr(watchdog.time, "sleep", naps.append)
    assert sum(naps) == pytest.approx(2.0)


def test_one_worker_writes_no_state(tmp_path):
    with dog(tmp_path, num_workers=1):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_end_the_watch(tmp_path):
    (tmp_path / "workers").write_text("no directory")
    made = dog(tmp_path)
    made.enter(watchdog.STEP, step=1)
    made.advance(1.0)
    assert made.others() == ["worker 1: has not been heard of since this start"]


def test_a_file_system_that_is_away_does_not_hold_the_watchdog(tmp_path, left, capfd, monkeypatch):
    monkeypatch.setattr(watchdog, "_FILES_SECS", 0.1)
    made = dog(tmp_path)
    held = [tmp_path / "workers" / name for name in ("0.tmp", "0.stacks", "1.json")]
    for path in held:
        os.mkfifo(path)  # whoever opens it waits for the other end
    made.enter(watchdog.WAITING, step=3)
    ends = []
    waiting = threading.Thread(target=lambda: ends.append(secs_until_end(made)), daemon=True)
    waiting.start()
    waiting.join(timeout=20)
    for path in held:
        os.close(os.open(path, os.O_RDWR))
    assert ends == [901] and left == [138]
    said = capfd.readouterr().err
    assert "is stuck in phase 'waiting for data' at step 3" in said
    assert "their files do not answer" in said and "in secs_until_end" in said


# -- stops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "phase", [watchdog.JOINING, watchdog.PREPARING, watchdog.FIRST_STEP]
)
def test_a_stop_before_the_first_step_has_ended_ends_the_process_at_once(
    tmp_path, left, capfd, phase
):
    made = dog(tmp_path, asked=[15])
    made.enter(phase)
    with pytest.raises(Left):
        made.advance(0.5)
    assert left == [143]
    assert f"stopped in phase '{phase}'" in capfd.readouterr().err
    assert dog(tmp_path, 1).has_peer_stopped()


@pytest.mark.parametrize("phase", [watchdog.STEP, watchdog.EVALUATING, watchdog.SAVING])
def test_a_later_stop_is_left_to_the_loop(tmp_path, left, phase):
    made = dog(tmp_path, asked=[15])
    made.enter(phase, step=1)
    made.advance(0.5)
    assert left == []


# -- what others are told --------------------------------------------------------------------------


def test_others_are_told_phase_step_and_time(tmp_path):
    first, second = dog(tmp_path, 0), dog(tmp_path, 1)
    second.enter(watchdog.WAITING, step=1234)
    second.advance(42.0)
    assert first.others() == ["worker 1: in phase 'waiting for data' at step 1,234, unmoved for 42 s"]
    assert not first.has_peer_stopped()


def test_a_silent_worker_is_called_silent(tmp_path):
    first, second = dog(tmp_path, 0), dog(tmp_path, 1)
    second.enter(watchdog.STEP, step=5)
    second.advance(1.0)
    later = time.time() + 40.0
    os.utime(tmp_path / "workers" / "0.json", (later, later))
    (line,) = first.others()
    assert line == (
        "worker 1: has been silent for 40 s; before that in phase 'step' at step 5, unmoved for 1 s"
    )


def test_what_an_earlier_start_left_does_not_count(tmp_path):
    dog(tmp_path, 1)
    earlier = time.time() - 60.0
    os.utime(tmp_path / "workers" / "1.json", (earlier, earlier))
    assert dog(tmp_path, 0).others() == ["worker 1: has not been heard of since this start"]


def test_the_error_that_ended_a_worker_is_told_to_the_others(tmp_path):
    first = dog(tmp_path, 0)
    with pytest.raises(DataError):
        with dog(tmp_path, 1) as second:
            second.enter(watchdog.STEP, step=4)
            raise DataError("A record must be whole.", received="shard 3 at byte 17")
    assert first.others() == [
        "worker 1: has ended with status 2: DataError: A record must be whole. "
        "Received: shard 3 at byte 17."
    ]


def test_a_start_that_all_workers_refuse_leaves_no_trace(tmp_path):
    run_dir = tmp_path / "runs" / "new"
    with pytest.raises(ConfigError), dog(run_dir) as made:
        made.enter(watchdog.PREPARING)
        assert (run_dir / "workers" / "0.json").exists()
        raise ConfigError("A rate must be above 0.")
    assert list(tmp_path.iterdir()) == []
    (run_dir / "checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError), dog(run_dir):
        raise ConfigError("A rate must be above 0.")
    assert [path.name for path in run_dir.iterdir()] == ["checkpoints"]


@pytest.mark.parametrize("text", ["", "[]", '{"phase"'])
def test_a_torn_state_is_no_state(tmp_path, text):
    first = dog(tmp_path, 0)
    (tmp_path / "workers" / "1.json").write_text(text)
    assert first.others() == ["worker 1: has not been heard of since this start"]
    assert json.loads((tmp_path / "workers" / "0.json").read_text())["phase"] == watchdog.JOINING


def test_the_first_batch_of_a_phase_is_given_the_time_to_be_traced(tmp_path, left):
    made = dog(tmp_path)
    moved = made.enter_batches(watchdog.EVALUATING, step=7)
    moved()  # before the first batch
    assert secs_until_end(made, most=900) == 900
    moved()  # before the second one: only now has anything moved
    assert secs_until_end(made, most=900) == 900
    assert "'evaluating' at step 7" in made.where()
