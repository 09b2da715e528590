"""A page about runs and evaluations: `python -m inception_tf.report RUN [RUN ...] --out report`.

Errors over epochs beside the published ones, learning rate, loss, speed and restarts, the papers'
tables with what was measured, the worst classes with images, and what differs between the runs and
from the papers, as one HTML file that opens anywhere. Nothing is trained or evaluated.
"""

import argparse
import sys

from inception_tf.errors import ConfigError, tells_user_errors


@tells_user_errors
def main(argv=None) -> int:
    """Exit status: 0, or that of a fault that the user can mend."""
    args = _build_parser().parse_args(argv)
    from inception_tf import quiet_start  # noqa: F401  after --help, which needs no TensorFlow

    if not (args.runs or args.evaluations or args.claims):
        raise ConfigError(
            "A report needs a run.",
            remedy="Give run directories: python -m inception_tf.report runs/NAME.",
        )
    print(_report(args))
    return 0


def _build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m inception_tf.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="run directory; finished or at work")
    add("--evaluations", action="append", default=[], metavar="PATH",
        help="evaluation file that lies in no run, or directory of them; repeatable")  # fmt: skip
    add("--claims", metavar="DIR",
        help="what tools/reproduce.py wrote: the papers' claims, tried small")  # fmt: skip
    add("--data_dir", metavar="DIR",
        help="records for the images of the worst classes; default: those evaluated")  # fmt: skip
    add("--out", default="report", metavar="DIR", help="directory to write (default: report)")
    return parser


def _report(args):
    """Writes the page; where it lies."""
    import tensorflow as tf

    from inception_tf import flags, report_sources, run_config
    from inception_tf.reporting import page

    tf.config.set_visible_devices([], "GPU")  # what is drawn is drawn on the CPU
    found = report_sources.gather(
        args.runs,
        args.evaluations,
        resolve=run_config.resolve_saved,
        differences_from_paper=run_config.differences_from_paper,
        data_dir=flags.absolute(args.data_dir),
        claims_dir=args.claims,
    )
    return page.write_report(args.out, found)


if __name__ == "__main__":
    sys.exit(main())
