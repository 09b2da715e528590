"""Lines of a pass over images, by a clock that the test moves."""

import pytest

from inception_tf.reporting.progress import ImageProgress


class Pass:
    """A pass over 1,000 images; `lines` is what it has told."""

    def __init__(self):
        self.secs, self.lines = 500.0, []
        self.progress = ImageProgress(
            "runs/a averaged, 1_recipe",
            num_images=1000,
            clock=lambda: self.secs,
            tell=self.lines.append,
        )

    def take(self, num_images, *, secs):
        self.secs += secs
        self.progress.add(num_images)


def test_a_line_tells_images_rate_and_what_is_left():
    one = Pass()
    one.take(200, secs=60)  # the compiler's minute is in no rate
    one.take(100, secs=5)
    one.take(100, secs=5)
    assert one.lines == ["runs/a averaged, 1_recipe: 400/1,000 images 20 img/s eta 00:30"]


@pytest.mark.parametrize(("step_secs", "num_lines"), [(1, 9), (4, 33), (10, 99), (25, 99)])
def test_lines_are_at_least_ten_seconds_apart(step_secs, num_lines):
    one = Pass()
    for _ in range(100):
        one.take(10, secs=step_secs)
    assert len(one.lines) == num_lines
    assert len(set(one.lines)) == num_lines


def test_a_short_pass_tells_nothing():
    one = Pass()
    one.take(10, secs=3600)
    for _ in range(99):
        one.take(10, secs=0.1)
    assert one.lines == []
