"""Ends a process in which nothing moves, and says what every worker was doing.

The main thread says which phase it is in and when it moves on; a thread of its own compares that
with the limit of the phase, since signal handlers and the main thread's own clock stand still with
it. Nothing else below the road knows of clocks.
"""

import collections
import contextlib
import dataclasses
import faulthandler
import itertools
import os
import statistics
import sys
import threading
import time

from inception_tf.errors import (
    EXIT_FAULT,
    EXIT_PREEMPTED,
    EXIT_STUCK,
    EXIT_USER_ERROR,
    ConfigError,
    first_line,
)
from inception_tf.training.worker_states import SILENT_SECS, WorkerStates, in_words

JOINING = "joining the workers"
PREPARING = "preparing data, network and checkpoint"
FIRST_STEP = "first step"
WAITING = "waiting for data"
STEP = "step"
EVALUATING = "evaluating"
SAVING = "saving"
EXPORTING = "exporting"
ENDING = "ending"

START = (JOINING, PREPARING)
BEFORE_STEPS = (*START, FIRST_STEP)
_MEASURED = (WAITING, STEP, EVALUATING)  # their limits follow from what they took before

_POLL_SECS = 0.5
_TELL_SECS = 3.0  # between two writings of an unchanged state
_FILES_SECS = 5.0  # for what touches files: their file system may be away
_BUSY_SHARE = 0.05  # of a core: a process that prepares and computes is not stuck
_NUM_RECENT = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchdogSpec:
    """How long nothing may move before a worker ends itself (gin section `watchdog`).

    Attributes:
      start_secs: looking for the other workers; preparing, while the process computes nothing.
      first_step_secs: the first step, and everything else that traces first.
      first_step_secs_per_device: of one process, which traces one device after the other; the
        larger of the two holds.
      step_secs: a step, or a batch of an evaluation, at least.
      step_factor: the same as multiples of the median of recent ones; the larger limit holds.
      saving_secs: one attempt to write a checkpoint, and the end of the run.
      exporting_secs: the export at the end of a run.
    """

    start_secs: float = 600.0
    first_step_secs: float = 900.0
    first_step_secs_per_device: float = 120.0
    step_secs: float = 120.0
    step_factor: float = 20.0
    saving_secs: float = 900.0
    exporting_secs: float = 1800.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                received = getattr(self, field.name)
                raise ConfigError(f"watchdog.{field.name} must be above 0.", received=received)


class Limits:
    """The limit of each phase, from what the same phase took before.

    Args:
      spec: a WatchdogSpec.
      num_devices: local devices, which are traced one after the other.
    """

    def __init__(self, spec, num_devices=1):
        self._spec = spec
        self._first_secs = max(
            spec.first_step_secs, spec.first_step_secs_per_device * num_devices
        )
        self._recent = collections.defaultdict(lambda: collections.deque(maxlen=_NUM_RECENT))

    def took(self, phase, secs, *, num_steps=1):
        """Notes what a phase took that has moved on."""
        if phase in _MEASURED:
            self._recent[phase].append(secs / num_steps)

    def of(self, phase, *, num_steps=1):
        """Seconds that a phase of so many steps may take."""
        spec = self._spec
        if phase == JOINING:  # the meeting has the limit itself, and names who is missing
            return 2 * spec.start_secs
        if phase == PREPARING:
            return spec.start_secs
        if phase in (SAVING, ENDING):
            return spec.saving_secs
        if phase == EXPORTING:
            return spec.exporting_secs
        if not self._recent[phase]:  # it may have to be traced
            return self._first_secs
        median = statistics.median(self._recent[phase])
        return max(spec.step_secs, spec.step_factor * median * num_steps)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the main thread is, and since when."""

    phase: str
    step: int | None
    num_steps: int
    since_secs: float


class Watchdog:
    """Watches the main thread of one worker, for as long as a `with` lasts.

    The `with` also notes how this worker ended, for those that lose it.

    Args:
      spec: a WatchdogSpec.
      run_dir: on a file system that all workers share.
      worker_index, num_workers: of this process.
      is_stop_asked: function that tells whether this process was asked to stop. Before the first
        step has ended there is nothing to save, and the process ends at once.
    """

    def __init__(self, spec, *, run_dir, worker_index, num_workers, is_stop_asked):
        self._spec = spec
        self._index, self._num_workers = worker_index, num_workers
        self._states = WorkerStates(run_dir, worker_index=worker_index, num_workers=num_workers)
        self._is_stop_asked = is_stop_asked
        self._limits = Limits(spec)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        # Seconds in which this thread ran: a job that was stopped for an hour and continued, as
        # schedulers do, has lost no time.
        self._secs = 0.0
        self._busy_secs = time.process_time()
        self._place = _Place(JOINING, None, 1, 0.0)
        self._told = (None, 0.0)
        self._at_files = None  # the thread that touches files

    def __enter__(self):
        self._in_time(self._tell)
        self._thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self._ended.set()
        self._thread.join(timeout=_TELL_SECS)
        status = 0 if error is None else getattr(error, "exit_status", EXIT_FAULT)
        # At the start all workers refuse together: nobody has to be told.
        if status == 0 or (status == EXIT_USER_ERROR and self._place.phase in START):
            self._in_time(self._states.forget)
        elif isinstance(error, Exception):
            message = f"{type(error).__name__}: {first_line(error)}"
            self._in_time(lambda: self._tell(status=status, message=message))

    # -- said by the main thread ---------------------------------------------------------------

    def enter(self, phase, *, step=None, num_steps=1):
        """A phase begins, with the step that it is about and how many steps it takes."""
        self._note_move()
        self._place = _Place(phase, step, num_steps, self._secs)

    def moved(self):
        """The phase goes on, and did something."""
        self._note_move()
        self._place = dataclasses.replace(self._place, since_secs=self._secs)

    def enter_batches(self, phase, *, step):
        """A phase of many batches begins; a function to call before each, which returns False."""
        self.enter(phase, step=step)
        batches = itertools.count()

        def moved():
            if next(batches):  # the first one may have to be traced: it has yet to move
                self.moved()
            return False

        return moved

    def has_devices(self, num_devices):
        """How many devices this process traces."""
        self._limits = Limits(self._spec, num_devices)

    def others(self):
        """What each other worker was doing, as far as is known; one line each."""
        return [f"worker {i}: {self._states.described(i)}" for i in self._states.others]

    def has_peer_stopped(self):
        """Whether another worker ended because it was asked to, before it had anything to save."""
        states = (self._states.read(index)[0] for index in self._states.others)
        return any(state.get("status") == EXIT_PREEMPTED for state in states)

    def where(self):
        """The phase and step of this worker in words."""
        place = self._place
        return in_words(place.phase, place.step)

    # -- the thread ----------------------------------------------------------------------------

    def _watch(self):
        before = time.monotonic()
        while not self._ended.wait(_POLL_SECS):
            now = time.monotonic()
            self.advance(min(now - before, 2 * _POLL_SECS))
            before = now

    def advance(self, secs):
        """Lets time pass: ends the process where it is stuck or has been asked to stop."""
        self._secs += secs
        place = self._place
        busy_secs = time.process_time() - self._busy_secs
        self._busy_secs += busy_secs
        if place.phase == PREPARING and busy_secs > _BUSY_SHARE * secs:
            self._place = place = dataclasses.replace(place, since_secs=self._secs)
        if self._is_stop_asked() and place.phase in BEFORE_STEPS:
            self._leave(EXIT_PREEMPTED, f"stopped in phase {self.where()}: nothing is lost")
        idle_secs = self._secs - place.since_secs
        limit_secs = self._limits.of(place.phase, num_steps=place.num_steps)
        if idle_secs > limit_secs and self._place is place:
            is_excused = place.phase in START and self._in_time(
                lambda: self._has_peer_moved(limit_secs), False
            )
            if not is_excused:
                self._end_stuck(idle_secs, limit_secs)
        if self._told[0] != place.phase or self._secs - self._told[1] >= _TELL_SECS:
            self._in_time(self._tell)

    def _note_move(self):
        place = self._place
        self._limits.took(place.phase, self._secs - place.since_secs, num_steps=place.num_steps)

    def _has_peer_moved(self, limit_secs):
        """Whether another worker is at work on its start: it may have more to read."""
        for index in self._states.others:
            state, age_secs = self._states.read(index)
            if age_secs is not None and age_secs < SILENT_SECS:
                if state.get("idle_secs", limit_secs) < limit_secs:
                    return True
        return False

    def _end_stuck(self, idle_secs, limit_secs):
        lines = [
            f"error: worker {self._index} is stuck in phase {self.where()}: nothing has moved for "
            f"{idle_secs:.0f} s (limit {limit_secs:.0f} s).",
            *self._in_time(self.others, ["what the others did: their files do not answer"]),
            "The Python stacks of all threads follow. Started again, all workers by a launcher or "
            "by you, the run goes on from its last checkpoint. The limits are the section "
            "`watchdog` of the config.",
        ]
        self._in_time(lambda: self._keep_stacks("\n".join(lines)))
        self._leave(EXIT_STUCK, "\n".join(lines), has_stacks=True)

    def _leave(self, status, text, *, has_stacks=False):
        self._in_time(lambda: self._tell(status=status, message=text.splitlines()[0]))
        os.write(2, f"{text}\n".encode())  # not through sys.stderr, whose lock may be held
        if has_stacks:
            faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        os._exit(status)

    # -- the files -----------------------------------------------------------------------------

    def _in_time(self, act, otherwise=None):
        """What a function that touches files returns; `otherwise` where it has not in time.

        A file system that is away holds whoever touches it, for ever, and may well be what the
        main thread waits for.
        """
        if self._at_files is not None and self._at_files.is_alive():
            return otherwise
        found = []
        self._at_files = threading.Thread(target=lambda: found.append(act()), daemon=True)
        self._at_files.start()
        self._at_files.join(timeout=_FILES_SECS)
        return found[0] if found else otherwise

    def _tell(self, **end):
        """Writes this worker's state."""
        self._told = (self._place.phase, self._secs)
        if self._num_workers > 1:
            self._states.write(
                {
                    "phase": self._place.phase,
                    "step": self._place.step,
                    "idle_secs": round(self._secs - self._place.since_secs, 1),
                    **end,
                }
            )

    def _keep_stacks(self, text):
        with contextlib.suppress(OSError), open(self._states.stacks, "w", encoding="utf-8") as file:
            file.write(f"{text}\n\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
