"""Which workers this machine starts, and what each of them is told: TF_CONFIG and its GPUs."""

import dataclasses
import json
import pathlib
import re
import socket

from inception_tf.errors import ConfigError

GPU_LIST = "CUDA_VISIBLE_DEVICES"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """The workers of a job, and those of them that run here.

    Attributes:
      num_workers: of the whole job.
      indices: task indices of those that this launcher starts.
      hosts: 'host:port' of every worker; None where all run here, on ports free at each start.
      gpus: what CUDA_VISIBLE_DEVICES is for each of `indices`; None leaves it as it is.
    """

    num_workers: int
    indices: tuple[int, ...]
    hosts: tuple[str, ...] | None = None
    gpus: tuple[str, ...] | None = None

    def environments(self, environment):
        """Task index -> whole environment, for one start.

        Args:
          environment: mapping to start from.
        """
        addresses = self.hosts or [f"127.0.0.1:{port}" for port in free_ports(self.num_workers)]
        found = {}
        for place, index in enumerate(self.indices):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            # Lines have to arrive while they are written, not when a buffer is full.
            own = {**environment, "TF_CONFIG": json.dumps(task), "PYTHONUNBUFFERED": "1"}
            if self.gpus is not None:
                own[GPU_LIST] = self.gpus[place]
            found[index] = own
        return found


def plan_here(visible_gpus, *, num_workers=None, devices_per_worker=None):
    """A LaunchPlan whose workers all run on this machine.

    Args:
      visible_gpus: as `visible_gpus` finds them.
      num_workers: None for one per GPU, or as many as have `devices_per_worker` of them; one
        without GPUs.
      devices_per_worker: GPUs of each worker; None shares them evenly.

    Raises:
      ConfigError: the GPUs cannot be shared so.
    """
    if num_workers is None:
        size = devices_per_worker or 1
        if len(visible_gpus) % size:
            raise ConfigError(
                "Workers must share the GPUs of this machine evenly.",
                received=f"{size} per worker of {_shown(visible_gpus)}",
                remedy="Give --workers too, to leave some of them idle.",
            )
        num_workers = max(1, len(visible_gpus) // size)
    return LaunchPlan(
        num_workers=num_workers,
        indices=tuple(range(num_workers)),
        gpus=_shared_out(visible_gpus, num_workers, devices_per_worker),
    )


def plan_hosts(visible_gpus, *, hosts, this_host, devices_per_worker=None):
    """A LaunchPlan of one worker per entry of `hosts`, of which this machine starts some.

    Args:
      visible_gpus: of this machine.
      hosts: 'a:5000,b:5000', the same text on every machine.
      this_host: entries of this machine, from 0: '1', or '2,3' for several.
      devices_per_worker: GPUs of each worker here; None shares them evenly.

    Raises:
      ConfigError: malformed, an address twice, an entry that is not there, or GPUs that cannot be
        shared so.
    """
    addresses = hosts.split(",")
    for address in addresses:
        if not re.fullmatch(r"(?:[^\s:,\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}", address, re.ASCII):
            raise ConfigError(
                "--hosts must be one host:port per worker.",
                received=repr(hosts),
                remedy="For example --hosts=a:5000,b:5000, the same on every host.",
            )
    if len(set(addresses)) < len(addresses):
        raise ConfigError(
            "--hosts must name each address once.",
            received=repr(hosts),
            remedy="Give several workers of one host ports of their own.",
        )
    is_list = this_host and re.fullmatch(r"\d+(?:,\d+)*", this_host, re.ASCII)
    indices = tuple(int(word) for word in this_host.split(",")) if is_list else ()
    if not indices or len(set(indices)) < len(indices) or max(indices) >= len(addresses):
        raise ConfigError(
            f"--this_host must name this host's entries of --hosts, 0 to {len(addresses) - 1}.",
            received=repr(this_host) if this_host else "nothing",
            remedy="For example --this_host=0 on the first host; --this_host=0,1 starts two.",
        )
    return LaunchPlan(
        num_workers=len(addresses),
        indices=indices,
        hosts=tuple(addresses),
        gpus=_shared_out(visible_gpus, len(indices), devices_per_worker),
    )


def visible_gpus(environment, *, devices=pathlib.Path("/dev")):
    """What CUDA_VISIBLE_DEVICES calls the GPUs that a process of this machine may use.

    Found without TensorFlow, which takes seconds to load.

    Args:
      environment: mapping of variables.
      devices: directory of the machine's devices.

    Returns:
      List such as ['0', '1']; empty where there is none or all are hidden ('' and '-1').
    """
    listed = environment.get(GPU_LIST)
    if listed is None:
        return [str(number) for number in range(len(list(devices.glob("nvidia[0-9]*"))))]
    return [] if listed in ("", "-1") else listed.split(",")


def _shared_out(visible, num_workers, devices_per_worker):
    """CUDA_VISIBLE_DEVICES of each worker, in order; None where there is nothing to share."""
    if not visible:
        return None
    if devices_per_worker is None:
        devices_per_worker, rest = divmod(len(visible), num_workers)
        if rest:
            raise ConfigError(
                "Workers must share the GPUs of this machine evenly.",
                received=f"{num_workers} workers on {_shown(visible)}",
                remedy="Start another number of workers, or say how many each has with "
                "--devices_per_worker: the rest is left idle.",
            )
    elif num_workers * devices_per_worker > len(visible):
        raise ConfigError(
            f"{num_workers} workers x {devices_per_worker} devices need "
            f"{num_workers * devices_per_worker} GPUs.",
            received=_shown(visible),
            remedy="Start fewer workers, or make more devices visible.",
        )
    starts = range(0, num_workers * devices_per_worker, devices_per_worker)
    return tuple(",".join(visible[start : start + devices_per_worker]) for start in starts)


def _shown(visible):
    return f"{len(visible)} GPUs ({','.join(visible) or 'none visible'})"


def free_ports(count):
    """TCP ports that nothing on this machine listens on right now.

    Returns:
      list of `count` different port numbers. They are held together while they are chosen, so
      that no two are the same.
    """
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("", 0))  # on every interface, as TensorFlow's servers do
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
