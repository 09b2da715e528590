"""Imports TensorFlow without its start-up lines; every door imports this first.

TensorFlow 2.21 writes half a dozen lines to stderr before any setting of its log level holds, one
of them an error, on every machine without a GPU. They would bury the first mistake a user makes. So
stderr waits in a file while TensorFlow is imported and looks for devices, and is shown only where
that fails or where there is an NVIDIA device that it may be about.
"""

import contextlib
import importlib
import os
import pathlib
import sys
import tempfile

from inception_tf.errors import ConfigError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@contextlib.contextmanager
def _held_back():
    """Holds back what is written to file descriptor 2, by C++ too."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        is_wanted = True
        try:
            yield
            is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
            is_wanted = not is_hidden and any(pathlib.Path("/dev").glob("nvidia[0-9]*"))
        except KeyboardInterrupt:
            is_wanted = False
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            if is_wanted:
                held.seek(0)
                os.write(2, held.read())


def _report(kind, error, trace):
    """One line for a Ctrl-C while a door is imported; Python ends with its signal all the same."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
    else:
        sys.__excepthook__(kind, error, trace)


if "tensorflow" not in sys.modules:
    sys.excepthook = _report
    with _held_back():
        try:
            importlib.import_module("inception_tf.models")  # refuses another backend of Keras
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_status)
        import tensorflow

        tensorflow.config.list_physical_devices()
        tensorflow.get_logger().setLevel("WARNING")
