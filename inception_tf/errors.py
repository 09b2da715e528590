"""The errors a user can mend, and the exit status each one ends the process with."""

import difflib
import functools
import sys

EXIT_FAULT = 1  # a fault of the program or of the machine: starting again may help
EXIT_USER_ERROR = 2  # configuration or data: starting again without a change fails again
EXIT_NON_FINITE = 3  # values became NaN, Inf or too large, and would again: runs repeat their bits
EXIT_NO_ROOM = 4  # no checkpoint could be written, several times in a row
EXIT_NOT_REPRODUCED = 5  # replay_step: the failure that a run met did not come again
EXIT_STUCK = 138  # nothing moved for too long, or other workers were lost: start all again
EXIT_PREEMPTED = 143  # a stop was asked for and the checkpoint is written: start again


class UserError(Exception):
    """Something that the user gave cannot be used; ends the command with status 2.

    Args:
      rule: what has to hold.
      received: what was found instead, with its place.
      remedy: what to do about it.
    """

    exit_status = EXIT_USER_ERROR

    def __init__(self, rule, *, received=None, remedy=None):
        text = rule
        if received is not None:
            text += f" Received: {received}"
            text += "" if text.endswith("\n") else "."  # a table ends with a line of its own
        if remedy is not None:
            text += ("" if text.endswith("\n") else " ") + remedy
        super().__init__(text)


def tells_user_errors(main):
    """A command's `main` that prints a UserError as one message and returns its exit status."""

    @functools.wraps(main)
    def told(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_status

    return told


def first_line(error):
    """What an error says, as far as one line goes."""
    return next(iter(str(error).splitlines()), "")


def did_you_mean(name, known, *, prefix=""):
    """A question with the nearest known names, prefixed; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f"Did you mean {' or '.join(prefix + other for other in near)}?" if near else ""


class ConfigError(UserError):
    """A configuration that cannot mean what it says."""


class DataError(UserError):
    """Records or images that are missing, damaged or contradict their manifest."""


class CheckpointError(UserError):
    """A checkpoint that does not verify or does not fit the run."""


class NoRoomError(UserError):
    """No checkpoint could be written, several times in a row; or there is no room to begin with."""

    exit_status = EXIT_NO_ROOM


class LostWorkersError(UserError):
    """Other workers of the job did not come, or are gone; the real error is theirs."""

    exit_status = EXIT_STUCK


class StoppedAtStart(UserError):
    """A stop was asked for before there was anything to save."""

    exit_status = EXIT_PREEMPTED


class NonFiniteError(UserError):
    """The reduced loss, gradients or statistics became NaN, Inf or too large."""

    exit_status = EXIT_NON_FINITE
