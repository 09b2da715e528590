"""Peers of a benchmark, each in a process of its own that is told when to compute.

Own processes, so that peak memory and the time to the first result are each peer's own, and so
that two frameworks' threads and allocators do not meet. A peer that waits for its turn sleeps.
"""

import collections
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

WORKER = pathlib.Path(__file__).resolve().with_name("peer_worker.py")
TRAIN, INFER = "train", "infer"
OURS, STOCK, TORCH, TORCH_COMPILE = "ours", "stock_keras", "torch", "torch_compile"
OURS_RECOMPUTE = "ours_recompute"  # in training alone: what recomputation saves and costs
PEERS = (OURS, OURS_RECOMPUTE, STOCK, TORCH, TORCH_COMPILE)
PREPARE = "prepare"  # no peer: writes what the peers of a case read


class PeerError(Exception):
    """A peer's process ended, or says that it cannot go on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What all peers of one comparison compute.

    Attributes:
      task: 'train' (one training step) or 'infer' (logits of one batch).
      network: a name of the catalog.
      precision: 'float32' or 'mixed_bfloat16'.
      batch: images of one call.
      image_px: height and width of an image.
      num_classes: logits.
      width_multiplier: of the filter counts; away from 1 no peer has a ready-made network.
      threads: cores that a peer may use, and threads of its framework.
    """

    task: str
    network: str
    precision: str
    batch: int
    image_px: int = 299
    num_classes: int = 1000
    width_multiplier: float = 1.0
    threads: int = 1

    @property
    def is_full_width(self):
        """Whether it is the published network, which others have too."""
        return self.width_multiplier == 1.0


class PeerProcess:
    """The process of one peer; a context manager that ends it.

    Args:
      name: one of PEERS, or PREPARE.
      case: a Case.
      folder: that the processes of a case share.
    """

    def __init__(self, name, case, *, folder):
        self.name = name
        self._opening = {"peer": name, "folder": str(folder), "case": dataclasses.asdict(case)}
        self._log = tempfile.TemporaryFile("w+")  # read when the process fails
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)], env=environment(case.threads, folder), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip

    def build(self):
        """Builds the peer and makes its first call; what it says of both, see peer_worker.py."""
        return self._ask(self._opening)

    def call(self, count):
        """Makes `count` calls; {'secs': of one, on average, 'peak_mb': of the process so far}."""
        return self._ask({"calls": count})

    def _ask(self, request):
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            self._log.seek(0)
            log = self._log.read()
            print(log[-4000:], file=sys.stderr)
            last = next((text for text in reversed(log.splitlines()) if text.strip()), "")
            raise PeerError(f"its process ended with status {status}: {last.strip()}")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._log.close()


def environment(threads, folder):
    """Variables of a peer's process: as many threads for all, no GPU, no compiled code of before.

    libgomp's threads, which torch computes with, spin for a while after their work: that is its
    default, as torch's users have it. A peer rests before its turn, so that they are asleep then.
    """
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, "torchinductor"),
    }


def ask_each(processes, ask, failed):
    """Name -> answer of each process, one after the other; those that fail are taken out.

    Args:
      processes: name -> PeerProcess; changed.
      ask: function of a PeerProcess.
      failed: name -> reason; what fails is added.
    """
    answers = {}
    for name, process in list(processes.items()):
        try:
            answers[name] = ask(process)
        except PeerError as error:
            failed[name] = str(error)
            del processes[name]
    return answers


def alternate(processes, *, rounds, warmup, calls, failed):
    """(name -> seconds of a call in each counted round, name -> peak MB), the peers in turn.

    Args:
      processes, failed: see `ask_each`.
      rounds, warmup: turns of each peer that count, and before these.
      calls: of a peer in one turn.
    """
    secs, peaks = collections.defaultdict(list), {}
    for turn in range(warmup + rounds):
        answers = ask_each(processes, lambda process: process.call(calls), failed)
        for name, answer in answers.items():
            peaks[name] = answer["peak_mb"]
            if turn >= warmup:
                secs[name].append(answer["secs"])
    living = [name for name in secs if name in processes]
    return {name: secs[name] for name in living}, {name: peaks[name] for name in living}
