"""The single runs of a claim: each an ordinary training run in a process of its own."""

import ctypes
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

from inception_tf import config, durable
from inception_tf.claims.measures import RunRecord
from inception_tf.errors import EXIT_NON_FINITE, ConfigError
from inception_tf.parameters import SECTIONS
from inception_tf.reporting.metrics_file import read_rows
from inception_tf.run_directory import RunDirectory

OUTCOME_FILE = "claim_outcome.json"
LOG_FILE = "claim.log"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PLACE = ("data.data_dir", "cluster.intra_op_threads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SingleRun:
    """One arm under one seed.

    Attributes:
      arm: claims.spec.Arm.
      seed: of training.
      resolved: its config.
      mark: of everything that the run depends on but the machine and the records.
      run_dir: of the run; claims that need the same run share it.
      gin_params: of its command line.
    """

    arm: object
    seed: int
    resolved: config.Resolved
    mark: str
    run_dir: pathlib.Path
    gin_params: tuple[str, ...]

    @property
    def outcome(self) -> dict | None:
        """How it ended; None before that."""
        path = self.run_dir / OUTCOME_FILE
        return json.loads(path.read_text()) if path.exists() else None


def plan(arm, seed, *, runs_dir, extra_params=()) -> SingleRun:
    """Where the run of an arm lies and what it is made of; nothing is started.

    Args:
      extra_params: bindings of this machine, such as the number of threads.

    Raises:
      ConfigError: its config cannot be resolved.
    """
    params = (*arm.gin_params, f"training.seed = {seed}", *extra_params)
    resolved = config.resolve(gin_files=arm.gin_files, gin_params=params, reads=SECTIONS)
    # What a claim looks at is part of the run: another interval of evaluations is another run.
    values = {k: v for k, v in resolved.plain_values().items() if k not in _PLACE}
    text = json.dumps([values, arm.num_workers], sort_keys=True)
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    network = resolved.sections["model"].name
    return SingleRun(
        arm=arm,
        seed=seed,
        resolved=resolved,
        mark=mark,
        run_dir=runs_dir / f"{network}-{mark}-seed{seed}",
        gin_params=params,
    )


def carry_out(run: SingleRun, *, data_dir, records, threads=None) -> dict:
    """Trains a run to its end, or goes on with it; its outcome, kept in the run directory.

    A run whose values are no longer finite has ended too.

    Args:
      records: what tells the records from others.
      threads: of one operation; None for every core. They decide the bits of a run.

    Raises:
      ConfigError: training ended otherwise; its own message stands in the log. Or the run has ended
        on other records or threads.
    """
    given = {"records": records, "threads": threads}
    if run.outcome is not None:
        _check_given(run, given)
        return run.outcome
    run.run_dir.mkdir(parents=True, exist_ok=True)
    command = [
        *_launcher(run.arm.num_workers),
        *(sys.executable, "-m", "inception_tf.train"),
        *(f"--gin_file={name}" for name in run.arm.gin_files),
        *(f"--gin_param={text}" for text in run.gin_params),
        f"--data_dir={data_dir}",
        f"--run_dir={run.run_dir}",
    ]
    began = time.monotonic()
    log = run.run_dir / LOG_FILE
    is_first_start = not log.exists()
    with open(log, "ab") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, preexec_fn=_end_with_parent
        )
        status, usage = _wait(process)
    if status not in (0, EXIT_NON_FINITE):
        raise ConfigError(
            "A run of a claim must end by itself; the same command goes on where it was.",
            received=f"exit status {status}",
            remedy=f"Its messages are in {log}.",
        )
    found = {
        "exit_status": status,
        "wall_secs": round(time.monotonic() - began, 1),  # of the last start
        # Of all starts together nobody knows it.
        "peak_bytes": usage.ru_maxrss * 1024 if is_first_start else None,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {sys.platform.capitalize()}",
        **given,
        "ended_unix_secs": round(time.time()),
    }
    durable.save_text(run.run_dir / OUTCOME_FILE, json.dumps(found) + "\n")
    return found


def _check_given(run, given):
    """Runs from before outcomes told it are taken as they are."""
    for name, value in given.items():
        if run.outcome.get(name, value) != value:
            raise ConfigError(
                f"The runs of a claim have the same {name}.",
                received=f"{value or 'every core'}, and {run.run_dir} has "
                f"{run.outcome[name] or 'every core'}",
                remedy="Go on as they were begun, or give another --out.",
            )


def record_of(run: SingleRun) -> RunRecord:
    """What a run that has ended left behind."""
    rows, outcome = read_rows(run.run_dir), run.outcome
    facts = RunDirectory(run.run_dir).read_facts()
    training = run.resolved.sections["training"]
    return RunRecord(
        train_rows=[row for row in rows if row["kind"] == "train"],
        eval_rows=[row for row in rows if row["kind"] == "eval"],
        steps_per_epoch=facts.num_examples / (training.num_replicas * training.replica_batch),
        num_classes=facts.num_classes,
        is_finite=outcome["exit_status"] == 0,
        peak_bytes=outcome["peak_bytes"],
    )


def _launcher(num_workers):
    if num_workers == 1:
        return []
    return [sys.executable, "-m", "inception_tf.launch", "--workers", str(num_workers), "--"]


def _end_with_parent():
    """Asks Linux to stop this process when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(process):
    """Exit status and resource usage of a child, which is stopped when this process is."""

    def stop(signum, _frame):
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except (KeyboardInterrupt, SystemExit):
        process.send_signal(signal.SIGTERM)
        process.wait()  # it saves, and holds the run until then
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage
