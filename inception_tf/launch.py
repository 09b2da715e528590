"""Starts one command as several workers, and again after a failure: python -m inception_tf.launch.

  python -m inception_tf.launch --workers 2 -- python -m inception_tf.train --gin_file=...
  python -m inception_tf.launch --hosts=a:5000,b:5000 --this_host=0 -- python -m ...

Every worker gets its own TF_CONFIG. All of them end together: when one fails, the rest are
stopped, the lines that the failing one wrote last are shown, and all are started again where that
can help. Nothing here loads TensorFlow: it starts at once.
"""

import argparse
import os
import queue
import shutil
import signal
import sys

from inception_tf import errors, launch_plan
from inception_tf.launch_job import Job, report_failure
from inception_tf.launch_output import JobOutput, write_line
from inception_tf.launch_restarts import RestartPolicy


class Supervisor:
    """Starts a job, and starts it again, until it has ended for good.

    Args:
      command: program and arguments of every worker.
      plan: a LaunchPlan.
      policy: a RestartPolicy.
      grace_secs: time between asking a worker to stop and killing it.
    """

    def __init__(self, command, plan, policy, *, grace_secs):
        self._command = command
        self._plan = plan
        self._policy = policy
        self._grace_secs = grace_secs
        self._job = None
        self._signals = queue.SimpleQueue()  # may be put to in the handler of a signal

    def on_signal(self, signum, _frame):
        """Passes SIGTERM and Ctrl-C on to every worker, and starts none again."""
        if signum == signal.SIGHUP:  # the terminal is gone: the workers have time to save
            signum = signal.SIGTERM
        self._signals.put(signum)
        if self._job is not None:
            self._job.forward(signum)

    def run(self):
        """Runs the job to its end; the exit status of the worker whose failure ended it, else 0."""
        while True:
            end, is_said = self._start_once()
            if end.guilty is None:
                return 0
            status = end.guilty.status
            # One that a Ctrl-C met while it was importing ends by the signal.
            is_interrupted = end.is_stopped and status == 128 + signal.SIGINT
            if status == errors.EXIT_PREEMPTED or is_interrupted:
                write_line("\nThe workers were asked to stop and did.", sys.stderr)
                return errors.EXIT_PREEMPTED
            if not is_said:
                report_failure(end, sys.stderr)
            if end.is_stopped or not self._signals.empty():
                return status
            decision = self._policy.decide(status)
            who = "all workers" if is_said else f"worker {end.guilty.index}"
            write_line(f"launch: {who}: {decision.words}", sys.stderr)
            if decision.delay_secs is None:
                return status
            if self._is_stopped_within(decision.delay_secs):
                write_line("launch: asked to stop; not started again", sys.stderr)
                return errors.EXIT_PREEMPTED

    def _start_once(self):
        """(JobEnd of one start, whether all its workers ended with an error already shown)."""
        self._policy.note_start()
        output = JobOutput(sys.stdout, num_workers=len(self._plan.indices))
        self._job = Job(
            self._command,
            self._plan.environments(os.environ),
            grace_secs=self._grace_secs,
            print_line=output.line,
        )
        # One that came before there was a job to pass it on to. In this order: it may come now.
        if not self._signals.empty() and not self._job.is_signalled:
            self._job.forward(signal.SIGTERM)
        end = self._job.run()
        self._job = None
        output.close()
        return end, output.is_shared_error

    def _is_stopped_within(self, secs):
        try:
            self._signals.get(timeout=secs)
        except queue.Empty:
            return False
        return True


def parse_command_line(arguments):
    """(options, command of every worker) of the words after `python -m inception_tf.launch`.

    Raises:
      ConfigError: there is no command after `--`, or it names no program, or options that exclude
        each other.
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
    if options.hosts is None and options.this_host is not None:
        raise errors.ConfigError("--this_host needs --hosts.", received=options.this_host)
    if options.hosts is not None and options.workers is not None:
        raise errors.ConfigError(
            "--hosts starts one worker per entry.",
            received=f"--workers {options.workers} beside it",
            remedy="Leave one of them out.",
        )
    is_ours = any(word.startswith("inception_tf.") for word in command)
    if is_ours and options.devices_per_worker is not None:
        command = [*command, f"--gin_param=cluster.devices_per_worker={options.devices_per_worker}"]
    return options, command


def build_parser():
    """The options that stand before `--`."""
    parser = argparse.ArgumentParser(
        prog="python -m inception_tf.launch",
        usage="%(prog)s [options] -- COMMAND ...",
        description="Start COMMAND as the workers of one job, and again after a failure.",
        epilog="TensorFlow's servers listen on every interface of the machine and ask nobody "
        "for a password: use this on machines that strangers cannot reach.",
    )
    parser.add_argument(
        "--workers",
        type=positive_count,
        help="processes to start (default: one per GPU of this machine, one without GPUs)",
    )
    parser.add_argument(
        "--devices_per_worker",
        "--devices-per-worker",
        type=positive_count,
        help="GPUs of each worker, which sees no others (default: shared evenly); appended to "
        "`python -m inception_tf.<verb>` as --gin_param=cluster.devices_per_worker=D",
    )
    parser.add_argument(
        "--hosts",
        help="host:port of every worker, separated by commas and the same on every host, instead "
        "of --workers",
    )
    parser.add_argument(
        "--this_host",
        "--this-host",
        help="which entries of --hosts to start here: 0 for the first, 0,1 for the first two",
    )
    parser.add_argument(
        "--max_restarts",
        "--max-restarts",
        type=count,
        default=3,
        help="starts after failures that bring no newer checkpoint (default: %(default)s); 0 "
        "never starts again",
    )
    parser.add_argument(
        "--grace_secs",
        "--grace-secs",
        type=float,
        default=60.0,
        help="time that workers have to end once one of them has failed (default: %(default)s)",
    )
    return parser


def count(text):
    """A whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"at least 0, received {text}")
    return number


def positive_count(text):
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1, received {text}")
    return number


def _plan(options, command):
    # Workers on the CPU have no use for GPUs.
    gpus = [] if "--device=cpu" in command else launch_plan.visible_gpus(os.environ)
    if options.hosts is not None:
        return launch_plan.plan_hosts(
            gpus,
            hosts=options.hosts,
            this_host=options.this_host,
            devices_per_worker=options.devices_per_worker,
        )
    return launch_plan.plan_here(
        gpus, num_workers=options.workers, devices_per_worker=options.devices_per_worker
    )


def main(arguments=None):
    """Runs the workers; returns the exit status of the one whose failure ended the job, else 0."""
    try:
        options, command = parse_command_line(sys.argv[1:] if arguments is None else arguments)
        plan = _plan(options, command)
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    # Workers may write what this terminal's encoding has not.
    sys.stdout.reconfigure(errors="backslashreplace")
    policy = RestartPolicy(max_restarts=options.max_restarts, command=command)
    supervisor = Supervisor(command, plan, policy, grace_secs=options.grace_secs)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # under nohup
            signal.signal(signum, supervisor.on_signal)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
