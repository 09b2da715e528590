"""SIGTERM and Ctrl-C: a run finishes what is under way, saves and leaves."""

import contextlib
import os
import signal
import threading

from inception_tf.errors import EXIT_PREEMPTED

_TEXTS = {
    signal.SIGTERM: b"asked to stop (SIGTERM): ends after what is under way\n",
    signal.SIGINT: b"stops after what is under way; a second Ctrl-C interrupts it at once\n",
}
_POLL_SECS = 0.2


class StopRequests:
    """What asked this process to stop, for as long as a `with` lasts; main thread only.

    Python runs a handler between two of its own instructions, so not while the main thread is in
    C++. `has_arrived`, which any thread may ask, knows of a signal at once.

    Args:
      is_quiet: whoever asks `has_arrived` says what follows.
    """

    def __init__(self, *, is_quiet=False):
        self._is_asked = self._is_told = False
        self._is_quiet = is_quiet
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self._previous = {}

    def __enter__(self):
        self._previous_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(self, *_):
        signal.set_wakeup_fd(self._previous_wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._read_end)
        os.close(self._write_end)

    def install(self):
        """Takes the signals; again after TensorFlow's strategy has put its own handler there."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def has_arrived(self):
        """Whether this process was asked to stop."""
        try:
            numbers = os.read(self._read_end, 64)
        except OSError:  # nothing there, or closed
            numbers = b""
        self._is_asked = self._is_asked or bool(set(numbers) & set(_SIGNALS))
        return self._is_asked

    def _on_signal(self, number, frame):
        if number == signal.SIGINT and self._is_told:
            raise KeyboardInterrupt
        self._is_asked = self._is_told = True
        if not self._is_quiet:
            _write_error(_TEXTS[number])


@contextlib.contextmanager
def end_at_once(text):
    """A signal ends the process with status 143 and a text: for what has nothing to save.

    Yields:
      StopRequests, to be installed again where another handler has come.
    """
    is_over = threading.Event()

    def watch():
        while not is_over.wait(_POLL_SECS):
            if requests.has_arrived():
                _write_error(f"{text}\n".encode())
                os._exit(EXIT_PREEMPTED)

    with StopRequests(is_quiet=True) as requests:
        thread = threading.Thread(target=watch, name="stop", daemon=True)
        thread.start()
        try:
            yield requests
        finally:
            is_over.set()
            thread.join()


def _write_error(text):
    """Writes bytes to stderr, safe inside a signal handler; nobody may be reading any more."""
    with contextlib.suppress(OSError):
        os.write(2, text)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
