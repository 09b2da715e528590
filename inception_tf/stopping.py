"""SIGTERM and Ctrl-C: a run finishes what is under way, saves and leaves."""

import os
import signal

_TEXT = b"stops after what is under way; a second Ctrl-C interrupts it at once\n"


class StopRequests:
    """What asked this process to stop, for as long as a `with` lasts; main thread only.

    Python runs a handler between two of its own instructions, so not while the main thread is in
    C++. `has_arrived`, which any thread may ask, knows of a signal at once.
    """

    def __init__(self):
        self._is_asked = self._is_told = False
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
        os.write(2, _TEXT)  # safe inside a signal handler


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
