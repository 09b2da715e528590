"""The line that tells how far a run is: live on a terminal, plain lines otherwise."""

import errno
import os
from collections.abc import Callable, Mapping
from typing import TextIO

from tqdm import tqdm

from inception_tf.reporting import quantities

_DEFAULT_COLUMNS = 80
_SECS_BETWEEN_LINES = 10.0


def progress_text(
    step: int,
    values: Mapping[str, float],
    *,
    total_steps: int,
    steps_per_epoch: float | None = None,
) -> str:
    """Where a run is: 'step 1,200/320,320 epoch 0.60 loss 6.912 lr 0.045 512 img/s wait 3% ...'.

    Args:
      step: batches consumed.
      values: metrics by name; those that are absent are left out.
      total_steps: steps of the whole run.
      steps_per_epoch: global; a float, epochs do not end between two steps.
    """
    parts = [f"step {quantities.count(step)}/{quantities.count(total_steps)}"]
    if steps_per_epoch:
        parts.append(f"epoch {step / steps_per_epoch:.2f}")
    if "train/loss_nats" in values:
        parts.append(f"loss {quantities.loss_text(values['train/loss_nats'])}")
    if "train/learning_rate" in values:
        parts.append(f"lr {values['train/learning_rate']:.4g}")
    if "perf/images_per_sec" in values:
        parts.append(f"{quantities.rate_text(values['perf/images_per_sec'])} img/s")
    if "perf/data_wait_share" in values:
        parts.append(f"wait {quantities.percent(values['perf/data_wait_share'])}")
    if "perf/secs_per_step" in values and step < total_steps:
        left_secs = values["perf/secs_per_step"] * (total_steps - step)
        parts.append(f"eta {quantities.clock(left_secs)}")
    return " ".join(parts)


def evaluation_text(step: int, values: Mapping[str, float]) -> str:
    """One evaluation: 'evaluation at step 4,004: averaged top-1 76.40% ...; raw top-1 ...'.

    Where the images without the blacklist were counted too: 'averaged top-1 76.40% ... (without
    the blacklist top-1 76.71% ...); ...'.
    """
    weights = []
    for name, prefix in (("averaged", "eval_averaged"), ("raw", "eval")):
        figures = _figures(values, prefix)
        if others := _figures(values, prefix, suffix="_without_blacklist"):
            figures += f" (without the blacklist {others})"
        if figures:
            weights.append(f"{name} {figures}")
    return f"evaluation at step {quantities.count(step)}: {'; '.join(weights)}"


def _figures(values, prefix, *, suffix=""):
    """'top-1 76.40% top-5 93.10% loss 1.023' of those that there are."""
    parts = [
        f"{label} {quantities.percent(values[name], decimals=2)}"
        for label, metric in (("top-1", "top1"), ("top-5", "top5"))
        if (name := f"{prefix}/{metric}{suffix}") in values
    ]
    if (name := f"{prefix}/loss_nats{suffix}") in values:
        parts.append(f"loss {quantities.loss_text(values[name])}")
    return " ".join(parts)


class ImageProgress:
    """How far a pass over images is: a line every ten seconds, and none of a short pass.

    'what: 5,120/50,000 images 312 img/s eta 02:23'. The rate is that after the first images, which
    wait for the compiler.

    Args:
      what: begins every line.
      num_images: of the whole pass.
      clock: function without arguments that returns seconds.
      tell: takes a line.
    """

    def __init__(
        self,
        what: str,
        *,
        num_images: int,
        clock: Callable[[], float],
        tell: Callable[[str], None],
    ):
        self._what = what
        self._num_images = num_images
        self._clock = clock
        self._tell = tell
        self._num_done = 0
        self._first = None  # (seconds, images) when the first images were done
        self._told_secs = 0.0

    def add(self, num_images: int) -> None:
        """Tells that so many more images are done."""
        self._num_done += num_images
        now_secs = self._clock()
        if self._first is None:
            self._first, self._told_secs = (now_secs, self._num_done), now_secs
        if now_secs - self._told_secs < _SECS_BETWEEN_LINES:
            return
        self._told_secs = now_secs
        began_secs, num_before = self._first
        rate = (self._num_done - num_before) / (now_secs - began_secs)
        left_secs = (self._num_images - self._num_done) / rate
        self._tell(
            f"{self._what}: {quantities.count(self._num_done)}/{quantities.count(self._num_images)}"
            f" images {quantities.rate_text(rate)} img/s eta {quantities.clock(left_secs)}"
        )


class ProgressLine:
    """Progress on a stream: one live bar on a terminal, a line per logged step on anything else.

    A line for which the disk has no room is lost: it must not end a run.

    Args:
      stream: where to write.
      total_steps, start_step: of the whole run, and where this process begins.
      steps_per_epoch: global; None leaves epochs out.
    """

    def __init__(
        self, stream: TextIO, *, total_steps: int, start_step: int, steps_per_epoch: float | None
    ):
        self._stream = stream
        self._is_live = stream.isatty()
        self._total_steps = total_steps
        self._start_step = start_step
        self._steps_per_epoch = steps_per_epoch
        self._bar = None
        self._shown = {}

    def show(self, step: int, values: Mapping[str, float], *, is_logged: bool) -> None:
        """Tells the state after a step; what `values` leaves out stays as last told.

        Args:
          step: batches consumed.
          values: metrics by name.
          is_logged: the step has a row in metrics.jsonl. Plain streams get a line for those only.
        """
        self._shown.update(values)
        if self._is_live:
            self._move_bar(step, is_logged=is_logged)
        elif is_logged:
            text = progress_text(
                step,
                self._shown,
                total_steps=self._total_steps,
                steps_per_epoch=self._steps_per_epoch,
            )
            self._write_line(text)

    def note(self, text: str) -> None:
        """Writes lines above the bar, or simply writes them."""
        if self._bar is None:
            self._write_line(text)
        else:
            tqdm.write(text, file=self._stream)

    def close(self) -> None:
        """Leaves the bar as it stands; notes may still follow."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write_line(self, text):
        # Flushed at once: behind a pipe the stream would hold lines back for hours.
        try:
            print(text, file=self._stream, flush=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise  # where nobody reads any more, nobody starts the run again either

    def _move_bar(self, step, *, is_logged):
        # Without the epoch the longest run's numbers fit 80 columns. The bar comes last and takes
        # what they leave, so that it is the first to go where the terminal is narrow.
        text = progress_text(step, self._shown, total_steps=self._total_steps)
        text = text.removeprefix("step ")
        columns = _terminal_columns(self._stream)
        if self._bar is None:
            # Made at the first step, so that the start-up summary stands above it. tqdm's own
            # dynamic size shows nothing at all on terminals that say they have 0 rows
            # (containers, scripts).
            self._bar = tqdm(
                total=self._total_steps,
                initial=self._start_step,
                file=self._stream,
                ncols=columns,
                nrows=20,
                miniters=1,
                desc=text,
                bar_format="{desc} |{bar}|",
            )
        self._bar.ncols = columns
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(step - self._bar.n)
        if is_logged:
            self._bar.refresh()


def _terminal_columns(stream):
    """Columns to write in: one less than there are, since the last one wraps on some terminals."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except OSError:  # a stream that is not a file
        columns = 0
    return (columns or _DEFAULT_COLUMNS) - 1
