"""Flags that several doors share, and how a door ends."""

import contextlib
import os
import signal
import sys
import traceback

from absl import app, flags, logging

from inception_tf import quiet_start  # noqa: F401
from inception_tf.errors import EXIT_FAULT, EXIT_PREEMPTED, ConfigError, UserError

FLAGS = flags.FLAGS

flags.DEFINE_multi_string(
    "gin_file",
    [],
    "Config to read: a path, or the name of one that comes with the package; later ones win.",
)
flags.DEFINE_multi_string(
    "gin_param", [], "One more binding, such as 'training.seed = 1'; wins over every file."
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Directory of the records: TFRecords, or a data set as TensorFlow Datasets prepares it; here "
    "or where tf.io.gfile reads (gs://bucket/records). Wins over data.data_dir.",
)
flags.DEFINE_string("run_dir", None, "Directory of the run; default runs/<config name>.")
flags.DEFINE_enum("device", None, ["auto", "cpu", "gpu"], "Wins over cluster.device.")


def overrides():
    """'section.name' -> value of the shared flags that were given.

    A relative --data_dir becomes absolute: a run is evaluated from other directories too.
    """
    given = {"data.data_dir": absolute(FLAGS.data_dir), "cluster.device": FLAGS.device}
    return {parameter: value for parameter, value in given.items() if value is not None}


def absolute(place):
    """A directory's absolute path; gs://bucket/... stands for itself, and None for none."""
    if not place or "://" in place:
        return place or None
    return os.path.abspath(os.path.expanduser(place))


def check_run_dir():
    """Raises ConfigError unless the flags name a run, whose own saved config is read."""
    if FLAGS.run_dir is None:
        raise ConfigError("A run is needed.", remedy="Give --run_dir=runs/NAME.")
    if FLAGS.gin_file:
        raise ConfigError(
            "A run is used with the config that it saved.",
            received=f"--gin_file={FLAGS.gin_file[0]}",
            remedy="Change single values with --gin_param.",
        )


_kept = []


def keep(value):
    """Keeps what takes long to free until the process ends, which then frees nothing."""
    _kept.append(value)


def run(main, *, takes_places=False):
    """Runs a door's main(argv) under absl; a UserError ends it with one message and its status.

    Who asked it to stop waits for it: status 143 too ends the process at once.

    Args:
      main: from the command line's words that are no flags, argv[0] included, to the status.
      takes_places: whether there may be such words.
    """

    # absl raises its own default to INFO, at which TensorFlow's SavedModel writer is chatty.
    asked = any(argument.lstrip("-").startswith(("verbosity", "v=")) for argument in sys.argv)

    def guarded(argv):
        if not asked:
            logging.set_verbosity(logging.WARNING)
        if argv[1:] and not takes_places:
            print(f"error: These are not flags: {' '.join(argv[1:])}.", file=sys.stderr)
            return 2
        try:
            status = main(argv)
        except UserError as error:
            _leave(error.exit_status, f"error: {error}\n")
        except KeyboardInterrupt:
            _leave(128 + signal.SIGINT, "interrupted\n")
        except Exception:
            _leave(EXIT_FAULT, traceback.format_exc())
        if status == EXIT_PREEMPTED:
            _leave(status, "")
        return status

    app.run(guarded, flags_parser=_parse)


def _leave(status, text):
    """Ends the process at once, with everything said.

    What the error went through holds the input pipeline, whose threads call into Python. On the
    interpreter's own way out they wait for it and it for them, now and then for ever. Without
    them it still takes 2.5 s of CPU to take TensorFlow down.
    """
    # The status counts where the disk behind them is full, or nobody reads them any more.
    for tell in (logging.flush, sys.stdout.flush, lambda: sys.stderr.write(text), sys.stderr.flush):
        with contextlib.suppress(OSError):
            tell()
    os._exit(status)


def _parse(argv):
    """Parses flags; a mistyped one is a configuration that has to be mended, so status 2."""
    try:
        return FLAGS(argv)
    except flags.Error as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
