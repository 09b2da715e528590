"""What the time of an export is made of, by oneDNN's primitives.

    python tools/profile_export.py --network=inception_v3

Calls the folded and the unfolded SavedModel of tools/bench_export.py, in float32 and bfloat16, each
in a process of its own under ONEDNN_VERBOSE=1, and adds up what oneDNN says of its primitives: ms a
call and how many, 'fused' being those that end with what stood behind them (batch norm, ReLU). The
last line is one JSON object.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile

NUM_WARM = 3  # calls that trace and choose kernels
_MARK = "-- counted from here --"


def profile(args, peer, precision):
    """Primitive -> [ms, how many, how many fused], each a call."""
    same = ("network", "variant", "image_px", "num_classes", "calls")
    own = [f"--{name}={getattr(args, name)}" for name in same]
    done = subprocess.run(
        [sys.executable, __file__, *own, f"--peer={peer}", f"--precision={precision}"],
        env={**os.environ, "ONEDNN_VERBOSE": "1"},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found = collections.defaultdict(lambda: [0.0, 0, 0])
    for line in done.stdout.partition(_MARK)[2].splitlines():
        fields = line.split(",")
        if fields[0] == "onednn_verbose" and "exec" in fields:
            sums = found[fields[fields.index("exec") + 2]]
            sums[0] += float(fields[-1])
            sums[1] += 1
            sums[2] += "attr-post-ops" in line
    return {name: [round(value / args.calls, 2) for value in sums] for name, sums in found.items()}


def call_peer(args):
    """Writes one SavedModel, loads and calls it."""
    import bench_export
    import numpy as np
    import tensorflow as tf

    shape = (1, args.image_px, args.image_px, 3)
    images = tf.constant(np.random.default_rng(1).uniform(-1, 1, shape), tf.float32)
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder, "export")
        model = bench_export.build(args, args.precision)
        if args.peer == "folded":
            bench_export.write_folded(model, directory, args, args.precision)
        else:
            bench_export.write_unfolded(model, directory)
        loaded, _ = bench_export.load(directory)
        for call in range(NUM_WARM + args.calls):
            if call == NUM_WARM:
                print(_MARK, flush=True)
            loaded.signatures["logits"](images=images)["logits"].numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="inception_v3")
    parser.add_argument("--variant", default="released")
    parser.add_argument("--image_px", type=int, default=299)
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=20, help="counted calls")
    parser.add_argument("--peer", choices=("folded", "unfolded"), help="calls this one alone")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    if args.peer:
        call_peer(args)
        return
    found = {"network": args.network, "calls": args.calls}
    print(f"{'':<20}{'primitive':<22}{'ms a call':>10}{'calls':>8}{'fused':>8}")
    for precision in ("float32", "bfloat16"):
        for peer in ("folded", "unfolded"):
            own = found[f"{precision} {peer}"] = profile(args, peer, precision)
            for name, (ms, count, fused) in sorted(own.items(), key=lambda one: -one[1][0]):
                row = f"{precision + ' ' + peer:<20}{name:<22}"
                print(f"{row}{ms:>10.1f}{count:>8.0f}{fused:>8.0f}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
