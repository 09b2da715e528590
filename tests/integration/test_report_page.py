"""The report of a real run, opened in a real browser at the width of a desk and of a telephone."""

import pathlib
import subprocess
import sys

import browser
import pytest

from inception_tf.data.build import build_records
from inception_tf.data.sources import DigitsSource

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT_SECS = 300
TINY = (
    "model.width_multiplier = 0.05",
    "model.block_counts = (1, 1, 1)",
    "training.num_epochs = None",
    "training.num_steps = 6",
    "training.replica_batch = 4",
    "evaluation.every_epochs = 0.02",
    "logging.every_steps = 1",
)
WIDTHS_PX = {"telephone": (360, 740), "desk": (1280, 800)}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser.find_browser() is None,
        reason=f"needs a browser: {', '.join(browser.NAMES)}; none is installed",
    ),
]


def command(verb, *arguments):
    words = [sys.executable, "-m", f"inception_tf.{verb}", *map(str, arguments)]
    done = subprocess.run(
        words, cwd=CHECKOUT, capture_output=True, text=True, timeout=TIMEOUT_SECS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of a few steps, evaluated, whose records are there."""
    root = tmp_path_factory.mktemp("digits")
    build_records(
        DigitsSource(image_px=80), root / "data", num_shards={"train": 1, "validation": 1}
    )
    params = [f"--gin_param={text}" for text in TINY]
    command("train", "--gin_file=configs/digits.gin", f"--run_dir={root / 'run'}",
            f"--data_dir={root / 'data'}", *params)  # fmt: skip
    command("evaluate", root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def report(run_dir, tmp_path_factory):
    """Path of the page."""
    out = tmp_path_factory.mktemp("report")
    said = command("report", run_dir, f"--out={out}")
    assert said.strip() == str(out / "index.html")
    return out / "index.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser.open_page(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(params=WIDTHS_PX)
def shown(request, report, page):
    """The page as a screen of this width shows it."""
    width_px, height_px = WIDTHS_PX[request.param]
    page.open(report.as_uri(), width_px=width_px, height_px=height_px)
    # A telephone shows a page that is too wide smaller, and then says that it is wider itself.
    assert page.evaluate("[innerWidth, innerHeight]") == [width_px, height_px]
    return page


def test_nothing_is_fetched_and_nothing_complains(shown, report):
    places = [event["request"]["url"] for event in shown.told("Network.requestWillBeSent")]
    outside = [url for url in places if not url.startswith("data:") and url != report.as_uri()]
    assert report.as_uri() in places and outside == []
    assert shown.told("Network.loadingFailed") == []
    for method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
        assert shown.told(method) == []


def test_every_image_is_there(shown):
    widths = shown.evaluate("[...document.images].map(image => image.naturalWidth)")
    # Top-1, top-5 and both of the pair; four over time; images of ten classes, four of each of 8.
    assert len(widths) == 8 + 8 * 4 and min(widths) > 0


def test_the_page_is_as_wide_as_the_screen_and_its_letters_can_be_read(shown):
    wide, screen = shown.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert wide <= screen
    sizes = shown.evaluate(
        "[...document.querySelectorAll('body, td, th, p, figcaption, pre, summary')]"
        ".map(one => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert sizes[0] >= 16 and min(sizes) >= 14
    # What is wider than the screen scrolls in a box of its own.
    over = shown.evaluate(
        "[...document.querySelectorAll('table, pre, img')].filter(one => !one.closest('.box, pre')"
        " && one.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert over == 0


def test_the_first_screen_shows_result_curve_and_what_differs(shown):
    tops = shown.evaluate(
        "['.result b', '.first figure img', 'a[href=\"#differs\"]']"
        ".map(name => document.querySelector(name).getBoundingClientRect())"
        ".map((box, i) => [box.top, box.top + (i == 1 ? box.height / 2 : box.height)])"
    )
    height = shown.evaluate("innerHeight")
    assert all(0 <= top and bottom <= height for top, bottom in tops), (tops, height)


def test_the_same_run_gives_the_same_page(run_dir, report, tmp_path):
    command("report", run_dir, f"--out={tmp_path}")
    names = sorted(path.name for path in report.parent.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (tmp_path / name).read_bytes() == (report.parent / name).read_bytes()
