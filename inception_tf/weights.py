"""Brings weights from elsewhere into this project: `python -m inception_tf.weights import`.

    import SOURCE --out FILE.weights.h5    slim, keras.applications, timm -> this project's file

SOURCE is keras:inception_v3, keras:inception_resnet_v2 or either with _notop (fetched once into
$INCEPTION_TF_CACHE, else ~/.cache/inception_tf), or a file: a TF1 checkpoint of slim, an .h5 or
.weights.h5 of keras.applications, a .safetensors of timm. Files are read as data: nothing in them
is executed.
"""

import argparse
import sys

from inception_tf.errors import tells_user_errors


@tells_user_errors
def main(argv=None):
    """Exit status of one command; a user's error is printed as one message."""
    arguments = _build_parser().parse_args(argv)
    from inception_tf import quiet_start  # noqa: F401  after --help, which needs no TensorFlow

    return arguments.run(arguments)


def _build_parser():
    about = {
        "description": __doc__,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    parser = argparse.ArgumentParser(prog="python -m inception_tf.weights", **about)
    verbs = parser.add_subparsers(required=True, metavar="import")
    verb = verbs.add_parser(
        "import", help="write weights from elsewhere as this project's file", **about
    )
    verb.add_argument("source", metavar="SOURCE", help="a file, or such as keras:inception_v3")
    verb.add_argument("--out", required=True, metavar="FILE.weights.h5", help="file to write")
    verb.add_argument("--network", help="what it must be, such as inception_v3 (default: by names)")
    verb.add_argument("--variant", help="released, paper or facenet (default: the published one)")
    verb.add_argument("--drop_background", action="store_true",
                      help="leave out output 0 of slim's 1001, the background class")  # fmt: skip
    verb.add_argument("--aux_head", action="store_true", help="keep the auxiliary head's weights")
    verb.set_defaults(run=_import)
    return parser


def _import(arguments):
    from inception_tf import initial_weights
    from inception_tf.models import counting
    from inception_tf.models.weights import conversion

    model, report = conversion.convert_weights(
        arguments.source,
        arguments.out,
        network=arguments.network,
        variant=arguments.variant,
        drop_background=arguments.drop_background,
        aux_head=arguments.aux_head,
        cache_dir=initial_weights.cache_dir(),
    )
    print(report.text())
    print(f"{arguments.out}: {counting.count_parameters(model):,} parameters of {report.network}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
