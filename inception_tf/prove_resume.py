"""Proves on this machine that a killed run resumes to the same bits.

    python -m inception_tf.prove_resume --gin_file=configs/digits.gin --num_steps=40

Trains N steps straight, then N steps in a process that is killed with SIGKILL once the checkpoint
of step N/2 is written and started again, and compares every variable and every row of metrics. Both
go through `python -m inception_tf.train`; further flags after `--` are handed to it.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from inception_tf import quiet_start  # noqa: F401  isort: skip

import numpy as np

from inception_tf.errors import UserError, tells_user_errors
from inception_tf.reporting.metrics_file import read_rows
from inception_tf.training.checkpoint import CheckpointStore


@tells_user_errors
def main(argv=None):
    """Runs the proof; 0 where all is equal, 1 where something differs, 2 where training failed."""
    parser = argparse.ArgumentParser(
        prog="python -m inception_tf.prove_resume", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--gin_file", action="append", required=True)
    parser.add_argument("--gin_param", action="append", default=[])
    parser.add_argument("--data_dir")
    parser.add_argument("--num_steps", type=int, default=40, help="N, at least 2; default 40")
    parser.add_argument("--out", help="keep both runs here; default: a temporary directory")
    parser.add_argument("train_flags", nargs="*", help="after --: more flags of inception_tf.train")
    args = parser.parse_args(argv)
    if args.num_steps < 2:
        parser.error("--num_steps must be at least 2.")
    if args.out is not None:
        return _prove(args, pathlib.Path(args.out))
    with tempfile.TemporaryDirectory() as folder:
        return _prove(args, pathlib.Path(folder))


def _prove(args, folder):
    straight, resumed = folder / "straight", folder / "resumed"
    half = args.num_steps // 2
    print(f"{args.num_steps} steps straight", flush=True)
    _wait(_start(args, straight))
    print(f"{args.num_steps} steps, killed after the checkpoint of step {half}", flush=True)
    process = _start(args, resumed)
    checkpoint = resumed / "checkpoints" / f"step-{half:09d}"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.02)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()
    elif process.returncode:
        raise UserError("The training must run.", received=f"exit status {process.returncode}")
    else:
        raise UserError(
            "The training must still be at work when it is killed.",
            received=f"a run of {args.num_steps} steps that had ended",
            remedy="Raise --num_steps.",
        )
    print("resumed", flush=True)
    _wait(_start(args, resumed))
    return _compare(straight, resumed, args.num_steps)


def _start(args, run_dir):
    half = args.num_steps // 2
    params = [
        *args.gin_param,
        "training.num_epochs = None",
        f"training.num_steps = {args.num_steps}",
        f"checkpoints.every_steps = {half}",
        "checkpoints.every_minutes = None",
        "evaluation.every_epochs = None",
    ]
    command = [sys.executable, "-m", "inception_tf.train", f"--run_dir={run_dir}"]
    command += [f"--gin_file={name}" for name in args.gin_file]
    command += [f"--gin_param={text}" for text in params]
    if args.data_dir is not None:
        command.append(f"--data_dir={args.data_dir}")
    return subprocess.Popen([*command, *args.train_flags], stdout=subprocess.DEVNULL)


def _wait(process):
    if process.wait():
        raise UserError(
            "The training must run to its end.",
            received=f"exit status {process.returncode}",
            remedy="Its own message stands above.",
        )


def _compare(straight, resumed, step):
    """Prints what differs between two finished runs; the exit status."""
    variables = [_final_variables(run_dir, step) for run_dir in (straight, resumed)]
    differing = sorted(
        name
        for name in set(variables[0]) | set(variables[1])
        if name not in variables[0]
        or name not in variables[1]
        or variables[0][name].tobytes() != variables[1][name].tobytes()
    )
    rows = [_comparable_rows(run_dir) for run_dir in (straight, resumed)]
    num_bytes = sum(value.nbytes for value in variables[0].values())
    print(f"{len(variables[0])} variables, {num_bytes:,} bytes: {len(differing)} differ")
    for name in differing[:10]:
        distance = np.max(np.abs(variables[0][name] - variables[1][name]), initial=0)
        print(f"  {name}: by up to {distance}")
    same_rows = rows[0] == rows[1]
    print(f"{len(rows[0])} rows of metrics: {'equal' if same_rows else 'NOT equal'}")
    print("the resumed run ended with the same bits" if not differing else "RESUME IS NOT EXACT")
    return 1 if differing or not same_rows else 0


def _final_variables(run_dir, step):
    store = CheckpointStore.of_run(run_dir)
    info, _ = store.newest_verified()
    if info is None or info.step != step:
        raise UserError(
            "Both runs must end with a checkpoint.", received=f"{info} in {run_dir} at step {step}"
        )
    return store.read(info)


def _comparable_rows(run_dir):
    """Rows without what is measured in seconds."""
    return [
        json.dumps({key: value for key, value in row.items() if not key.startswith("perf/")})
        for row in read_rows(run_dir)
    ]


if __name__ == "__main__":
    sys.exit(main())
