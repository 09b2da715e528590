"""Plans for more workers: `python tools/plan_scaling.py --step_secs=S --parameter_bytes=B ...`.

From the measured step of one worker, the parameters and the link between workers it computes step
time, efficiency and images a second for 1 to 1024 workers, without and with overlap of
communication and backward pass; nothing is run. docs/scaling.md has the formula, and the published
figures that it was held against. The last line is one JSON object: what was measured, what was
assumed, and the rows, whose figures are arithmetic.
"""

import argparse
import dataclasses
import json
import os
import sys

from inception_tf.errors import ConfigError, tells_user_errors
from inception_tf.reporting import quantities, scaling, scaling_plot
from inception_tf.reporting.table import aligned_table

_HEADER = ("workers", "rounds", "global batch", "sent MB", "comm ms", "step ms", "effic.",
           "images/s", "step ms +", "effic. +", "images/s +")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What was asked for, checked.

    Attributes:
      measured: the step of one worker.
      parameter_bytes: of the float32 weights.
      reduction: how gradients travel, a key of `scaling.VALUE_BYTES`.
      link: between workers.
      overlap: what hides behind the backward pass at best.
      scaling: 'strong' or 'weak'.
      workers: ascending, from 1.
    """

    measured: scaling.MeasuredStep
    parameter_bytes: float
    reduction: str
    link: scaling.Link
    overlap: scaling.Overlap
    scaling: str
    workers: list[int]

    def rows(self) -> list[scaling.Prediction]:
        """A Prediction for each number of workers."""
        return [
            scaling.predict(
                self.measured,
                num_workers=number,
                parameter_bytes=self.parameter_bytes,
                reduction=self.reduction,
                link=self.link,
                overlap=self.overlap,
                scaling=self.scaling,
            )
            for number in self.workers
        ]


@tells_user_errors
def main(argv=None) -> int:
    """Prints the plan; exit status 0, or 2 for what a user can mend."""
    args = _build_parser().parse_args(argv)
    try:
        if args.out is not None:
            scaling_plot.check_plot_path(args.out)
        plan = _read_plan(args)
        rows = plan.rows()
        if args.out is not None:
            title = f"{plan.scaling} scaling, {plan.reduction} sums, "
            title += f"{plan.link.gbits_per_sec:g} Gb/s"
            scaling_plot.write_scaling_plot(args.out, rows, title=title)
        print(_plan_text(plan, rows))
        print(_plan_json(plan, rows))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _build_parser():
    parser = argparse.ArgumentParser(
        prog="python tools/plan_scaling.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Numbers are read as text: what is no number is refused with rule and remedy, as the rest is.
    add = parser.add_argument
    add("--step_secs", required=True, help="measured: seconds of a step on one worker")
    add("--parameter_bytes", required=True, help="of the weights in float32, 4 a parameter")
    add("--link_gbits_per_sec", required=True, metavar="GBITS",
        help="between workers, in each direction, for all devices of a worker")  # fmt: skip
    add("--reduction", default="exact",
        help=f"how sums travel: {', '.join(scaling.VALUE_BYTES)} (default: exact)")  # fmt: skip
    add("--scaling", default="strong",
        help="strong shares the declared replicas out, and needs one for each device; weak gives "
        "every worker as many as were measured (default: strong)")  # fmt: skip
    add("--num_replicas", default="20", help="declared, in the measured step (default: 20)")
    add("--replica_batch", default="32", help="images of each of them (default: 32)")
    add("--devices_per_worker", default="1", help="default: 1")
    add("--update_secs", default="0",
        help="measured: the part of a step that every worker repeats (default: 0)")  # fmt: skip
    add("--latency_secs", default="1e-5", help="assumed, of one hop (default: 1e-5)")
    add("--backward_share", default=str(2 / 3),
        help="assumed, of a replica's time; communication can hide behind it"
        " (default: two thirds)")  # fmt: skip
    add("--least_exposed_share", default="0.1",
        help="assumed, of the communication, that nothing hides (default: 0.1)")  # fmt: skip
    add("--workers", metavar="N,N,...",
        help="1 is always among them (default: powers of two up to 1024; strong scaling, up to"
        " the declared replicas, and their divisors)")  # fmt: skip
    add("--out", metavar="FILE", help="write a picture too, .png or .svg")
    return parser


def _read_plan(args):
    measured = scaling.MeasuredStep(
        step_secs=_read_number(args, "step_secs"),
        update_secs=_read_number(args, "update_secs"),
        num_replicas=_read_count("num_replicas", args.num_replicas),
        replica_batch=_read_count("replica_batch", args.replica_batch),
        devices_per_worker=_read_count("devices_per_worker", args.devices_per_worker),
    )
    if args.workers is None:
        workers = scaling.usual_workers(measured, scaling=args.scaling)
    else:
        workers = sorted({1, *(_read_count("workers", text) for text in args.workers.split(","))})
    return Plan(
        measured=measured,
        parameter_bytes=_read_number(args, "parameter_bytes"),
        reduction=args.reduction,
        link=scaling.Link(
            gbits_per_sec=_read_number(args, "link_gbits_per_sec"),
            latency_secs=_read_number(args, "latency_secs"),
        ),
        overlap=scaling.Overlap(
            backward_share=_read_number(args, "backward_share"),
            least_exposed_share=_read_number(args, "least_exposed_share"),
        ),
        scaling=args.scaling,
        workers=workers,
    )


def _read_number(args, name):
    """The number that a flag's text says; a text that is none is checked, and refused, as it is."""
    text = getattr(args, name)
    try:
        return float(text)
    except ValueError:
        scaling.check_number(name, text)
        raise


def _read_count(name, text):
    """The whole number from 1 on that a text says."""
    try:
        number = int(text)
    except ValueError:
        number = text
    scaling.check_count(name, number)
    if name == "workers" and number > scaling.MOST_WORKERS:
        raise ConfigError(
            f"A plan goes up to {scaling.MOST_WORKERS} workers.",
            received=text,
            remedy="Beyond, one flat ring is no model of what would be built.",
        )
    return number


def _plan_text(plan, rows):
    """Which figures are whose, then the table."""
    measured, link, overlap = plan.measured, plan.link, plan.overlap
    update = f", {_ms(measured.update_secs)} ms of them the update" if measured.update_secs else ""
    given = [
        ("measured", f"{_ms(measured.step_secs)} ms a step on one worker{update}: "
                     f"{quantities.rate_text(measured.images_per_sec)} images/s"),
        ("given", f"{quantities.count_of(measured.num_replicas, 'declared replica')} x "
                  f"{quantities.count_of(measured.replica_batch, 'image')}, "
                  f"{quantities.count_of(measured.devices_per_worker, 'device')} a worker"),
        ("given", f"{plan.parameter_bytes:,.0f} bytes of parameters, {plan.reduction} sums: "
                  f"{scaling.VALUE_BYTES[plan.reduction]} bytes a value; {link.gbits_per_sec:g} "
                  "Gb/s between workers"),
        ("assumed", f"{1e6 * link.latency_secs:g} us a hop; at best {overlap.backward_share:.2f} "
                    "of a replica's time hides communication, and "
                    f"{overlap.least_exposed_share:g} of that stays exposed"),
        ("arithmetic", f"the table, {plan.scaling} scaling; + is with overlap. Step and images/s "
                       "of one worker repeat what was measured"),
    ]  # fmt: skip
    cells = [
        (f"{row.num_workers:,}", f"{row.num_rounds:,}", f"{row.global_batch:,}",
         f"{row.sent_bytes / 1e6:,.1f}", _ms(row.communication_secs), _ms(row.step_secs),
         quantities.percent(row.efficiency, decimals=1),
         quantities.rate_text(row.images_per_sec), _ms(row.overlapped_step_secs),
         quantities.percent(row.overlapped_efficiency, decimals=1),
         quantities.rate_text(row.overlapped_images_per_sec))
        for row in rows
    ]  # fmt: skip
    table = aligned_table(cells, header=_HEADER, align="r" * len(_HEADER))
    return f"{aligned_table(given)}\n\n{table}\n"


def _plan_json(plan, rows):
    """The plan as one line."""
    return json.dumps(
        {
            "measured": {
                "step_secs": plan.measured.step_secs,
                "update_secs": plan.measured.update_secs,
                "images_per_sec": plan.measured.images_per_sec,
            },
            "given": {
                "num_replicas": plan.measured.num_replicas,
                "replica_batch": plan.measured.replica_batch,
                "devices_per_worker": plan.measured.devices_per_worker,
                "parameter_bytes": plan.parameter_bytes,
                "link_gbits_per_sec": plan.link.gbits_per_sec,
                "reduction": plan.reduction,
                "scaling": plan.scaling,
            },
            "assumed": {
                "latency_secs": plan.link.latency_secs,
                **dataclasses.asdict(plan.overlap),
            },
            "arithmetic": [dataclasses.asdict(row) for row in rows],
        }
    )


def _ms(secs):
    return f"{1000 * secs:,.1f}"


if __name__ == "__main__":
    sys.exit(main())
