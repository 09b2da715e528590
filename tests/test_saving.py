"""Saving on a disk that refuses: when it is tried again, and when a run gives up."""

import types

import pytest

from inception_tf import saving
from inception_tf.errors import NoRoomError
from inception_tf.saving import Saving
from inception_tf.training.checkpoint import CheckpointNotWritten, CheckpointSpec


class FakeSession:
    """The chief, or another worker whose chief fails as `failures` say (True: refused)."""

    def __init__(self, tmp_path, failures, *, is_chief=True):
        self.failures, self.secs, self.notes, self.saved = iter(failures), 0.0, [], []
        self.run_dir = tmp_path
        self.is_synthetic = False
        self.writer = types.SimpleNamespace(note=self.notes.append)
        self.watch = types.SimpleNamespace(enter=lambda phase, step: None)
        self.bad_records = types.SimpleNamespace(exchange=lambda: [])
        self.inputs = types.SimpleNamespace(is_synthetic=False)
        gather = (lambda own: [own, 0]) if is_chief else (lambda own: [next(self.failures), own])
        self.cluster = types.SimpleNamespace(
            is_chief=is_chief, worker_index=0 if is_chief else 1, gather=gather
        )

    def clock(self):
        return self.secs

    def write_checkpoint(self, step):
        if next(self.failures):
            raise CheckpointNotWritten("A checkpoint must fit on the disk.", received="ckpt")
        self.saved.append(step)


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    secs = []
    monkeypatch.setattr(saving.time, "sleep", secs.append)
    return secs


def make(tmp_path, failures, **options):
    is_chief = options.pop("is_chief", True)
    session = FakeSession(tmp_path, failures, is_chief=is_chief)
    return Saving(session, CheckpointSpec(**options)), session


def test_training_goes_on_and_the_log_says_what_was_not_saved(tmp_path):
    made, session = make(tmp_path, [True, False])
    made.save(8, is_last=False)
    (note,) = session.notes
    for text in ("step 8 was not saved (1 in a row", "worker 0", str(tmp_path), "bytes free"):
        assert text in note
    made.save(12, is_last=False)
    assert session.saved == [12] and len(session.notes) == 1


def test_a_refused_checkpoint_is_tried_again_within_a_minute(tmp_path):
    made, session = make(tmp_path, [True, False], every_minutes=10.0)
    session.secs = 599.0
    assert not made.is_due()
    made.save(8, is_last=False)
    session.secs = 599.0 + 61.0
    assert made.is_due()
    made.save(9, is_last=False)
    session.secs += 61.0
    assert not made.is_due()


def test_it_gives_up_after_the_configured_number_in_a_row(tmp_path):
    made, session = make(tmp_path, [True, True, False, True, True, True], max_failed_saves=3)
    for step in range(5):
        made.save(step, is_last=False)
    with pytest.raises(NoRoomError, match="bytes free") as caught:
        made.save(5, is_last=False)
    assert caught.value.exit_status == 4
    assert session.saved == [2]


def test_the_last_save_is_tried_three_times(tmp_path, slept):
    made, session = make(tmp_path, [True, True, False])
    made.save(8, is_last=True)
    assert session.saved == [8] and slept == [5.0, 5.0]
    made, session = make(tmp_path, [True] * 3)
    with pytest.raises(NoRoomError):
        made.save(8, is_last=True)


def test_the_other_workers_end_with_the_chief(tmp_path):
    made, _ = make(tmp_path, [1, 1], is_chief=False, max_failed_saves=2)
    made.save(4, is_last=False)
    assert not made.is_due()
    with pytest.raises(NoRoomError, match="worker 0, which saves, could not"):
        made.save(8, is_last=False)


def test_an_error_that_is_not_the_disks_is_raised_at_once(tmp_path):
    made, session = make(tmp_path, [])
    session.write_checkpoint = lambda step: 1 / 0
    with pytest.raises(ZeroDivisionError):
        made.save(4, is_last=False)
