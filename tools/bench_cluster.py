"""What several workers cost on this machine: step, all-reduce, checkpoint, start and restart.

    python tools/bench_cluster.py --replica_batch=2 --image_px=149 --steps=6

The same declared run (two replicas of the released Inception-ResNet-v2) is timed in three shapes on
the same cores: one process with one device, one process with two, and two processes, which talk
over loopback. They live side by side and take turns, so that a machine whose speed drifts slows all
of them. The last line is one JSON object.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import cluster_restart

WORKER = pathlib.Path(__file__).resolve().with_name("cluster_worker.py")
NUM_REPLICAS = 2
PACK_BYTES = 50_000_000
# (kind of sums, bytes per pack) that the all-reduce alone is timed with.
SUMS = [("exact", 0), ("exact", PACK_BYTES), ("float32", 0), ("float32", PACK_BYTES),
        ("bfloat16", 0)]  # fmt: skip
SAVE_INTERVAL_SECS = 600.0  # checkpoints.every_minutes
# Name -> (processes, devices of each).
SHAPES = {"1 process x 1 device": (1, 1), "1 process x 2": (1, 2), "2 processes x 1": (2, 1)}


class Shape:
    """The processes of one shape, which do the same thing at the same time.

    Args:
      num_processes, devices: processes, and devices of each.
      options: of the network and its batch, name -> value.
      cores: shared out among the processes.
    """

    def __init__(self, num_processes, devices, options, *, cores):
        self.began = time.perf_counter()
        addresses = [f"127.0.0.1:{port}" for port in free_ports(num_processes)]
        self._processes, self._logs = [], []
        for index in range(num_processes):
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
            environment.pop("TF_CONFIG", None)
            if num_processes > 1:
                task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                environment["TF_CONFIG"] = json.dumps(task)
            flags = {**options, "devices": devices, "threads": max(1, cores // num_processes)}
            words = [word for name, value in flags.items() for word in _words(name, value)]
            log = tempfile.TemporaryFile("w+")  # read when the process fails
            process = subprocess.Popen(
                [sys.executable, str(WORKER), *words], env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
            self._processes.append(process)
            self._logs.append(log)

    def ask(self, do, *, count=1, num_processes=None, **options):
        """Seconds of each of `count` calls, the slowest process counting."""
        asked = self._processes[:num_processes]
        for process in asked:
            with contextlib.suppress(BrokenPipeError):  # its end is told below
                print(
                    json.dumps({"do": do, "count": count, **options}),
                    file=process.stdin,
                    flush=True,
                )
        answers = []
        for process, log in zip(asked, self._logs):
            line = process.stdout.readline()
            if not line:
                status = process.wait()
                log.seek(0)
                raise SystemExit(f"{log.read()[-4000:]}\nA process of {do} ended with {status}.")
            answers.append(json.loads(line)["secs"])
        return [max(secs) for secs in zip(*answers)]

    def end(self):
        """Ends all processes."""
        for process in self._processes:
            process.kill()
            process.wait()
        for log in self._logs:
            log.close()


def _words(name, value):
    return [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]


def free_ports(count):
    """TCP ports of loopback that are free now."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def time_steps(options, *, cores, num_steps, num_rounds):
    """The figures of steps, their parts, all-reduces and checkpoints; prints a table of each."""
    shapes = {name: Shape(*shape, options, cores=cores) for name, shape in SHAPES.items()}
    found = {}
    try:
        for shape in shapes.values():  # traces
            for do in ("step", "compute", "all_reduce"):
                shape.ask(do)
        secs = {(name, do): [] for name in shapes for do in ("step", "compute", "all_reduce")}
        for _ in range(num_rounds):
            for name, do in secs:
                secs[name, do] += shapes[name].ask(do, count=num_steps)
        found.update(_step_figures(secs, shapes))
        found.update(_sum_figures(shapes["2 processes x 1"], count=num_steps))
        alone = shapes["1 process x 1 device"]
        save_secs = statistics.median(alone.ask("save", count=4)[1:])
        share = save_secs / (SAVE_INTERVAL_SECS + save_secs)
        print(f"\na checkpoint stops training for {save_secs:.2f} s: {share:.2%} at one in 10 min")
        found |= {"save_secs": save_secs, "save_share_at_10_min": share}
    finally:
        for shape in shapes.values():
            shape.end()
    return found


def _step_figures(secs, shapes):
    found = {}
    print(f"{'shape':<22}{'step s':>9}{'compute':>9}{'reduce':>9}{'wait':>9}{'vs first':>10}")
    first, *_ = shapes
    for name in shapes:
        step, compute, reduce = (
            statistics.median(secs[name, do]) for do in ("step", "compute", "all_reduce")
        )
        # Of neighbours in time, then the median.
        ratio = statistics.median(b / a for a, b in zip(secs[first, "step"], secs[name, "step"]))
        wait = step - compute - reduce
        print(f"{name:<22}{step:>9.3f}{compute:>9.3f}{reduce:>9.3f}{wait:>9.3f}{ratio:>10.2f}")
        key = name.replace(" ", "_")
        found |= {
            f"{key}_step_secs": step,
            f"{key}_compute_secs": compute,
            f"{key}_all_reduce_secs": reduce,
            f"{key}_wait_secs": wait,
            f"{key}_step_ratio": ratio,
        }
    return found


def _sum_figures(shape, *, count):
    """Seconds of the all-reduce alone, by kind and packs, alternating."""
    secs = {sums: [] for sums in SUMS}
    for kind, pack in SUMS:
        shape.ask("all_reduce", kind=kind, bytes_per_pack=pack)  # traces
    for _ in range(count):
        for kind, pack in SUMS:
            secs[kind, pack] += shape.ask("all_reduce", kind=kind, bytes_per_pack=pack)
    print(f"\n{'all-reduce, 2 processes':<26}{'packs':>12}{'s':>9}{'vs first':>10}")
    found = {}
    for kind, pack in SUMS:
        ratio = statistics.median(b / a for a, b in zip(secs[SUMS[0]], secs[kind, pack]))
        median = statistics.median(secs[kind, pack])
        packs = f"{pack:,} B" if pack else "one"
        print(f"{kind:<26}{packs:>12}{median:>9.3f}{ratio:>10.2f}")
        found |= {f"all_reduce_{kind}_{pack}_secs": median, f"all_reduce_{kind}_{pack}_ratio": ratio}
    return found


def time_starts(options, *, cores, most_devices):
    """Seconds from nothing to the end of the first step, devices in one process or in as many."""
    found, count = {}, 1
    print(f"\n{'first step ends after s':<26}{'one process':>14}{'one each':>12}")
    while count <= most_devices:
        row = []
        for num_processes, devices in [(1, count), (count, 1)] if count > 1 else [(1, 1)]:
            shape = Shape(
                num_processes, devices, {**options, "num_replicas": most_devices}, cores=cores
            )
            try:
                shape.ask("step")
                row.append(time.perf_counter() - shape.began)
            finally:
                shape.end()
        row = row * 2 if count == 1 else row
        print(f"{f'{count} devices':<26}{row[0]:>14.1f}{row[1]:>12.1f}")
        found |= {f"start_one_process_{count}_secs": row[0], f"start_{count}_processes_secs": row[1]}
        count *= 2
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replica_batch", type=int, default=2)
    parser.add_argument("--image_px", type=int, default=149)
    parser.add_argument("--width_multiplier", type=float, default=1.0)
    parser.add_argument("--blocks", type=int, nargs=3, help="of each kind, for a shorter network")
    parser.add_argument("--steps", type=int, default=3, help="counted steps of a turn")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--most_devices", type=int, default=4, help="of the start-up table")
    parser.add_argument("--restarts", type=int, default=3, help="kills that are timed")
    args = parser.parse_args()
    if min(args.steps, args.turns, args.restarts, args.most_devices) < 1:
        parser.error("--steps, --turns, --restarts and --most_devices are at least 1")
    options = {
        "num_replicas": NUM_REPLICAS,
        "replica_batch": args.replica_batch,
        "image_px": args.image_px,
        "width_multiplier": args.width_multiplier,
        **({"blocks": tuple(args.blocks)} if args.blocks else {}),
    }
    found = {"machine": platform.processor() or platform.machine(), **vars(args)}
    with tempfile.TemporaryDirectory() as directory:
        os.environ["BENCH_DIR"] = directory
        found |= time_steps(options, cores=args.cores, num_steps=args.steps, num_rounds=args.turns)
        narrow = {**options, "width_multiplier": 0.1, "image_px": 75, "blocks": (1, 1, 1)}
        found |= time_starts(narrow, cores=args.cores, most_devices=args.most_devices)
        found |= cluster_restart.time_restarts(pathlib.Path(directory), count=args.restarts)
    rounded = {n: round(v, 4) if isinstance(v, float) else v for n, v in found.items()}
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
