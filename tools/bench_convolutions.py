"""The convolutions of a network one by one, each in the ways in which it could be computed.

    python tools/bench_convolutions.py --network=inception_resnet_v2 --batch=8
    TF_ENABLE_ONEDNN_OPTS=1 python tools/bench_convolutions.py

Forward, backward to the weights and backward to the input, as TensorFlow's own kernels do them, and

- `input, as forward`: stride 1, the input's gradient as a forward convolution of the output's with
  the turned kernel;
- `..., as product`: a 1x1 as a product of matrices;
- `weights, as forward`: a larger one's as a forward convolution whose images are the input's
  channels and whose kernel is the output's gradient;
- `siblings ...`: 1x1 convolutions that read the same tensor, one by one and as one.

Seconds of all convolutions that a way is for, the best of a few calls each, beside TensorFlow's own
seconds for the same ones, and GFLOP/s. The ways take turns, kernel by kernel. The last line is one
JSON object.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import sys
import time

import keras
import machine_facts
import tensorflow as tf
from keras_peers import variant_of

from inception_tf.models.catalog import CATALOG, ModelSpec, build_model
from inception_tf.models.layers import ConvUnit
from inception_tf.models.wiring import wires
from inception_tf.reporting.table import aligned_table

FORWARD, WEIGHTS, INPUT = "forward", "backward to weights", "backward to input"
INPUT_AS_FORWARD, WEIGHTS_AS_FORWARD = "input, as forward", "weights, as forward"
FORWARD_AS_PRODUCT, INPUT_AS_PRODUCT = "forward, as product", "input, as product"
WEIGHTS_AS_PRODUCT = "weights, as product"
# way -> TensorFlow's own, whose seconds stand beside it
OWN = {
    INPUT_AS_FORWARD: INPUT,
    WEIGHTS_AS_FORWARD: WEIGHTS,
    FORWARD_AS_PRODUCT: FORWARD,
    WEIGHTS_AS_PRODUCT: WEIGHTS,
    INPUT_AS_PRODUCT: INPUT,
}


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One shape of convolution.

    Attributes:
      grid: (height, width, channels) of its input.
      kernel: [kh, kw, channels, filters].
      strides: (vertical, horizontal).
      padding: 'same' or 'valid'.
    """

    grid: tuple
    kernel: tuple
    strides: tuple
    padding: str

    def ways(self, x, kernel, upstream):
        """Way -> function without arguments that computes it."""
        strides, padding = [1, *self.strides, 1], self.padding.upper()
        found = {
            FORWARD: lambda: tf.nn.conv2d(x, kernel, strides, padding),
            WEIGHTS: lambda: tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=self.kernel, out_backprop=upstream, strides=strides,
                padding=padding,
            ),
            INPUT: lambda: tf.raw_ops.Conv2DBackpropInput(
                input_sizes=x.shape, filter=kernel, out_backprop=upstream, strides=strides,
                padding=padding,
            ),
        }  # fmt: skip
        height, width = self.kernel[:2]
        is_same = self.padding == "same"
        if self.strides != (1, 1) or (is_same and not height % 2 == width % 2 == 1):
            return found
        around = [[0, 0], [height - 1] * 2, [width - 1] * 2, [0, 0]]

        def input_as_forward():
            turned = tf.reverse(tf.transpose(kernel, [0, 1, 3, 2]), [0, 1])
            return tf.nn.conv2d(upstream, turned, 1, "SAME" if is_same else around)

        def weights_as_forward():
            pads = [[0, 0], [height // 2] * 2, [width // 2] * 2, [0, 0]]
            images, window = tf.transpose(x, [3, 1, 2, 0]), tf.transpose(upstream, [1, 2, 0, 3])
            y = tf.nn.conv2d(images, window, 1, pads if is_same else "VALID")
            return tf.transpose(y, [1, 2, 0, 3])

        def product(one, other, shape, **transposed):
            one, other = (tf.reshape(value, [-1, value.shape[-1]]) for value in (one, other))
            return tf.reshape(tf.matmul(one, other, **transposed), shape)

        found[INPUT_AS_FORWARD] = input_as_forward
        if height == width == 1:
            found[FORWARD_AS_PRODUCT] = lambda: product(x, kernel, upstream.shape)
            found[WEIGHTS_AS_PRODUCT] = lambda: product(x, upstream, self.kernel, transpose_a=True)
            found[INPUT_AS_PRODUCT] = lambda: product(upstream, kernel, x.shape, transpose_b=True)
            return found
        return found | {WEIGHTS_AS_FORWARD: weights_as_forward}


def convolutions_of(model):
    """(Counter of Convolutions, Counter of tuples of sibling 1x1 Convolutions) of a network."""
    found, siblings = collections.Counter(), collections.defaultdict(list)
    for wire in wires(model, model.output):
        layer = wire.layer
        if isinstance(layer, (ConvUnit, keras.layers.Conv2D)):
            one = Convolution(
                tuple(layer.input.shape[1:]), tuple(layer.kernel.shape), tuple(layer.strides),
                layer.padding,
            )  # fmt: skip
            found[one] += 1
            if isinstance(layer, ConvUnit) and layer.kernel_size == layer.strides == (1, 1):
                siblings[wire.sources].append(one)
    return found, collections.Counter(tuple(own) for own in siblings.values() if len(own) > 1)


def time_ways(convolution, args):
    """Way -> best seconds of a call."""
    draw = itertools.count()

    def tensor(shape):
        values = tf.random.stateless_normal(shape, [0, next(draw)])
        return tf.cast(values, tf.as_dtype(args.precision))

    x, kernel = tensor([args.batch, *convolution.grid]), tensor(convolution.kernel)
    y = tf.nn.conv2d(x, kernel, convolution.strides, convolution.padding.upper())
    ways = convolution.ways(x, kernel, tensor(y.shape))
    calls = {way: tf.function(compute, autograph=False) for way, compute in ways.items()}
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(args.rounds + 1):
        for way, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:  # the first traces
                best[way] = min(best[way], time.perf_counter() - began)
    return best, 2e-9 * y.shape.num_elements() * kernel.shape[:3].num_elements()


def measure(args):
    """Way -> [seconds, TensorFlow's own seconds, GFLOP] of all convolutions that it is for."""
    spec = ModelSpec(
        name=args.network, variant=variant_of(args.network),
        input_height_px=args.image_px, input_width_px=args.image_px,
    )  # fmt: skip
    shapes, siblings = convolutions_of(build_model(spec, num_classes=1000))
    merged = {
        group: dataclasses.replace(
            group[0], kernel=(*group[0].kernel[:3], sum(one.kernel[3] for one in group))
        )
        for group in siblings
    }
    timed = {one: time_ways(one, args) for one in {*shapes, *merged.values()}}
    sums = collections.defaultdict(lambda: [0.0, 0.0, 0.0])

    def add(way, count, secs, own_secs, gflop):
        for place, value in enumerate((secs, own_secs, gflop)):
            sums[way][place] += count * value

    for one, count in shapes.items():
        secs, gflop = timed[one]
        for way, value in secs.items():
            add(way, count, value, secs[OWN.get(way, way)], gflop)
    for group, count in siblings.items():
        together, gflop = timed[merged[group]]
        for way in (FORWARD, WEIGHTS, INPUT):
            apart = sum(timed[one][0][way] for one in group)
            add(f"siblings as one, {way}", count, together[way], apart, gflop)
    return sums


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="inception_resnet_v2", choices=CATALOG)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image_px", type=int, default=299)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4, help="counted calls of each")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    sums = measure(args)
    rows = [
        [way, f"{secs:.2f}", f"{own:.2f}", f"{own / secs:.2f}", f"{gflop / secs:.0f}"]
        for way, (secs, own, gflop) in sums.items()
    ]
    header = ["", "s", "TensorFlow's own, s", "own / this", "GFLOP/s"]
    print(aligned_table(rows, header=header, align="lrrrr"))
    ways = {
        way: {"secs": round(secs, 4), "own_secs": round(own, 4), "gflop": round(gflop, 2)}
        for way, (secs, own, gflop) in sums.items()
    }
    print(json.dumps({**vars(args), **machine_facts.machine_facts(), "ways": ways}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
