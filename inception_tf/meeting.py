"""The workers of a job find each other before TensorFlow does.

TensorFlow waits for a missing worker for ever, in C++, with Python's lock held and with a handler
of its own for SIGTERM: no thread and no signal ends that. So each worker first answers on its own
port and waits here until every other one answers on its own, which can be limited, told and
stopped.
"""

import contextlib
import socket
import time

from inception_tf import own_port
from inception_tf.errors import LostWorkersError

_ROUND_SECS = 1.0
_TELL_ROUNDS = 30


def await_workers(addresses, index, *, limit_secs):
    """Returns once every worker answers on its port.

    Args:
      addresses: 'host:port' of every worker.
      index: of this one.
      limit_secs: to wait at most.

    Raises:
      LostWorkersError: who did not answer within the limit.
    """
    deadline_secs = time.monotonic() + limit_secs
    rounds, met = 0, set()
    with contextlib.ExitStack() as stack:
        listener = None
        while True:
            waits = []
            if listener is None:
                listener = _listener(_port_of(addresses[index]))
                if listener is None:
                    waits.append(f"port {_port_of(addresses[index])} here, which is in use")
                else:
                    stack.enter_context(listener)
            else:
                _answer(listener)
            for other, address in enumerate(addresses):
                if other == index:
                    continue
                if _answers(address):
                    met.add(other)
                else:
                    gone = ", which has answered and is gone" if other in met else ""
                    waits.append(f"worker {other} at {address}{gone}")
            if not waits:
                return
            if time.monotonic() >= deadline_secs:
                raise LostWorkersError(
                    f"Every worker must answer within {limit_secs:.0f} s (watchdog.start_secs).",
                    received=f"worker {index} has waited in vain for {'; '.join(waits)}",
                    remedy="Look at the output of those workers, at their addresses and at the "
                    "firewall between the machines; then start all of them again.",
                )
            if rounds % _TELL_ROUNDS == 1:
                print(f"worker {index} waits for {'; '.join(waits)}", flush=True)
            rounds += 1
            time.sleep(_ROUND_SECS)


def _port_of(address):
    return int(address.rpartition(":")[2])


def _listener(port):
    """A socket that answers on a port as TensorFlow will; None where the port is in use."""
    try:
        listener = own_port.listen(port)
    except OSError:  # whatever else may be wrong with the port was an error before the meeting
        return None
    listener.setblocking(False)
    return listener


def _answer(listener):
    """Takes the calls that have come, so that the queue has room for more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ROUND_SECS).close()
    except OSError:
        return False
    return True
