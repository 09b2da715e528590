"""A real job under random faults for minutes, held against the run that none of them met.

    python tools/soak.py --minutes=30 --workers=2 --seed=1

The launcher runs tests/integration/faulty_train.py on handwritten digits. The faults are drawn from
the seed: workers killed (in a step, two at once, in an evaluation, in the write of a checkpoint),
stopped by SIGSTOP, stuck, the whole job asked to stop and started again, and, where a small file
system can be mounted, a full disk. Where the job had to start while the disk was full, which ends
it, room is made and it is started again, as its message asks for. At the end the variables of the newest checkpoint and the rows
of metrics up to it are compared with those of an undisturbed run of one worker. A step is lost when
its row is missing, double or another than the undisturbed run's; where the variables differ, all
are. The last line is one JSON object; the exit status is 0 only if no step is lost and the job
never gave up.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

from inception_tf import quiet_start  # isort: skip  (imports TensorFlow quietly)

from inception_tf.data.build import build_records
from inception_tf.data.sources import DigitsSource
from inception_tf.errors import EXIT_NO_ROOM, EXIT_PREEMPTED
from inception_tf.reporting.metrics_file import read_rows
from inception_tf.reporting.table import aligned_table
from inception_tf.session import EVALUATION_IS_PENDING
from inception_tf.training.checkpoint import CheckpointStore

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
DRIVER = CHECKOUT / "tests" / "integration" / "faulty_train.py"
DISK_MIB = 64
SAVE_STEPS = 5
FILLED_STEPS = 6  # from a full disk to room again: a checkpoint falls into it
GAP_STEPS = (10, 30)  # from one fault to the next
GRACE_SECS = 600.0  # for the job to save and leave at the end
POLL_SECS = 0.25
PARAMS = {
    "model.name": "inception_resnet_v1",
    "model.variant": "paper",
    "model.width_multiplier": 0.05,
    "model.block_counts": (0, 0, 0),
    "training.num_epochs": None,
    "training.num_steps": 10**6,  # never reached: the clock ends a soak
    "training.replica_batch": 4,
    "checkpoints.every_steps": SAVE_STEPS,
    "checkpoints.keep_last": 5,
    "evaluation.every_epochs": 0.2,
    "evaluation.replica_batch": 40,
    "export.check_images": 1,
    "logging.every_steps": 1,
    "cluster.intra_op_threads": 1,
    "watchdog.step_secs": 20.0,
    "watchdog.step_factor": 5.0,
}


# -- what happens ----------------------------------------------------------------------------------


def draw_schedule(seed, *, num_workers, num_faults, has_disk):
    """A schedule as faulty_train.py reads it, and the kind of each of its lines.

    Returns:
      ({step: [[worker, fault], ...]}, {'step worker fault': kind}).
    """
    dice = random.Random(seed)
    kinds = ["kill", "pause", "freeze", "terminate", "kill in a save", "kill in an evaluation"]
    kinds += ["two kills"] * (num_workers > 1) + ["full disk"] * has_disk
    schedule, kind_of, bag, step = {}, {}, [], 3
    for _ in range(num_faults):
        if not bag:  # each kind once before any comes again
            bag = dice.sample(kinds, len(kinds))
        kind, worker = bag.pop(), dice.randrange(num_workers)
        faults = {
            "kill": [[worker, "within:kill"]],
            "two kills": [[w, "within:kill"] for w in dice.sample(range(num_workers), 2)]
            if num_workers > 1 else [],
            "pause": [[worker, "pause"]],
            "freeze": [[worker, "freeze"]],
            "terminate": [[worker, "terminate"]],
            "kill in a save": [[0, "saving:kill"]],
            "kill in an evaluation": [[worker, "evaluating:kill"]],
            "full disk": [[0, "fill"]],
        }[kind]  # fmt: skip
        schedule[str(step)] = faults
        kind_of[f"{step} {faults[0][0]} {faults[0][1]}"] = kind
        if kind == "full disk":
            step += FILLED_STEPS
            schedule[str(step)] = [[0, "free"]]
        step += dice.randint(*GAP_STEPS)
    return schedule, kind_of


def start_job(run_dir, data_dir, log, *, num_workers, schedule):
    """The launcher with its workers, as a process."""
    with open(log, "a", encoding="utf-8") as output:
        return subprocess.Popen(
            [
                sys.executable, "-m", "inception_tf.launch", f"--workers={num_workers}", "--",
                sys.executable, str(DRIVER), "inception_tf.train", "--device=cpu",
                "--gin_file=configs/digits.gin", f"--run_dir={run_dir}", f"--data_dir={data_dir}",
                *(f"--gin_param={name} = {value!r}" for name, value in PARAMS.items()),
            ],
            cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": str(CHECKOUT),
                "INCEPTION_TF_TOY": "1",
                "INCEPTION_TF_FAULTS": json.dumps(schedule),
            },
        )  # fmt: skip


class Progress:
    """The longest time without a step that no earlier start had done."""

    def __init__(self, run_dir):
        self._metrics = pathlib.Path(run_dir) / "metrics.jsonl"
        self._step, self._since_secs = 0, time.monotonic()
        self.longest_secs, self.longest_before_step = 0.0, 0

    def look(self):
        """Notes the newest step that is logged."""
        try:
            with open(self._metrics, "rb") as file:
                file.seek(max(0, self._metrics.stat().st_size - 4096))
                steps = re.findall(rb'"step": (\d+)[^\n]*\n', file.read())
        except OSError:
            return  # not there yet
        newest = int(steps[-1]) if steps else 0
        if newest > self._step:
            secs = time.monotonic() - self._since_secs
            if secs > self.longest_secs:
                self.longest_secs, self.longest_before_step = secs, newest
            self._step, self._since_secs = newest, time.monotonic()


def soak(run_dir, data_dir, log, *, num_workers, schedule, secs):
    """Runs the job for so long, starting it again by hand where it was asked to stop or to make room.

    Returns:
      (statuses of the launcher, the last being that of the stop at the end; whether it ended
      before the time by itself, giving up; the Progress).
    """
    progress, statuses, has_given_up = Progress(run_dir), [], False
    filler = run_dir.with_name(f"{run_dir.name}.fill")
    deadline = time.monotonic() + secs
    by_hand = (EXIT_PREEMPTED, EXIT_NO_ROOM)
    while not statuses or (statuses[-1] in by_hand and time.monotonic() < deadline):
        if statuses and statuses[-1] == EXIT_NO_ROOM:
            filler.unlink(missing_ok=True)
        job = start_job(run_dir, data_dir, log, num_workers=num_workers, schedule=schedule)
        try:
            while job.poll() is None and time.monotonic() < deadline:
                progress.look()
                time.sleep(POLL_SECS)
            is_by_itself = job.poll() is not None
            if not is_by_itself:
                filler.unlink(missing_ok=True)
                job.send_signal(signal.SIGTERM)
            statuses.append(job.wait(timeout=GRACE_SECS))
            has_given_up = is_by_itself and statuses[-1] not in by_hand
        finally:
            if job.poll() is None:
                job.send_signal(signal.SIGTERM)  # the second one kills
                job.wait()
    return statuses, has_given_up, progress


# -- what came of it -------------------------------------------------------------------------------


def newest_regular(run_dir):
    """The newest good checkpoint of those that an undisturbed run has too; None without any."""
    store = CheckpointStore.of_run(run_dir)
    for info in sorted(store.checkpoints(), key=lambda info: -info.step):
        is_regular = info.step % SAVE_STEPS == 0 and not info.facts.get(EVALUATION_IS_PENDING)
        if is_regular and info.defect is None:
            return info
    return None


def rows_until(run_dir, step):
    """Rows of metrics without times, up to a step."""
    return [
        {key: value for key, value in row.items() if not key.startswith("perf/")}
        for row in read_rows(run_dir)
        if row["step"] <= step
    ]


def count_lost(run_dir, straight_dir, info):
    """Steps lost, and the names of variables that differ from the undisturbed run's."""
    store, straight = CheckpointStore.of_run(run_dir), CheckpointStore.of_run(straight_dir)
    expected_info = next(one for one in straight.checkpoints() if one.step == info.step)
    values, expected = store.read(info), straight.read(expected_info)
    differing = [
        name
        for name in sorted(values.keys() | expected.keys())
        if name not in values
        or name not in expected
        or values[name].tobytes() != expected[name].tobytes()
    ]
    by_step, expected_by_step = collections.defaultdict(list), collections.defaultdict(list)
    for rows, found in ((run_dir, by_step), (straight_dir, expected_by_step)):
        for row in rows_until(rows, info.step):
            found[row["step"]].append(row)
    wrong = [s for s in range(1, info.step + 1) if by_step[s] != expected_by_step[s]]
    assert all(expected_by_step[step] for step in range(1, info.step + 1))
    return (info.step if differing else len(wrong)), differing


def run_all(arguments, folder, disk):
    """The whole soak; what is printed as JSON."""
    data_dir, log = folder / "digits", folder / "launch.log"
    build_records(DigitsSource(image_px=80), data_dir)
    run_dir = (disk or folder) / "run"
    schedule, kind_of = draw_schedule(
        arguments.seed,
        num_workers=arguments.workers,
        num_faults=round(arguments.minutes * 10) + 10,
        has_disk=disk is not None,
    )
    began = time.monotonic()
    statuses, has_given_up, progress = soak(
        run_dir, data_dir, log,
        num_workers=arguments.workers, schedule=schedule, secs=60.0 * arguments.minutes,
    )  # fmt: skip
    secs = time.monotonic() - began
    happened = run_dir.with_name(f"{run_dir.name}.faults").read_text().splitlines()
    kinds = collections.Counter(kind_of[line] for line in happened if line in kind_of)
    info = newest_regular(run_dir)
    if info is None:
        raise SystemExit(f"The job saved nothing within {secs:.0f} s: give it more --minutes.")
    print(f"ran {secs:.0f} s; now the undisturbed run to step {info.step:,} ...", flush=True)
    straight_dir = folder / "straight"
    stop = {str(info.step): [[0, "terminate"]]}
    straight = start_job(
        straight_dir, data_dir, folder / "straight.log", num_workers=1, schedule=stop
    )
    if straight.wait() != EXIT_PREEMPTED:
        raise RuntimeError(f"the undisturbed run failed; see {folder / 'straight.log'}")
    lost, differing = count_lost(run_dir, straight_dir, info)
    return {
        "seed": arguments.seed,
        "workers": arguments.workers,
        "secs": round(secs),
        "steps": info.step,
        "faults": dict(sorted(kinds.items())),
        "num_faults": kinds.total(),
        "restarts_by_launcher": log.read_text(errors="replace").count("all start again in"),
        "starts_by_hand_after_a_stop": statuses[:-1].count(EXIT_PREEMPTED),
        "starts_by_hand_with_room_again": statuses[:-1].count(EXIT_NO_ROOM),
        "statuses": statuses,
        "has_given_up": has_given_up,
        "steps_lost": lost,
        "variables_that_differ": len(differing),
        "longest_secs_without_a_new_step": round(progress.longest_secs, 1),
        "before_step": progress.longest_before_step,
    }


def mount_small_disk(folder):
    """A file system of its own that can be filled; None where none can be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        print(f"no full disks: {error}")
        return None
    if done.returncode:
        print(f"no full disks: {done.stderr.strip()}")
        return None
    return disk


def main():
    """Prints a table and a line of JSON; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of faults (30)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the job (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (1)")
    parser.add_argument("--dir", type=pathlib.Path, help="for runs and output (a new one in /tmp)")
    arguments = parser.parse_args()
    folder = arguments.dir or pathlib.Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=arguments.dir is None)
    print(f"output of all workers: {folder / 'launch.log'}", flush=True)
    disk = mount_small_disk(folder)
    try:
        found = run_all(arguments, folder, disk)
    finally:
        if disk is not None:
            subprocess.run(["umount", str(disk)], check=False)
    rows = [[kind, str(number)] for kind, number in found["faults"].items()]
    print(aligned_table(rows, header=["fault", "times"], align="lr"))
    rest = [[name, str(value)] for name, value in found.items() if name != "faults"]
    print(aligned_table(rest))
    print(json.dumps(found))
    return 1 if found["has_given_up"] or found["steps_lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
