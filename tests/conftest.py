"""What every test gets: a quiet TensorFlow, the CPU, one thread per op, and the shared images."""

import os
import pathlib
import signal

import pytest

# Before anything imports TensorFlow. One thread: the test processes share the cores, and the
# last digits do not depend on the machine's number of cores.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# The numbers that tests expect are a CPU's; set it to '0' to try a GPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

SHARED_IMAGES = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_images() -> pathlib.Path:
    """Directory of real test images that stands beside the checkout; skips where it is absent."""
    if not SHARED_IMAGES.is_dir():
        pytest.skip(f"needs the test images at {SHARED_IMAGES}")
    return SHARED_IMAGES


@pytest.fixture(scope="module")
def cluster():
    """This process alone, with one CPU."""
    import tensorflow as tf

    from inception_tf.cluster import Cluster

    return Cluster(
        strategy=tf.distribute.MirroredStrategy(["CPU:0"]), device_kind="CPU",
        device_names=("CPU",), num_workers=1, worker_index=0, num_local=1, intra_op_threads=1,
        deterministic=False,
    )  # fmt: skip


@pytest.fixture
def signals_of_a_terminal():
    """Signals as a terminal's shell leaves them; `nohup` and `&` let all that they start ignore
    some of them."""
    before = {
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)
