"""Builds and checks records: `python -m inception_tf.records build|check`."""

import argparse
import dataclasses
import datetime
import json
import pathlib
import sys
import time

from inception_tf.counts import count_of
from inception_tf.errors import tells_user_errors

_LISTED_PROBLEMS = 20
_LISTED_CLASSES = 20
_LISTED_DUPLICATES = 5


@tells_user_errors
def main(argv=None) -> int:
    """Exit status of one command: 0, or 2 for a fault that the user can mend."""
    args = _build_parser().parse_args(argv)
    from inception_tf import quiet_start  # noqa: F401  after --help, which needs no TensorFlow

    return args.run(args)


def _build_parser():
    parser = argparse.ArgumentParser(prog="python -m inception_tf.records", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="build|check")
    _add_build(verbs.add_parser("build", help="write TFRecords and their manifest"))

    check = verbs.add_parser("check", help="read every record once; status 2 if any is bad")
    check.add_argument("data_dir", metavar="DIR")
    check.add_argument("--quick", action="store_true",
                       help="all headers, and 16 records of each shard")  # fmt: skip
    check.add_argument("--processes", type=int,
                       help="default: one per core; threads of one for small data")  # fmt: skip
    check.add_argument("--label_base", type=int, choices=(0, 1),
                       help="only for records without manifest.json")  # fmt: skip
    check.add_argument("--json", metavar="FILE", help="write everything found")
    check.set_defaults(run=_check)
    return parser


def _add_build(build):
    kinds = build.add_subparsers(required=True, metavar="imagenet|folder|csv|digits")

    imagenet = kinds.add_parser("imagenet", help="the official tars of ILSVRC2012, in place")
    imagenet.add_argument("--train_tar", metavar="FILE", help="ILSVRC2012_img_train.tar")
    imagenet.add_argument("--val_tar", metavar="FILE", help="ILSVRC2012_img_val.tar")
    imagenet.add_argument("--synsets", required=True, metavar="FILE",
                          help="imagenet_lsvrc_2015_synsets.txt: line i is label i")  # fmt: skip
    imagenet.add_argument("--val_labels", metavar="FILE",
                          help="imagenet_2012_validation_synset_labels.txt")  # fmt: skip
    imagenet.add_argument("--metadata", metavar="FILE",
                          help="imagenet_metadata.txt: the classes in words")  # fmt: skip
    imagenet.add_argument("--bounding_boxes", metavar="FILE",
                          help="imagenet_2012_bounding_boxes.csv")  # fmt: skip
    imagenet.set_defaults(run=_build_imagenet)

    folder = kinds.add_parser(
        "folder", help="images as <split>/<class>/<image>, or <class>/<image>"
    )
    folder.add_argument("source", help="a folder, or a tar or tar.gz of one")
    folder.set_defaults(run=_build_folder)

    csv = kinds.add_parser("csv", help="images that a CSV lists: path,label or path,label,split")
    csv.add_argument("source", help="its first line names the columns; paths from its folder")
    csv.set_defaults(run=_build_csv)

    digits = kinds.add_parser("digits", help="scikit-learn's 1,797 handwritten digits")
    digits.add_argument("--image_px", type=int, default=96, help="75 to 96 (default: 96)")
    digits.set_defaults(run=_build_digits, processes=1, on_bad_image="raise")

    for kind in (folder, csv):
        kind.add_argument("--validation_share", type=float, metavar="SHARE",
                          help="split by a hash of class and file name (in a CSV: of the path)"
                          " and --seed, as 0.1; default: the source names the splits")  # fmt: skip
        kind.add_argument("--max_side_px", type=int, metavar="PX",
                          help="shrink images whose longer side is longer")  # fmt: skip
    for kind in (imagenet, folder, csv):
        kind.add_argument("--processes", type=int,
                          help="default: one, or all cores for many images")  # fmt: skip
        kind.add_argument("--on_bad_image", choices=("raise", "report"), default="raise",
                          help="report: leave out and list in bad_images.json")  # fmt: skip
    for kind in (imagenet, folder, csv, digits):
        kind.add_argument("--out", required=True, help="directory to write")
        shards = "1024 and 128" if kind is imagenet else "by size"
        kind.add_argument("--shards", type=_parse_shards, default={},
                          help=f"such as train=8,validation=2 (default: {shards})")  # fmt: skip
        kind.add_argument("--label_base", type=int, choices=(0, 1), default=1,
                          help="first class (default: 1; 0 is background)")  # fmt: skip
        kind.add_argument("--seed", type=int, default=0,
                          help="of the order and of a split by hash (default: 0)")  # fmt: skip


def _parse_shards(text):
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {split: int(count) for split, count in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like train=8,validation=2") from None


def _print_progress(line):
    print(line, file=sys.stderr, flush=True)


class _Stopwatch:
    """Prints a line for each shard with the time that the others will take."""

    def __init__(self):
        self._start = time.monotonic()

    def print_shard(self, line, num_done, num_images):
        passed = time.monotonic() - self._start
        left = datetime.timedelta(seconds=round(passed / num_done * (num_images - num_done)))
        _print_progress(f"{line}; {num_done / passed:,.0f} images/s, {left} left")


def _build_imagenet(args):
    from inception_tf.data.imagenet_source import ImagenetSource

    names = ("train_tar", "val_tar", "synsets", "val_labels", "metadata", "bounding_boxes")
    return _build(ImagenetSource(**{name: getattr(args, name) for name in names}), args)


def _photo_options(args):
    return {
        "validation_share": args.validation_share,
        "seed": args.seed,
        "max_side_px": args.max_side_px,
    }


def _build_folder(args):
    from inception_tf.data import sources  # TensorFlow: seconds that --help should not cost

    with sources.open_source(args.source, spool_dir=args.out, **_photo_options(args)) as source:
        return _build(source, args)


def _build_csv(args):
    from inception_tf.data.csv_source import CsvSource

    return _build(CsvSource(args.source, **_photo_options(args)), args)


def _build_digits(args):
    from inception_tf.data import sources

    return _build(sources.DigitsSource(image_px=args.image_px), args)


def _build(source, args):
    import tensorflow as tf

    from inception_tf.data.build import build_records

    tf.config.set_visible_devices([], "GPU")  # JPEGs are coded on the CPU
    manifest = build_records(
        source,
        args.out,
        num_shards=args.shards,
        label_base=args.label_base,
        seed=args.seed,
        processes=args.processes,
        on_bad_image=args.on_bad_image,
        report=_print_progress,
        report_shard=_Stopwatch().print_shard,
    )
    _print_build(manifest, args.out)
    return 0


def _print_build(manifest, out):
    for split, shards in manifest.splits.items():
        print(f"{split}: {count_of(manifest.num_records(split), 'record')}"
              f" in {count_of(len(shards), 'shard')}")  # fmt: skip
    if set(manifest.splits) == {"train"}:
        print("no split to evaluate: a run on these records alone needs"
              " --gin_param=\"data.eval_split = 'train'\"")  # fmt: skip
    facts = manifest.source
    print(
        f"{count_of(manifest.num_classes, 'class', 'classes')}, labels from {manifest.label_base};"
        f" {count_of(facts['num_reencoded'], 'image')} re-encoded, {facts['num_trimmed']:,} trimmed"
        f" after the end marker, {facts['num_left_out']:,} left out"
    )
    if facts["num_left_out"]:
        print(f"what was left out, and why: {pathlib.Path(out) / 'bad_images.json'}")
    if "num_turned" in facts:
        print(f"{count_of(facts['num_turned'], 'image')} turned upright by EXIF data,"
              f" {facts['num_shrunk']:,} shrunk")  # fmt: skip
    if "num_bounding_boxes" in facts:
        print(count_of(facts["num_bounding_boxes"], "bounding box", "bounding boxes"))
    if "num_near_duplicates" in facts:
        print(f"{count_of(facts['num_near_duplicates'], 'image')} nearly the same as one of another"
              f" split: {pathlib.Path(out) / 'near_duplicates.json'}")  # fmt: skip


def _check(args):
    import tensorflow as tf

    from inception_tf.data.check import check_records

    tf.config.set_visible_devices([], "GPU")
    result = check_records(
        args.data_dir,
        label_base=args.label_base,
        quick=args.quick,
        processes=args.processes,
        report=_print_progress,
    )
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n")
    _print_table(result)
    _print_duplicates(result.duplicates)
    for line in (*result.notes, *result.official):
        print(line)
    return 2 if result.problems else 0


def _print_table(result):
    print(f"{'split':<12}{'shards':>8}{'records':>12}{'bytes':>18}{'mean image':>28}"
          f"{'duplicates':>12}{'problems':>10}")  # fmt: skip
    for split, found in result.splits.items():
        mean = (f"{found.mean_image_bytes:,.0f} bytes,"
                f" {found.mean_height_px:.0f} x {found.mean_width_px:.0f} px")  # fmt: skip
        print(f"{split:<12}{found.num_shards:>8,}{found.num_records:>12,}{found.num_bytes:>18,}"
              f"{mean:>28}{found.num_duplicates:>12,}{found.num_problems:>10,}")  # fmt: skip
    for split, found in result.splits.items():
        if found.class_counts:
            _print_classes(split, found.class_counts, result.class_names)
    for problem in result.problems[:_LISTED_PROBLEMS]:
        place = "" if problem.offset is None else f" at byte {problem.offset:,}"
        print(f"{problem.file}{place}: {problem.reason}")
    more = sum(found.num_problems for found in result.splits.values()) - _LISTED_PROBLEMS
    if more > 0:
        print(f"... and {more:,} more (with --json FILE the first hundred of every shard)")
    if not result.problems:
        read = sum(found.num_images for found in result.splits.values())
        print(f"Sizes and counts are right, and so is a sample of {count_of(read, 'record')}."
              if result.is_quick else "Every record is good.")  # fmt: skip


def _print_duplicates(duplicates):
    """How many images stand more than once, and where the first of them do."""
    if not duplicates:
        return
    crossing = sum(len({copy.split for copy in group}) > 1 for group in duplicates)
    disputed = sum(len({copy.label for copy in group}) > 1 for group in duplicates)
    stand = "stands" if len(duplicates) == 1 else "stand"
    print(f"duplicates: {count_of(len(duplicates), 'image')} {stand} more than once,"
          f" {crossing:,} of them in several splits, {disputed:,} with different labels"
          )  # fmt: skip
    for group in duplicates[:_LISTED_DUPLICATES]:
        print("  " + " = ".join(f"{copy.file} at byte {copy.offset:,} (label {copy.label})"
                                for copy in group[:_LISTED_DUPLICATES]))  # fmt: skip


def _print_classes(split, counts, names):
    """The records of every class, or for many classes of the smallest and largest ones."""
    ordered = sorted(counts.items(), key=lambda item: item[1])
    least, most = ordered[0][1], ordered[-1][1]
    sizes = count_of(most, "record") if least == most else f"{least:,} to {most:,} records"
    print(f"{split}: {count_of(len(counts), 'class', 'classes')} of {sizes}")
    shown = sorted(counts.items())
    if len(counts) > _LISTED_CLASSES:
        shown = ordered[: _LISTED_CLASSES // 2] + ordered[-_LISTED_CLASSES // 2 :]
    for label, count in shown:
        bar = "#" * max(1, round(30 * count / most))
        print(f"  {label:>5} {names.get(label, ''):<20} {count:>7,} {bar}")


if __name__ == "__main__":
    sys.exit(main())
