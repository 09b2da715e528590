"""What a step costs on more workers than were measured: arithmetic, nothing is run.

A worker is a process with one or more devices that share one link to the other workers. The
all-reduce is a ring over the workers (bytes as nccl-tests' PERFORMANCE.md counts them). Two times
come out for each number of workers: without overlap everything is sent after the backward pass,
with overlap most of it during that. What a cluster does lies between them; docs/scaling.md has the
published figures that this was held against.
"""

import dataclasses
import math
from collections.abc import Iterable

from inception_tf.errors import ConfigError, did_you_mean

# Bytes of a value on the wire, as `training.reduction` names them: exact sums travel as int64.
VALUE_BYTES = {"exact": 8, "float32": 4, "bfloat16": 2}
PARAMETER_VALUE_BYTES = 4  # weights and their gradients are float32
SCALINGS = ("strong", "weak")
MOST_WORKERS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredStep:
    """One optimizer step as it was measured on one worker, and what it consisted of.

    Attributes:
      step_secs: wall time of a step of all declared replicas on one worker, which has no other
        worker to wait for; sums over its own devices are inside.
      update_secs: the part of it that every worker repeats whatever the number of its replicas
        (clip, optimizer, averages); 0 says that all of it shrinks with them.
      num_replicas: declared replicas of the measured step; 20 in arXiv 1602.07261.
      replica_batch: images of one declared replica per step.
      devices_per_worker: devices that work through the replicas of one worker.
    """

    step_secs: float
    update_secs: float = 0.0
    num_replicas: int = 20
    replica_batch: int = 32
    devices_per_worker: int = 1

    def __post_init__(self):
        check_number("step_secs", self.step_secs)
        check_number("update_secs", self.update_secs, allows_zero=True)
        for name in ("num_replicas", "replica_batch", "devices_per_worker"):
            check_count(name, getattr(self, name))
        if self.update_secs >= self.step_secs:
            raise ConfigError(
                "update_secs must be a part of step_secs.",
                received=f"{self.update_secs} of {self.step_secs} seconds",
                remedy="Leave it out where it was not measured.",
            )
        self.num_rounds(1, scaling="weak")

    @property
    def images_per_sec(self) -> float:
        """Of the measured worker."""
        return self.num_replicas * self.replica_batch / self.step_secs

    def num_rounds(self, num_workers: int, *, scaling: str) -> int:
        """Declared replicas that the busiest device works through, one after the other.

        Raises:
          ConfigError: more devices than declared replicas to give them.
        """
        sharing = num_workers if scaling == "strong" else 1
        num_devices = sharing * self.devices_per_worker
        if num_devices > self.num_replicas:
            raise ConfigError(
                "There cannot be more devices than declared replicas.",
                received=f"{sharing} x {self.devices_per_worker} devices for "
                f"{self.num_replicas} declared replicas",
                remedy="Plan for fewer, or with --scaling=weak, where every worker brings "
                "num_replicas of its own: the global batch grows and the recipe with it.",
            )
        return -(-self.num_replicas // num_devices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
    """What connects a worker to the next one of the ring.

    Attributes:
      gbits_per_sec: 10^9 bits a second in each direction, for all devices of the worker together.
      latency_secs: of one hop of the ring, software included.
    """

    gbits_per_sec: float
    latency_secs: float = 1e-5

    def __post_init__(self):
        check_number("link_gbits_per_sec", self.gbits_per_sec)
        check_number("latency_secs", self.latency_secs, allows_zero=True)

    @property
    def bytes_per_sec(self) -> float:
        return self.gbits_per_sec * 1e9 / 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """How much communication hides behind the backward pass, at best.

    Attributes:
      backward_share: share of a replica's time that is its backward pass: two of the three
        equally large products of a convolution.
      least_exposed_share: share of the communication that nothing hides: the gradients of the
        first layers come last.
    """

    backward_share: float = 2 / 3
    least_exposed_share: float = 0.1

    def __post_init__(self):
        check_share("backward_share", self.backward_share)
        check_share("least_exposed_share", self.least_exposed_share)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """One row of the plan, all arithmetic; the step of one worker comes out as it was measured.

    Attributes:
      num_workers: workers N.
      num_rounds: declared replicas that a device works through per step.
      global_batch: images of a step over all workers.
      sent_bytes: what each worker sends per step, and receives.
      communication_secs: time of the all-reduce, hidden or not.
      step_secs, overlapped_step_secs: of a step, without and with overlap.
      images_per_sec, overlapped_images_per_sec: of all workers together.
      efficiency, overlapped_efficiency: images_per_sec over N times the measured worker's, in
        [0, 1].
    """

    num_workers: int
    num_rounds: int
    global_batch: int
    sent_bytes: float
    communication_secs: float
    step_secs: float
    overlapped_step_secs: float
    images_per_sec: float
    overlapped_images_per_sec: float
    efficiency: float
    overlapped_efficiency: float


def ring_bytes(*, num_workers: int, summed_bytes: float) -> float:
    """Bytes that each worker sends in a ring all-reduce: 2(N-1)/N of the summed tensor's.

    Each worker's share goes round twice, to be added up and to be handed out.
    """
    return 2 * (num_workers - 1) / num_workers * summed_bytes


def ring_secs(*, num_workers: int, summed_bytes: float, link: Link) -> float:
    """Seconds of a ring all-reduce: its bytes over the link and 2(N-1) hops; 0 for one worker."""
    sent_bytes = ring_bytes(num_workers=num_workers, summed_bytes=summed_bytes)
    return sent_bytes / link.bytes_per_sec + 2 * (num_workers - 1) * link.latency_secs


def summed_bytes(*, parameter_bytes: float, reduction: str) -> float:
    """Bytes of one worker's gradients as they are summed.

    Args:
      parameter_bytes: of the float32 weights, 4 a value.
      reduction: a key of VALUE_BYTES.
    """
    check_number("parameter_bytes", parameter_bytes)
    check_word("reduction", reduction, VALUE_BYTES)
    return parameter_bytes / PARAMETER_VALUE_BYTES * VALUE_BYTES[reduction]


def predict(
    measured: MeasuredStep,
    *,
    num_workers: int,
    parameter_bytes: float,
    reduction: str,
    link: Link,
    overlap: Overlap,
    scaling: str = "strong",
) -> Prediction:
    """The plan's row for one number of workers.

    Args:
      scaling: 'strong' shares the measured declared replicas out, ceil(R / (N x devices)) rounds
        each; 'weak' gives every worker as many as were measured, so that the global batch grows.

    Raises:
      ConfigError: a value that cannot be, or more devices than declared replicas.
    """
    check_count("workers", num_workers)
    check_word("scaling", scaling, SCALINGS)
    rounds = measured.num_rounds(num_workers, scaling=scaling)
    measured_rounds = measured.num_rounds(1, scaling=scaling)
    round_secs = (measured.step_secs - measured.update_secs) / measured_rounds
    summed = summed_bytes(parameter_bytes=parameter_bytes, reduction=reduction)
    communication_secs = ring_secs(num_workers=num_workers, summed_bytes=summed, link=link)
    # A device adds its replicas up before anything is sent: only the last round hides something.
    hidden_secs = min(
        overlap.backward_share * round_secs,
        (1 - overlap.least_exposed_share) * communication_secs,
    )
    step_secs = rounds * round_secs + measured.update_secs + communication_secs
    overlapped_step_secs = step_secs - hidden_secs
    batch = measured.num_replicas * measured.replica_batch
    batch *= num_workers if scaling == "weak" else 1
    linear_images_per_sec = num_workers * measured.images_per_sec
    return Prediction(
        num_workers=num_workers,
        num_rounds=rounds,
        global_batch=batch,
        sent_bytes=ring_bytes(num_workers=num_workers, summed_bytes=summed),
        communication_secs=communication_secs,
        step_secs=step_secs,
        overlapped_step_secs=overlapped_step_secs,
        images_per_sec=batch / step_secs,
        overlapped_images_per_sec=batch / overlapped_step_secs,
        efficiency=batch / step_secs / linear_images_per_sec,
        overlapped_efficiency=batch / overlapped_step_secs / linear_images_per_sec,
    )


def usual_workers(measured: MeasuredStep, *, scaling: str) -> list[int]:
    """Numbers of workers worth a row, ascending, from 1.

    Weak: the powers of two up to 1024. Strong: those up to the last one that has a replica for
    each device, and the numbers that leave no device waiting for another.
    """
    check_word("scaling", scaling, SCALINGS)
    powers = {2**exponent for exponent in range(MOST_WORKERS.bit_length())}
    if scaling == "weak":
        return sorted(powers)
    most = min(measured.num_replicas // measured.devices_per_worker, MOST_WORKERS)
    even = {
        number
        for number in range(1, most + 1)
        if measured.num_replicas % (number * measured.devices_per_worker) == 0
    }
    return sorted(even | {number for number in powers if number <= most})


def check_number(name: str, value, *, allows_zero: bool = False) -> None:
    """Raises ConfigError unless a value is a finite number above 0, or from 0 on."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0 or (value == 0 and not allows_zero):
        raise ConfigError(
            f"{name} must be a finite number {'of at least' if allows_zero else 'above'} 0.",
            received=repr(value),
            remedy=_REMEDIES.get(name),
        )


def check_share(name: str, value) -> None:
    """Raises ConfigError unless a value is in [0, 1]."""
    check_number(name, value, allows_zero=True)
    if value > 1:
        raise ConfigError(f"{name} must be in [0, 1].", received=repr(value))


def check_count(name: str, value) -> None:
    """Raises ConfigError unless a value is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"{name} must be a whole number of at least 1.",
            received=repr(value),
            remedy=_REMEDIES.get(name),
        )


def check_word(name: str, word: str, known: Iterable[str]) -> None:
    """Raises ConfigError unless a word is a known one."""
    if word not in known:
        raise ConfigError(
            f"{name} must be one of {', '.join(known)}.",
            received=repr(word),
            remedy=did_you_mean(str(word), known) or None,
        )


_REMEDIES = {
    "step_secs": "Give perf/secs_per_step of a run's metrics.jsonl, from one worker.",
    "update_secs": "Leave it out where it was not measured.",
    "parameter_bytes": "Give 4 times the parameters that tools/print_model.py counts.",
    "link_gbits_per_sec": "Give what the network carries between two workers, in 10^9 bits a "
    "second.",
    "latency_secs": "Give the seconds of one hop, such as 1e-5.",
    "num_replicas": "Give training.num_replicas of the config that was measured.",
    "replica_batch": "Give training.replica_batch of the config that was measured.",
    "workers": "Give numbers of workers with commas between them, such as 1,5,20.",
}
