"""A process of tools/bench_step.py and tools/bench_infer.py: builds one peer, and calls it in turn.

Reads one JSON object a line from stdin and answers each with one on stdout. The first names the
peer and its case, and is answered after the first call: {'first_secs': to build the network, trace
or compile it and call it once, imports apart, 'description': of the network}. Each further one,
{'calls': n}, is answered with {'secs': of one call, 'peak_mb': largest resident memory so far}.
"""

import json
import math
import os
import pathlib
import sys
import time

import peer_processes

# Waits before a turn: the threads of the peer before are asleep then.
REST_SECS = 0.05


def builder_of(peer):
    """The function that builds a peer; imports its framework, and no other."""
    if peer in (peer_processes.TORCH, peer_processes.TORCH_COMPILE):
        import torch_peers as module
    else:
        import keras_peers as module
    return module.build_peer


def call_checked(call):
    """Calls a peer, which gives a loss or a logit.

    Raises:
      SystemExit: it is no finite number; what comes after would not be the same work.
    """
    value = call()
    if not math.isfinite(value):
        raise SystemExit(f"the loss or the logits became {value}")


def peak_mb():
    """Largest resident memory of this process so far, in MiB."""
    for line in pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("Peak memory needs /proc/self/status of Linux, with its line VmHWM.")


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    opening = json.loads(sys.stdin.readline())
    case, folder = peer_processes.Case(**opening["case"]), pathlib.Path(opening["folder"])
    # Before the imports: libraries count the cores then.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case.threads])
    build_peer = builder_of(opening["peer"])
    began = time.perf_counter()
    call, description = build_peer(opening["peer"], case, folder)
    call_checked(call)
    answer(first_secs=time.perf_counter() - began, description=description)
    for line in sys.stdin:
        time.sleep(REST_SECS)
        calls = json.loads(line)["calls"]
        began = time.perf_counter()
        for _ in range(calls):
            call_checked(call)
        answer(secs=(time.perf_counter() - began) / calls, peak_mb=peak_mb())


if __name__ == "__main__":
    main()
