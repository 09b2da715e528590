"""Numbers as text, and text in columns."""

import pytest

from inception_tf.counts import count_of
from inception_tf.reporting import quantities
from inception_tf.reporting.table import aligned_table


@pytest.mark.parametrize(
    ("secs", "words", "clock"),
    [
        (0.4, "under 1 s", "00:00"),
        (45, "45 s", "00:45"),
        (150, "2 min 30 s", "02:30"),
        (3 * 3600 + 11 * 60 + 5, "3 h 11 min", "3:11:05"),
        (2 * 86400 + 3 * 3600 + 11 * 60, "2 days 3 h", "2d 03:11"),
        (86400 + 59, "1 day", "1d 00:00"),
        (3.2 * 320320, "11 days 20 h", "11d 20:43"),
        (float("inf"), "an unknown time", "?"),
    ],
)
def test_durations_are_cut_to_the_two_largest_units(secs, words, clock):
    assert quantities.duration(secs) == words
    assert quantities.clock(secs) == clock


def test_losses_keep_their_width_and_their_non_finite_values():
    texts = [quantities.loss_text(loss) for loss in (6.9, 0.09871234, 12.5, 1234.5, float("nan"))]
    assert texts == ["6.900", "0.09871", "12.50", "1,234", "nan"]


def test_rates_and_step_times_fit_their_size():
    rates = [quantities.rate_text(rate) for rate in (6.3512, 99.96, 512.4, 1024)]
    assert rates == ["6.35", "100", "512", "1,024"]
    times = [quantities.step_secs_text(secs) for secs in (0.0851, 0.9996, 3.21, 14.6, 1200)]
    assert times == ["85.1 ms", "1 s", "3.2 s", "15 s", "1,200 s"]


def test_a_noun_is_as_many_as_its_number():
    assert count_of(1, "image") == "1 image"
    assert [count_of(n, "image") for n in (0, 2, 1200)] == ["0 images", "2 images", "1,200 images"]
    assert [count_of(n, "box", "boxes") for n in (1, 2)] == ["1 box", "2 boxes"]


def test_bytes_are_binary():
    sizes = [quantities.byte_size(size) for size in (12, 2048, 512 * 2**20, 5.3 * 2**30)]
    assert sizes == ["12 bytes", "2 KiB", "512 MiB", "5.3 GiB"]


def test_a_table_lines_up_and_ends_no_line_with_blanks():
    table = aligned_table([("raw", "9"), ("b", "1,437")], header=("weights", "n"), align="lr")
    assert table == (
        "weights      n\n"
        "-------  -----\n"
        "raw          9\n"
        "b        1,437"
    )
    assert aligned_table([("a", ""), ("bcd", "e")]) == "a\nbcd  e"
    assert aligned_table([]) == ""


def test_a_row_of_another_width_is_refused():
    with pytest.raises(ValueError, match="same number of columns"):
        aligned_table([("a", "b"), ("c",)])
