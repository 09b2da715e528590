"""Workers that look for one another on loopback, without TensorFlow."""

import socket
import threading

import pytest

from inception_tf import meeting
from inception_tf.errors import LostWorkersError
from inception_tf.launch_plan import free_ports


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    monkeypatch.setattr(meeting, "_ROUND_SECS", 0.05)


@pytest.fixture
def addresses():
    return [f"127.0.0.1:{port}" for port in free_ports(3)]


def met(addresses, index, *, limit_secs):
    """The error of one worker's wait, or None."""
    try:
        meeting.await_workers(addresses, index, limit_secs=limit_secs)
    except LostWorkersError as error:
        return error
    return None


def test_a_worker_that_does_not_come_is_named_with_its_address(addresses, capsys):
    found = {}
    waiting = [
        threading.Thread(target=lambda i=i: found.update({i: met(addresses, i, limit_secs=0.4)}))
        for i in (0, 2)
    ]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join(timeout=20)
    for index in (0, 2):
        assert found[index].exit_status == 138
        text = str(found[index])
        assert f"worker {index} has waited in vain for " in text
        assert f"worker 1 at {addresses[1]}" in text
        assert f"{addresses[1]}, which has answered" not in text  # as the other may have
    assert f"waits for worker 1 at {addresses[1]}" in capsys.readouterr().out


def test_all_meet_whoever_comes_last(addresses):
    # The one that passes first keeps answering, as TensorFlow does on its port from then on.
    errors = []

    def come(index):
        errors.append(met(addresses, index, limit_secs=20.0))
        servers.append(socket.create_server(("127.0.0.1", meeting._port_of(addresses[index]))))

    servers = []
    threads = [threading.Thread(target=come, args=(index,)) for index in range(3)]
    try:
        for thread in threads:
            thread.start()
            thread.join(timeout=0.2)
        for thread in threads:
            thread.join(timeout=20)
        assert errors == [None, None, None]
    finally:
        for server in servers:
            server.close()


def test_a_port_that_is_taken_here_is_named(addresses):
    with socket.create_server(("", meeting._port_of(addresses[0]))):
        error = met(addresses, 0, limit_secs=0.2)
    assert f"port {meeting._port_of(addresses[0])} here, which is in use" in str(error)


def test_the_port_is_free_again_afterwards(addresses):
    met(addresses, 0, limit_secs=0.2)
    socket.create_server(("", meeting._port_of(addresses[0]))).close()
