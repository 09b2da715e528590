"""What folding brings: an export against the unfolded network and the evaluator's own graph.

    python tools/bench_export.py --network=inception_resnet_v2
    python tools/bench_export.py --network=inception_v3 --images=photos.tar

Three peers, taking turns in one process, for float32 and bfloat16, from images in memory to logits:
'folded', the SavedModel that an export writes; 'unfolded', the same network with its batch norms as
a SavedModel; 'graph', the training graph in inference mode, as the evaluator runs it. With
--images, whole requests of one image file to the folded export beside. The weights are drawn: they
do not matter to the time. The last line is one JSON object.
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import statistics
import tarfile
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from inception_tf.data import image
from inception_tf.evaluation.inference import Inference
from inception_tf.models.catalog import ModelSpec, build_model
from inception_tf.serving.content import Content, Preprocessing
from inception_tf.serving.fold import fold
from inception_tf.serving.signatures import write_saved_model
from inception_tf.serving.spec import ExportSpec

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def build(args, precision):
    spec = ModelSpec(
        name=args.network, variant=args.variant, input_height_px=args.image_px,
        input_width_px=args.image_px, precision=PRECISIONS[precision],
    )  # fmt: skip
    return build_model(spec, num_classes=args.num_classes)


def write_folded(model, directory, args, precision):
    px = {"height_px": args.image_px, "width_px": args.image_px}
    crop = image.EvaluationCrop()
    preprocessing = Preprocessing(
        of_file=functools.partial(image.decode_evaluation, crop=crop, **px),
        of_pixels=lambda pixels: image.to_input(image.evaluation_levels(pixels, crop=crop, **px)),
    )
    content = Content(
        class_names=tuple(map(str, range(args.num_classes))), background_class=False,
        preprocessing=preprocessing, metadata={},
    )  # fmt: skip
    spec = ExportSpec(precision=precision)
    write_saved_model(directory, fold(model), content, spec=spec)


def write_unfolded(model, directory):
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    shape = [None, *model.input_shape[1:]]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="images")])
    def logits(images):
        return {"logits": tf.cast(model(images, training=False), tf.float32)}

    tf.saved_model.save(module, str(directory), signatures={"logits": logits})


def size_bytes(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def load(directory):
    """(loaded SavedModel, seconds)."""
    began = time.perf_counter()
    loaded = tf.saved_model.load(str(directory))
    return loaded, time.perf_counter() - began


def time_alternating(peers, *, rounds, calls):
    """Name -> (wall ms, CPU ms) a call in each counted round, the peers taking turns."""
    found = {name: [] for name in peers}
    for turn in range(rounds + 1):
        for name, run in peers.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            for _ in range(calls):
                run()
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
            if turn:  # the first round traces and chooses kernels
                found[name].append((1e3 * wall / calls, 1e3 * cpu / calls))
    return found


def bench_precision(args, precision, directory, images):
    """Figures of one precision: times, ratios, sizes and load times."""
    model = build(args, precision)
    write_folded(model, directory / "folded", args, precision)
    write_unfolded(model, directory / "unfolded")
    inference = Inference(model, tf.distribute.get_strategy())
    values = inference.local_tensors((model.trainable_variables, model.non_trainable_variables))
    found, peers, loaded = {}, {"graph": lambda: inference.logits(images, values).numpy()}, {}
    for name in ("folded", "unfolded"):
        found[f"{name}_bytes"] = size_bytes(directory / name)
        loaded[name], found[f"{name}_load_s"] = load(directory / name)
        signature = loaded[name].signatures["logits"]
        peers[name] = lambda run=signature: run(images=images)["logits"].numpy()
    answers = {name: run() for name, run in peers.items()}
    found["largest_logit_difference"] = float(
        np.abs(answers["folded"] - answers["graph"]).max()
    )
    times = time_alternating(peers, rounds=args.rounds, calls=args.calls)
    for column, kind in enumerate(("ms", "cpu_ms")):
        for name, values in times.items():
            found[f"{name}_{kind}"] = round(statistics.median(v[column] for v in values), 2)
    for name in ("unfolded", "graph"):
        for column, kind in enumerate(("", "_cpu")):
            # Neighbours in time, then the median: drift cancels.
            pairs = zip(times[name], times["folded"])
            ratio = statistics.median(other[column] / own[column] for other, own in pairs)
            found[f"folded_vs_{name}{kind}"] = round(ratio, 3)
    if args.images:
        found |= bench_requests(args, loaded["folded"].signatures["serving_default"])
    return found


def bench_requests(args, signature):
    """p50 and p99 of whole requests at batch 1, image file to names."""
    with tarfile.open(args.images) as tar:
        members = [m for m in tar.getmembers() if m.name.lower().endswith((".jpg", ".jpeg"))]
        files = [tar.extractfile(member).read() for member in members[: args.requests]]
    found = []
    for number in range(args.requests + 3):
        file = tf.constant([files[number % len(files)]])
        began = time.perf_counter()
        signature(image_bytes=file)["names"].numpy()
        if number >= 3:  # the first ones trace
            found.append(1e3 * (time.perf_counter() - began))
    return {
        "request_p50_ms": round(float(np.percentile(found, 50)), 1),
        "request_p99_ms": round(float(np.percentile(found, 99)), 1),
        "requests": len(found),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="inception_resnet_v2")
    parser.add_argument("--variant", default="released")
    parser.add_argument("--image_px", type=int, default=299)
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each peer")
    parser.add_argument("--calls", type=int, default=4, help="calls of a peer in a round")
    parser.add_argument("--images", help="a tar with JPEGs, for whole requests")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    shape = (args.batch, args.image_px, args.image_px, 3)
    images = tf.constant(np.random.default_rng(1).uniform(-1, 1, shape), tf.float32)
    found = {
        "machine": platform.processor() or platform.machine(), "threads": args.threads,
        "tensorflow": tf.__version__, "network": args.network, "variant": args.variant,
        "image_px": args.image_px, "batch": args.batch, "rounds": args.rounds,
    }  # fmt: skip
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as directory:
            own = bench_precision(args, precision, pathlib.Path(directory), images)
        found |= {f"{precision}_{name}": value for name, value in own.items()}
    print_table(found)
    print(json.dumps(found))


def print_table(found):
    names = sorted({key.partition("_")[2] for key in found if key.startswith("float32_")})
    print(f"{'':<28}{'float32':>16}{'bfloat16':>16}")
    for name in names:
        row = "".join(f"{found[f'{precision}_{name}']:>16,.6g}" for precision in PRECISIONS)
        print(f"{name:<28}{row}")


if __name__ == "__main__":
    main()
