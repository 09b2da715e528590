"""Who am I, which devices, and which declared replica runs where.

The only reader of TF_CONFIG, Slurm's variables, CUDA_VISIBLE_DEVICES and the machine's devices;
TensorFlow is configured here, once, at the start of the road.
"""

import ctypes
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib

import tensorflow as tf

from inception_tf import workers
from inception_tf.assignment import Assignment
from inception_tf.errors import ConfigError

_GPU_LIST = "CUDA_VISIBLE_DEVICES"

# What tensorflow[and-cuda] 2.21 opens at start.
_CUDA_LIBRARIES = (
    "libcuda.so.1", "libcudart.so.12", "libcublas.so.12", "libcufft.so.11",
    "libcusolver.so.11", "libcusparse.so.12", "libcudnn.so.9", "libnccl.so.2",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """The hardware to use (gin section `cluster`; operation, never recipe).

    Attributes:
      device: 'auto' (GPUs where TensorFlow has them, else the CPU), 'cpu' or 'gpu'.
      devices_per_worker: local devices; None takes every GPU, or one CPU device. Several CPU
        devices are logical ones that share the cores.
      num_workers: workers that a training run must have; None takes those that there are.
      intra_op_threads: threads of one op in this process; None takes every core, and a resumed run
        takes what it had. Another count rounds differently from the first step on.
      deterministic: deterministic kernels, so that a run repeats its bits.
      tf32: let NVIDIA tensor cores round float32 products to 10 bits.
      bytes_per_pack: the all-reduce is cut into packs of about so many bytes, which may travel
        while others are still being summed up; 0 sends one pack. Exact sums have the same bits
        with any packs, the other reductions only with the same ones.
    """

    device: str = "auto"
    devices_per_worker: int | None = None
    num_workers: int | None = None
    intra_op_threads: int | None = None
    deterministic: bool = True
    tf32: bool = False
    bytes_per_pack: int = 0

    def __post_init__(self):
        if self.device not in ("auto", "cpu", "gpu"):
            raise ConfigError(
                "cluster.device must be 'auto', 'cpu' or 'gpu'.", received=repr(self.device)
            )
        for name in ("devices_per_worker", "num_workers", "intra_op_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"cluster.{name} must be at least 1.", received=value)
        if self.bytes_per_pack < 0:
            raise ConfigError(
                "cluster.bytes_per_pack must not be negative.", received=self.bytes_per_pack
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """This process's place among the workers, and its devices.

    Attributes:
      strategy: MirroredStrategy for one worker, MultiWorkerMirroredStrategy for several.
      device_kind: 'CPU' or 'GPU'.
      device_names: of this worker's devices: 'CPU', or what the driver calls a GPU ('NVIDIA H200').
      num_workers, worker_index: worker 0 is the chief, which alone writes files.
      num_local: physical replicas of this worker.
      intra_op_threads: threads of one op in this process.
      deterministic: whether kernels are deterministic.
      address: host:port of this worker, as TF_CONFIG names it; None for a worker that is alone,
        which opens no port.
      workers_from: who named the workers, in words.
    """

    strategy: tf.distribute.Strategy
    device_kind: str
    device_names: tuple[str, ...]
    num_workers: int
    worker_index: int
    num_local: int
    intra_op_threads: int
    deterministic: bool
    address: str | None = None
    workers_from: str = "TF_CONFIG"

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the files of the run."""
        return self.worker_index == 0

    @property
    def num_physical(self) -> int:
        """Physical replicas over all workers."""
        return self.strategy.num_replicas_in_sync

    def gather(self, value):
        """Every worker's value, chief first; all workers call it and wait for one another.

        Args:
          value: an int, or a column of n of them, int64 [n, 1], as long on every worker.

        Returns:
          One int per worker; of a column, n lists of one int per worker.
        """
        own = tf.one_hot(self.worker_index, self.num_workers, dtype=tf.int64) * value
        totals = self.strategy.experimental_local_results(self._add_up(own))[0].numpy()
        return (totals // self.num_local).tolist()

    @functools.cached_property
    def _add_up(self):
        """Traced once: a run gathers at every checkpoint."""

        @tf.function
        def add(own):
            return self.strategy.run(_sum_over_replicas, args=(own,))

        return add

    def assign(self, *, num_replicas, replica_batch) -> Assignment:
        """Which declared replicas run on this worker's devices.

        Raises:
          ConfigError: more devices than declared replicas.
        """
        return Assignment(
            num_replicas=num_replicas,
            replica_batch=replica_batch,
            num_physical=self.num_physical,
            first_local=self.worker_index * self.num_local,
            num_local=self.num_local,
        )


def _sum_over_replicas(value):
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))


def join(spec: ClusterSpec, *, is_alone: bool = False, await_workers=None) -> Cluster:
    """Configures TensorFlow, finds the other workers and builds the strategy.

    Call once per process and before any other use of TensorFlow: threads, memory growth and
    determinism cannot be changed later.

    Args:
      spec: the hardware to use.
      is_alone: one worker, whatever TF_CONFIG and Slurm say.
      await_workers: called with the addresses of several workers and this one's index, before
        TensorFlow waits for the others, without an end and deaf to signals.

    Raises:
      ConfigError: TF_CONFIG or Slurm's variables are not usable, or the device that was asked
        for is not there.
    """
    workers_from = workers.source_of({} if is_alone else os.environ)
    addresses, worker_index = (["localhost"], 0) if is_alone else read_workers()
    kind = _device_kind(spec)
    threads = spec.intra_op_threads or os.cpu_count()
    _configure_tensorflow(spec, kind=kind, threads=threads)
    if len(addresses) > 1:
        if kind == "CPU" and (spec.devices_per_worker or 1) > 1:
            raise ConfigError(
                "Several workers on CPUs have one device each.",
                received=f"cluster.devices_per_worker = {spec.devices_per_worker}",
                remedy="Start more workers instead.",
            )
        if await_workers is not None:
            await_workers(addresses, worker_index)
        # Connects to the others and waits for the last of them.
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        num_local = strategy.num_replicas_in_sync // len(addresses)
    else:
        devices = _local_devices(spec, kind)
        strategy, num_local = tf.distribute.MirroredStrategy(devices), len(devices)
    return Cluster(
        strategy=strategy,
        device_kind=kind,
        device_names=_device_names(kind, num_local),
        num_workers=len(addresses),
        worker_index=worker_index,
        num_local=num_local,
        intra_op_threads=threads,
        deterministic=spec.deterministic,
        address=addresses[worker_index] if len(addresses) > 1 else None,
        workers_from=workers_from,
    )


def check_num_workers(spec: ClusterSpec) -> None:
    """Raises ConfigError unless there are as many workers as the config asks for."""
    workers.check_number(spec.num_workers, os.environ)


def read_workers():
    """Addresses of the workers, chief first, and this process's index among them.

    Raises:
      ConfigError: TF_CONFIG or Slurm's variables are not usable.
    """
    addresses, index = workers.read(os.environ)
    if len(addresses) > 1 and "TF_CONFIG" not in os.environ:
        # The one way to tell TensorFlow, whoever named the workers.
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        os.environ["TF_CONFIG"] = json.dumps(task)
    return addresses, index


def _device_kind(spec):
    if spec.device == "cpu":
        return "CPU"
    if tf.config.list_physical_devices("GPU"):
        return "GPU"
    if spec.device == "auto" and (_are_gpus_hidden() or not _has_nvidia_device()):
        return "CPU"
    rule, received, remedy = _why_without_gpu()
    raise ConfigError(rule, received=received, remedy=f"{remedy}, or run with --device=cpu.")


def _why_without_gpu():
    """Rule, finding and remedy of a machine on which TensorFlow lists no GPU."""
    needs = "cluster.device 'gpu' needs a GPU."
    must_open = "TensorFlow must be able to open the NVIDIA device of this machine."
    visible = os.environ.get(_GPU_LIST)
    if _are_gpus_hidden():
        return needs, f"{_GPU_LIST}={visible!r}, which hides all", f"Unset {_GPU_LIST}"
    if not _has_nvidia_device():
        return (
            needs,
            "no device /dev/nvidia0, 1, ... on this machine",
            "Install NVIDIA's driver (a container must be started with its GPUs)",
        )
    install = "Install the extra: pip install -e '.[gpu]' (tensorflow[and-cuda])"
    if not tf.test.is_built_with_cuda():
        return must_open, f"TensorFlow {tf.__version__}, built without CUDA", install
    missing = [name for name in _CUDA_LIBRARIES if not _can_open(name)]
    if missing:
        return must_open, f"libraries that cannot be opened: {', '.join(missing)}", install
    return (
        must_open,
        "no usable GPU, though every library of CUDA is there"
        + (f"; {_GPU_LIST}={visible!r}" if visible else ""),
        "See what TensorFlow says with TF_CPP_MIN_LOG_LEVEL=0",
    )


def _are_gpus_hidden():
    return os.environ.get(_GPU_LIST) in ("", "-1")


def _has_nvidia_device():
    # Not /proc/driver/nvidia, which a container shows whether or not it was given the devices.
    return any(pathlib.Path("/dev").glob("nvidia[0-9]*"))


def _can_open(library):
    """Whether the loader finds a library, or a wheel of NVIDIA's has it, as TensorFlow looks."""
    try:
        ctypes.CDLL(library)
    except OSError:
        wheels = importlib.util.find_spec("nvidia")
        folders = wheels.submodule_search_locations if wheels else []
        return any(any(pathlib.Path(f).glob(f"*/lib/{library}")) for f in folders)
    return True


def _configure_tensorflow(spec, *, kind, threads):
    # Each of these calls is allowed again in a process that has already made it.
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        if kind == "CPU":
            tf.config.set_visible_devices([], "GPU")
            if (spec.devices_per_worker or 1) > 1:
                tf.config.set_logical_device_configuration(
                    tf.config.list_physical_devices("CPU")[0],
                    [tf.config.LogicalDeviceConfiguration()] * spec.devices_per_worker,
                )
        else:
            gpus = tf.config.list_physical_devices("GPU")
            tf.config.set_visible_devices(gpus[: spec.devices_per_worker], "GPU")
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise ConfigError(
            f"TensorFlow must not have been used before a run starts ({error}).",
            remedy="Start the run in a fresh process.",
        ) from error
    tf.config.experimental.enable_tensor_float_32_execution(spec.tf32)
    if spec.deterministic:
        tf.config.experimental.enable_op_determinism()


def _local_devices(spec, kind):
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    count = spec.devices_per_worker or (1 if kind == "CPU" else len(devices))
    if count > len(devices):
        raise ConfigError(
            "cluster.devices_per_worker cannot exceed the devices of this machine.",
            received=f"{count} of {len(devices)} {kind} devices",
        )
    return [name.replace("/device:", "") for name in devices[:count]]


def _device_names(kind, num_local):
    if kind == "CPU":
        return ("CPU",) * num_local
    gpus = tf.config.get_visible_devices("GPU")[:num_local]
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return tuple(detail.get("device_name", "GPU") for detail in details)
