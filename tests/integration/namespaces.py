"""A small network of hosts on this machine: network namespaces, each on a port of one switch.

The switch is a bridge in a namespace of its own, so nothing of the machine's own network is
touched, and everything is gone with the namespaces.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest

RELAY = pathlib.Path(__file__).with_name("slow_relay.py")
_SUBNET = "10.66.0"
_RELAY_PORT = 4999
_RELAY_MARK = 66  # of the relay's own calls, which are not relayed again
# What ip and nft say where kernel or container do not allow it; anything else is a mistake here.
_KERNEL_LACKS = re.compile(
    "not supported|not permitted|[Uu]nknown device type|Could not process rule|cache initialization"
)
_ECHO_PORT = 4998
_ECHO = """
import socket
with socket.create_server({address}) as server:
    print("listens", flush=True)
    called, _ = server.accept()
    called.sendall(called.recv(1))
"""
_CALL = """
import socket, time
with socket.create_connection({address}) as call:
    began = time.monotonic()
    call.sendall(b".")
    call.recv(1)
    print(time.monotonic() - began)
"""


class Network:
    """Namespaces that reach each other over a switch, until the `with` ends.

    Skips the test, with what the kernel said, where this machine cannot make them.
    """

    def __init__(self, num_hosts):
        self.addresses = [f"{_SUBNET}.{index + 1}" for index in range(num_hosts)]
        self._base = f"inception-tf-{os.getpid()}"
        self._switch = f"{self._base}-switch"
        self._relays = []

    def __enter__(self):
        if os.geteuid() != 0:
            pytest.skip("network namespaces need root")
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in (*self._hosts(), self._switch):
            pids = _call("ip", "netns", "pids", name, check=False).split()
            for pid in map(int, pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _call("ip", "netns", "delete", name, check=False)
        for relay in self._relays:
            relay.communicate()

    def inside(self, host):
        """The words before a command that runs it on a host."""
        return ["ip", "netns", "exec", f"{self._base}-{host}"]

    def cable(self, host):
        """The words before `up` or `down` for the switch's end of a host's cable.

        The host is not told: its own end stays up, and what it sends is lost.
        """
        return ["ip", "-netns", self._switch, "link", "set", "dev", f"port{host}"]

    def lose(self, percent):
        """Every host loses so many of a hundred packets that reach it."""
        for host in range(len(self.addresses)):
            self._filter(
                host,
                "loss { type filter hook input priority 0; iifname cable "
                f"numgen random mod 100 < {percent} counter drop",
            )

    def num_lost(self, host):
        """How many packets a host has lost so far."""
        words = _call(*self.inside(host), "nft", "list", "chain", "ip", "test", "loss").split()
        return int(words[words.index("packets") + 1])

    def delay(self, delay_ms):
        """Whatever hosts say to each other over TCP arrives so much later, in both directions."""
        for host in range(len(self.addresses)):
            self._filter(
                host,
                "relay { type nat hook output priority -100; oifname cable "
                f"meta mark != {_RELAY_MARK} meta l4proto tcp redirect to :{_RELAY_PORT}",
            )
            words = [str(_RELAY_PORT), str(_RELAY_MARK), str(delay_ms)]
            command = [*self.inside(host), sys.executable, RELAY, *words]
            relay = subprocess.Popen(command, stdout=subprocess.PIPE)
            self._relays.append(relay)
            relay.stdout.readline()  # it listens

    def round_trip_secs(self, client, server):
        """How long a byte over TCP takes from one host to another and back."""
        address = self.addresses[server], _ECHO_PORT
        echo = subprocess.Popen(
            [*self.inside(server), sys.executable, "-c", _ECHO.format(address=address)],
            stdout=subprocess.PIPE,
        )
        echo.stdout.readline()  # it listens
        call = [*self.inside(client), sys.executable, "-c", _CALL.format(address=address)]
        with echo:
            return float(_call(*call))

    def _hosts(self):
        return [f"{self._base}-{host}" for host in range(len(self.addresses))]

    def _build(self):
        _call("ip", "netns", "add", self._switch)
        in_switch = ["ip", "-netns", self._switch, "link"]
        _call(*in_switch, "add", "switch", "type", "bridge")
        _call(*in_switch, "set", "switch", "up")
        for host, (name, address) in enumerate(zip(self._hosts(), self.addresses, strict=True)):
            _call("ip", "netns", "add", name)
            port = f"port{host}"
            _call(*in_switch, "add", port, "type", "veth", "peer", "name", "cable", "netns", name)
            _call(*in_switch, "set", port, "master", "switch", "up")
            _call("ip", "-netns", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _call("ip", "-netns", name, "link", "set", device, "up")

    def _filter(self, host, chain):
        if shutil.which("nft") is None:
            pytest.skip("no nft: apt-get install nftables")
        _call(*self.inside(host), "nft", f"table ip test {{\n chain {chain}\n }}\n}}")


def _call(*words, check=True):
    """stdout of a command; the test is skipped where this machine cannot do it."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip(f"no {words[0]}: apt-get install iproute2")
    if check and done.returncode:
        said = f"`{' '.join(words)}`: {done.stderr.strip()}"
        if _KERNEL_LACKS.search(done.stderr):
            pytest.skip(f"this machine cannot {said}")
        raise RuntimeError(said)
    return done.stdout
