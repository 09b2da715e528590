"""What evaluation with many crops costs beside the network, on JPEGs of natural size.

    python tools/bench_eval.py --images=photos.tar
    python tools/bench_eval.py --images=photos.tar --network=inception_resnet_v2 --batch=36

Preparation, alternating: one decode; the single crop; the squares (one decode, one resize per
scale); cutting the crops out of them; both; and the plain way, every crop decoded, resized and cut
on its own. Then the network: on crops that lie in memory, and in a whole evaluation from JPEG
bytes, the same compiled step at the same batch, taking turns. CPU ms counts all threads of this
process. The last line is one JSON object.
"""

import argparse
import json
import os
import platform
import statistics
import tarfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from inception_tf.data import image, resize
from inception_tf.evaluation import crop_images, crops
from inception_tf.models.catalog import ModelSpec, build_model

RECIPE = image.EvaluationCrop()


def jpegs_of(tar_path, num_images):
    """The first JPEGs of a tar, spread over it."""
    with tarfile.open(tar_path) as tar:
        names = [m for m in tar.getmembers() if m.name.lower().endswith((".jpg", ".jpeg"))]
        if not names:
            raise SystemExit(f"{tar_path} has no .jpg or .jpeg")
        chosen = names[:: max(1, len(names) // num_images)][:num_images]
        return [tar.extractfile(member).read() for member in chosen]


def plain_crops(jpeg, protocol):
    """Every crop from the JPEG anew, by the geometry of `crops.crop_boxes`, as a list."""
    found = []
    sides = image.decode_whole(jpeg).shape[:2]
    for scale in crops.crop_boxes(protocol, height_px=sides[0], width_px=sides[1]):
        for top, left, height, width, is_flipped in scale.boxes:
            levels = resize.resize_as_recipe(
                image.decode_whole(jpeg)[tf.newaxis],
                [scale.height_px, scale.width_px],
                recipe=RECIPE.recipe,
            )[:, top : top + height, left : left + width]
            if height > protocol.height_px:
                crop = [protocol.height_px, protocol.width_px]
                levels = resize.resize_as_recipe(levels, crop, recipe=RECIPE.recipe)
            found.append(image.to_input(levels[:, :, ::-1] if is_flipped else levels))
    return tf.concat(found, axis=0)


def preparation_peers(jpegs, protocol):
    """Name -> function of an image's number, each made anew from its bytes except 'cut'."""
    px = {"height_px": protocol.height_px, "width_px": protocol.width_px}
    of_bytes = [tf.TensorSpec([], tf.string)]

    def squares_of(jpeg):
        return crop_images.make_squares(
            image.decode_whole(jpeg), protocol=protocol, recipe=RECIPE
        )

    graphs = {
        "decode": tf.function(image.decode_whole, input_signature=of_bytes),
        "one_crop": tf.function(
            lambda jpeg: image.decode_evaluation(jpeg, crop=RECIPE, **px), input_signature=of_bytes
        ),
        "squares": tf.function(squares_of, input_signature=of_bytes),
        "squares_and_cut": tf.function(
            lambda jpeg: crop_images.cut_crops(squares_of(jpeg), protocol=protocol),
            input_signature=of_bytes,
        ),
    }
    peers = {
        name: lambda number, graph=graph: graph(jpegs[number]) for name, graph in graphs.items()
    }
    cut = tf.function(lambda squares: crop_images.cut_crops(squares, protocol=protocol))
    held = graphs["squares"](jpegs[0])
    peers["cut"] = lambda number: cut(held)
    peers["plain"] = lambda number: plain_crops(jpegs[number], protocol)
    return peers


def time_alternating(peers, *, num_images, num_passes):
    """Name -> (wall ms, CPU ms) an image of each counted pass, the peers taking turns."""
    found = {name: [] for name in peers}
    for turn in range(num_passes + 1):
        for name, run in peers.items():
            count = 1 if name == "plain" or not turn else num_images
            began, cpu_began = time.perf_counter(), time.process_time()
            for number in range(count):
                run(number)
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
            if turn:  # the first pass traces
                found[name].append((1e3 * wall / count, 1e3 * cpu / count))
    return found


def network_peers(jpegs, protocol, args):
    """Name -> function that evaluates the next image: of crops in memory, and of JPEG bytes."""
    spec = ModelSpec(
        name=args.network, input_height_px=protocol.height_px, input_width_px=protocol.width_px
    )
    model = build_model(spec, num_classes=1000)

    @tf.function
    def probabilities(all_crops):
        parts = tf.split(all_crops, protocol.num_crops // args.batch)
        outputs = [model(part, training=False) for part in parts]
        logits = [o["logits"] if isinstance(o, dict) else o for o in outputs]
        return tf.reduce_mean(tf.nn.softmax(tf.cast(tf.concat(logits, 0), tf.float32)), axis=0)

    @tf.function
    def of_squares(squares):
        return probabilities(crop_images.cut_crops(squares, protocol=protocol))

    def squares_of(jpeg):
        return crop_images.make_squares(
            image.decode_whole(jpeg), protocol=protocol, recipe=RECIPE
        )

    dataset = tf.data.Dataset.from_tensor_slices(jpegs).repeat().map(squares_of)
    elements = iter(dataset.prefetch(1))
    held = crop_images.cut_crops(next(elements), protocol=protocol)
    return {
        "network": lambda number: probabilities(held).numpy(),
        "evaluation": lambda number: of_squares(next(elements)).numpy(),
    }


def print_times(times, found):
    print(f"{'':<18}{'ms/image':>12}{'CPU ms/image':>14}")
    for name, values in times.items():
        wall_ms, cpu_ms = (statistics.median(column) for column in zip(*values))
        print(f"{name:<18}{wall_ms:>12.1f}{cpu_ms:>14.1f}")
        found[f"{name}_ms"], found[f"{name}_cpu_ms"] = round(wall_ms, 2), round(cpu_ms, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", required=True, help="a tar with JPEGs")
    parser.add_argument("--crops", default="144", help="a protocol of several crops")
    parser.add_argument("--network", default="inception_v3")
    parser.add_argument("--image_px", type=int, default=299)
    parser.add_argument("--batch", type=int, default=36, help="crops the network takes at once")
    parser.add_argument("--num_images", type=int, default=20)
    parser.add_argument("--passes", type=int, default=5, help="counted passes of each peer")
    parser.add_argument("--network_images", type=int, default=1, help="images of a network's pass")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    protocol = crops.protocol(args.crops, height_px=args.image_px, width_px=args.image_px)
    if protocol.num_crops == 1 or protocol.num_crops % args.batch:
        parser.error(f"--batch={args.batch} must divide the crops, {protocol.num_crops}, above 1")
    jpegs = jpegs_of(args.images, args.num_images)
    found = {
        "machine": platform.processor() or platform.machine(),
        "threads": args.threads,
        "tensorflow": tf.__version__,
        "protocol": protocol.name,
        "image_px": args.image_px,
        "network": args.network,
        "batch": args.batch,
        "num_images": len(jpegs),
        "mean_jpeg_bytes": round(statistics.mean(map(len, jpegs))),
    }
    times = time_alternating(
        preparation_peers(jpegs, protocol), num_images=len(jpegs), num_passes=args.passes
    )
    times |= time_alternating(
        network_peers(jpegs, protocol, args),
        num_images=args.network_images,
        num_passes=args.passes,
    )
    print_times(times, found)
    print_ratios(times, found, protocol)
    print(json.dumps(found))


def print_ratios(times, found, protocol):
    def median_of(name, column):
        return statistics.median(value[column] for value in times[name])

    both = median_of("squares_and_cut", 1)
    figures = {
        "preparation / 144 single crops, CPU": both
        / (protocol.num_crops * median_of("one_crop", 1)),
        "preparation / plain way, CPU": both / median_of("plain", 1),
        "preparation / evaluation, CPU (aim 0.25)": both / median_of("evaluation", 1),
        # Neighbours in time, then the median: drift cancels.
        "evaluation / network alone, rate (aim 0.95)": statistics.median(
            alone[0] / whole[0] for alone, whole in zip(times["network"], times["evaluation"])
        ),
    }
    print()
    for title, value in figures.items():
        shown = title.replace("144", str(protocol.num_crops))
        print(f"{shown:<48}{value:>8.4f}")
        found[shown] = round(value, 4)


if __name__ == "__main__":
    main()
