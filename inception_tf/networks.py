"""Shows the networks layer by layer: `python tools/print_model.py [NAME]`.

    without NAME     the networks and variants there are, with their counts
    NAME             layer table, sums per stage, receptive field, activation memory; NAME is
                     network[:variant][,option=value ...], such as inception_v3,stem=7x7
    NAME --csv       the same rows as CSV on stdout
    NAME --svg FILE  and a picture of the network
    --diff A B       two such networks side by side: --diff inception_v3 inception_v3,stem=7x7

CSV columns, one line per layer: stage, name, kind; height, width, channels of the output;
kernel_height, kernel_width, stride, padding of the window, empty without one; num_parameters,
num_trainable; num_multiply_adds, num_activation_values and num_kept_values (what training keeps for
the backward pass) per image; receptive_field_height_px, receptive_field_width_px.
"""

import argparse
import ast
import inspect
import os
import sys

from inception_tf import quiet_start  # noqa: F401  isort: skip
import tensorflow as tf

from inception_tf import network_tables
from inception_tf.durable import save_text
from inception_tf.errors import ConfigError, did_you_mean, tells_user_errors
from inception_tf.models import layer_table
from inception_tf.models.arguments import check_choice
from inception_tf.models.catalog import CATALOG, PRECISIONS, builder_default, find_entry
from inception_tf.models.picture import network_svg
from inception_tf.reporting.table import aligned_table

# Arguments of a builder that have a flag of their own or do not show in a table.
_NOT_OPTIONS = {
    "variant", "num_classes", "input_shape", "include_top", "width_multiplier", "aux_head",
    "dtype", "name", "seed", "batch_norm_momentum", "batch_norm_epsilon",
}  # fmt: skip
_TUPLES = ("block_counts", "residual_scales")  # options whose default None says no type


@tells_user_errors
def main(argv=None):
    """Runs one command; returns the process' exit status: 0, or 2 for what a user can mend."""
    args = _parse(argv)
    tf.config.set_visible_devices([], "GPU")  # nothing is computed
    try:
        if args.diff:
            _print_diff(args)
        elif args.name is None:
            print(network_tables.catalog_text())
        else:
            _print_network(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parse(argv):
    parser = argparse.ArgumentParser(
        prog="python tools/print_model.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="such as inception_v4")
    parser.add_argument("--variant", help="default: its builder's")
    parser.add_argument("--input_px", type=_parse_size, default=(299, 299), metavar="HxW",
                        help="or one number for both (default: 299)")  # fmt: skip
    parser.add_argument("--num_classes", type=int, default=1000, help="default: 1000")
    parser.add_argument("--aux_head", action="store_true", help="with the auxiliary head")
    parser.add_argument("--no_top", action="store_true", help="without the classifier")
    parser.add_argument("--width_multiplier", type=float, default=1.0, help="default: 1.0")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE",
                        help="another argument of the builder, such as stem=7x7 or"
                        " block_counts=5,10,5; several times for several")  # fmt: skip
    parser.add_argument("--batch", type=int, default=32, help="of the memory (default: 32)")
    parser.add_argument("--precision", default="float32", help=f"of {', '.join(PRECISIONS)}")
    parser.add_argument("--csv", action="store_true", help="rows as CSV, see above")
    parser.add_argument("--svg", metavar="FILE", help="write a picture too")
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="compare two networks")
    args = parser.parse_args(argv)
    if args.diff and (args.name or args.variant or args.option or args.csv or args.svg):
        parser.error("--diff names its networks, variants and options itself, and has no files")
    if args.name is None and not args.diff and args != parser.parse_args([]):
        parser.error("these flags need the NAME of a network")
    if args.batch < 1:
        parser.error("--batch must be at least 1")
    return args


def _parse_size(text):
    parts = text.split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 299 or 299x151")
    return int(parts[0]), int(parts[-1])


def _find(name, variant):
    """(Entry, variant) of a network; without a variant its builder's."""
    check_choice(name, CATALOG, what="The network's name")
    variant = variant or builder_default(name, "variant")
    return find_entry(name, variant), variant


def _build(args, name, variant, options):
    """(model, variant, tables) of one network."""
    entry, variant = _find(name, variant)
    check_choice(args.precision, PRECISIONS, what="precision")
    options = _read_options(entry, name, options)
    model = entry.builder(
        variant=variant,
        num_classes=args.num_classes,
        input_shape=(*args.input_px, 3),
        include_top=not args.no_top,
        width_multiplier=args.width_multiplier,
        aux_head=args.aux_head,
        dtype=args.precision,
        **options,
    )
    structure = inspect.signature(entry.stages).parameters
    given = {"variant": variant, **options}
    return model, variant, entry.stages(**{k: v for k, v in given.items() if k in structure})


def _read_options(entry, name, texts):
    """The builder's arguments that KEY=VALUE texts give.

    Raises:
      ConfigError: an unknown key, or a value of another type than the builder's.
    """
    parameters = inspect.signature(entry.builder).parameters
    known = [key for key in parameters if key not in _NOT_OPTIONS]
    options = {}
    for text in texts:
        key, _, value = text.partition("=")
        if key not in known:
            raise ConfigError(
                f"The options of {name} are {', '.join(known)}.",
                received=repr(text),
                remedy=did_you_mean(key, known) or None,
            )
        options[key] = _read_value(key, value, parameters[key].default)
    return options


def _read_value(key, text, default):
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text  # a word, such as 7x7
    kinds = {bool: bool, int: int, float: (int, float), str: str, type(None): (str, type(None))}
    wanted = (tuple, list) if key in _TUPLES else kinds[type(default)]
    is_bool_by_mistake = isinstance(value, bool) and wanted is not bool
    if not isinstance(value, wanted) or is_bool_by_mistake:
        example = "three values such as 5,10,5" if key in _TUPLES else f"like {default!r}"
        raise ConfigError(f"The option {key} must be {example}.", received=repr(text))
    return value


def _print_network(args):
    name, variant, options = _read_network(args.name)
    options = [*options, *args.option]
    model, variant, stages = _build(args, name, variant or args.variant, options)
    rows = layer_table.layer_rows(model)
    title = ", ".join([name, variant, *options])
    if args.svg:
        try:
            save_text(args.svg, network_svg(model, stages, title=title))
        except OSError as error:
            raise ConfigError("--svg must name a file that can be written.",
                              received=f"{args.svg} ({error.strerror})") from None  # fmt: skip
    if args.csv:
        network_tables.write_csv(rows, sys.stdout)
        return
    print(f"{title}: {network_tables.size_text(args.input_px)} px")
    print()
    print(network_tables.layers_text(rows))
    print()
    print(network_tables.totals_text(rows, batch=args.batch, precision=args.precision))


def _print_diff(args):
    networks = []
    asked = [_read_network(text) for text in args.diff]
    for name, variant, _ in asked:
        _find(name, variant)  # a misspelt second network is told of before the first is built
    for name, variant, options in asked:
        model, variant, _ = _build(args, name, variant, options)
        label = ",".join([f"{name}:{variant}", *options])
        networks.append((label, layer_table.layer_rows(model)))
    (label, rows), (other_label, other_rows) = networks
    print(f"A: {label}\nB: {other_label}\n* where layers differ\n")
    print(network_tables.stages_diff_text(rows, other_rows))
    pairs = layer_table.differing_layers(rows, other_rows)
    print(f"\n{len(pairs):,} layers with weights or a window differ.")
    if pairs:
        lines = [tuple(map(network_tables.described, pair)) for pair in pairs]
        print(f"\n{aligned_table(lines, header=('A', 'B'))}")


def _read_network(text):
    """'network:variant,key=value,...' -> (network, variant or None, ['key=value', ...])."""
    network, *parts = text.split(",")
    name, _, variant = network.partition(":")
    options = []
    for part in parts:
        if "=" not in part and options:
            options[-1] += f",{part}"  # block_counts=5,10,5
        else:
            options.append(part)
    return name, variant or None, options


if __name__ == "__main__":
    sys.exit(main())
