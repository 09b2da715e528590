"""Starts one command as several workers on this machine: `python -m inception_tf.launch`.

  python -m inception_tf.launch --workers 2 -- python -m inception_tf.train --gin_file=...

Every worker gets its own TF_CONFIG on free loopback ports. All of them end together: when one
fails, the rest are stopped, and the lines that the failing one wrote last are shown first.
"""

import argparse
import collections
import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from inception_tf import errors

KEPT_LINES = 30  # of each worker, for the report of a failure
READ_SECS = 5.0  # to read what a worker that is gone has written
GPU_LIST = "CUDA_VISIBLE_DEVICES"


class Worker:
    """One process of the job, with the last lines that it wrote.

    Args:
      index: its task index in TF_CONFIG.
      command: program and arguments.
      environment: the whole environment of the process.
      ended: queue that receives this worker once its process is gone and its output is read.
      print_line: called with each line of stdout and stderr, in the order written.
    """

    def __init__(self, index, command, environment, *, ended, print_line):
        self.index = index
        self.last_lines = collections.deque(maxlen=KEPT_LINES)
        self.status = None
        self._print_line = print_line
        self._is_collected = False
        # Reentrant: the handler of a signal sends it on, in whatever the main thread is doing.
        self._lock = threading.RLock()
        # Its own session: a Ctrl-C in the terminal reaches the launcher only, which passes it
        # on once, and a worker's own children are stopped with it.
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, args=(ended,), daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            line = line.rstrip("\n")
            self.last_lines.append(line)
            self._print_line(f"[worker {self.index}] {line}")

    def _wait(self, ended):
        # Its end is awaited first and collected afterwards: only until then is its number its own.
        with contextlib.suppress(ChildProcessError):  # collected by the system: SIGCHLD is ignored
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._send(signal.SIGKILL)  # children left behind would hold the pipe open
            code = self._process.wait()
            self._is_collected = True
        self._reader.join(timeout=READ_SECS)
        self.status = 128 - code if code < 0 else code  # ended by signal n: 128 + n, as in a shell
        ended.put(self)

    def send(self, signum):
        """Sends a signal to the worker and its children, if it still runs."""
        with self._lock:
            if not self._is_collected:
                self._send(signum)

    def _send(self, signum):
        try:
            os.killpg(self._process.pid, signum)
        except ProcessLookupError:
            pass  # nothing of it is left


class Job:
    """The workers of one launch, from the first start to the last end.

    Args:
      command: program and arguments of every worker.
      environments: one whole environment per worker.
      grace_secs: time between asking a worker to stop and killing it.
      stream: where the workers' lines go.
    """

    def __init__(self, command, environments, *, grace_secs, stream):
        self._command = command
        self._environments = environments
        self._grace_secs = grace_secs
        self._stream = stream
        self._lock = threading.Lock()
        self._workers = []
        self._ended = queue.SimpleQueue()
        self._signal = None

    def forward(self, signum, _frame=None):
        """Passes a signal on to every worker; a second one kills them."""
        self._signal = signum if self._signal is None else signal.SIGKILL
        self._send_all(self._signal)

    def run(self):
        """Runs all workers to their end.

        Returns:
          (guilty worker, all workers): the first that failed, else the first that was asked to
          stop and did, else None.
        """
        for index, environment in enumerate(self._environments):
            self._workers.append(
                Worker(
                    index,
                    self._command,
                    environment,
                    ended=self._ended,
                    print_line=self._print_line,
                )
            )
        if self._signal is not None:  # it came while they were being started
            self._send_all(self._signal)
        failed = stopped = deadline = None
        for _ in range(len(self._workers)):
            worker = self._next_ended(deadline)
            if worker.status == 0:
                continue
            if deadline is None:
                deadline = time.monotonic() + self._grace_secs
            if worker.status == errors.EXIT_PREEMPTED:
                # It leaves with its checkpoint written, and so do the others at the same step:
                # they are given the time, not another signal.
                stopped = stopped or worker
            elif failed is None:
                failed = worker
                self._send_all(signal.SIGTERM)
        return failed or stopped, self._workers

    def _next_ended(self, deadline):
        if deadline is not None:
            try:
                return self._ended.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self._send_all(signal.SIGKILL)
        return self._ended.get()

    def _send_all(self, signum):
        for worker in self._workers:
            worker.send(signum)

    def _print_line(self, line):
        with self._lock:
            print(line, file=self._stream, flush=True)


def free_ports(count):
    """TCP ports on the loopback interface that nothing listens on right now.

    Returns:
      list of `count` different port numbers. They are held together while they are chosen, so
      that no two are the same.
    """
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def worker_environments(environment, *, num_workers, devices_per_worker=None):
    """The environment of each worker: TF_CONFIG and, where devices are shared out, its GPUs.

    Args:
      environment: mapping to start from.
      num_workers: processes of the job.
      devices_per_worker: GPUs of each worker, taken in order from CUDA_VISIBLE_DEVICES where
        that is set ('' and '-1' hide all of them); None leaves every GPU visible to every worker.

    Raises:
      ConfigError: CUDA_VISIBLE_DEVICES lists fewer devices than the workers need.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(num_workers)]
    environments = []
    for index in range(num_workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        # Lines have to arrive while they are written, not when a buffer is full.
        own = {**environment, "TF_CONFIG": json.dumps(task), "PYTHONUNBUFFERED": "1"}
        if devices_per_worker is not None:
            own[GPU_LIST] = ",".join(
                _gpus_of(index, environment, num_workers, devices_per_worker)
            )
        environments.append(own)
    return environments


def _gpus_of(index, environment, num_workers, devices_per_worker):
    if environment.get(GPU_LIST) in ("", "-1"):
        return []  # hidden on purpose, and hidden they stay
    needed = num_workers * devices_per_worker
    visible = [str(number) for number in range(needed)]
    if environment.get(GPU_LIST):
        visible = environment[GPU_LIST].split(",")
        if len(visible) < needed:
            raise errors.ConfigError(
                f"{num_workers} workers x {devices_per_worker} devices need {needed} devices in "
                f"{GPU_LIST}.",
                received=environment[GPU_LIST],
                remedy="Start fewer workers, or make more devices visible.",
            )
    return visible[index * devices_per_worker : (index + 1) * devices_per_worker]


def parse_command_line(arguments):
    """(options, command of every worker) of the words after `python -m inception_tf.launch`.

    Raises:
      ConfigError: there is no command after `--`, or it names no program.
    """
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = build_parser().parse_args(arguments[:split])
    command = arguments[split + 1 :]
    if not command:
        raise errors.ConfigError(
            "The command of the workers stands after `--`.",
            received=" ".join(arguments) or "nothing",
            remedy="For example: --workers 2 -- python -m inception_tf.train --gin_file=...",
        )
    if shutil.which(command[0]) is None:
        raise errors.ConfigError(
            "The command after `--` starts with a program that can be run.", received=command[0]
        )
    is_ours = any(word.startswith("inception_tf.") for word in command)
    if is_ours and options.devices_per_worker is not None:
        command = [*command, f"--gin_param=cluster.devices_per_worker={options.devices_per_worker}"]
    return options, command


def build_parser():
    """The options that stand before `--`."""
    parser = argparse.ArgumentParser(
        prog="python -m inception_tf.launch",
        usage="%(prog)s --workers N [options] -- COMMAND ...",
        description="Start COMMAND as N workers of one job on this machine.",
        epilog="TensorFlow's servers listen on every interface of the machine and ask nobody "
        "for a password: use this on machines that strangers cannot reach.",
    )
    parser.add_argument("--workers", type=positive_count, required=True, help="processes to start")
    parser.add_argument(
        "--devices_per_worker",
        type=positive_count,
        help="devices of each worker: appended to `python -m inception_tf.<verb>` as "
        "--gin_param=cluster.devices_per_worker=D, and each worker sees only its own GPUs",
    )
    parser.add_argument(
        "--grace_secs",
        type=float,
        default=60.0,
        help="time that workers have to end once one of them has failed (default: %(default)s)",
    )
    return parser


def positive_count(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1, received {text}")
    return number


def report_failure(guilty, workers, stream):
    """Prints what the failing worker wrote last, then how each of the others ended."""
    if guilty.status == errors.EXIT_PREEMPTED:
        print("\nThe workers were asked to stop and did.", file=stream)
        return
    print(f"\nworker {guilty.index} failed first, with status {guilty.status}:", file=stream)
    for line in guilty.last_lines:
        print(f"  {line}", file=stream)
    for worker in workers:
        if worker is not guilty:
            print(f"worker {worker.index} ended with status {worker.status}", file=stream)


def main(arguments=None):
    """Runs the workers; returns the exit status of the first that failed, else 0."""
    try:
        options, command = parse_command_line(sys.argv[1:] if arguments is None else arguments)
        environments = worker_environments(
            os.environ,
            num_workers=options.workers,
            devices_per_worker=options.devices_per_worker,
        )
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    job = Job(command, environments, grace_secs=options.grace_secs, stream=sys.stdout)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, job.forward)
    guilty, workers = job.run()
    if guilty is None:
        return 0
    report_failure(guilty, workers, sys.stderr)
    return guilty.status


if __name__ == "__main__":
    sys.exit(main())
