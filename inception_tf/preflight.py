"""What has to hold before the first step is paid for: equal workers that share one run.

A difference between workers is found by a collective, so that every worker ends with the same error
and the same status, and none waits for a peer that has left.
"""

import contextlib
import errno
import hashlib
import json
import pathlib
import platform
import secrets
import socket
import time

import keras
import numpy as np
import tensorflow as tf

from inception_tf import durable
from inception_tf.errors import ConfigError, NoRoomError, UserError
from inception_tf.training import self_test
from inception_tf.training.checkpoint_files import MANIFEST_NAME

# Records may lie elsewhere on every host: what they hold is compared instead.
_MAY_DIFFER = ("data.data_dir",)
_MOST_SHOWN = 10
_TOKEN = ".seen-by-all-"
_TOKEN_OLD_SECS = 3600.0  # a younger one may be of a job that starts right now
_TOKEN_TRIES, _TOKEN_WAIT_SECS = 40, 0.25  # for network file systems that show files late


# -- equal workers ---------------------------------------------------------------------------------


def gather_text(cluster, text):
    """Every worker's text, chief first; all workers call it and wait for one another."""
    own = text.encode()
    longest, size = max(cluster.gather(len(own))), 1024
    while size < longest:
        size *= 4  # few sizes, since each is traced once
    # Four bytes a number: the sum over a worker's devices must fit into 64 bits.
    padded = own.ljust(size, b" ")
    column = np.frombuffer(padded, "<u4").astype(np.int64)[:, np.newaxis]
    rows = np.array(cluster.gather(column), "<u4").T  # one per worker
    return [row.tobytes().decode().rstrip(" ") for row in rows]


def agreed(cluster, produce, facts_of=lambda value: {}, *, rule="", remedy=""):
    """What `produce` returns, once it has done so on every worker, with equal facts.

    Args:
      cluster: a Cluster, all of whose workers make this call.
      produce: function without arguments; raises UserError where this worker cannot go on. No
        collective in it may follow on what can fail on one worker alone.
      facts_of: of what it returned, name -> text; nothing by default.
      rule, remedy: of the error where facts differ.

    Raises:
      UserError: the same on every worker: `produce` has failed somewhere, or facts differ.
    """
    value, failure, facts = None, None, {}
    try:
        value = produce()
        facts = facts_of(value)
    except UserError as error:
        failure = error
    if cluster.num_workers == 1:
        if failure is not None:
            raise failure
        return value
    own = {"error": failure and str(failure), "facts": facts}
    told = [json.loads(text) for text in gather_text(cluster, json.dumps(own))]
    errors = [one["error"] for one in told]
    if failure is not None and len(set(errors)) == 1:
        raise failure
    failed = [
        f"Worker {index} cannot go on: {error}"
        for index, error in enumerate(errors)
        if error is not None
    ]
    if failed:  # one text everywhere, which a launcher then shows once
        raise ConfigError("\n".join(failed)) from failure
    found = differences([one["facts"] for one in told])
    if found:
        raise ConfigError(rule, received=_listed(found), remedy=remedy)
    return value


def differences(facts_of_workers):
    """One line per fact of which workers have different values: who has which.

    Args:
      facts_of_workers: name -> text, per worker.
    """
    names = list(dict.fromkeys(name for facts in facts_of_workers for name in facts))
    lines = []
    for name in names:
        workers_of = {}
        for index, facts in enumerate(facts_of_workers):
            workers_of.setdefault(facts.get(name, "(none)"), []).append(index)
        if len(workers_of) > 1:
            values = "; ".join(
                f"{value} on worker{'s' * (len(indices) > 1)} {_numbers(indices)}"
                for value, indices in workers_of.items()
            )
            lines.append(f"{name}: {values}")
    return lines


def _numbers(indices):
    more = len(indices) - 4
    return ", ".join(map(str, indices[:4])) + (f" and {more} more" if more > 0 else "")


def _listed(lines):
    more = len(lines) - _MOST_SHOWN
    shown = lines[:_MOST_SHOWN] + ([f"and {more} more differences"] if more > 0 else [])
    return "\n  " + "\n  ".join(shown) + "\n"


# -- after joining ---------------------------------------------------------------------------------


def check_workers(cluster, experiment, start_values, directory, is_synthetic):
    """Tests that all workers are of one job, and that TensorFlow does what a run rests on.

    Args:
      cluster: a Cluster.
      experiment: an Experiment.
      start_values: name -> value of what a worker was told: its configuration and flags.
      directory: RunDirectory, which all workers must share.
      is_synthetic: nothing is saved there.

    Raises:
      ConfigError: on every worker the same, which names who differs in what.
      UserError: the self-test has failed.
    """
    check_equal(cluster, start_values)
    if cluster.num_workers > 1 and not is_synthetic:
        check_shared(cluster, directory)
    check_semantics(cluster, experiment)


def check_equal(cluster, start_values):
    """Tests that all workers were told the same and are made of the same.

    Raises:
      ConfigError: on every worker the same.
    """
    agreed(
        cluster,
        lambda: start_facts(cluster, start_values),
        lambda facts: facts,
        rule="All workers of a job must start with the same configuration, code and versions.",
        remedy="Give every worker the same command, the same checkout and the same environment "
        "(pip install -c constraints.txt); cluster.intra_op_threads sets the threads.",
    )


def check_semantics(cluster, experiment):
    """Takes the self-test's steps.

    Raises:
      UserError: on every worker, where it fails on one.
    """
    reduction = experiment.training.reduction
    agreed(cluster, lambda: self_test.check_semantics(cluster, reduction=reduction))


def start_facts(cluster, start_values):
    """What has to be equal on all workers: name -> text."""
    return {
        **{
            name: repr(value) for name, value in start_values.items() if name not in _MAY_DIFFER
        },
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "device type": cluster.device_kind,
        "intra-op threads": str(cluster.intra_op_threads),
        "number of workers": str(cluster.num_workers),
        "devices per worker": str(cluster.num_local),
        **{f"code of {file}": digest for file, digest in code_digests().items()},
    }


def code_digests():
    """File of this package -> first digits of its SHA-256."""
    package = pathlib.Path(__file__).parent
    return {
        path.relative_to(package.parent).as_posix(): _digest(path.read_bytes())
        for path in sorted(package.rglob("*.py"))
    }


def _digest(*parts):
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()[:16]


def check_shared(cluster, directory, *, sleep=time.sleep):
    """Tests that every worker sees in the run directory what the chief writes there.

    Leaves no trace: neither the file nor directories that it took to write it.

    Raises:
      ConfigError: on every worker the same.
      NoRoomError: alike, where the disk is full.
    """
    with contextlib.ExitStack() as stack:
        name, failure, is_full = "", "", False
        if cluster.is_chief:
            try:
                name = stack.enter_context(_token_file(directory.path))
            except OSError as error:
                failure, is_full = str(error), error.errno in (errno.ENOSPC, errno.EDQUOT)
        own = {"token": name, "failure": failure, "is_full": is_full}
        own |= {"path": str(directory.path.absolute()), "host": socket.gethostname()}
        told = [json.loads(text) for text in gather_text(cluster, json.dumps(own))]
        if told[0]["is_full"]:
            raise NoRoomError(
                "The chief must have room to write in the run directory.",
                received=f"{told[0]['path']}: {told[0]['failure']}",
                remedy="Make room, then start all workers again.",
            )
        if told[0]["failure"]:
            raise ConfigError(
                "The chief must be able to write in the run directory.",
                received=told[0]["failure"],
                remedy="Give another --run_dir, or mend its permissions.",
            )
        is_seen = cluster.gather(int(_sees(directory.path, told[0]["token"], sleep=sleep)))
    blind = [
        f"worker {index} ({told[index]['path']} on {told[index]['host']}) does not see what "
        f"worker 0 ({told[0]['path']} on {told[0]['host']}) writes"
        for index, sees in enumerate(is_seen)
        if not sees
    ]
    if blind:
        raise ConfigError(
            "All workers must have one run directory.",
            received=_listed(blind),
            remedy="Give all of them the same --run_dir on a file system that they share.",
        )


def keep_others_out(cluster, directory, stack):
    """Locks the run directory, on the chief, until an ExitStack ends.

    Raises:
      ConfigError: on every worker, where another job is at work there.
    """
    agreed(cluster, lambda: cluster.is_chief and stack.enter_context(directory.lock()))


@contextlib.contextmanager
def _token_file(directory):
    """Name of a file in the directory that holds its own name; gone afterwards."""
    made, name = [], f"{_TOKEN}{secrets.token_hex(8)}"
    try:
        made = durable.make_directory(directory)
        for leftover in directory.glob(f"{_TOKEN}*"):  # of a start that was killed
            if time.time() - leftover.stat().st_mtime > _TOKEN_OLD_SECS:
                leftover.unlink(missing_ok=True)
        (directory / name).write_text(name, encoding="ascii")
        yield name
    finally:
        with contextlib.suppress(OSError):
            (directory / name).unlink(missing_ok=True)
        durable.remove_empty(made)


def _sees(directory, name, *, sleep):
    for _ in range(_TOKEN_TRIES):
        with contextlib.suppress(OSError):
            if (directory / name).read_text(encoding="ascii") == name:
                return True
        sleep(_TOKEN_WAIT_SECS)
    return False


# -- data and checkpoint ---------------------------------------------------------------------------


def agreed_data(cluster, open_inputs):
    """The Inputs of this worker, with the same records as on every other one.

    Raises:
      UserError: on every worker.
    """
    return agreed(
        cluster,
        open_inputs,
        data_facts,
        rule="Every worker must have the same records.",
        remedy="Give all of them the same --data_dir, or copies of one build.",
    )


def agreed_checkpoint(cluster, restore):
    """What `restore` returns, CheckpointInfo first; every worker's is the chief's.

    Raises:
      UserError: on every worker.
    """
    return agreed(
        cluster,
        restore,
        lambda restored: checkpoint_facts(restored[0]),
        rule="Every worker must go on from the same checkpoint.",
        remedy="Give all of them the same --run_dir on a file system that they share.",
    )


def data_facts(inputs):
    """All that decides which record is which, of every split that is opened: name -> text."""
    if inputs.is_synthetic:
        return {"training examples": str(inputs.num_train_examples)}
    facts = {
        "classes": str(inputs.num_classes),
        "label base": str(inputs.manifest.label_base),
        "class names": _digest(json.dumps(inputs.class_names).encode()),
        "photo edits": str(inputs.photo_edits),
    }
    if inputs.stays is not None:
        facts["blacklist"] = _digest(inputs.stays.tobytes())
    for split, reader in inputs.readers.items():
        index = reader.index
        arrays = (index.shard, index.offset, index.length, index.crc)
        facts[f"{split} records"] = f"{len(index):,} in {len(index.files)} shards"
        facts[f"{split} content"] = _digest(*(np.ascontiguousarray(one) for one in arrays))
    return facts


def checkpoint_facts(info):
    """Step and digest of the checkpoint that a worker goes on from; None where there is none."""
    if info is None:
        return {"checkpoint": "none, starts at step 0"}
    digest = _digest((info.path / MANIFEST_NAME).read_bytes())
    return {"checkpoint": f"step {info.step:,} with digest {digest}"}
