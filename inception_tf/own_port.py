"""Whether a worker can listen where the others expect it, asked before TensorFlow tries.

TensorFlow's own error names neither the host nor the port.
"""

import errno
import os
import socket
import time

from absl import logging

from inception_tf import workers
from inception_tf.errors import ConfigError
from inception_tf.reporting import exposure

_TRIES, _WAIT_SECS = 20, 0.5
_BACKLOG = 1024  # calls of the other workers at once


def check_this_worker():
    """`check_own_port` of this process, with a warning where there is something to say.

    Raises:
      ConfigError: as `check_own_port`.
    """
    if line := check_own_port(workers.own_address(os.environ)):
        logging.warning("%s", line)


def check_own_port(address, *, addresses_of=exposure.host_addresses, sleep=time.sleep):
    """Tests that this worker can listen where the others expect it; before TensorFlow tries.

    Args:
      address: host:port of this worker; None for one that is alone, which opens no port.
      addresses_of: function that returns what `exposure.host_addresses` does.
      sleep: waits for seconds. An older worker of a job that is started again may still be ending.

    Returns:
      A line about an address that is none of this machine's, else None. That is right behind
      address translation or a container's mapped port, so it is no error.

    Raises:
      ConfigError: no port in the address, or one that cannot be listened on.
    """
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(
            "The address of a worker must be host:port.",
            received=repr(address),
            remedy="Mend it in TF_CONFIG.",
        )
    elsewhere = _elsewhere(host.strip("[]"), addresses_of())
    try:
        _wait_for(int(port), sleep)
    except OSError as error:
        is_busy = error.errno == errno.EADDRINUSE
        raise ConfigError(
            f"The port of this worker, {address}, must be free on {socket.gethostname()}.",
            received=f"{error.strerror}" + (f"; {elsewhere}" if elsewhere else ""),
            remedy="An older worker may still be alive there (`ss -ltnp` names the process), or "
            "two tasks of this job have the same index."
            if is_busy
            else "Give the worker another port in TF_CONFIG.",
        ) from None
    return elsewhere and f"this worker's address {address}: {elsewhere}"


def listen(port):
    """A socket that listens on a port of every interface, as TensorFlow will.

    Raises:
      OSError: it cannot.
    """
    if socket.has_dualstack_ipv6():
        try:
            # Both families in one socket: a listener of either one is in its way.
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise
    return socket.create_server(("", port), backlog=_BACKLOG)  # IPv6 is switched off


def _wait_for(port, sleep):
    """Returns once the port is free; after some tries raises the OSError of the last."""
    for _ in range(_TRIES):
        try:
            return listen(port).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        sleep(_WAIT_SECS)
    return listen(port).close()


def _elsewhere(host, own_addresses):
    """What to say of a host that is not this machine; None where it is, or nobody can tell."""
    if own_addresses is None:
        return None
    try:
        found = {info[4][0].partition("%")[0] for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        return f"{host} has no address here ({error.strerror})"
    is_loopback = any(one.startswith("127.") or one == "::1" for one in found)
    if is_loopback or found & set(own_addresses):
        return None
    return (
        f"{host} is none of this machine's addresses ({', '.join(own_addresses[:4])}): right "
        "behind address translation, wrong where two hosts have swapped their places"
    )
