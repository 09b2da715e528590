"""What a run directory keeps of each start."""

import pytest

from inception_tf.errors import CheckpointError
from inception_tf.run_directory import STARTS_FILE, RunDirectory, Start

FIRST = Start(step=0, unix_secs=1.7e9, num_workers=1, num_devices=2)
SECOND = Start(step=40, unix_secs=1.7e9 + 60.5, num_workers=2, num_devices=4)


def test_starts_are_read_in_the_order_they_were_made(tmp_path):
    directory = RunDirectory(tmp_path)
    assert directory.read_starts() == []
    directory.add_start(FIRST)
    directory.add_start(SECOND)
    assert directory.read_starts() == [FIRST, SECOND]
    assert [path.name for path in tmp_path.iterdir()] == [STARTS_FILE]


def test_a_damaged_list_of_starts_stops_no_run_and_is_told_to_its_readers(tmp_path):
    (tmp_path / STARTS_FILE).write_bytes(b"\xff\n")
    RunDirectory(tmp_path).add_start(FIRST)
    with pytest.raises(CheckpointError, match="for the report alone"):
        RunDirectory(tmp_path).read_starts()
