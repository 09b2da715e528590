"""The input pipeline against its floors and its peers, alternating, on JPEGs of natural size.

    python tools/bench_input.py --images=photos.tar
    python tools/bench_input.py --data_dir=/data/imagenet --num_images=2000

Floors, from bytes in memory: decoding whole images, and decoding only the drawn crops. Then this
project's images stage by stage and its whole pipelines from records to batches; the pipeline as
it is usually written (TFRecordDataset, shuffle buffer, whole decode, slice, resize, tf.image's
colours as in slim); and torch's DataLoader with Pillow, where both are installed. All take turns,
so that a machine whose speed drifts slows all. CPU ms counts this process, not torch's workers.
The last line is one JSON object.
"""

import argparse
import functools
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

import input_cases

from inception_tf.data import index
from inception_tf.data.build import build_records
from inception_tf.data.manifest import open_index
from inception_tf.data.records import RecordReader
from inception_tf.data.sources import FolderSource

IMAGENET_RECORDS = 1_281_167
WANTED_RATES = (600, 1600)  # images/s of an accelerator


def build_temporary(tar_path, folder):
    """Records of all JPEGs `.../<class>/<file>` of a tar, as the train split of `folder`."""
    with tarfile.open(tar_path) as tar:
        for member in tar:
            if member.isfile() and member.name.lower().endswith((".jpg", ".jpeg")):
                path = folder / "images" / "train" / "/".join(member.name.split("/")[-2:])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())
    build_records(FolderSource(folder / "images"), folder / "records", num_shards={"train": 4})
    return folder / "records"


def time_alternating(passes_by_name, *, num_passes):
    """Name -> (images/s, CPU ms an image) of each counted pass, the peers taking turns."""
    rates = {name: [] for name in passes_by_name}
    for turn in range(num_passes + 1):
        for name, run in passes_by_name.items():
            rate = run()
            if turn:  # the first pass traces, and warms the caches
                rates[name].append(rate)
    return rates


def steady_rate(dataset, *, per_element, num_images, ahead):
    """Images/s and CPU ms an image, once `ahead` images and all that was made early are through.

    The iterator starts anew and is given up at the end, so that nothing goes on in the background
    while another peer is timed.
    """
    batches = iter(dataset)
    for _ in range(-(-ahead // per_element)):
        next(batches)
    num_timed = num_images // per_element * per_element
    began, cpu_began = time.perf_counter(), time.process_time()
    for _ in range(num_timed // per_element):
        next(batches)
    cpu_secs = time.process_time() - cpu_began
    return num_timed / (time.perf_counter() - began), 1e3 * cpu_secs / num_timed


def first_batch_secs(reader, manifest, folder, *, replica_batch):
    """Secs from an index of 1,281,167 records on disk to the first training batch.

    The index is simulated: its entries are those of the records at hand, again and again.
    """
    held = reader.index
    places = np.arange(IMAGENET_RECORDS) % len(held)
    arrays = {
        "shard": held.shard[places],
        "offset": held.offset[places],
        "length": held.length[places],
        "crc": held.crc[places],
    }
    cache = pathlib.Path(folder) / "index-train.npz"
    index._save_arrays(cache, {**index._identity(held.files), **arrays})
    began = time.perf_counter()
    large, _ = index.read_index(held.files, split="train", directories=[pathlib.Path(folder)])
    loaded = time.perf_counter() - began
    if len(large) != IMAGENET_RECORDS:
        raise SystemExit("the simulated index was not taken")
    large_reader = RecordReader(large, manifest)
    threads = os.cpu_count()
    own = input_cases.own_pipelines(large_reader, replica_batch=replica_batch, threads=threads)
    next(iter(own["train_pipeline"]))
    return loaded, time.perf_counter() - began, large_reader


def index_records_per_sec(reader, folder, *, copies):
    """Records/s of building an index, over shards that hold each record `copies` times."""
    folder = pathlib.Path(folder) / "copies"
    folder.mkdir()
    files = []
    for number, path in enumerate(reader.index.files):
        files.append(str(folder / f"train-{number:05d}-of-{len(reader.index.files):05d}"))
        pathlib.Path(files[-1]).write_bytes(pathlib.Path(path).read_bytes() * copies)
    began = time.perf_counter()
    built, _ = index.read_index(files, split="train", directories=[])
    return len(built) / (time.perf_counter() - began)


def measure_memory(data_dir, folder, *, replica_batch, threads, epochs):
    """MB that the training pipeline takes beyond TensorFlow's own, by epoch: this very process.

    The index is that of `first_batch_secs`, so 25 MB of it is the index of all of ImageNet.
    """

    def resident_mb():
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    manifest, held = open_index(data_dir, "train", cache_dir=folder)
    reader = RecordReader(held, manifest)
    jpegs, _ = reader.read(np.arange(2))
    next(iter(input_cases.stages(jpegs, threads=threads)["decode_whole"]))
    before = resident_mb()
    _, _, large = first_batch_secs(reader, manifest, folder, replica_batch=replica_batch)
    own = input_cases.own_pipelines(large, replica_batch=replica_batch, threads=threads)
    peaks, batches = [], iter(own["train_pipeline"])
    for _ in range(epochs):
        peak = 0.0
        for _ in range(reader.num_examples // replica_batch):
            next(batches)
            peak = max(peak, resident_mb())
        peaks.append(round(peak - before, 1))
    return peaks


def memory_of_new_process(data_dir, folder, args):
    """What `measure_memory` finds in a process that has done nothing else."""
    command = [sys.executable, __file__, f"--data_dir={data_dir}", f"--memory_folder={folder}"]
    command += [f"--replica_batch={args.replica_batch}", f"--threads={args.threads}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def torch_loader(jpegs, args):
    """Name -> torch's DataLoader; empty, with a reason, where it is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "PIL")):
        print("torch: not installed, left out")
        return {}
    import torch_input

    # Its iterator ends with an epoch: one that is long enough for a pass.
    copies = -(-(args.images_per_pass + 5 * args.replica_batch) // len(jpegs))
    loader = torch_input.make_loader(
        list(jpegs) * copies,
        side_px=input_cases.SIDE_PX,
        batch=args.replica_batch,
        num_workers=args.threads,
    )
    return {"torch_train": loader}


def ratios(rates, name, other):
    """Medians over neighbouring passes, drift cancels: of the rates, and of images per CPU time."""
    pairs = list(zip(rates[name], rates[other]))
    return (
        statistics.median(a[0] / b[0] for a, b in pairs),
        statistics.median(b[1] / a[1] for a, b in pairs),
    )


RATIOS = {
    "train_full_colour / decode_crop (aim 0.5)": ("train_full_colour", "decode_crop"),
    "train_pipeline / decode_crop": ("train_pipeline", "decode_crop"),
    "train_pipeline / usual_train (aim 2)": ("train_pipeline", "usual_train"),
    "eval_slim_tf1 / decode_whole (aim 0.9)": ("eval_slim_tf1", "decode_whole"),
    "eval_pipeline / decode_whole": ("eval_pipeline", "decode_whole"),
    "eval_pipeline / usual_eval": ("eval_pipeline", "usual_eval"),
    "train_pipeline / its records read in sequence (aim 0.95)": (
        "train_pipeline", "train_sequential"),
    "read_random / read_sequential": ("read_random", "read_sequential"),
    "train_pipeline / torch_train": ("train_pipeline", "torch_train"),
}  # fmt: skip


def print_rates(rates, found, threads):
    """The table of rates and ratios, which also go into `found`."""
    print(f"\n{'':<26}{'images/s':>10}{'per core':>10}{'CPU ms':>9}   cores for "
          f"{WANTED_RATES[0]} / {WANTED_RATES[1]} images/s")  # fmt: skip
    for name, values in rates.items():
        rate, cpu_ms = (statistics.median(column) for column in zip(*values))
        per_core = rate / threads
        cores = " / ".join(f"{wanted / per_core:.1f}" for wanted in WANTED_RATES)
        print(f"{name:<26}{rate:>10.0f}{per_core:>10.0f}{cpu_ms:>9.2f}   {cores}")
        found[f"{name}_images_per_sec"] = round(rate, 1)
        found[f"{name}_cpu_ms"] = round(cpu_ms, 3)
    print(f"\n{'':<60}{'rates':>8}{'by CPU':>8}")
    for title, (name, other) in RATIOS.items():
        if name in rates and other in rates:
            value, by_cpu = ratios(rates, name, other)
            shown = f"{by_cpu:>8.3f}" if "torch_train" not in (name, other) else ""
            print(f"{title:<60}{value:>8.3f}{shown}")
            found[f"{name}_to_{other}_ratio"] = round(value, 3)
            if shown:
                found[f"{name}_to_{other}_by_cpu_ratio"] = round(by_cpu, 3)


def passes_of(reader, jpegs, args):
    """Name -> a function that runs one pass and returns images/s."""
    threads, batch = args.threads, args.replica_batch

    def of(datasets, per_element):
        counts = {"num_images": args.images_per_pass, "ahead": 5 * batch}
        return {
            name: functools.partial(steady_rate, dataset, per_element=per_element, **counts)
            for name, dataset in datasets.items()
        }

    own = {"replica_batch": batch, "threads": threads}
    passes = of(input_cases.stages(jpegs, threads=threads), 1)
    passes |= of(input_cases.own_pipelines(reader, **own), batch)
    passes |= of({"train_sequential": input_cases.sequential_training(reader, **own)}, batch)
    passes |= of(input_cases.usual_pipelines(reader.index.files, **own), batch)
    passes |= of(input_cases.readers(reader, batch=batch), batch)
    return passes | of(torch_loader(jpegs, args), batch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", help="a tar of .../<class>/<file> JPEGs")
    source.add_argument("--data_dir", help="records; the first shards of their train split")
    parser.add_argument("--num_images", type=int, default=300, help="of --data_dir, kept in memory")
    parser.add_argument("--replica_batch", type=int, default=20)
    parser.add_argument("--images_per_pass", type=int, default=600)
    parser.add_argument("--passes", type=int, default=5, help="counted passes of each peer")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", help="peers to time, by name")
    parser.add_argument("--memory_folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    # As in a training run, whose ops share the cores with the input.
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.set_visible_devices([], "GPU")
    if args.memory_folder:
        peaks = measure_memory(args.data_dir, args.memory_folder, epochs=10,
                               replica_batch=args.replica_batch, threads=args.threads)  # fmt: skip
        print(json.dumps(peaks))
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        data_dir = args.data_dir or build_temporary(args.images, folder)
        print(json.dumps(measure(data_dir, folder, args)))


def measure(data_dir, folder, args):
    """Everything, as one dict of figures by name; prints the tables."""
    manifest, held = open_index(data_dir, "train", cache_dir=folder)
    held = first_records(held, args.num_images)
    reader = RecordReader(held, manifest)
    jpegs, _ = reader.read(np.arange(len(held)))
    found = {
        "machine": platform.processor() or platform.machine(),
        "threads": args.threads,
        "num_images": len(held),
        "mean_jpeg_bytes": round(float(np.mean(held.length))),
        "replica_batch": args.replica_batch,
        "tensorflow": tf.__version__,
    }
    passes = passes_of(reader, jpegs, args)
    if args.only:
        passes = {name: run for name, run in passes.items() if name in args.only}
    rates = time_alternating(passes, num_passes=args.passes)
    print_rates(rates, found, args.threads)
    if args.only:
        return found
    found["index_load_secs"], found["first_batch_secs"], _ = (
        first_batch_secs(reader, manifest, folder, replica_batch=args.replica_batch)
    )  # fmt: skip
    found["index_build_records_per_sec"] = index_records_per_sec(reader, folder, copies=10)
    found["memory_by_epoch_mb"] = memory_of_new_process(data_dir, folder, args)
    for name in list(found)[-4:]:
        print(f"{name:<32}{found[name]}")
    return found


def first_records(held, num_images):
    """The index of the first shards, up to the one that completes `num_images`."""
    last = held.shard[min(num_images, len(held)) - 1]
    kept = held.shard <= last
    arrays = (getattr(held, name)[kept] for name in ("shard", "offset", "length", "crc"))
    return index.RecordIndex(*arrays, held.files[: last + 1])


if __name__ == "__main__":
    main()
