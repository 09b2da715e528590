"""One start of a job's workers on this machine, and which of them was the first to fail."""

import collections
import contextlib
import dataclasses
import math
import os
import pathlib
import queue
import signal
import subprocess
import threading
import time

from inception_tf import errors
from inception_tf.launch_output import is_progress, write_line
from inception_tf.launch_restarts import NEVER_AGAIN, meaning_of

KEPT_LINES = 30  # of each worker, for the report of a failure
NUM_BEFORE_SIGNAL = 5  # that are shown of one that a signal ended
READ_SECS = 5.0  # to read what a worker that is gone has written
# Peers see a worker's sockets close while it is still dying, so the one that failed may end after
# those that lost it; and what is wrong with a configuration all workers find out by themselves.
SETTLE_SECS = 5.0


class Worker:
    """One process of the job, with the last lines that it wrote.

    Args:
      index: its task index in TF_CONFIG.
      command: program and arguments.
      environment: the whole environment of the process.
      ended: queue that receives this worker once its process is gone and its output is read.
      print_line: called with the index and each line of stdout and stderr, in the order written.
    """

    def __init__(self, index, command, environment, *, ended, print_line):
        self.index = index
        self.last_lines = collections.deque(maxlen=KEPT_LINES)
        self.status = None
        self.was_frozen = False
        self._print_line = print_line
        self._is_collected = False
        # Reentrant: the handler of a signal sends it on, in whatever the main thread is doing.
        self._lock = threading.RLock()
        # Its own session: a Ctrl-C in the terminal reaches the launcher only, which passes it
        # on once, and a worker's own children are stopped with it.
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, args=(ended,), daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            line = line.rstrip("\n")
            if not is_progress(line):
                self.last_lines.append(line)
            self._print_line(self.index, line)

    def _wait(self, ended):
        # Its end is awaited first and collected afterwards: only until then is its number its own.
        with contextlib.suppress(ChildProcessError):  # collected by the system: SIGCHLD is ignored
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._send(signal.SIGKILL)  # children left behind would hold the pipe open
            code = self._process.wait()
            self._is_collected = True
        self._reader.join(timeout=READ_SECS)
        self.status = 128 - code if code < 0 else code  # ended by signal n: 128 + n, as in a shell
        ended.put(self)

    def note_frozen(self):
        """Remembers whether a signal such as SIGSTOP holds the process, where /proc tells."""
        with self._lock, contextlib.suppress(OSError):
            if not self._is_collected:
                stat = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text()
                self.was_frozen = stat.rpartition(")")[2].split()[0] == "T"

    def send(self, signum):
        """Sends a signal to the worker and its children, if it still runs."""
        with self._lock:
            if not self._is_collected:
                self._send(signum)

    def _send(self, signum):
        try:
            os.killpg(self._process.pid, signum)
            if signum != signal.SIGKILL:
                os.killpg(self._process.pid, signal.SIGCONT)  # one that is frozen has to hear it
        except ProcessLookupError:
            pass  # nothing of it is left


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobEnd:
    """How all workers of one start ended.

    Attributes:
      guilty: the worker whose failure ended the job; else the first that was asked to stop and
        did; None where all ended well.
      workers: all of them, with their statuses.
      is_stopped: somebody asked for a stop: the launcher or one of the workers got a signal.
    """

    guilty: Worker | None
    workers: list[Worker]
    is_stopped: bool


class Job:
    """The workers of one start of the job, until the last of them has ended.

    Args:
      command: program and arguments of every worker.
      environments: task index -> whole environment.
      grace_secs: time between asking a worker to stop and killing it.
      print_line: called with the index of a worker and each of its lines, from several threads.
    """

    def __init__(self, command, environments, *, grace_secs, print_line):
        self._command = command
        self._environments = environments
        self._grace_secs = grace_secs
        self._print_line = print_line
        self._workers = []
        self._ended = queue.SimpleQueue()
        self._signal = None
        # Of the monotonic clock: when the workers that still run are asked to stop, and killed.
        self._ask_at_secs = self._kill_at_secs = math.inf
        self._is_asked = self._is_killed = False

    @property
    def is_signalled(self) -> bool:
        """Whether a signal was passed on."""
        return self._signal is not None

    def forward(self, signum):
        """Passes a signal on to every worker; a second one kills them."""
        self._signal = signum if self._signal is None else signal.SIGKILL
        self._send_all(self._signal)

    def run(self):
        """Runs all workers to their end; returns a JobEnd."""
        try:
            for index, environment in self._environments.items():
                self._workers.append(
                    Worker(
                        index,
                        self._command,
                        environment,
                        ended=self._ended,
                        print_line=self._print_line,
                    )
                )
        except Exception:  # no memory or processes left: the others are nobody's then
            self._send_all(signal.SIGKILL)
            raise
        if self._signal is not None:  # it came while they were being started
            self._send_all(self._signal)
        ranked, num_ended = [], 0
        while num_ended < len(self._workers):
            worker = self._next_ended()
            if worker is not None:
                ranked.append((self._rank(worker.status), num_ended, worker))
                num_ended += 1
                self._react_to(worker.status)
        rank, _, guilty = min(ranked, key=lambda one: one[:2])
        is_asked_of_one = any(rank == _STOPPED for rank, _, _ in ranked)
        return JobEnd(
            guilty=guilty if rank < _WELL else None,
            workers=self._workers,
            is_stopped=self._signal is not None or is_asked_of_one,
        )

    def _rank(self, status):
        """How much the job's end is a worker's own doing, the most first."""
        if status in NEVER_AGAIN:
            return _SURE  # nobody else's end makes a worker end so
        if status == 0:
            return _WELL
        if status == errors.EXIT_STUCK:
            return _LOST
        if self._is_killed:
            return _KILLED
        if self._is_asked:
            return _WELL  # for the sake of another
        if status == errors.EXIT_PREEMPTED or status == 128 + (self._signal or 0):
            return _STOPPED
        return _OWN

    def _react_to(self, status):
        """Sets when the others are asked to stop, and killed, once one has ended so."""
        now = time.monotonic()
        if status == 0 or self._is_asked:
            return
        if status == errors.EXIT_PREEMPTED:
            # It leaves with its checkpoint written, and so do the others at the same step: they
            # are given the time, not another signal.
            self._kill_at_secs = min(self._kill_at_secs, now + self._grace_secs)
        else:
            settles = status == errors.EXIT_STUCK or status in NEVER_AGAIN
            wait_secs = SETTLE_SECS if settles else 0.0
            self._ask_at_secs = min(self._ask_at_secs, now + wait_secs)

    def _next_ended(self):
        """The next worker that ends; None where the time has come for the others to be stopped."""
        due_secs = min(self._ask_at_secs, self._kill_at_secs)
        if due_secs == math.inf:
            return self._ended.get()
        try:
            return self._ended.get(timeout=max(0.0, due_secs - time.monotonic()))
        except queue.Empty:
            pass
        if due_secs == self._ask_at_secs:
            self._is_asked, self._ask_at_secs = True, math.inf
            for worker in self._workers:
                worker.note_frozen()
            self._kill_at_secs = min(self._kill_at_secs, time.monotonic() + self._grace_secs)
            self._send_all(signal.SIGTERM)
        else:
            self._is_killed, self._kill_at_secs = True, math.inf
            self._send_all(signal.SIGKILL)
        return None

    def _send_all(self, signum):
        for worker in self._workers:
            worker.send(signum)


# Ranks of `Job._rank`.
_SURE, _OWN, _LOST, _KILLED, _STOPPED, _WELL = range(6)


def report_failure(end, stream):
    """Prints what the failing worker wrote last, then how each of the others ended.

    Args:
      end: a JobEnd with a guilty worker.
      stream: where to.
    """
    guilty = end.guilty
    status = f"{guilty.status} ({meaning_of(guilty.status)})"
    lines = list(guilty.last_lines)
    if guilty.status > 128 and guilty.status != errors.EXIT_STUCK:
        lines = lines[-NUM_BEFORE_SIGNAL:]  # a signal leaves no message of its own
    wrote = "it wrote last:" if lines else "it wrote nothing"
    write_line(f"\nworker {guilty.index} failed first, with status {status}; {wrote}", stream)
    for line in lines:
        write_line(f"  {line}", stream)
    for worker in end.workers:
        if worker is not guilty:
            frozen = " was frozen by a signal, such as SIGSTOP, and" if worker.was_frozen else ""
            write_line(f"worker {worker.index}{frozen} ended with status {worker.status}", stream)
