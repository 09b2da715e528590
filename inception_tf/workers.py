"""The addresses of all workers and the place of this one: from TF_CONFIG, else from Slurm."""

import json

from inception_tf import slurm
from inception_tf.errors import ConfigError


def read(environment):
    """Addresses of the workers, chief first, and this process's index among them.

    TF_CONFIG wins over Slurm's variables; without either there is one worker.

    Raises:
      ConfigError: they are malformed or contradict themselves.
    """
    text = environment.get("TF_CONFIG")
    if text is not None:
        return _parse_tf_config(text)
    return slurm.read_step(environment) or (["localhost"], 0)


def own_address(environment):
    """host:port of this worker; None for one that is alone, which opens no port.

    Raises:
      ConfigError: as `read`.
    """
    addresses, index = read(environment)
    return addresses[index] if len(addresses) > 1 else None


def source_of(environment):
    """Who named the workers, in words."""
    if "TF_CONFIG" in environment:
        return "TF_CONFIG"
    return "Slurm" if slurm.read_step(environment) else "no TF_CONFIG, no Slurm step"


def check_number(expected, environment):
    """Raises ConfigError unless there are as many workers as expected; None expects any number."""
    addresses, _ = read(environment)
    if expected not in (None, len(addresses)):
        found = "1 worker" if len(addresses) == 1 else f"{len(addresses)} workers"
        raise ConfigError(
            f"There must be {expected} workers, as cluster.num_workers says.",
            received=f"{found} ({source_of(environment)})",
            remedy="Start that many, with `python -m inception_tf.launch --workers "
            f"{expected} -- ...` or as launch/README.md shows, or set cluster.num_workers = None "
            "for any number.",
        )


def _parse_tf_config(text):
    remedy = (
        'Give {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, '
        "or unset TF_CONFIG to run as one worker."
    )
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        chiefs, workers = cluster.get("chief", []), cluster.get("worker", [])
        if not isinstance(chiefs, list) or not isinstance(workers, list):
            raise TypeError("addresses that are no list")
        index = int(task["index"])
        kind = str(task["type"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"TF_CONFIG must name the cluster and this task ({type(error).__name__}: {error}).",
            received=repr(text),
            remedy=remedy,
        ) from error
    same_kind = {"chief": chiefs, "worker": workers}.get(kind)
    if same_kind is None or not 0 <= index < len(same_kind) or set(cluster) - {"chief", "worker"}:
        raise ConfigError(
            "TF_CONFIG must hold only chief and worker tasks, and this task among them.",
            received=repr(text),
            remedy=remedy,
        )
    if len(set(chiefs + workers)) != len(chiefs + workers):
        raise ConfigError("TF_CONFIG names an address twice.", received=repr(text), remedy=remedy)
    return chiefs + workers, index + (len(chiefs) if kind == "worker" else 0)
