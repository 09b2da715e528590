"""What tools/bench_step.py and tools/bench_infer.py share: flags, turns, figures and tables."""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile

import machine_facts
import peer_processes
from peer_processes import INFER, OURS, OURS_RECOMPUTE, PEERS, TORCH, TORCH_COMPILE

from inception_tf.reporting.table import aligned_table

NETWORKS = ("inception_v3", "inception_v4", "inception_resnet_v1", "inception_resnet_v2")
PRECISIONS = ("float32", "mixed_bfloat16")
PACKAGES = {TORCH: ("torch", "timm"), TORCH_COMPILE: ("torch", "timm")}


def make_parser(description, *, calls):
    """The flags of both commands, all but their batch.

    Args:
      calls: of a peer in one turn, where the flag is not given.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--precision", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=7, help="counted turns of each peer")
    parser.add_argument("--warmup", type=int, default=2, help="turns before these")
    parser.add_argument("--calls", type=int, default=calls, help="calls of a peer in one turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="threads and cores of each peer")  # fmt: skip
    parser.add_argument("--image_px", type=int, default=299)
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--width_multiplier", type=float, default=1.0,
                        help="of the filter counts; other than 1: all from our tables")  # fmt: skip
    parser.add_argument("--without", action="append", default=[], choices=PEERS[1:],
                        help="a peer to leave out; may be given several times")  # fmt: skip
    return parser


def run(args, *, task, batches, names_batch):
    """Measures every network, precision and batch; the exit status.

    A peer that fails is named, the others go on, and the status is 1.

    Args:
      args: of `make_parser`'s parser.
      task: 'train' or 'infer'.
      batches: images of a call, one case each.
      names_batch: whether the figures' names say which.
    """
    is_left_out = {*args.without, *([OURS_RECOMPUTE] if task == INFER else [])}
    peers = [name for name in PEERS if name not in is_left_out]
    absent = absent_packages(peers)
    if absent:
        return _tell_missing(absent)
    found = {
        **machine_facts.machine_facts(), "threads": args.threads, "image_px": args.image_px,
        "num_classes": args.num_classes, "width_multiplier": args.width_multiplier,
        "rounds": args.rounds, "calls": args.calls, "batches": batches, "peers": peers,
    }  # fmt: skip
    missing = {}
    for network in args.networks:
        for precision in args.precision:
            for batch in batches:
                case = peer_processes.Case(
                    task=task, network=network, precision=precision, batch=batch,
                    image_px=args.image_px, num_classes=args.num_classes,
                    width_multiplier=args.width_multiplier, threads=args.threads,
                )  # fmt: skip
                failed = {}
                figures = measure(case, peers, args, failed)
                title = f"{network}, {precision}, batch {batch}"
                print(f"\n{title}\n{table(figures, peers)}", flush=True)
                missing |= {f"{name} ({title})": reason for name, reason in failed.items()}
                size = f"_batch{batch}" if names_batch else ""
                found |= {f"{network}_{precision}{size}_{k}": v for k, v in figures.items()}
    status = _tell_missing(missing) if missing else 0
    print(json.dumps({**found, "missing": missing}))
    return status


def absent_packages(peers):
    """Peer -> which of its packages are not installed, of those that lack one."""
    lacking = {
        name: [p for p in PACKAGES.get(name, ()) if importlib.util.find_spec(p) is None]
        for name in peers
    }
    return {n: f"not installed: {', '.join(absent)}" for n, absent in lacking.items() if absent}


def measure(case, peers, args, failed):
    """The figures of one case by name; what fails is added to `failed`, name -> reason.

    Raises:
      SystemExit: this project's own side fails.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as living:
        folder = pathlib.Path(folder)
        try:
            with peer_processes.PeerProcess(peer_processes.PREPARE, case, folder=folder) as one:
                one.build()
        except peer_processes.PeerError as error:
            raise SystemExit(f"{case.network} cannot be built: {error}") from error
        processes = {
            name: living.enter_context(peer_processes.PeerProcess(name, case, folder=folder))
            for name in peers
        }
        # On a virtual machine the process that is built first computes slower for as long as it
        # lives, by up to a sixth where all are the same peer: this one is no peer.
        with peer_processes.PeerProcess(OURS, case, folder=folder) as first:
            try:
                first.build()
            except peer_processes.PeerError as error:
                raise SystemExit(f"{OURS} failed: {error}") from error
            built = peer_processes.ask_each(processes, lambda process: process.build(), failed)
        secs, peaks = peer_processes.alternate(
            processes, rounds=args.rounds, warmup=args.warmup, calls=args.calls, failed=failed
        )
    if OURS not in secs:
        raise SystemExit(f"{OURS} failed: {failed.get(OURS)}")
    return figures_of(case, secs, peaks=peaks, built=built)


def figures_of(case, secs, *, peaks, built):
    """Name -> figure: rates, ratios, memory and first calls of the peers that have seconds.

    A ratio above 1 says that ours is faster. It is the median over the rounds, in each of which
    both have computed one after the other: what slows the machine for a while slows both.

    Args:
      case: the Case.
      secs: peer -> seconds of a call in each round.
      peaks: peer -> MB.
      built: peer -> answer of `PeerProcess.build`.
    """
    medians = {name: statistics.median(values) for name, values in secs.items()}
    ratios = {
        name: statistics.median(other / own for own, other in zip(secs[OURS], values))
        for name, values in secs.items()
        if name != OURS
    }
    figures = {}
    for name in secs:
        figures[f"{name}_network"] = built[name]["description"]
        figures[f"{name}_images_per_sec"] = round(case.batch / medians[name], 3)
        figures[f"{name}_peak_mb"] = round(peaks[name])
        figures[f"{name}_first_secs"] = round(built[name]["first_secs"], 2)
    figures |= {f"ratio_to_{name}": round(ratio, 3) for name, ratio in ratios.items()}
    others = [name for name in ratios if name != OURS_RECOMPUTE]
    if others:
        best = min(others, key=ratios.get)
        figures |= {"best_peer": best, "ratio_to_best_peer": round(ratios[best], 3)}
    return figures


def table(figures, peers):
    """The figures of one case as text, a line for each peer that has some."""
    rows = [
        [
            name,
            f"{figures[f'{name}_images_per_sec']:.2f}",
            f"{figures[f'ratio_to_{name}']:.2f}" if name != OURS else "",
            "best" if name == figures.get("best_peer") else "",
            f"{figures[f'{name}_peak_mb']:,}",
            f"{figures[f'{name}_first_secs']:.1f}",
            figures[f"{name}_network"],
        ]
        for name in peers
        if f"{name}_images_per_sec" in figures
    ]
    header = ["peer", "images/s", "ours / peer", "", "peak MB", "first s", "network"]
    return aligned_table(rows, header=header, align="lrrlrrl")


def _tell_missing(missing):
    """Says which peers are missing and why; the exit status."""
    for name, reason in missing.items():
        flag = f"--without={name.partition(' ')[0]}"
        print(f"Missing peer {name}: {reason}. {flag} leaves it out.", file=sys.stderr)
    return 1
