"""Shows the networks layer by layer: `python tools/print_model.py [NAME]`.

    without NAME     the networks and variants there are, with their counts
    NAME             layer table, sums per stage, receptive field, activation memory
    NAME --csv       the same rows as CSV on stdout
    NAME --svg FILE  and a picture of the network
    --diff A B       two networks side by side, each as network[:variant][,option=value ...]:
                     --diff inception_v3 inception_v3:released,stem=7x7

CSV columns, one line per layer: stage, name, kind; height, width, channels of the output;
kernel_height, kernel_width, stride, padding of the window, empty without one; num_parameters,
num_trainable; num_multiply_adds, num_activation_values and num_kept_values (what training keeps for
the backward pass) per image; receptive_field_height_px, receptive_field_width_px.
"""

import argparse
import ast
import csv
import inspect
import sys

from inception_tf import quiet_start  # noqa: F401  isort: skip
import tensorflow as tf

from inception_tf.durable import save_text
from inception_tf.errors import ConfigError, UserError, did_you_mean
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


def main(argv=None):
    """Runs one command; returns the process' exit status: 0, or 2 for what a user can mend."""
    args = _parse(argv)
    tf.config.set_visible_devices([], "GPU")  # nothing is computed
    try:
        if args.diff:
            _print_diff(args)
        elif args.name is None:
            print(_catalog_text())
        else:
            _print_network(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
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
    model, variant, stages = _build(args, args.name, args.variant, args.option)
    rows = layer_table.layer_rows(model)
    title = f"{args.name}, {variant}"
    if args.svg:
        try:
            save_text(args.svg, network_svg(model, stages, title=title))
        except OSError as error:
            raise ConfigError("--svg must name a file that can be written.",
                              received=f"{args.svg} ({error.strerror})") from None  # fmt: skip
    if args.csv:
        _write_csv(rows, sys.stdout)
        return
    print(f"{title}: {_size(args.input_px)} px")
    print()
    print(_layers_text(rows))
    print()
    print(_totals_text(rows, batch=args.batch, precision=args.precision))


def _write_csv(rows, stream):
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ("stage", "name", "kind", "height", "width", "channels", "kernel_height", "kernel_width",
         "stride", "padding", "num_parameters", "num_trainable", "num_multiply_adds",
         "receptive_field_height_px", "receptive_field_width_px", "num_activation_values",
         "num_kept_values")
    )  # fmt: skip
    for row in rows:
        writer.writerow(
            (row.stage, row.name, row.kind, *row.grid, row.channels, *(row.kernel or ("", "")),
             row.stride, row.padding, row.num_parameters, row.num_trainable,
             row.num_multiply_adds, *row.receptive_field_px, row.num_activation_values,
             row.num_kept_values)
        )  # fmt: skip


def _layers_text(rows):
    """A line per layer and, under every stage of several, one with its sums."""
    lines = []
    for stage, own in layer_table.stages_of(rows):
        lines.extend(
            ("", row.name, row.kind, _output(row), _window(row), f"{row.num_parameters:,}",
             f"{row.num_multiply_adds:,}", _size(row.receptive_field_px))
            for row in own
        )  # fmt: skip
        if len(own) == 1:
            lines[-1] = (stage, *lines[-1][1:])
            continue
        sums = layer_table.totals_of(own)
        lines.append(
            (stage, f"= {len(own)} layers", "", "", "", f"{sums.num_parameters:,}",
             f"{sums.num_multiply_adds:,}", "")
        )  # fmt: skip
    header = ("stage", "layer", "kind", "output", "window", "parameters", "multiply-adds",
              "sees px")  # fmt: skip
    return aligned_table(lines, header=header, align="lllrlrrr")


def _totals_text(rows, *, batch, precision):
    sums, last = layer_table.totals_of(rows), layer_table.last_grid_row(rows)
    facts = [
        ("parameters", f"{sums.num_parameters:,}, {sums.num_trainable:,} of them trainable"),
        ("multiply-adds", f"{sums.num_multiply_adds:,} per image"),
        ("receptive field", f"{_size(last.receptive_field_px)} px of {last.name}, the last grid"),
        (
            "all outputs",
            f"{sums.num_activation_values:,} values per image, "
            f"{_gib(sums.activation_bytes * batch)} for {batch} images in {precision}",
        ),
        (
            "kept to train",
            f"{sums.num_kept_values:,} values per image, "
            f"{_gib(sums.kept_bytes * batch)} for {batch} images in {precision}",
        ),
    ]
    return aligned_table(facts)


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
    print(f"A: {label}\nB: {other_label}\n")
    print(_stages_diff_text(rows, other_rows))
    pairs = layer_table.differing_layers(rows, other_rows)
    print(f"\n{len(pairs):,} layers with weights or a window differ.")
    if pairs:
        lines = [(_described(row), _described(other)) for row, other in pairs]
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


def _stages_diff_text(rows, other_rows):
    """A line per stage: output, parameters and multiply-adds of both, marked where they differ."""
    mine, theirs = (dict(layer_table.stages_of(each)) for each in (rows, other_rows))
    lines = []
    for stage in _merged(list(mine), list(theirs)):
        sides = [_stage_cells(stages.get(stage)) for stages in (mine, theirs)]
        differs = "*" if sides[0] != sides[1] else ""
        lines.append((stage, *_interleaved(sides), differs))
    totals = [layer_table.totals_of(each) for each in (rows, other_rows)]
    cells = [("", f"{sums.num_parameters:,}", f"{sums.num_multiply_adds:,}") for sums in totals]
    lines.append(("total", *_interleaved(cells), "*" if cells[0] != cells[1] else ""))
    header = ("stage", "output A", "B", "parameters A", "B", "multiply-adds A", "B", "")
    return aligned_table(lines, header=header, align="lrrrrrrl")


def _stage_cells(rows):
    if rows is None:
        return "-", "-", "-"
    sums = layer_table.totals_of(rows)
    return _output(rows[-1]), f"{sums.num_parameters:,}", f"{sums.num_multiply_adds:,}"


def _interleaved(sides):
    return [cell for both in zip(*sides, strict=True) for cell in both]


def _merged(names, others):
    """Both lists' names in an order that keeps each list's own where they agree."""
    merged, rest = [], list(others)
    for name in names:
        if name in rest:
            at = rest.index(name)
            merged += [other for other in rest[:at] if other not in names]
            rest = rest[at + 1 :]
        merged.append(name)
    return merged + [other for other in rest if other not in merged]


def _described(row):
    """A layer in one cell; '-' for none."""
    if row is None:
        return "-"
    return " ".join(filter(None, (row.name, row.kind, _window(row), _output(row))))


def _catalog_text():
    lines = [
        (name, variant, f"{entry.num_parameters:,}", f"{entry.num_trainable:,}",
         f"{entry.num_parameters_without_top:,}", f"{entry.num_parameters_with_aux:,}",
         f"{entry.num_multiply_adds:,}")
        for name, variants in CATALOG.items()
        for variant, entry in variants.items()
    ]  # fmt: skip
    header = ("network", "variant", "parameters", "trainable", "without top", "with aux head",
              "multiply-adds")  # fmt: skip
    return aligned_table(lines, header=header, align="llrrrrr")


def _size(pair):
    return "{}x{}".format(*pair)


def _output(row):
    return f"{_size(row.grid)}x{row.channels}"


def _window(row):
    """'3x3/2 V' as the figures write it; empty without a window."""
    if row.kernel is None:
        return ""
    stride = f"/{row.stride}" if row.stride > 1 else ""
    is_valid = row.padding == "valid" and row.kernel != (1, 1)
    return f"{_size(row.kernel)}{stride}" + (" V" if is_valid else "")


def _gib(num_bytes):
    return f"{num_bytes / 2**30:.2f} GiB"


if __name__ == "__main__":
    sys.exit(main())
