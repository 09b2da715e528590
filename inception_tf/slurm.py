"""The workers of a Slurm step, from the variables that srun gives each of its tasks."""

import itertools
import re

from inception_tf.errors import ConfigError

# Ports below Linux's ephemeral ones (32768), which any client may hold. Jobs on one node mostly
# have numbers near each other, so each has 16 ports of its own.
FIRST_PORT = 20000
PORTS_PER_JOB = 16
NUM_JOBS = 768

_TASKS = "SLURM_STEP_NUM_TASKS"
_NODES = "SLURM_STEP_NODELIST"
_COUNTS = "SLURM_STEP_TASKS_PER_NODE"
_REMEDY = "Set TF_CONFIG, which wins, or start the workers with srun as launch/README.md shows."


def read_step(environment):
    """Addresses of the workers and this task's index among them; None outside a step of several.

    A step is what srun starts. The script of sbatch and a shell of salloc see a job of several
    tasks too, but are one process: waiting for peers there would be waiting for ever.

    Args:
      environment: mapping of variables.

    Returns:
      (list of 'host:port' in the order of tasks, index) or None.

    Raises:
      ConfigError: a variable is missing or malformed, or they contradict each other.
    """
    if _number(environment, _TASKS, default=1) == 1:
        return None
    num_tasks, index = _number(environment, _TASKS), _number(environment, "SLURM_PROCID")
    hosts = parse_node_list(_text(environment, _NODES))
    counts = parse_task_counts(_text(environment, _COUNTS))
    if len(hosts) != len(counts) or sum(counts) != num_tasks or not 0 <= index < num_tasks:
        raise ConfigError(
            "Slurm's variables must count the same nodes and tasks.",
            received=_shown(environment, _NODES, _COUNTS, _TASKS, "SLURM_PROCID"),
            remedy=_REMEDY,
        )
    port = base_port(_number(environment, "SLURM_JOB_ID"))
    places = [(node, local) for node, count in enumerate(counts) for local in range(count)]
    # The port is opened where the task runs, so a task counted to another node waits for ever.
    own = tuple(
        _number(environment, name, default=place)
        for name, place in zip(("SLURM_NODEID", "SLURM_LOCALID"), places[index], strict=True)
    )
    if own != places[index]:
        raise ConfigError(
            f"Task {index} of a step must be the one on node {places[index][0]} with local number "
            f"{places[index][1]}.",
            received=_shown(environment, "SLURM_NODEID", "SLURM_LOCALID", _COUNTS),
            remedy="Give srun --distribution=block, which numbers tasks node by node.",
        )
    return [f"{hosts[node]}:{port + local}" for node, local in places], index


def base_port(job_id):
    """Port of the first task on each node; the next tasks there have the ports after it."""
    return FIRST_PORT + PORTS_PER_JOB * (job_id % NUM_JOBS)


def parse_node_list(text):
    """Host names of Slurm's short form: 'a[1-2,07],login' is a1, a2, a07, login.

    Raises:
      ConfigError: it is no such list.
    """
    entry = r"(?:[^\s,\[\]]|\[[^\s\[\]]+\])+"
    if not re.fullmatch(rf"{entry}(?:,{entry})*", text):
        raise _malformed(_NODES, text)
    hosts = []
    for word in re.findall(entry, text):
        parts = re.findall(r"[^\[\]]+|\[[^\]]+\]", word)
        choices = [_numbers(part[1:-1], text) if part[0] == "[" else [part] for part in parts]
        hosts += ["".join(parts) for parts in itertools.product(*choices)]
    return hosts


def _numbers(ranges, text):
    """'1-2,07' as ['1', '2', '07']: leading zeros are part of the name."""
    found = []
    for one in ranges.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", one, re.ASCII)
        first, last = match.groups(default="") if match else ("", "")
        if not match or (last and int(last) < int(first)):
            raise _malformed(_NODES, text)
        span = range(int(first), int(last or first) + 1)
        found += [f"{number:0{len(first)}d}" for number in span]
    return found


def parse_task_counts(text):
    """Tasks of each node of Slurm's short form: '2(x3),1' is 2, 2, 2, 1.

    Raises:
      ConfigError: it is no such list.
    """
    counts = []
    for one in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", one, re.ASCII)
        if not match:
            raise _malformed(_COUNTS, text)
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _number(environment, name, *, default=None):
    if default is not None and name not in environment:
        return default
    text = _text(environment, name)
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise _malformed(name, text)
    return int(text)


def _text(environment, name):
    if name not in environment:
        raise ConfigError(
            f"A step of several tasks must have {name}.", received="none", remedy=_REMEDY
        )
    return environment[name]


def _malformed(name, text):
    return ConfigError(f"{name} must be as srun sets it.", received=repr(text), remedy=_REMEDY)


def _shown(environment, *names):
    return ", ".join(f"{name}={environment.get(name)}" for name in names)
