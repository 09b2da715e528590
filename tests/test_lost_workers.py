"""Which of TensorFlow's errors mean a lost worker, by its own words (2.21)."""

import json
import types

import pytest
import tensorflow as tf

from inception_tf import lost_workers
from inception_tf.errors import LostWorkersError, StoppedAtStart
from inception_tf.training import watchdog
from inception_tf.training.watchdog import Watchdog, WatchdogSpec

SILENT = """Graph execution error:

Detected at node CollectiveReduceV2 defined at (most recent call last):
Collective ops is aborted by: Error reported from /job:worker/task:1: The following tasks are \
unhealthy (stopped sending heartbeats):
/job:worker/replica:0/task:1
The tasks have crashed. Check the task logs for an earlier error, or scheduler events (e.g. \
preemption, eviction) to debug further.
The error could be from a previous operation. Restart your program to reset.
\t [[{{node CollectiveReduceV2}}]] [Op:__inference_add_31]"""
RESET = """Collective ops is aborted by: recvmsg:Connection reset by peer
Additional GRPC error information from remote target /job:worker/replica:0/task:0 while calling \
/tensorflow.WorkerService/CompleteInstance:"""

CUT = """Collective ops is aborted by: Deadline Exceeded

RPC: /tensorflow.CoordinationService/Heartbeat"""
NO_MEMORY_THERE = """Graph execution error:

Collective ops is aborted by: OOM when allocating tensor with shape[7]
Additional GRPC error information from remote target /job:worker/replica:0/task:1 while calling \
/tensorflow.WorkerService/RecvBuf:"""


def lose(tmp_path, monkeypatch, error, *, num_workers=2):
    """What becomes of an error that TensorFlow raises in worker 0."""
    tf_config = {
        "cluster": {"worker": [f"127.0.0.1:{5000 + i}" for i in range(num_workers)]},
        "task": {"type": "worker", "index": 0},
    }
    monkeypatch.setenv("TF_CONFIG", json.dumps(tf_config))
    experiment = types.SimpleNamespace(watchdog=WatchdogSpec())
    directory = types.SimpleNamespace(path=tmp_path)
    with pytest.raises(Exception) as caught:
        with lost_workers.watch(experiment, directory, is_stop_asked=lambda: False) as watch:
            watch.enter(watchdog.STEP, step=1234)
            raise error
    return caught.value


def peer(tmp_path):
    return Watchdog(
        WatchdogSpec(),
        run_dir=tmp_path,
        worker_index=1,
        num_workers=2,
        is_stop_asked=lambda: False,
    )


@pytest.mark.parametrize(
    ("kind", "text", "named"),
    [
        (tf.errors.UnavailableError, SILENT, "/job:worker/task:1 (stopped sending heartbeats)"),
        (tf.errors.UnavailableError, RESET, "/job:worker/replica:0/task:0 (Connection reset)"),
        (
            tf.errors.DeadlineExceededError,
            "Collective ops is aborted by: Collective has timed out during execution.",
            "another worker (Collective has timed out)",
        ),
        (tf.errors.DeadlineExceededError, CUT, "worker 0 (Deadline Exceeded)"),
        (
            tf.errors.ResourceExhaustedError,
            NO_MEMORY_THERE,
            "/job:worker/replica:0/task:1 (ResourceExhaustedError: Collective ops is aborted by: "
            "OOM when allocating tensor with shape[7])",
        ),
        (
            tf.errors.InternalError,
            "Collective ops is aborted by: Dst tensor is not initialized.",  # perhaps its own
            "another worker (InternalError: Collective ops is aborted by: Dst tensor is not "
            "initialized.)",
        ),
    ],
)
def test_a_lost_worker_is_named_in_one_message(tmp_path, monkeypatch, kind, text, named):
    error = lose(tmp_path, monkeypatch, kind(None, None, text))
    assert type(error) is LostWorkersError and error.exit_status == 138
    first, others, remedy = str(error).splitlines()
    assert first.endswith(f"worker 0, in phase 'step' at step 1,234, lost {named}.")
    assert others == "  worker 1: has not been heard of since this start"
    assert "in the output of the worker that was lost" in remedy


def test_the_error_of_the_lost_worker_is_told(tmp_path, monkeypatch):
    with pytest.raises(ValueError):
        with peer(tmp_path):
            raise ValueError("its own")
    error = lose(tmp_path, monkeypatch, tf.errors.UnavailableError(None, None, SILENT))
    assert "worker 1: has ended with status 1: ValueError: its own" in str(error)


def test_what_the_lost_worker_quotes_is_not_quoted_again(tmp_path, monkeypatch):
    with pytest.raises(LostWorkersError):
        with peer(tmp_path):
            raise LostWorkersError("All must stay.", received="worker 1, lost.\n  worker 2: away\n")
    error = lose(tmp_path, monkeypatch, tf.errors.UnavailableError(None, None, SILENT))
    _, others, _ = str(error).splitlines()
    assert others.endswith("LostWorkersError: All must stay. Received: worker 1, lost.")


def test_a_worker_that_was_stopped_at_its_start_takes_the_others_with_it(tmp_path, monkeypatch):
    peer(tmp_path)._tell(status=143, message="stopped")
    error = lose(tmp_path, monkeypatch, tf.errors.UnavailableError(None, None, SILENT))
    assert type(error) is StoppedAtStart and error.exit_status == 143


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.UnavailableError(None, None, "gs://bucket/records: service unavailable"),
        tf.errors.InternalError(None, None, "cuDNN failed on /job:worker/replica:0/task:0"),
        tf.errors.InvalidArgumentError(None, None, "Collective ops is aborted by: bad shape"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
        ValueError("stopped sending heartbeats"),
    ],
)
def test_an_error_of_its_own_stays_what_it_is(tmp_path, monkeypatch, error):
    assert lose(tmp_path, monkeypatch, error) is error


def test_one_worker_loses_nobody(tmp_path, monkeypatch):
    error = tf.errors.UnavailableError(None, None, SILENT)
    assert lose(tmp_path, monkeypatch, error, num_workers=1) is error
