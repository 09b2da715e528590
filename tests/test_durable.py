"""Files that are whole or not there: what a reader finds at any moment."""

import errno
import os
import signal
import subprocess
import sys

import google_crc32c
import pytest

from inception_tf import durable


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"old")
    with durable.open_whole(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["rows"]


@pytest.mark.parametrize("has_other_writers", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error, has_other_writers):
    path = tmp_path / "rows"
    durable.save_text(path, "old")
    with pytest.raises(type(error)):
        with durable.open_whole(path, has_other_writers=has_other_writers) as stream:
            stream.write(b"half")
            raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["rows"]


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from inception_tf import durable\n"
        "with durable.open_whole(sys.argv[1]) as stream:\n"
        "    stream.write(b'half'); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "rows"
    ended = subprocess.run(
        [sys.executable, "-c", code, path],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert not path.exists() and len(os.listdir(tmp_path)) == 1
    durable.save_text(path, "whole")
    assert path.read_text() == "whole"
    assert os.listdir(tmp_path) == ["rows"]


def test_two_writers_at_once_do_not_mix_their_bytes(tmp_path):
    path = tmp_path / "index"
    with durable.open_whole(path, has_other_writers=True) as first:
        first.write(b"1" * 10)
        with durable.open_whole(path, has_other_writers=True) as second:
            second.write(b"2" * 20)
        assert path.read_bytes() == b"2" * 20
    assert path.read_bytes() == b"1" * 10
    assert os.listdir(tmp_path) == ["index"]


def test_others_may_read_what_was_written(tmp_path):
    before = os.umask(0o022)
    try:
        durable.save_bytes(tmp_path / "index", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "index").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_only_a_directory_may_be_without_fsync(tmp_path, monkeypatch, number):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        durable.flush_to_disk(file)
    if number == errno.EIO:
        with pytest.raises(OSError):
            durable.flush_to_disk(tmp_path)
    else:
        durable.flush_to_disk(tmp_path)


@pytest.mark.parametrize("num_bytes", [0, 1, 4 * 2**20, 4 * 2**20 + 1])
def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path, num_bytes):
    content = os.urandom(num_bytes)
    (tmp_path / "file").write_bytes(content)
    assert durable.crc32c_of_file(tmp_path / "file") == google_crc32c.value(content)


def test_the_published_check_value_holds(tmp_path):
    (tmp_path / "file").write_bytes(b"123456789")
    assert durable.crc32c_of_file(tmp_path / "file") == 0xE3069283  # RFC 3720's polynomial
