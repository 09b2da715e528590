"""Inference of the four networks beside stock Keras and PyTorch, alternating.

    python tools/bench_infer.py --without=torch_compile
    python tools/bench_infer.py --networks inception_v3 --batch 1 --precision float32

From a batch of float images in [-1, 1] that lies in memory to its logits. Ours is the SavedModel
that an export writes, folded, by its signature `logits`. 'stock_keras' is keras.applications'
network in a tf.function, or the same layers from this project's tables where there is none;
'torch' is timm's network (Inception-ResNet-v1, which timm lacks, from our tables) in eval and
inference mode, channels_last; 'torch_compile' the same under torch.compile. The weights are drawn:
they do not matter to the time.

Turns, ratios, 'peak MB' and a missing peer are as in tools/bench_step.py. 'first s' is what
building, tracing or compiling and the first call took, imports apart; of ours, loading the export
and the first call. The last line is one JSON object.
"""

import sys

import peer_bench


def main(arguments=None):
    parser = peer_bench.make_parser(__doc__.split("\n")[0], calls=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 1], help="images of a call")
    args = parser.parse_args(arguments)
    return peer_bench.run(args, task="infer", batches=args.batch, names_batch=True)


if __name__ == "__main__":
    sys.exit(main())
