"""Tries a claim of the papers on a small scale: python tools/reproduce.py CLAIM [CLAIM ...].

A CLAIM is a number of docs/results.md, the name of a config in configs/claims/, or the path of
another such config; `all` is every one. Its runs are ordinary training runs, one after the other;
the same command goes on where it was stopped, and runs that several claims need are run once. What
came out is written to --out: claim_N.json, .txt and .md (the table) and .png (the figure).
"""

import argparse
import dataclasses
import datetime
import pathlib
import shlex
import sys

from inception_tf.errors import ConfigError, DataError, tells_user_errors


@tells_user_errors
def main(argv=None) -> int:
    """Exit status: 0 whether the claims hold or not, or that of a fault that the user can mend."""
    args = _build_parser().parse_args(argv)
    from inception_tf import quiet_start  # noqa: F401  after --help, which needs no TensorFlow

    first_error = None
    for path in _claim_files(args.claims):
        try:
            _reproduce(path, args)
        except (ConfigError, DataError) as error:  # the other claims can be tried all the same
            print(f"{path.stem}: {error}", file=sys.stderr, flush=True)
            first_error = first_error or error
    if first_error is not None:
        raise first_error
    return 0


def _build_parser():
    parser = argparse.ArgumentParser(
        prog="python tools/reproduce.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("claims", nargs="+", metavar="CLAIM", help="number, name of a config, or all")
    add("--seeds", type=_parse_seeds, metavar="0,1,2", help="default: those of the claim")
    add("--data_dir", default="data", metavar="DIR",
        help="archives of the images, or their records (default: data)")  # fmt: skip
    add("--out", default="runs/claims", metavar="DIR",
        help="for records, runs and results (default: runs/claims)")  # fmt: skip
    add("--threads", type=int, metavar="N", help="of one op (default: every core)")
    add("--only_report", action="store_true",
        help="train and evaluate nothing; write what the runs so far say")  # fmt: skip
    return parser


def _parse_seeds(text):
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0,1,2") from None
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} names a seed twice")
    return seeds


def _claim_files(names):
    """The config of each claim that was asked for.

    Raises:
      ConfigError: there is no such claim.
    """
    from inception_tf import config

    folder = config.config_folder() / "claims"
    by_number = {path.name.split("_")[0]: path for path in sorted(folder.glob("*.gin"))}
    if names == ["all"]:
        return list(by_number.values())
    known = by_number | {path.stem: path for path in by_number.values()}
    known |= {name: pathlib.Path(name) for name in names if pathlib.Path(name).is_file()}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            "A claim is named by its number or its config.",
            received=unknown[0],
            remedy=f"Claims: {', '.join(path.stem for path in by_number.values())}.",
        )
    return [known[name] for name in names]


def _reproduce(path, args):
    from inception_tf import claim_data, claim_runs, config
    from inception_tf.claims import figure, results

    spec = config.resolve(gin_files=[path], reads=("claim",)).sections["claim"]
    if args.seeds:
        spec = dataclasses.replace(spec, seeds=args.seeds)
    out = pathlib.Path(args.out)
    data_dir = claim_data.records_of(spec.data, data_dir=args.data_dir, work_dir=out / "data")
    extra = claim_data.eval_params(data_dir)
    if args.threads:
        extra.append(f"cluster.intra_op_threads = {args.threads}")
    records = claim_data.mark_of(data_dir)
    plans = [
        claim_runs.plan(arm, seed, runs_dir=out / "runs", extra_params=extra)
        for seed in spec.seeds
        for arm in spec.parsed_arms()
    ]
    print(f"claim {spec.number}: {spec.title}\n{spec.source}: {spec.statement}")
    print(f"criterion: {spec.criterion}", flush=True)
    networks = _networks(spec, plans)
    if not args.only_report:
        for number, run in enumerate(plans, start=1):
            is_new = run.outcome is None
            found = claim_runs.carry_out(
                run, data_dir=data_dir, records=records, threads=args.threads
            )
            told = f"{found['wall_secs']:,.0f} s" if is_new else "there already"
            print(f"run {number} of {len(plans)}: {run.arm.name}, seed {run.seed}: {told}",
                  flush=True)  # fmt: skip
    content = _content(spec, plans, networks, data_dir, only_known=args.only_report)
    content |= _facts(path, args, plans)
    results.save(out / f"claim_{spec.number}.json", content)
    text = results.text_of(content)
    (out / f"claim_{spec.number}.txt").write_text(text + "\n", encoding="utf-8")
    markdown = results.markdown_of(content)
    (out / f"claim_{spec.number}.md").write_text(markdown + "\n", encoding="utf-8")
    (out / f"claim_{spec.number}.png").write_bytes(figure.png_of(content))
    print(text, flush=True)


def _networks(spec, plans):
    """Arm -> what its network and run are made of; prints sizes and holds the costs equal."""
    from inception_tf.claims import results
    from inception_tf.models.catalog import build_model
    from inception_tf.models.counting import (
        count_activation_values,
        count_multiply_adds,
        count_parameters,
    )

    found = {}
    for run in plans:
        if run.arm.name in found:
            continue
        sections = run.resolved.sections
        model = build_model(sections["model"], num_classes=10)  # of both image sets
        training = sections["training"]
        batch = training.num_replicas * training.replica_batch
        length = (
            f"{training.num_steps:,} steps"
            if training.num_steps
            else f"{training.num_epochs:g} epochs"
        )
        found[run.arm.name] = {
            "multiply_adds": count_multiply_adds(model),
            "parameters": count_parameters(model),
            "activation_mib": count_activation_values(model) * 4 / 2**20,  # float32
            "images_per_step": batch,
        }
        facts = found[run.arm.name]
        print(f"  {run.arm.name}: {facts['multiply_adds']:,} multiply-adds, "
              f"{facts['parameters']:,} parameters; {length} of {batch} images")  # fmt: skip
    for name, gin_file in spec.imagenet.items():
        found[name]["imagenet"] = _paper_run(gin_file)
    costs = {name: facts["multiply_adds"] for name, facts in found.items()}
    for line in results.check_costs(spec, costs):
        print(f"  {line}")
    return found


def _paper_run(gin_file):
    """Epochs of the paper's own run, and the cost of its network."""
    from inception_tf import config
    from inception_tf.models.catalog import build_model
    from inception_tf.models.counting import count_multiply_adds
    from inception_tf.parameters import SECTIONS

    sections = config.resolve(gin_files=[gin_file], reads=SECTIONS).sections
    network = build_model(sections["model"], num_classes=1000)
    return {
        "config": gin_file,
        "epochs": sections["training"].num_epochs,
        "multiply_adds": count_multiply_adds(network),
    }


def _content(spec, plans, networks, data_dir, *, only_known):
    from inception_tf import claim_probes, claim_runs
    from inception_tf.claims import measures, results

    ended = [run for run in plans if run.outcome is not None]
    probed = {}
    if spec.probe and ended:
        probed = claim_probes.probe(spec, ended, data_dir=data_dir, only_known=only_known)
    arms = []
    for arm in spec.parsed_arms():
        runs = []
        for run in ended:
            if run.arm.name != arm.name:
                continue
            record, more = claim_runs.record_of(run), probed.get((arm.name, run.seed), {})
            told = measures.measures_of(record, target_errors=spec.target_errors)
            told["activation_mib"] = networks[arm.name]["activation_mib"]
            drawn = {
                name: measures.curve(record, name)
                for name in spec.curves
                if name in measures.CURVES
            }
            runs.append(
                {
                    "seed": run.seed,
                    "mark": run.mark,
                    "measures": told | more.get("measures", {}),
                    "curves": drawn | more.get("curves", {}),
                }
            )
        arms.append({"name": arm.name, "runs": runs, **networks[arm.name]})
    return results.outcome(spec, arms)


def _facts(path, args, plans):
    """Command, machine, and the day on which the last run ended."""
    from inception_tf.config import config_folder

    is_ours = path.parent == config_folder() / "claims"
    command = ["python", "tools/reproduce.py", path.stem.split("_")[0] if is_ours else str(path)]
    if args.seeds:
        command.append(f"--seeds={','.join(map(str, args.seeds))}")
    if args.threads:
        command.append(f"--threads={args.threads}")
    outcomes = [run.outcome for run in plans if run.outcome is not None]
    ends = [outcome["ended_unix_secs"] for outcome in outcomes]
    machines = {outcome["machine"] for outcome in outcomes if "machine" in outcome}
    return {
        "command": shlex.join(command),
        "date": datetime.date.fromtimestamp(max(ends)).isoformat() if ends else "not run",
        "machine": "; ".join(sorted(machines)) or "machine not told",
    }


if __name__ == "__main__":
    sys.exit(main())
