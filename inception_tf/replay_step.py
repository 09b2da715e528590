"""A failed step again, on one device: `python -m inception_tf.replay_step RUN_DIR/failed_step_N`.

Does the forward and backward pass of the declared replicas whose values were not finite, or too
large, from the variables before the step and the batches that the run kept. It tells which images
they were, which layer's output is the first that is not finite, which gradients are not, and the
largest values. Nothing in the run directory is changed.

Exit status: 0 where the failure came again, 5 where it did not, 2 where the directory, the records
or the flags have to be mended.
"""

import argparse
import sys

from inception_tf.errors import EXIT_NOT_REPRODUCED, ConfigError, tells_user_errors

_MOST_LARGE = 8  # rows of the largest values, where not all are shown
_MOST_NAMES = 5  # of one line


@tells_user_errors
def main(argv=None) -> int:
    """Exit status, as above."""
    args = _build_parser().parse_args(argv)
    from inception_tf import quiet_start  # noqa: F401  after --help, which needs no TensorFlow

    _check_arguments(args)
    return _replay(args)


def _build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m inception_tf.replay_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("directory", metavar="RUN_DIR/failed_step_N")
    add("--from_data", action="store_true",
        help="make the batches again from the records, and compare them with the kept ones")  # fmt: skip
    add("--data_dir", metavar="DIR", help="directory of the records; wins over the run's")
    add("--images", metavar="SHEET.png", help="draw the images, with their records and labels")
    add("--all_layers", action="store_true",
        help="show every layer and gradient, not only the first bad and the largest ones")  # fmt: skip
    add("--device", choices=("auto", "cpu", "gpu"), help="wins over the run's cluster.device")
    return parser


def _check_arguments(args):
    if args.data_dir and not args.from_data:
        raise ConfigError(
            "--data_dir is for batches that are made again.",
            received=f"--data_dir={args.data_dir} without --from_data",
        )
    if args.images and not args.images.endswith(".png"):
        raise ConfigError("The sheet is a .png file.", received=args.images)


def _replay(args):
    from inception_tf import config, experiment, flags, replay
    from inception_tf.parameters import SECTIONS

    failed = replay.read(args.directory)
    overrides = {"data.data_dir": flags.absolute(args.data_dir), "cluster.device": args.device}
    resolved = config.resolve(
        gin_files=[failed.config_file],
        overrides={name: value for name, value in overrides.items() if value is not None},
        reads=SECTIONS,
    )
    run = experiment.Experiment(**resolved.sections)
    cluster = replay.join_one_device(run.cluster, failed)
    batches = _batches(args, failed, run)
    again = replay.Replay(failed, run, cluster)
    print(_heading(failed, cluster))
    if args.images and batches:
        _draw(args.images, failed, batches)
    results = [
        _replay_one(again, replica, batches[replica["declared"]], is_full=args.all_layers)
        for replica in failed.facts["replicas"]
    ]
    if not results:
        results = [_replay_l2(again)]
    return 0 if all(results) else EXIT_NOT_REPRODUCED


def _heading(failed, cluster):
    facts = failed.facts
    left_out = ", ".join(map(str, facts["left_out"]))
    return (
        f"step {failed.step:,} of {failed.path.parent}: loss {facts['data_loss_nats']}, gradient "
        f"norm {facts['gradient_norm']} (devices: {facts['num_devices']}, workers: "
        f"{facts['num_workers']}); here on one {cluster.device_kind}"
        + (f"\nnot kept of it: the batches of declared replicas {left_out}" if left_out else "")
    )


# -- the batches -----------------------------------------------------------------------------------


def _batches(args, failed, run):
    """Declared replica -> Batch of each that was kept, or made again."""
    from inception_tf import inputs as run_inputs
    from inception_tf import replay

    batches = {}
    numbers = [replica["declared"] for replica in failed.facts["replicas"]]
    inputs = replay.open_records(run, failed) if args.from_data else None
    for declared in numbers:
        kept = replay.read_batch(failed, declared)
        if inputs is None and kept is None:
            raise ConfigError(
                "A failed step is done again with the batch that its worker kept.",
                received=f"none of declared replica {declared} in {failed.path}",
                remedy="Copy it from that worker's machine, or make it again with --from_data.",
            )
        batches[declared] = kept
        if inputs is not None:
            images, labels = run_inputs.declared_batch(
                inputs, run, declared=declared, step=failed.step
            )
            again = replay.Batch(images=images, labels=labels)
            print(f"declared replica {declared}: {_compare(kept, again)} ({inputs.data_dir})")
            batches[declared] = again
    return batches


def _compare(kept, again):
    """How a batch that was made again differs from the one that was fed."""
    if kept is None:
        return "the batch is made again from the records; none was kept to compare it with"
    if kept.images.shape != again.images.shape:
        return f"the records give images {again.images.shape}, not {kept.images.shape}"
    differing = [
        number
        for number in range(len(again.labels))
        if kept.images[number].tobytes() != again.images[number].tobytes()
        or kept.labels[number] != again.labels[number]
    ]
    if not differing:
        return "the batch made again from the records is the one that was fed, bit for bit"
    return (
        f"{len(differing)} of {len(again.labels)} images made again from the records DIFFER from "
        f"those that were fed: {', '.join(f'#{n}' for n in differing[:_MOST_NAMES])}"
        + (", ..." if differing[_MOST_NAMES:] else "")
    )


def _draw(path, failed, batches):
    import numpy as np

    from inception_tf.reporting.contact_sheet import write_contact_sheet

    images = np.concatenate([batch.images for batch in batches.values()])
    labels = np.concatenate([batch.labels for batch in batches.values()])
    records = [
        image["record_id"] for replica in failed.facts["replicas"] for image in replica["images"]
    ]
    captions = [
        f"{record} label {label}" + ("" if np.isfinite(image).all() else " NOT FINITE")
        for record, label, image in zip(records, labels, images, strict=True)
    ]
    title = f"{failed.path}: the images of the guilty declared replicas"
    images = np.nan_to_num(images, nan=0.0, posinf=1.0, neginf=-1.0)
    try:
        width, height = write_contact_sheet(path, images, captions, title=title)
    except OSError as error:
        raise ConfigError("The sheet must be writable.", received=str(error)) from error
    print(f"{path}: {len(captions):,} images, {width:,} x {height:,} px")


# -- what is found ---------------------------------------------------------------------------------


def _replay_one(again, replica, batch, *, is_full):
    """Does one declared replica again and tells of it; whether it failed as in the run."""
    from inception_tf import replay

    before, declared = replay.fault_of(replica), replica["declared"]
    found = again.run(declared, batch.images, batch.labels)
    print(
        f"\ndeclared replica {declared}, in the run on worker {replica['worker']}, "
        f"{replica['device']}\n{_images_table(replica, batch)}\n\nloss {found.loss_nats:g}"
    )
    for what, rows in (("layer output", found.layers), ("gradient", found.gradients),
                       ("moving statistic", found.statistics)):  # fmt: skip
        print(f"\n{_extremes_text(what, rows, is_full=is_full)}")
    was = f"{before.value:g} as {before.what}"
    if not replay.is_same_failure(before, found.fault):
        now = "all values are finite and can be summed" if found.fault is None else (
            f"{found.fault.value:g} as {found.fault.what}"
        )
        print(f"\nNOT reproduced: {now}; in the run declared replica {declared} had {was}")
        return False
    now = f"{found.fault.value:g} as {found.fault.what}"
    is_same = replay.is_same_value(before, found.fault)
    print(f"\nreproduced: {now}" + (", as in the run" if is_same else f"; in the run {was}"))
    return True


def _replay_l2(again):
    """Where every declared replica was finite: what L2 alone makes of the weights."""
    import math

    norm = again.l2_norm()
    print(f"\nno declared replica was guilty; the norm of L2's gradient is {norm:g}")
    if not math.isfinite(norm):
        print("reproduced: the weights before the step are too large for L2")
        return True
    print("NOT reproduced: the sum over all declared replicas was not finite, and is not kept")
    return False


def _images_table(replica, batch):
    import numpy as np

    from inception_tf.reporting.table import aligned_table

    rows = []
    for number, (place, image) in enumerate(zip(replica["images"], batch.images, strict=True)):
        finite = image[np.isfinite(image)]
        pixels = f"{finite.min():.2f} to {finite.max():.2f}" if finite.size else "none"
        bad = image.size - finite.size
        rows.append([
            f"#{number}", f"{place['position']}", f"{place['record_id']}", place["shard"],
            f"{place['offset']}", place["key"], f"{batch.labels[number]}", pixels,
            f"{bad} not finite" if bad else "",
        ])  # fmt: skip
    header = ["image", "position", "record", "shard", "offset", "file", "label", "pixels", ""]
    return aligned_table(rows, header=header, align="rrrlrlrll")


def _extremes_text(what, rows, *, is_full):
    """Which are not finite, and a table of the first bad one and of the largest before it."""
    from inception_tf.reporting.table import aligned_table

    bad = [number for number, row in enumerate(rows) if row.num_non_finite]
    text = f"all {len(rows)} {what}s are finite"
    if bad:
        begin = f"the first of them {rows[bad[0]].name}"
        if what == "gradient":  # the backward pass comes from the loss and begins with the last
            begin = f"nearest to the loss {rows[bad[-1]].name}"
        text = f"{len(bad)} of {len(rows)} {what}s are not finite, {begin}"
    if is_full:
        shown = set(range(len(rows)))
    else:
        # What comes after a bad one is a consequence.
        sound = [number for number in range(bad[0] if bad else len(rows))]
        shown = set(sorted(sound, key=lambda number: -rows[number].largest)[:_MOST_LARGE])
        shown |= {number for first in bad[:1] for number in range(first - 1, first + 2)}
    cells = [
        [row.name, row.kind, f"{row.largest:.4g}", f"{row.num_non_finite:,}", f"{row.num_values:,}"]
        for number, row in enumerate(rows)
        if number in shown
    ]
    if not cells:
        return text
    header = [what, "", "largest", "not finite", "values"]
    return f"{text}\n{aligned_table(cells, header=header, align='llrrr')}"


if __name__ == "__main__":
    sys.exit(main())
