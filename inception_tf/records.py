"""Builds and checks records: `python -m inception_tf.records build|check`."""

import argparse
import dataclasses
import json
import pathlib
import sys

from inception_tf.errors import UserError

_LISTED_PROBLEMS = 20
_LISTED_CLASSES = 20


def main(argv=None) -> int:
    """Exit status of one command: 0, or 2 for a fault that the user can mend."""
    args = _build_parser().parse_args(argv)
    from inception_tf import quiet_start  # noqa: F401  after --help, which needs no TensorFlow

    try:
        return args.run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status


def _build_parser():
    parser = argparse.ArgumentParser(prog="python -m inception_tf.records", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="build|check")
    build = verbs.add_parser("build", help="write TFRecords and their manifest")
    kinds = build.add_subparsers(required=True, metavar="folder|digits")

    folder = kinds.add_parser("folder", help="images as <split>/<class>/<image>")
    folder.add_argument("source", help="a folder, or a tar or tar.gz of one")
    folder.add_argument("--processes", type=int, help="default: one, or all cores for many images")
    folder.add_argument("--on_bad_image", choices=("raise", "report"), default="raise",
                        help="report: leave out and list in bad_images.json")  # fmt: skip
    folder.set_defaults(run=_build_folder)

    digits = kinds.add_parser("digits", help="scikit-learn's 1,797 handwritten digits")
    digits.add_argument("--image_px", type=int, default=96, help="75 to 96 (default: 96)")
    digits.set_defaults(run=_build_digits, processes=1, on_bad_image="raise")

    for kind in (folder, digits):
        kind.add_argument("--out", required=True, help="directory to write")
        kind.add_argument("--shards", type=_parse_shards, default={},
                          help="such as train=8,validation=2 (default: by size)")  # fmt: skip
        kind.add_argument("--label_base", type=int, choices=(0, 1), default=1,
                          help="first class (default: 1; 0 is background)")  # fmt: skip
        kind.add_argument("--seed", type=int, default=0, help="of the order (default: 0)")

    check = verbs.add_parser("check", help="read every record once; status 2 if any is bad")
    check.add_argument("data_dir", metavar="DIR")
    check.add_argument("--quick", action="store_true", help="sizes, headers and counts only")
    check.add_argument("--label_base", type=int, choices=(0, 1),
                       help="only for records without manifest.json")  # fmt: skip
    check.add_argument("--json", metavar="FILE", help="write everything found")
    check.set_defaults(run=_check)
    return parser


def _parse_shards(text):
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {split: int(count) for split, count in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like train=8,validation=2") from None


def _print_progress(line):
    print(line, file=sys.stderr, flush=True)


def _build_folder(args):
    from inception_tf.data import sources  # TensorFlow: seconds that --help should not cost

    with sources.open_source(args.source, spool_dir=args.out) as source:
        return _build(source, args)


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
    )
    for split, shards in manifest.splits.items():
        print(f"{split}: {manifest.num_records(split):,} records in {len(shards):,} shards")
    facts = manifest.source
    print(
        f"{manifest.num_classes:,} classes, labels from {manifest.label_base};"
        f" {facts['num_reencoded']:,} images re-encoded, {facts['num_trimmed']:,} trimmed after"
        f" the end marker, {facts['num_left_out']:,} left out"
    )
    return 0


def _check(args):
    import tensorflow as tf

    from inception_tf.data.check import check_records

    tf.config.set_visible_devices([], "GPU")
    result = check_records(
        args.data_dir, label_base=args.label_base, quick=args.quick, report=_print_progress
    )
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n")
    _print_table(result)
    return 2 if result.problems else 0


def _print_table(result):
    print(f"{'split':<12}{'shards':>8}{'records':>12}{'bytes':>18}{'problems':>10}")
    for split, found in result.splits.items():
        num_problems = sum(problem.split == split for problem in result.problems)
        print(f"{split:<12}{found.num_shards:>8,}{found.num_records:>12,}"
              f"{found.num_bytes:>18,}{num_problems:>10,}")  # fmt: skip
    for split, found in result.splits.items():
        if found.class_counts:
            _print_classes(split, found.class_counts, result.class_names)
    for problem in result.problems[:_LISTED_PROBLEMS]:
        place = "" if problem.offset is None else f" at byte {problem.offset:,}"
        print(f"{problem.file}{place}: {problem.reason}")
    more = len(result.problems) - _LISTED_PROBLEMS
    if more > 0:
        print(f"... and {more:,} more (all with --json FILE)")
    if not result.problems:
        print("Sizes and counts are right." if result.is_quick else "Every record is good.")


def _print_classes(split, counts, names):
    """The records of every class, or for many classes of the smallest and largest ones."""
    ordered = sorted(counts.items(), key=lambda item: item[1])
    print(f"{split}: {len(counts):,} classes of {ordered[0][1]:,} to {ordered[-1][1]:,} records")
    shown = sorted(counts.items())
    if len(counts) > _LISTED_CLASSES:
        shown = ordered[: _LISTED_CLASSES // 2] + ordered[-_LISTED_CLASSES // 2 :]
    most = ordered[-1][1]
    for label, count in shown:
        bar = "#" * max(1, round(30 * count / most))
        print(f"  {label:>5} {names.get(label, ''):<20} {count:>7,} {bar}")


if __name__ == "__main__":
    sys.exit(main())
