"""A job whose workers leave one another: the watch over them, and what the loss of one is called."""

import contextlib
import re

import tensorflow as tf

from inception_tf import cluster as clusters
from inception_tf import preparation
from inception_tf.errors import LostWorkersError, StoppedAtStart, first_line
from inception_tf.run_directory import RunDirectory
from inception_tf.stopping import end_at_once
from inception_tf.training.watchdog import PREPARING, Watchdog

# What TensorFlow 2.21 says in the workers that are left: of others, whatever the kind of the error
# (one that runs out of memory ends the others with its own kind), and of sums that came to nothing.
_OF_OTHERS = re.compile(
    "stopped sending heartbeats|Error reported from /job:|remote target /job:"
    "|[Cc]oordination service"
)
_OF_SUMS = re.compile("Collective ops is aborted")
_KINDS_OF_SUMS = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)
_TASK = re.compile(r"/job:\w+/(?:replica:\d+/)?task:\d+")
_CAUSE = re.compile(
    "stopped sending heartbeats|Connection re(?:set|fused)|Socket closed|failed to connect"
    "|Collective has timed out|Deadline Exceeded"
)


@contextlib.contextmanager
def watch(experiment, directory, *, is_stop_asked):
    """A Watchdog over this worker; the loss of another one becomes one message.

    Raises:
      LostWorkersError: TensorFlow lost another worker. Any other error passes as it is.
      StoppedAtStart: the other worker was asked to stop before there was anything to save.
    """
    addresses, index = clusters.read_workers()
    watchdog = Watchdog(
        experiment.watchdog,
        run_dir=directory.path,
        worker_index=index,
        num_workers=len(addresses),
        is_stop_asked=is_stop_asked,
    )
    with watchdog:
        try:
            yield watchdog
        except tf.errors.OpError as error:
            if len(addresses) == 1 or not _is_of_others(error):
                raise
            if watchdog.has_peer_stopped():
                raise StoppedAtStart(
                    "Another worker was asked to stop; this one ends with it."
                ) from None
            raise LostWorkersError(
                "All workers of a job must stay until its end.",
                # On a line of their own: peers quote the first one, and not what it quotes.
                received=f"worker {index}, in phase {watchdog.where()}, lost {_lost(error)}.\n"
                + "".join(f"  {line}\n" for line in watchdog.others()),
                remedy="The real error stands in the output of the worker that was lost. Started "
                "again, all of them by a launcher or by you, the run goes on from its last "
                "checkpoint.",
            ) from None


@contextlib.contextmanager
def join(experiment, directory, *, verb):
    """This worker among the others, for a command that writes nothing in the run directory.

    A signal ends it at once. What its workers are doing stands meanwhile in <run_dir>/.<verb>.

    Yields:
      (Cluster, Watchdog in its phase PREPARING).

    Raises:
      As `watch`.
    """
    scratch = RunDirectory(directory.path / f".{verb}")
    with contextlib.ExitStack() as stack:
        stop_requests = stack.enter_context(end_at_once(f"stopped; {verb} has not ended"))
        watchdog = stack.enter_context(watch(experiment, scratch, is_stop_asked=bool))
        cluster = preparation.join_cluster(experiment, directory)
        stop_requests.install()  # TensorFlow's own handler, set by the strategy, swallows SIGTERM
        watchdog.has_devices(cluster.num_local)
        watchdog.enter(PREPARING)
        yield cluster, watchdog


def _is_of_others(error):
    """Whether an error of TensorFlow is the loss of another worker."""
    text = str(error)
    is_of_sums = isinstance(error, _KINDS_OF_SUMS) and _OF_SUMS.search(text)
    return bool(_OF_OTHERS.search(text) or is_of_sums)


def _lost(error):
    """The task that TensorFlow names, with the cause that it says."""
    text = str(error)
    task, cause = _TASK.search(text), _CAUSE.search(text)
    if task:
        name = task[0]
    else:  # worker 0 answers the heartbeats of all
        name = "worker 0" if "CoordinationService/" in text else "another worker"
    if cause:
        return f"{name} ({cause[0]})"
    # It may be an error of this worker's own after all: nothing of it is kept back.
    said = next((line for line in text.splitlines() if _OF_SUMS.search(line)), first_line(error))
    return f"{name} ({type(error).__name__}: {said})"
