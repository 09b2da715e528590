"""Who can reach the port of a worker: this machine's addresses, and the warning about them."""

import fcntl
import ipaddress
import pathlib
import socket
import struct
from collections.abc import Sequence

_GET_ADDRESS = 0x8915  # SIOCGIFADDR of Linux
_INTERFACE_BYTES, _ADDRESS = 256, slice(20, 24)  # struct ifreq, and the IPv4 address in it
_MOST_SHOWN = 2  # a machine with containers has dozens
_IPV6_FILE = pathlib.Path("/proc/net/if_inet6")


def host_addresses() -> tuple[str, ...] | None:
    """The addresses of this machine's interfaces, IPv4 first; None where it tells none."""
    found = _ipv4_addresses() + _ipv6_addresses()
    return tuple(found) or None


def port_warnings(address: str | None, *, addresses_of=host_addresses) -> list[str]:
    """What the user should know of the port that TensorFlow opens for this worker.

    Args:
      address: host:port of this worker; None for one that is alone, which opens no port.
      addresses_of: function that returns what `host_addresses` does.

    Returns:
      One warning, or none where nobody but this machine itself can reach the port. Addresses
      that cannot be told count as reachable.
    """
    if address is None:
        return []
    addresses = addresses_of()
    if addresses is not None:
        addresses = _beyond_this_machine(addresses)
        if not addresses:
            return []
    place = f" ({_listed(addresses)})" if addresses else ""
    return [
        f"port {address.rpartition(':')[2]} listens on all interfaces of this machine{place} "
        "unauthenticated, as the other workers' do on theirs: whoever connects can run anything "
        "as you; see docs/security.md"
    ]


def _beyond_this_machine(addresses: Sequence[str]) -> list[str]:
    return [one for one in addresses if not ipaddress.ip_address(one).is_loopback]


def _listed(addresses):
    more = len(addresses) - _MOST_SHOWN
    return ", ".join(addresses[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _ipv4_addresses():
    """The first address of every interface: an interface has further ones only beside it."""
    found = []
    try:
        names = [name for _, name in socket.if_nameindex()]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            for name in names:
                request = struct.pack(f"{_INTERFACE_BYTES}s", name.encode())
                try:
                    reply = fcntl.ioctl(one, _GET_ADDRESS, request)
                except OSError:
                    continue  # an interface without an IPv4 address
                found.append(socket.inet_ntoa(reply[_ADDRESS]))
    except OSError:
        pass  # a sandbox without sockets or interfaces
    return found


def _ipv6_addresses():
    try:
        lines = _IPV6_FILE.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []  # no IPv6, or not Linux
    return [str(ipaddress.ip_address(bytes.fromhex(line.split()[0]))) for line in lines if line]
