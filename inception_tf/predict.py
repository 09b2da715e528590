"""Classes of images: `python -m inception_tf.predict MODEL PATH...`, or a page with --serve.

    MODEL   a run directory, an export (SavedModel, .onnx, .tflite), a file of weights, or published
            ones (keras:inception_v3)
    PATH    files and folders (every image at any depth, sorted by path), patterns that the shell
            has not expanded ('photos/**/*.jpg'), and - for the paths in stdin, one a line

Every image gets its most probable classes, counted from 0 without background, in the order of the
paths; the images are decoded and cropped as an evaluation does it. What could not be read is told
of in its place and on stderr, and the status is then 1; of 2, nothing could be.

--serve opens a small page on this machine instead, on which images are dropped.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import sys

from inception_tf import model_arguments
from inception_tf.errors import ConfigError, DataError, tells_user_errors
from inception_tf.reporting import answers

_STATUS_BAD_IMAGES = 1
_PROGRESS_AFTER_SECS = 3  # short runs tell of no progress
_OF_FILES = {"format": "table", "out": None, "batch": 32}
_OF_PAGE = {"port": 8000, "host": "127.0.0.1"}


@tells_user_errors
def main(argv=None) -> int:
    """Exit status: 0, 1 where images could not be read, or 2 for a fault that the user can mend."""
    args = _build_parser().parse_args(argv)
    from inception_tf import quiet_start  # noqa: F401  after --help, which needs no TensorFlow

    try:
        _check_arguments(args)
        return _serve(args) if args.serve else _predict(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m inception_tf.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL")
    add("paths", metavar="PATH", nargs="*")
    add("--top_k", type=int, default=5, help="classes to name of each image (default: 5)")
    add("--format", choices=answers.FORMS, help="default: table")
    add("--out", metavar="FILE", help="to write instead of stdout; it appears once all is written")
    add("--batch", type=int, help="images at once (default: 32)")
    model_arguments.add_to(parser)
    add("--serve", action="store_true", help="open a page instead")
    add("--port", type=int, help="of the page; 0 takes a free one (default: 8000)")
    add("--host", help="address that the page listens on (default: 127.0.0.1, this machine alone)")
    return parser


def _check_arguments(args):
    """Raises ConfigError for what has no effect together; fills in the defaults."""
    without_effect = _OF_FILES if args.serve else _OF_PAGE
    given = [
        f"--{name}={getattr(args, name)}"
        for name in without_effect
        if getattr(args, name) is not None
    ]
    if args.serve and (given or args.paths):
        raise ConfigError(
            "The page gets its images in the browser.", received=" ".join([*args.paths, *given])
        )
    if given:
        raise ConfigError(
            "Only the page has a host and a port.",
            received=" ".join(given),
            remedy="Give --serve too.",
        )
    if not args.serve and not args.paths:
        raise ConfigError(
            "Predictions need images.", remedy="Give files or folders, or --serve for a page."
        )
    for name, value in (_OF_FILES | _OF_PAGE).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    for name in ("top_k", "batch"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} must be at least 1.", received=getattr(args, name))
    if args.out is not None and not pathlib.Path(args.out).parent.is_dir():
        raise ConfigError("--out is a file in a folder that exists.", received=args.out)


def _predict(args):
    from inception_tf.data.image_files import list_images

    # A mistake here should not wait for the network.
    listed = _read_list() if "-" in args.paths else None
    listing = list_images(args.paths, listed=listed)
    classifier = _open(args)
    how = {"form": args.format, "out": args.out, "batch": args.batch, "top_k": args.top_k}
    num_bad = write_answers(classifier, listing.paths, **how)
    if listing.num_ignored:
        _tell(f"{listing.num_ignored:,} other files in the folders were passed over")
    if num_bad:
        _tell(f"{num_bad:,} of {len(listing.paths):,} images could not be read")
    return _STATUS_BAD_IMAGES if num_bad else 0


def _read_list():
    """The paths in stdin, one a line."""
    data = sys.stdin.buffer.read()
    if b"\0" in data:
        raise ConfigError(
            "- stands for paths in stdin, one a line.",
            received="bytes that are no text",
            remedy="Give an image by its path.",
        )
    return [os.fsdecode(line) for line in data.splitlines() if line]


def _open(args):
    """The network that the command line names."""
    from inception_tf.classifier import open_classifier

    model_arguments.configure_devices(args)
    classifier = open_classifier(args.model, **model_arguments.choices(args))
    for note in (classifier.what, *classifier.notes):
        _tell(note)
    return classifier


def write_answers(classifier, paths, *, form: str, out: str | None, batch: int, top_k: int) -> int:
    """Writes the classes of image files, each batch as soon as it is known; the number of bad ones.

    Args:
      classifier: a Classifier.
      paths: of the files.
      form: one of `reporting.answers.FORMS`.
      out: file to write, which appears once all is written; None writes to stdout.
      batch: images at once.
      top_k: classes to name of each.

    Raises:
      DataError: no image can be read, or there is no space for the answers.
    """
    from tqdm import tqdm

    from inception_tf.classifier import classify_files

    num_bad = 0
    # On a terminal the answers themselves show how far it is, and what is bad.
    is_seen = out is None and sys.stdout.isatty()
    bar = tqdm(
        total=len(paths), unit="image", file=sys.stderr, delay=_PROGRESS_AFTER_SECS,
        disable=True if is_seen else None,
    )  # fmt: skip

    def text_of(path, found, reason):
        if found is not None:
            return answers.answer_text(form, path, found, num_classes=classifier.num_classes)
        if not is_seen:
            tqdm.write(answers.printable(f"left out {path}: {reason}"), file=sys.stderr)
        return answers.error_text(form, path, reason)

    with bar, _output(out) as write:
        write(answers.header_text(form))
        for answered in classify_files(classifier, paths, batch=batch, top_k=top_k):
            write("".join(text_of(*one) for one in answered))
            num_bad += sum(found is None for _, found, _ in answered)
            bar.update(len(answered))
        if num_bad == len(paths):
            raise DataError(
                "At least one image must be readable.", received=f"none of {len(paths):,}"
            )
    return num_bad


@contextlib.contextmanager
def _output(out):
    """A function that writes text at once to stdout, or to a file that appears at the end."""
    from inception_tf import durable

    def write_to(stream, text):
        # Names of files need not be UTF-8. In a string of JSON these escapes give their bytes back.
        stream.write(text.encode("utf-8", "backslashreplace"))
        stream.flush()

    try:
        if out is None:
            yield functools.partial(write_to, sys.stdout.buffer)
        else:
            with durable.open_whole(out) as stream:
                yield functools.partial(write_to, stream)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DataError(
            "Answers need space on the disk.", received=f"{out or 'stdout'}: {error}"
        ) from error


def _tell(text):
    print(answers.printable(text), file=sys.stderr, flush=True)


def _serve(args):
    from inception_tf import predict_page

    listener = predict_page.listen(args.host, args.port)
    return predict_page.serve(
        _open(args), listener, host=args.host, top_k=args.top_k, tell=_tell
    )


if __name__ == "__main__":
    sys.exit(main())
