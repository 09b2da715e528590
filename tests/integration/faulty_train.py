"""The real training with faults at stated steps: what tests start instead of inception_tf.train.

    INCEPTION_TF_FAULTS='{"3": [1, "kill"]}' python faulty_train.py [inception_tf.train] <its flags>

The package is patched from outside and then run as it is: the product has no switch for this. Under
`python -m inception_tf.launch --workers N --` each worker runs this script; with or without it,
TF_CONFIG says which worker this is. The name of the door, which is dropped, tells the launcher that
this command trains, and so where its checkpoints lie.

The schedule is {step: [worker, fault]}, or [[worker, fault], ...] for several at once. A fault is
due before the step that follows `step` steps (with `steps_per_loop`, before the first loop from
there on). Each happens once in the life of a run directory, however often the job starts again:
what has happened stands in <run_dir>.faults, one line "step worker fault", written just before.

A fault is [PLACE:]WHAT[=SECS]. WHAT is one of

    kill        SIGKILL of this process
    terminate   SIGTERM to this process, which goes on
    pause       SIGSTOP of this process; with =SECS a child continues it after that time
    freeze      the thread that is there sleeps, for ever or for SECS; the process lives
    raise       RuntimeError, a fault of this worker's own
    leave       the process ends at once with status 0
    fill        fills the file system of the run directory to the last byte, with <run_dir>.fill
    free        gives that room back; with =SECS that much later, while training goes on
    cut         runs the command $INCEPTION_TF_CABLE with the word `down` after it, and with =SECS
                that much later with the word `up`, whatever has become of this process

and PLACE, where it is not before the step, one of

    within      while the step runs, 50 ms after its begin, from a thread (not freeze, raise)
    reading     in the next read of records on this worker, which is some thread of the pipeline
    evaluating  after two batches of the first evaluation at `step` steps or later
    saving      between the tensors and the manifest of the first checkpoint from `step` on

and instead of a step the schedule may say

    "start"     before this worker looks for the others
    "joined"    after it has found them, before data and network

With INCEPTION_TF_FED=FILE each worker appends a line of JSON to FILE after each of its steps (which
takes steps_per_loop = 1): [step, number of workers, this worker, labels that the step was fed].

With INCEPTION_TF_TOY=1 Inception-ResNet-v1 is cut down to the two convolutions that it begins with,
for tests whose subject is not the network: what a start costs is mostly tracing it.
"""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from inception_tf import train  # isort: skip  (imports TensorFlow quietly)

from inception_tf import preparation, session, workers
from inception_tf.data.records import RecordReader
from inception_tf.errors import UserError
from inception_tf.evaluation.evaluator import Evaluator
from inception_tf.flags import run as run_door
from inception_tf.models.inception_resnet_v1 import INCEPTION_RESNET_V1
from inception_tf.training import checkpoint_files, loop

FOR_EVER_SECS = 10**6
STARTS = {"start": -2, "joined": -1}  # before every step


class Schedule:
    """The faults of this worker that have not happened yet."""

    def __init__(self, text, *, worker, run_dir):
        self.worker, self.run_dir = worker, pathlib.Path(run_dir)
        self.step = STARTS["start"]  # how far this process has come
        self._lock = threading.Lock()  # a reader's threads ask too
        happened = self.log.read_text().splitlines() if self.log.exists() else []
        self._due = []
        for when, faults in json.loads(text or "{}").items():
            for of_worker, fault in faults if isinstance(faults[0], list) else [faults]:
                if of_worker == worker and f"{when} {worker} {fault}" not in happened:
                    self._due.append((when, fault))

    @property
    def log(self):
        return self.run_dir.with_name(f"{self.run_dir.name}.faults")

    def reach(self, step):
        """Notes how far this process has come."""
        self.step = step

    def meet(self, place):
        """Does every fault that is due at a place."""
        with self._lock:
            due = [item for item in self._due if self._is_due(item, place)]
            self._due = [item for item in self._due if item not in due]
        for when, fault in due:
            with open(self.log, "a") as log:
                log.write(f"{when} {self.worker} {fault}\n")
            what, _, secs = fault.rpartition(":")[2].partition("=")
            FAULTS[what](self, float(secs) if secs else None)

    def _is_due(self, item, place):
        when, fault = item
        step = STARTS.get(when)
        step = int(when) if step is None else step
        return fault.rpartition(":")[0] == place and step <= self.step


def kill(schedule, secs):
    os.kill(os.getpid(), signal.SIGKILL)


def terminate(schedule, secs):
    os.kill(os.getpid(), signal.SIGTERM)


def pause(schedule, secs):
    if secs is not None:
        subprocess.Popen(["sh", "-c", f"sleep {secs}; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)


def freeze(schedule, secs):
    time.sleep(FOR_EVER_SECS if secs is None else secs)


def fail(schedule, secs):
    raise RuntimeError(f"the fault that worker {schedule.worker} was to have")


def leave(schedule, secs):
    os._exit(0)


def fill(schedule, secs):
    with open(_filler(schedule), "ab", buffering=0) as file:
        for size in (2**20, 2**10, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def free(schedule, secs):
    # Whoever started the job again may have made room.
    threading.Timer(secs or 0.0, _filler(schedule).unlink, [True]).start()


def cut(schedule, secs):
    cable = os.environ["INCEPTION_TF_CABLE"]
    subprocess.run([*cable.split(), "down"], check=True)
    if secs is not None:
        subprocess.Popen(["sh", "-c", f"sleep {secs}; {cable} up"], start_new_session=True)


def _filler(schedule):
    return schedule.run_dir.with_name(f"{schedule.run_dir.name}.fill")


FAULTS = {
    "kill": kill,
    "terminate": terminate,
    "pause": pause,
    "freeze": freeze,
    "raise": fail,
    "leave": leave,
    "fill": fill,
    "free": free,
    "cut": cut,
}


def before(owner, name, act):
    """Lets `act` see the arguments of every call of owner.name before it is made."""
    called = getattr(owner, name)

    def both(*args, **kwargs):
        act(*args, **kwargs)
        return called(*args, **kwargs)

    setattr(owner, name, both)


def plant(schedule):
    """Patches the package so that the schedule is asked wherever a fault can be due."""

    def before_step(run):
        schedule.reach(int(run.state.scalars["step"].numpy()))
        schedule.meet("")
        threading.Timer(0.05, schedule.meet, ["within"]).start()

    def before_join(*_):
        schedule.meet("")

    def before_prepare(*_, **__):
        schedule.reach(STARTS["joined"])
        schedule.meet("")

    before(preparation, "join_cluster", before_join)
    before(preparation, "prepare", before_prepare)
    before(session.Session, "save_is_due", before_step)
    before(RecordReader, "read", lambda *_, **__: schedule.meet("reading"))
    for name in ("evaluate", "save"):
        before(session.Session, name, lambda run, step, *_, **__: schedule.reach(step))
    before(checkpoint_files, "seal_manifest", lambda *_: schedule.meet("saving"))
    evaluate = Evaluator.run

    def evaluate_with_faults(evaluator, dataset, values, **kwargs):
        return evaluate(evaluator, Batches(dataset, schedule), values, **kwargs)

    Evaluator.run = evaluate_with_faults


class Batches:
    """A data set of evaluation batches, with what happens after the second of them."""

    def __init__(self, dataset, schedule):
        self._dataset, self._schedule = dataset, schedule

    def __iter__(self):
        for number, batch in enumerate(self._dataset):
            if number == 2:
                self._schedule.meet("evaluating")
            yield batch


def make_toy():
    """Leaves two convolutions of the network, and with block_counts (0, 0, 0) no block."""
    table = INCEPTION_RESNET_V1["paper"]
    INCEPTION_RESNET_V1["paper"] = dataclasses.replace(
        table, stem=table.stem[:2], reduction_a=(), reduction_b=()
    )


def log_what_is_fed(path, schedule, *, num_workers):
    """Appends the labels of every step that this worker has done."""
    run_loop = loop._run_loop

    def run_and_log(train_step, *args, **kwargs):
        outputs, times, batch = run_loop(train_step, *args, **kwargs)
        local = train_step.strategy.experimental_local_results(batch["labels"])
        labels = [int(label) for one in local for label in one.numpy().flat]
        with open(path, "a") as log:
            log.write(json.dumps([schedule.step, num_workers, schedule.worker, labels]) + "\n")
        return outputs, times, batch

    loop._run_loop = run_and_log


def main(argv):
    addresses, worker = workers.read(os.environ)
    run_dir = train.FLAGS.run_dir
    if run_dir is None:
        raise UserError("Faults need the --run_dir of their run.")
    schedule = Schedule(os.environ.get("INCEPTION_TF_FAULTS"), worker=worker, run_dir=run_dir)
    plant(schedule)
    if os.environ.get("INCEPTION_TF_TOY") == "1":
        make_toy()
    if "INCEPTION_TF_FED" in os.environ:
        log_what_is_fed(os.environ["INCEPTION_TF_FED"], schedule, num_workers=len(addresses))
    return train.main(argv)


if __name__ == "__main__":
    if sys.argv[1:2] == ["inception_tf.train"]:
        del sys.argv[1]
    run_door(main)
