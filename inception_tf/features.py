"""Features of images as .npy: `python -m inception_tf.features SOURCE IMAGES... --out F.npy`.

    SOURCE   a run directory, a file of weights, or published ones such as keras:inception_v3
    IMAGES   files and folders; of a folder every image at any depth, sorted by path

F.npy holds float32 [N, C] and F.names.txt the N paths, a line each. The images are decoded and
cropped as an evaluation does it. Status 1: some image could not be read; it is told of and left
out of both files.
"""

import argparse
import pathlib
import sys

from inception_tf import model_arguments
from inception_tf.errors import ConfigError, tells_user_errors

_STATUS_LEFT_OUT = 1


@tells_user_errors
def main(argv=None) -> int:
    """Exit status: 0, 1 where images were left out, or 2 for a fault that the user can mend."""
    args = _build_parser().parse_args(argv)
    from inception_tf import quiet_start  # noqa: F401  after --help, which needs no TensorFlow

    return _run(args)


def _build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m inception_tf.features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", metavar="SOURCE")
    add("images", metavar="IMAGES", nargs="*")
    add("--out", metavar="F.npy", help="file to write; the names go beside it")
    add("--endpoint", metavar="NAME", help="stage to take (default: the last grid)")
    add("--list_endpoints", action="store_true", help="print the stages and end")
    add("--pooling", choices=("avg", "max", "none"), default="avg",
        help="over the stage's grid; none gives [N, h, w, C] (default: avg)")  # fmt: skip
    add("--batch", type=int, default=32, help="images at once (default: 32)")
    model_arguments.add_to(parser)
    return parser


def _run(args):
    from inception_tf.data.image_files import list_images
    from inception_tf.evaluation import features

    _check_arguments(args)
    if not args.list_endpoints:  # a mistake here should not wait for the network
        features.check_out(args.out)
        listing = list_images(args.images)
    opened = _open(args)
    for note in (opened.what, *opened.notes):
        print(note)
    if args.list_endpoints:
        _print_endpoints(opened.model)
        return 0
    model = features.feature_model(opened.model, endpoint=args.endpoint, pooling=args.pooling)
    return _extract(args, opened, model, listing)


def _check_arguments(args):
    if not args.list_endpoints and (args.out is None or not args.images):
        raise ConfigError(
            "Features need images and a place.",
            remedy="Give files or folders of images, and --out FEATURES.npy.",
        )
    if args.batch < 1:
        raise ConfigError("--batch must be at least 1.", received=args.batch)


def _open(args):
    """The network that the command line names."""
    from inception_tf import model_source

    model_arguments.configure_devices(args)
    return model_source.open_model(args.source, **model_arguments.choices(args))


def _print_endpoints(model):
    from inception_tf.models.stage_builder import endpoints

    for name, output in endpoints(model).items():
        print(f"  {name:20} {'x'.join(map(str, output.shape[1:]))}")


def _extract(args, opened, model, listing):
    from tqdm import tqdm

    from inception_tf.evaluation import features

    bad = []
    # Without a terminal no line is drawn: it would fill a log.
    bar = tqdm(total=len(listing.paths), unit="image", file=sys.stderr, disable=None)

    def on_bad(path, reason):
        bad.append(path)
        bar.update()
        tqdm.write(f"left out {path}: {reason}", file=sys.stderr)

    def shown(batches):
        for names, rows in batches:
            yield names, rows
            bar.update(len(names))

    row_shape = model.output.shape[1:]
    is_replaced = pathlib.Path(args.out).exists()
    with bar:
        batches = features.extract(
            model, listing.paths, decode=opened.decode, batch=args.batch, on_bad=on_bad
        )
        names_path, num_rows = features.save_features(
            args.out, shown(batches), most_rows=len(listing.paths), row_shape=row_shape
        )
    shape = ", ".join(map(str, (num_rows, *row_shape)))
    instead = ", in place of what was there" if is_replaced else ""
    print(f"{args.out}: float32 [{shape}]; names in {names_path}{instead}")
    if listing.num_ignored:
        print(f"{listing.num_ignored:,} other files in the folders were passed over")
    if bad:
        print(f"{len(bad):,} images could not be read and were left out", file=sys.stderr)
    return _STATUS_LEFT_OUT if bad else 0


if __name__ == "__main__":
    sys.exit(main())
