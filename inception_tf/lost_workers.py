"""A job whose workers leave one another: the watch over them, and what the loss of one is called."""

import contextlib
import re

import tensorflow as tf

from inception_tf import cluster as clusters
from inception_tf.errors import LostWorkersError, StoppedAtStart
from inception_tf.training.watchdog import Watchdog

# What TensorFlow 2.21 raises in the workers that are left, and what it says there.
_KINDS = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)
_SAYS = re.compile(
    "Collective ops is aborted|stopped sending heartbeats|Error reported from /job:|"
    "remote target /job:|[Cc]oordination service"
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
        except _KINDS as error:
            if len(addresses) == 1 or not _SAYS.search(str(error)):
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
                remedy="The real error stands in the output of the worker that was lost. Start "
                "all of them again: the run goes on from its last checkpoint.",
            ) from None


def _lost(error):
    """The task that TensorFlow names, with the cause where it says one."""
    text = str(error)
    task, cause = _TASK.search(text), _CAUSE.search(text)
    if task:
        name = task[0]
    else:  # worker 0 answers the heartbeats of all
        name = "worker 0" if "CoordinationService/" in text else "another worker"
    return f"{name} ({cause[0]})" if cause else name
