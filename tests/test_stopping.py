"""Signals that ask a run to stop."""

import os
import signal

import pytest

from inception_tf.stopping import StopRequests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_request(number, capfd):
    with StopRequests() as requests:
        assert not requests.has_arrived()
        os.kill(os.getpid(), number)
        assert requests.has_arrived() and requests.has_arrived()
    assert "stops after what is under way" in capfd.readouterr().err


def test_a_second_interrupt_interrupts_whoever_has_asked_between():
    with StopRequests() as requests:
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.has_arrived()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_is_known_before_pythons_handler_has_run():
    # As while the main thread is in C++: the pipe is written by the handler in C.
    with StopRequests() as requests:
        signal.signal(signal.SIGTERM, lambda *_: None)
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.has_arrived()


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequests() as requests:
        assert signal.getsignal(signal.SIGTERM) == requests._on_signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        requests.install()
        assert signal.getsignal(signal.SIGTERM) == requests._on_signal
    assert signal.getsignal(signal.SIGTERM) is before
