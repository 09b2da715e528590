"""What the network sees: `python -m inception_tf.show_batch --gin_file=FILE --out SHEET.png`.

The images of a training step, cropped and coloured as that step of that run gets them, or those of
the evaluation; under each its label, as `records build` and `records check` number the classes, and
the name of its class. Nothing is trained and no network is built.
"""

import argparse
import os
import sys
import tempfile

from inception_tf.counts import count_of
from inception_tf.errors import ConfigError, tells_user_errors


@tells_user_errors
def main(argv=None) -> int:
    """Exit status: 0, or that of a fault that the user can mend."""
    args = _build_parser().parse_args(argv)
    from inception_tf import quiet_start  # noqa: F401  after --help, which needs no TensorFlow

    _check_arguments(args)
    _show(args)
    return 0


def _build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m inception_tf.show_batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--gin_file", action="append", default=[], metavar="FILE",
        help="config to read, as in training; later ones win")  # fmt: skip
    add("--run_dir", metavar="DIR", help="of a run, whose saved config is read instead")
    add("--gin_param", action="append", default=[], metavar="BINDING",
        help="one more binding, such as 'training.seed = 1'; wins over every file")  # fmt: skip
    add("--data_dir", metavar="DIR", help="directory of the records; wins over data.data_dir")
    add("--split", choices=("train", "eval"), default="train", help="default: train")
    add("--step", type=int, default=0,
        help="optimizer step; of eval the number of the batch, for which those before it are "
        "decoded too (default: 0)")  # fmt: skip
    add("--count", type=int, default=32, help="images, from the step's first on (default: 32)")
    add("--out", required=True, metavar="SHEET.png", help="file to write")
    return parser


def _check_arguments(args):
    if bool(args.gin_file) == bool(args.run_dir):
        raise ConfigError(
            "A config is needed, of a file or of a run.",
            received="both" if args.run_dir else "none",
            remedy="Give --gin_file=configs/irv2.gin or --run_dir=runs/NAME.",
        )
    if args.step < 0 or args.count < 1:
        raise ConfigError(
            "--step must be at least 0 and --count at least 1.",
            received=f"{args.step} and {args.count}",
        )
    folder = os.path.dirname(args.out) or "."
    if not args.out.endswith(".png") or not os.path.isdir(folder):
        raise ConfigError(
            "The sheet is a .png file in a folder that exists.", received=args.out
        )


def _show(args):
    import tensorflow as tf

    from inception_tf import experiment, seen_images
    from inception_tf.reporting.contact_sheet import write_contact_sheet

    tf.config.set_visible_devices([], "GPU")  # images are made on the CPU
    resolved = _resolve(args)
    with tempfile.TemporaryDirectory() as folder:
        seen = seen_images.read_seen_images(
            experiment.Experiment(**resolved.sections),
            split=args.split,
            step=args.step,
            count=args.count,
            cache_dir=args.run_dir or folder,
        )
    captions = [f"{label} {name}" for label, name in zip(seen.labels, seen.names)]
    title = f"{resolved.name}: {seen.title}"
    width, height = write_contact_sheet(args.out, seen.images, captions, title=title)
    images = count_of(len(captions), "image")
    print(f"{title}\n{seen.numbering}\n{args.out}: {images}, {width:,} x {height:,} px")


def _resolve(args):
    from inception_tf import config, flags, run_config
    from inception_tf.parameters import SECTIONS

    overrides = {}
    if args.data_dir:
        overrides["data.data_dir"] = flags.absolute(args.data_dir)
    if args.run_dir:
        return run_config.resolve_saved(
            args.run_dir, gin_params=args.gin_param, overrides=overrides
        )
    return config.resolve(
        gin_files=args.gin_file,
        gin_params=args.gin_param,
        overrides=overrides,
        reads=tuple(SECTIONS),
    )


if __name__ == "__main__":
    sys.exit(main())
