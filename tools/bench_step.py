"""One training step of the four networks beside stock Keras and PyTorch, alternating.

    python tools/bench_step.py --without=torch_compile
    python tools/bench_step.py --networks inception_v3 --precision float32 --replica_batch=16

Ours is the whole step of a run with one declared replica: forward and backward pass, L2, global
clip, RMSProp, moving statistics and averages over weights and statistics; 'ours_recompute' is the
same with `training.recompute`. The peers do forward and
backward pass, moving statistics and their own RMSProp, and nothing else: 'stock_keras' is
keras.applications' network, or the same layers from this project's tables where there is none;
'torch' is timm's network (Inception-ResNet-v1, which timm lacks, from our tables), channels_last,
with timm's RMSpropTF; 'torch_compile' the same network under torch.compile, which may compile for
minutes. All compute on one batch that lies in memory, with dropout, label smoothing and as many
threads; ours without deterministic kernels, as the peers.

Each peer has a process of its own, none of which is the first that is built (one more of ours, which
on a virtual machine computes slower), and computes when it is its turn, so that a machine whose speed
drifts slows all. A ratio is the median over the rounds of ours / peer, above 1 where ours is
faster; 'peak MB' the largest resident memory of the process; 'first s' what building, tracing or
compiling and the first step took, imports apart. A peer that is not installed or fails is named,
and the status is 1. The last line is one JSON object.
"""

import sys

import peer_bench


def main(arguments=None):
    parser = peer_bench.make_parser(__doc__.split("\n")[0], calls=1)
    parser.add_argument("--replica_batch", type=int, default=8, help="images of a step")
    args = parser.parse_args(arguments)
    return peer_bench.run(args, task="train", batches=[args.replica_batch], names_batch=False)


if __name__ == "__main__":
    sys.exit(main())
