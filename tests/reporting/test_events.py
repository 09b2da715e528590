"""The writer of a run: rows, curves and the progress line, straight and resumed."""

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from inception_tf.errors import ConfigError
from inception_tf.reporting.events import EventWriter
from inception_tf.reporting.events import LoggingSpec
from inception_tf.reporting.progress import evaluation_text

TRAIN = {
    "train/loss_nats": 6.912,
    "train/learning_rate": 0.045,
    "perf/images_per_sec": 512.0,
    "perf/data_wait_share": 0.03,
    "perf/secs_per_step": 0.5775,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def open_writer(run_dir, *, start_step=0, total_steps=100, stream=None, **settings):
    settings = {"spec": LoggingSpec(), "is_chief": True} | settings
    return EventWriter(
        run_dir,
        total_steps=total_steps,
        start_step=start_step,
        stream=stream or io.StringIO(),
        **settings,
    )


def train_steps(writer, steps, *, secs_per_step=1.0):
    for step in steps:
        row = {"train/loss_nats": 1 / step, "perf/secs_per_step": secs_per_step}
        writer.train_row(step, row)
        if step % 20 == 0:
            writer.eval_row(step, {"eval/top1": 1 - 1 / step})


def rows_without_times(run_dir):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        {name: value for name, value in row.items() if not name.startswith("perf/")}
        for row in rows
    ]


def curve(run_dir, tag):
    accumulator = EventAccumulator(str(run_dir / "tensorboard"))
    accumulator.Reload()
    return [(point.step, point.value) for point in accumulator.Scalars(tag)]


class FullDisk(io.FileIO):
    """A file on a disk that takes so many bytes more."""

    room_bytes = 0

    def write(self, content):
        if not self.room_bytes:
            raise OSError(28, "No space left on device")
        taken = super().write(content[: self.room_bytes])
        self.room_bytes -= taken
        return taken


def test_rows_that_a_full_disk_refuses_are_written_in_order_once_it_takes_them(tmp_path):
    with open_writer(tmp_path / "straight") as writer:
        train_steps(writer, range(10, 61, 10))
    stream = io.StringIO()
    writer = open_writer(tmp_path / "full", stream=stream)
    train_steps(writer, [10])
    writer._file.close()
    writer._file = FullDisk(tmp_path / "full/metrics.jsonl", "ab")
    writer._file.room_bytes = 20  # the row of step 20 is torn here
    train_steps(writer, [20, 30])
    with pytest.raises(OSError, match="No space left"):
        writer.flush()  # so that no checkpoint is made of a step whose rows could be lost
    assert stream.getvalue().count("rows of metrics wait") == 1
    writer._file.room_bytes = 10**6
    train_steps(writer, range(40, 61, 10))
    writer.close()
    assert rows_without_times(tmp_path / "full") == rows_without_times(tmp_path / "straight")


def test_rows_that_were_never_taken_are_counted_at_the_end(tmp_path):
    stream = io.StringIO()
    writer = open_writer(tmp_path, stream=stream)
    writer._file.close()
    writer._file = FullDisk(tmp_path / "metrics.jsonl", "ab")
    train_steps(writer, [10, 20])  # and the evaluation at 20
    writer.close()
    assert "3 rows of metrics were not written" in stream.getvalue()


def test_curves_that_a_full_disk_refused_are_drawn_again(tmp_path, monkeypatch):
    stream = io.StringIO()
    with open_writer(tmp_path, stream=stream) as writer:
        train_steps(writer, [10])

        def refuse(event):
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

        monkeypatch.setattr(writer._curves._writer, "add_event", refuse)
        train_steps(writer, [20, 30])
        assert stream.getvalue().count("the curves wait") == 1
        writer.flush()
        train_steps(writer, [40])
    assert [step for step, _ in curve(tmp_path, "train/loss_nats")] == [10, 20, 30, 40]


def test_a_resumed_run_has_the_rows_and_curves_of_a_straight_one(tmp_path):
    with open_writer(tmp_path / "straight") as writer:
        train_steps(writer, range(10, 101, 10))
    killed = open_writer(tmp_path / "resumed")
    train_steps(killed, range(10, 71, 10), secs_per_step=2.0)
    killed.flush()
    with open(tmp_path / "resumed/metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "tra')
    with open_writer(tmp_path / "resumed", start_step=40) as writer:
        train_steps(writer, range(50, 101, 10), secs_per_step=3.0)
    killed.close()

    straight = rows_without_times(tmp_path / "straight")
    assert rows_without_times(tmp_path / "resumed") == straight
    assert [row["step"] for row in straight if row["kind"] == "train"] == list(range(10, 101, 10))
    superseded = (tmp_path / "resumed/metrics.superseded.jsonl").read_text().splitlines()
    assert [json.loads(line).get("step") for line in superseded] == [50, 60, 60, 70, None]
    for tag in ("train/loss_nats", "eval/top1"):
        points = curve(tmp_path / "resumed", tag)
        assert points == curve(tmp_path / "straight", tag)
    assert [step for step, _ in curve(tmp_path / "resumed", "train/loss_nats")] == list(
        range(10, 101, 10)
    )
    speeds = dict(curve(tmp_path / "resumed", "perf/secs_per_step"))
    assert speeds[40] == 2.0 and speeds[50] == 3.0


def test_a_tensorboard_that_is_already_open_forgets_the_superseded_points(tmp_path, monkeypatch):
    # Names of one process and second end in a number, and TensorBoard takes .10 to be before .9.
    counter = event_file_writer.AtomicCounter(0)
    monkeypatch.setattr(event_file_writer, "_global_uid", counter)
    first = open_writer(tmp_path)
    train_steps(first, [10, 20, 30])
    first.close()
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    with open_writer(tmp_path, start_step=10) as writer:
        train_steps(writer, [25])
    accumulator.Reload()
    assert [point.step for point in accumulator.Scalars("train/loss_nats")] == [10, 25]


def test_files_of_others_in_the_tensorboard_directory_stay(tmp_path):
    profile = tmp_path / "tensorboard/events.out.tfevents.1.host.profile-empty"
    profile.parent.mkdir()
    profile.write_bytes(b"")
    open_writer(tmp_path).close()
    open_writer(tmp_path).close()
    assert profile.exists()
    assert len(list(profile.parent.iterdir())) == 2


def test_a_curve_takes_the_wall_time_of_its_row_after_a_resume(tmp_path):
    with open_writer(tmp_path) as writer:
        writer.train_row(10, {"train/loss_nats": 1.0, "perf/unix_secs": 1.7e9})
    open_writer(tmp_path, start_step=10).close()
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert [point.wall_time for point in accumulator.Scalars("train/loss_nats")] == [1.7e9]
    assert accumulator.Tags()["scalars"] == ["train/loss_nats"]


def test_a_step_told_again_keeps_its_first_row(tmp_path):
    with open_writer(tmp_path) as writer:
        writer.train_row(10, {"train/loss_nats": 1.0})
        writer.eval_row(10, {"eval/top1": 0.5})
    with open_writer(tmp_path, start_step=10) as writer:
        writer.eval_row(10, {"eval/top1": 0.5})
    assert [row["kind"] for row in rows_without_times(tmp_path)] == ["train", "eval"]
    assert curve(tmp_path, "eval/top1") == [(10, 0.5)]


def test_rows_outlive_a_process_killed_right_after_writing_them(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from inception_tf.reporting.events import EventWriter, LoggingSpec\n"
        "writer = EventWriter(sys.argv[1], spec=LoggingSpec(tensorboard=False), total_steps=9,\n"
        "                     start_step=0, is_chief=True)\n"
        "writer.train_row(1, {'train/loss_nats': 2.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=False,
    )
    assert ended.returncode == -9
    assert rows_without_times(tmp_path) == [{"kind": "train", "step": 1, "train/loss_nats": 2.0}]
    assert ended.stdout == b"step 1/9 loss 2.000\n"


def test_only_the_chief_writes(tmp_path):
    stream = io.StringIO()
    with open_writer(tmp_path / "run", is_chief=False, stream=stream) as writer:
        writer.train_row(1, TRAIN)
        writer.eval_row(1, {"eval/top1": 0.5})
        writer.progress(2, TRAIN)
        writer.note("text")
        writer.flush()
    assert not (tmp_path / "run").exists()
    assert stream.getvalue() == ""


def test_numpy_scalars_are_recorded_as_numbers(tmp_path):
    with open_writer(tmp_path) as writer:
        writer.train_row(np.int64(5), {"train/loss_nats": np.float32(0.5), "n": np.int64(3)})
    assert rows_without_times(tmp_path) == [
        {"kind": "train", "n": 3, "step": 5, "train/loss_nats": 0.5}
    ]
    assert curve(tmp_path, "n") == [(5, 3.0)]


def test_without_tensorboard_there_are_no_event_files(tmp_path):
    with open_writer(tmp_path, spec=LoggingSpec(tensorboard=False)) as writer:
        writer.train_row(1, TRAIN)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_log_file_gets_one_plain_line_per_logged_step(tmp_path):
    stream = io.StringIO()
    with open_writer(
        tmp_path, stream=stream, total_steps=320320, steps_per_epoch=2001.82
    ) as writer:
        writer.note("starting")
        writer.progress(1199, TRAIN)
        writer.train_row(1200, TRAIN)
        writer.eval_row(
            1200,
            {
                "eval/top1": 0.5, "eval/loss_nats": 2.25, "eval_averaged/top1": 0.764,
                "eval_averaged/top5": 0.931, "eval_averaged/loss_nats": 1.023,
            },
        )
        writer.train_row(320320, {"train/loss_nats": float("nan"), "perf/secs_per_step": 1.0})
    assert stream.getvalue() == (
        "starting\n"
        "step 1,200/320,320 epoch 0.60 loss 6.912 lr 0.045 512 img/s wait 3% eta 2d 03:11\n"
        "evaluation at step 1,200: averaged top-1 76.40% top-5 93.10% loss 1.023; "
        "raw top-1 50.00% loss 2.250\n"
        "step 320,320/320,320 epoch 160.01 loss nan lr 0.045 512 img/s wait 3%\n"
    )


def test_figures_without_the_blacklist_stand_beside_the_others():
    row = {"eval_averaged/top1": 0.8, "eval_averaged/loss_nats": 1.25, "eval/top1": 0.5}
    others = {f"{name}_without_blacklist": value / 2 for name, value in row.items()}
    assert evaluation_text(10, {**row, **others}) == (
        "evaluation at step 10: averaged top-1 80.00% loss 1.250"
        " (without the blacklist top-1 40.00% loss 0.6250);"
        " raw top-1 50.00% (without the blacklist top-1 25.00%)"
    )


def test_a_terminal_gets_one_live_line_that_begins_at_the_restored_step(tmp_path):
    stream = Terminal()
    with open_writer(tmp_path, start_step=50, stream=stream) as writer:
        writer.note("summary")
        writer.train_row(60, {"train/loss_nats": 2.5})
        writer.progress(61, {"perf/images_per_sec": 512.0})
        writer.note("saved")
        writer.train_row(70, {"train/loss_nats": 2.25})
    text = stream.getvalue()
    assert text.startswith("summary\n\r60/100 loss 2.500 |")
    frames = [frame.strip() for frame in text.replace("\n", "\r").split("\r") if frame.strip()]
    assert "saved" in frames
    assert frames[-1].startswith("70/100 loss 2.250 512 img/s |")
    assert frames[-1].count("#") == 34  # 70% of the 49 columns that the numbers leave
    assert text.count("\n") == 3  # the two notes, and the bar's end


def test_the_live_line_of_the_longest_run_fits_80_columns(tmp_path):
    stream = Terminal()
    with open_writer(tmp_path, stream=stream, total_steps=320320, steps_per_epoch=2002) as writer:
        slow = {"train/learning_rate": 0.0004523, "perf/images_per_sec": 1024.0}
        writer.train_row(41200, TRAIN | slow | {"perf/secs_per_step": 3.5})
    frames = stream.getvalue().split("\r")
    assert max(len(frame.rstrip("\n")) for frame in frames) < 80
    numbers = "41,200/320,320 loss 6.912 lr 0.0004523 1,024 img/s wait 3% eta 11d 07:22 |"
    assert any(frame.startswith(numbers) for frame in frames)


@pytest.mark.parametrize("size", [(0, 0), (24, 60)])
def test_the_live_line_shows_on_terminals_of_any_size(tmp_path, size):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        with open_writer(tmp_path, stream=stream) as writer:
            writer.train_row(60, TRAIN)
        shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert "60/100 loss 6.912 lr 0.045 512 img/s wait 3% eta 00:23" in shown


def test_closing_twice_is_harmless_and_notes_may_follow(tmp_path):
    stream = Terminal()
    writer = open_writer(tmp_path, stream=stream)
    writer.train_row(1, TRAIN)
    writer.close()
    writer.close()
    writer.note("done")
    assert stream.getvalue().endswith("\ndone\n")


def test_an_interval_below_one_step_is_refused():
    with pytest.raises(ConfigError, match="at least 1. Received: 0."):
        LoggingSpec(every_steps=0)


def test_lines_for_which_the_disk_has_no_room_do_not_end_the_run(tmp_path):
    with open(os.open("/dev/full", os.O_WRONLY), "w", buffering=1 << 16) as full:
        with open_writer(tmp_path, stream=full) as writer:
            train_steps(writer, [1, 2])
            writer.note("still here")
        with pytest.raises(OSError):  # what was kept back until the end
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    assert [row["step"] for row in map(json.loads, open(tmp_path / "metrics.jsonl"))] == [1, 2]
