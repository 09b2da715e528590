"""How fast `predict` is beside its network, on JPEGs of natural size.

    python tools/bench_predict.py --images=photos.tar
    python tools/bench_predict.py --images=photos.tar --network=inception_resnet_v2 --batch=64

Three peers, taking turns: the network alone, on batches that lie in memory; `predict` as a whole,
from files to JSON lines in a file; and its input alone, which reads and decodes the same files. CPU
ms counts all threads of this process. The last line is one JSON object.
"""

import argparse
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

from inception_tf import classifier, predict
from inception_tf.data.image import EvaluationCrop, decode_evaluation
from inception_tf.data.image_files import image_batches
from inception_tf.models.catalog import ModelSpec, build_model

NUM_CLASSES = 1000


def extract_jpegs(tar_path, folder, *, num_images):
    """Paths of the first JPEGs of a tar, spread over it, written into a folder."""
    with tarfile.open(tar_path) as tar:
        members = [m for m in tar.getmembers() if m.name.lower().endswith((".jpg", ".jpeg"))]
        if not members:
            raise SystemExit(f"{tar_path} has no .jpg or .jpeg")
        paths, chosen = [], members[:: max(1, len(members) // num_images)][:num_images]
        for number, member in enumerate(chosen):
            path = pathlib.Path(folder, f"{number:06}.jpg")
            path.write_bytes(tar.extractfile(member).read())
            paths.append(str(path))
    return paths


def build_classifier(args):
    """The network with drawn weights: its speed does not depend on them."""
    size = {"height_px": args.image_px, "width_px": args.image_px}
    spec = ModelSpec(
        name=args.network, input_height_px=args.image_px, input_width_px=args.image_px
    )
    model = build_model(spec, num_classes=NUM_CLASSES)
    return classifier.Classifier(
        what=f"{args.network} with drawn weights",
        class_names=tuple(f"class {index}" for index in range(NUM_CLASSES)),
        num_classes=NUM_CLASSES,
        input_height_px=args.image_px,
        input_width_px=args.image_px,
        decode=lambda data: decode_evaluation(data, crop=EvaluationCrop(), **size),
        probabilities=classifier.of_network(model, background_class=False),
    )


def peers_of(opened, paths, folder, *, batch):
    """Name -> function that takes all images once."""
    held = [images for _, images in image_batches(paths, decode=opened.decode, batch=batch)]
    if sum(len(images) for images in held) != len(paths):
        raise SystemExit("Every JPEG must be readable.")

    def network():
        for images in held:
            np.asarray(opened.probabilities(images))

    def whole():
        out = os.path.join(folder, "answers.jsonl")
        predict.write_answers(opened, paths, form="jsonl", out=out, batch=batch, top_k=5)

    def reading():
        for _ in image_batches(paths, decode=opened.decode, batch=batch):
            pass

    return {"network": network, "predict": whole, "input": reading}


def time_alternating(peers, *, num_images, num_passes):
    """Name -> (images/s, CPU ms an image) of each counted pass, the peers taking turns."""
    found = {name: [] for name in peers}
    for turn in range(num_passes + 1):
        for name, run in peers.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            run()
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
            if turn:  # the first pass traces
                found[name].append((num_images / wall, 1e3 * cpu / num_images))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", required=True, help="a tar with JPEGs")
    parser.add_argument("--network", default="inception_v3")
    parser.add_argument("--image_px", type=int, default=299)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--num_images", type=int, default=192)
    parser.add_argument("--passes", type=int, default=5, help="counted passes of each peer")
    args = parser.parse_args()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # as predict has it
    opened = build_classifier(args)
    with tempfile.TemporaryDirectory() as folder:
        paths = extract_jpegs(args.images, folder, num_images=args.num_images)
        mean_bytes = statistics.mean(map(os.path.getsize, paths))
        peers = peers_of(opened, paths, folder, batch=args.batch)
        times = time_alternating(peers, num_images=len(paths), num_passes=args.passes)
    found = {
        "machine": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "devices": [device.device_type for device in tf.config.get_visible_devices()],
        "tensorflow": tf.__version__,
        "network": args.network,
        "image_px": args.image_px,
        "batch": args.batch,
        "num_images": len(paths),
        "mean_jpeg_bytes": round(mean_bytes),
    }
    print(f"{'':<10}{'images/s':>12}{'CPU ms/image':>14}")
    for name, passes in times.items():
        rate, cpu_ms = (statistics.median(column) for column in zip(*passes))
        print(f"{name:<10}{rate:>12.1f}{cpu_ms:>14.2f}")
        found[f"{name}_images_per_sec"], found[f"{name}_cpu_ms"] = round(rate, 2), round(cpu_ms, 3)
    # Neighbours in time, then the median: drift cancels.
    pairs = list(zip(times["predict"], times["network"]))
    found["predict / network, rate"] = round(statistics.median(p[0] / n[0] for p, n in pairs), 4)
    found["predict / network, CPU"] = round(statistics.median(p[1] / n[1] for p, n in pairs), 4)
    print(f"\npredict / network, rate (aim 0.9)  {found['predict / network, rate']:.4f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
