"""Brings published weights into the project's networks.

    python -m inception_tf.weights import SOURCE.h5 --out FILE.weights.h5
"""

import argparse
import sys

from inception_tf import quiet_start  # noqa: F401  isort: skip
from inception_tf.errors import UserError
from inception_tf.models.counting import count_parameters
from inception_tf.models.weights import import_keras_h5


def main(argv=None):
    """Runs one command; returns the process' exit status."""
    parser = argparse.ArgumentParser(prog="python -m inception_tf.weights", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser(
        "import",
        help="keras.applications' Inception-ResNet-v2 (.h5) into the released variant",
    )
    importing.add_argument("source", help="published .h5 file, with or without top")
    importing.add_argument("--out", required=True, help="file to write, ends in .weights.h5")
    arguments = parser.parse_args(argv)
    try:
        model = import_keras_h5(arguments.source, arguments.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{arguments.out}: {count_parameters(model):,} parameters of Inception-ResNet-v2")
    return 0


if __name__ == "__main__":
    sys.exit(main())
