"""The port of a worker: who is warned of it, and that a worker that is alone opens none."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from inception_tf import launch_plan
from inception_tf.reporting import exposure

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
BEYOND = ("127.0.0.1", "192.0.2.7", "::1", "2001:db8::7")
LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
ANYWHERE = {"0" * 8, "0" * 32}  # 0.0.0.0 and [::]


def warnings(address, addresses):
    return exposure.port_warnings(address, addresses_of=lambda: addresses)


def test_a_worker_of_several_on_a_network_is_warned_of_its_port():
    (warning,) = warnings("worker-0.example:5000", BEYOND)
    assert warning.startswith("port 5000 listens on all interfaces")
    assert "192.0.2.7, 2001:db8::7" in warning and "127.0.0.1" not in warning
    assert "unauthenticated" in warning and "docs/security.md" in warning


def test_loopback_in_tf_config_is_no_protection():
    # TensorFlow listens everywhere, whatever address it is told.
    assert warnings("127.0.0.1:5000", BEYOND) == warnings("host:5000", BEYOND)


def test_the_port_is_found_behind_an_ipv6_address():
    assert warnings("[2001:db8::7]:5000", BEYOND)[0].startswith("port 5000 ")


def test_a_machine_that_nobody_else_can_reach_is_not_warned():
    assert warnings("127.0.0.1:5000", ("127.0.0.1", "127.0.0.53", "::1")) == []


def test_a_machine_that_does_not_tell_its_addresses_is_warned():
    (warning,) = warnings("worker-0:5000", None)
    assert "port 5000 listens on all interfaces of this machine unauthenticated" in warning


def test_many_addresses_are_counted_rather_than_listed():
    (warning,) = warnings("a:1", tuple(f"192.0.2.{number}" for number in range(40)))
    assert "(192.0.2.0, 192.0.2.1 and 38 more)" in warning


def test_a_worker_that_is_alone_is_not_warned():
    assert warnings(None, BEYOND) == []


def test_addresses_of_this_machine_are_addresses():
    found = exposure.host_addresses() or ()
    for address in found:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        socket.inet_pton(family, address)
    if "lo" in [name for _, name in socket.if_nameindex()] and found:
        assert {"127.0.0.1", "::1"} & set(found)


def test_a_system_that_tells_nothing_is_no_error(monkeypatch, tmp_path):
    def refuse(*_args):
        raise OSError("not here")

    monkeypatch.setattr(exposure, "_IPV6_FILE", tmp_path / "absent")
    monkeypatch.setattr(exposure.fcntl, "ioctl", refuse)
    assert exposure.host_addresses() is None
    monkeypatch.setattr(exposure.socket, "if_nameindex", refuse)
    assert exposure.host_addresses() is None


def test_ipv6_addresses_are_read_as_the_kernel_writes_them(monkeypatch, tmp_path):
    table = tmp_path / "if_inet6"
    table.write_text(
        "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n"
        "00000000000000000000000000000001 01 80 10 80       lo\n"
    )
    monkeypatch.setattr(exposure, "_IPV6_FILE", table)
    assert exposure._ipv6_addresses() == ["fe80::fc:ff:fe00:1", "::1"]


# -- what TensorFlow really does -------------------------------------------------------------------

SCRIPT = """
import json, pathlib, sys
from inception_tf import cluster

joined = cluster.join(cluster.ClusterSpec(device="cpu"))
joined.gather(1)
inodes = set()
for link in pathlib.Path("/proc/self/fd").iterdir():
    try:
        inodes.add(str(link.readlink()))
    except OSError:
        pass
listening = []
for table in ("tcp", "tcp6"):
    path = pathlib.Path("/proc/net", table)
    for line in path.read_text().splitlines()[1:] if path.exists() else []:
        place, state, inode = line.split()[1], line.split()[3], line.split()[9]
        if state == sys.argv[1] and f"socket:[{inode}]" in inodes:
            listening.append(place.split(":"))
print("RESULT", json.dumps([joined.address, listening]), flush=True)
joined.gather(1)  # nobody leaves before the others have looked
"""
needs_proc = pytest.mark.skipif(
    not pathlib.Path("/proc/net/tcp").exists(), reason="needs Linux' table of connections"
)


def listening_of(environments):
    """(address of the cluster, [(address, port) in hexadecimal]) of every worker."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, LISTENING],
            env={**one, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in environments
    ]
    found = []
    try:
        for worker in workers:
            out, err = worker.communicate(timeout=240)
            assert worker.returncode == 0, err[-3000:]
            found += [json.loads(line[7:]) for line in out.splitlines() if line[:7] == "RESULT "]
    finally:
        for worker in workers:
            worker.kill()
    return found


@needs_proc
@pytest.mark.slow
def test_a_worker_that_is_alone_opens_no_port():
    environment = {name: text for name, text in os.environ.items() if name != "TF_CONFIG"}
    assert listening_of([environment]) == [[None, []]]


@needs_proc
@pytest.mark.slow
def test_each_worker_of_several_listens_on_every_interface_though_told_loopback():
    # If this fails, TensorFlow has learnt to bind an address, and the warning can go.
    plan = launch_plan.plan_here([], num_workers=2)
    found = listening_of(plan.environments(os.environ).values())
    assert len(found) == 2
    for address, listening in found:
        host, port = address.split(":")
        assert host == "127.0.0.1"
        assert {place for place, number in listening if int(number, 16) == int(port)} <= ANYWHERE
        assert [number for _, number in listening] == [f"{int(port):04X}"]


def summary_of(tmp_path, *arguments):
    """What a short run on generated images prints; `arguments` stand before its command."""
    params = ["model.width_multiplier = 0.05", "training.num_epochs = None",
              "training.num_steps = 1", "training.replica_batch = 4"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "inception_tf.train", "--gin_file=configs/digits.gin",
         "--synthetic", f"--run_dir={tmp_path}", *(f"--gin_param={text}" for text in params)],
        cwd=CHECKOUT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_chief_of_several_workers_warns_once_and_a_worker_alone_does_not(tmp_path):
    phrase = "listens on all interfaces"
    assert phrase not in summary_of(tmp_path / "alone")
    launcher = ("inception_tf.launch", "--workers", "2", "--", sys.executable, "-m")
    lines = [
        line for line in summary_of(tmp_path / "two", *launcher).splitlines() if phrase in line
    ]
    assert len(lines) == len(exposure.port_warnings("host:5000"))
    assert all(line.startswith("[worker 0] WARNING") for line in lines)
