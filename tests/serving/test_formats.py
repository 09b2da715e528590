"""A version is whole or absent."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from inception_tf.serving.formats import ExportError, newest_version, save_versions, versions

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def save_version(out_dir, write):
    """A version of the SavedModel alone."""
    return save_versions(out_dir, {"one": write}, places={"one": ""})["one"]


def write(directory):
    (directory / "variables").mkdir()
    (directory / "variables" / "data").write_text("weights")
    (directory / "saved_model.pb").write_text("graph")


def test_versions_count_up(tmp_path):
    out = tmp_path / "deep" / "out"
    assert versions(out) == []
    assert [save_version(out, write).name for _ in range(3)] == ["1", "2", "3"]
    (out / "2").rename(out / "10")
    assert save_version(out, write).name == "11"
    assert versions(out) == [1, 3, 10, 11]
    assert newest_version(out) == out / "11"
    assert newest_version(out / "3") == out / "3"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ExportError("refused.")])
def test_an_interrupted_export_leaves_nothing(tmp_path, error):
    def interrupted(directory):
        write(directory)
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        save_version(tmp_path, interrupted)
    assert os.listdir(tmp_path) == []


def test_a_killed_export_leaves_no_version(tmp_path):
    script = """
        import os, signal, sys
        from inception_tf.serving.formats import save_versions

        def killed(directory):
            (directory / "saved_model.pb").write_text("half a gra")
            os.kill(os.getpid(), signal.SIGKILL)

        save_versions(sys.argv[1], {"one": killed}, places={"one": ""})
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert versions(tmp_path) == []
    with pytest.raises(ExportError, match="holds neither"):
        newest_version(tmp_path)
    assert save_version(tmp_path, write).name == "1"


def test_a_version_taken_meanwhile_is_not_overwritten(tmp_path):
    def overtaken(directory):
        write(directory)
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "saved_model.pb").write_text("another")

    with pytest.raises(ExportError, match="run this one again"):
        save_version(tmp_path, overtaken)
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "another"


def test_a_model_is_no_directory_of_versions(tmp_path):
    first = save_version(tmp_path, write)
    with pytest.raises(ExportError, match="another --out"):
        save_version(first, write)
    with pytest.raises(ExportError, match="a file"):
        save_version(first / "saved_model.pb", write)


def test_a_version_can_be_read_by_others(tmp_path):
    mask = os.umask(0o022)
    try:
        assert save_version(tmp_path, write).stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(mask)


def write_file(directory):
    (directory / "model.onnx").write_text("another format")


PLACES = {"model": "", "file": "onnx"}


def test_formats_of_one_export_have_one_number(tmp_path):
    first = save_versions(tmp_path, {"model": write, "file": write_file}, places=PLACES)
    assert first == {"model": tmp_path / "1", "file": tmp_path / "onnx" / "1"}
    assert save_versions(tmp_path, {"file": write_file}, places=PLACES)["file"].name == "2"
    # Not 2, which is other weights.
    assert save_versions(tmp_path, {"model": write}, places=PLACES)["model"].name == "3"
    assert newest_version(tmp_path) == tmp_path / "3"
    assert sorted(os.listdir(tmp_path / "onnx")) == ["1", "2"]


def test_a_format_that_is_refused_takes_the_others_with_it(tmp_path):
    def refused(directory):
        write_file(directory)
        raise ExportError("refused.")

    with pytest.raises(ExportError, match="refused"):
        save_versions(tmp_path, {"model": write, "file": refused}, places=PLACES)
    assert os.listdir(tmp_path) == []


def test_a_number_taken_meanwhile_takes_the_others_back(tmp_path):
    def overtaken(directory):
        write_file(directory)
        (directory.parent / "1").mkdir()
        (directory.parent / "1" / "model.onnx").write_text("another")

    with pytest.raises(ExportError, match="run this one again"):
        save_versions(tmp_path, {"model": write, "file": overtaken}, places=PLACES)
    assert versions(tmp_path) == []
    assert (tmp_path / "onnx" / "1" / "model.onnx").read_text() == "another"
