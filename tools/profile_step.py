"""What the time of a training step is made of, by TensorFlow's kernels.

    python tools/profile_step.py --network=inception_resnet_v2 --replica_batch=8

Runs a peer of tools/bench_step.py under TensorFlow's CPU profiler and adds up the time in each kind
of kernel, from its start to its end. Kernels run one after the other, each with all threads, so that
none counts the time of another; TF_NUM_INTEROP_THREADS in the environment says otherwise. Those that
only call others (functions, loops) are left out. The last line is one JSON object.
"""

import argparse
import collections
import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")  # read when TensorFlow starts

import peer_processes
import tensorflow as tf
from keras_peers import build_peer
from tensorflow.tsl.profiler.protobuf import xplane_pb2

_CALLERS = {"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "While"}


def profile(peer, case, steps):
    """Kind of kernel -> [ms a step, how many a step]."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with peer_processes.PeerProcess(peer_processes.PREPARE, case, folder=folder) as other:
            other.build()
        call, _ = build_peer(peer, case, folder)
        for _ in range(2):
            call()
        with tf.profiler.experimental.Profile(str(folder / "trace")):
            for _ in range(steps):
                call()
        (path,) = (folder / "trace").rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    sums = collections.defaultdict(lambda: [0.0, 0])
    for plane in space.planes:
        names = {key: metadata.name for key, metadata in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                # A kernel's event is called '<operation>:<kind>'.
                _, colon, kind = names[event.metadata_id].rpartition(":")
                # oneDNN's kernels have names of their own, with an underscore.
                is_kernel = kind.startswith("_") or hasattr(tf.raw_ops, kind)
                if colon and is_kernel and kind not in _CALLERS:
                    sums[kind][0] += event.duration_ps / 1e9
                    sums[kind][1] += 1
    return {kind: [round(value / steps, 2) for value in found] for kind, found in sums.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="inception_resnet_v2")
    parser.add_argument("--precision", default="float32", choices=("float32", "mixed_bfloat16"))
    parser.add_argument("--replica_batch", type=int, default=8)
    parser.add_argument("--image_px", type=int, default=299)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="counted steps")
    parser.add_argument("--peer", default="ours", choices=peer_processes.PEERS[:3])
    args = parser.parse_args()
    case = peer_processes.Case(
        task=peer_processes.TRAIN, network=args.network, precision=args.precision,
        batch=args.replica_batch, image_px=args.image_px, threads=args.threads,
    )  # fmt: skip
    found = profile(args.peer, case, args.steps)
    total = sum(ms for ms, _ in found.values())
    print(f"{'kernel':<32}{'ms a step':>10}{'share':>8}{'calls':>8}")
    for kind, (ms, count) in sorted(found.items(), key=lambda one: -one[1][0])[:25]:
        print(f"{kind:<32}{ms:>10.1f}{ms / total:>8.1%}{count:>8.0f}")
    print(json.dumps({**vars(args), "total_ms": round(total, 1), "kernels": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
