"""The page of `predict --serve` in a real browser: images are dropped, classes and crops seen."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.parse

import browser
import pytest

from tests.test_features import SIDE_PX, folder, images_of, run  # noqa: F401  fixtures among them

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
START_SECS = 120
ANSWER_SECS = 60
EVIL = "<img src=x onerror=document.title='evil'>.jpg"

pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(
    browser.find_browser() is None,
    reason=f"needs a browser: {', '.join(browser.NAMES)}; none is installed",
)


@contextlib.contextmanager
def serving(run_dir, *options):
    """(process, URL) of a page that is being served."""
    words = [sys.executable, "-m", "inception_tf.predict", run_dir, "--serve", "--port=0", *options]
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(
        words, cwd=CHECKOUT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        match = re.match(r"(http://\S+/)  \(Ctrl-C ends it\)$", line)
        assert match, line + process.stderr.read()
        yield process, match[1]
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def served(run):  # noqa: F811
    with serving(run[0]) as (process, url):
        yield url


@pytest.fixture(scope="module")
def page(served, tmp_path_factory):
    with browser.open_page(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(served, width_px=1000, height_px=900)
        yield opened


def wait_for(page, expression):
    end = time.monotonic() + ANSWER_SECS
    while not (value := page.evaluate(expression)):
        assert time.monotonic() < end, expression
        time.sleep(0.1)
    return value


def drop(page, *paths):
    """Files as a person drops them, and their articles once they are answered, the last first."""
    data = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
    before = page.evaluate("document.querySelectorAll('article').length")
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, x=300, y=150, data=data)
    done = "[...document.querySelectorAll('article:has(td, .error)')]"
    wait_for(page, f"{done}.length == {before + len(paths)}")
    return page.evaluate(
        f"{done}.slice(0, {len(paths)}).map(one => ({{"
        " name: one.querySelector('h2').textContent,"
        " rows: [...one.querySelectorAll('tr')].map(row => row.innerText.split('\\t')),"
        " error: one.querySelector('.error')?.textContent,"
        " images: [...one.querySelectorAll('img')].map(i => [i.naturalWidth, i.naturalHeight])"
        "}))"
    )


def told_by_command(run_dir, *paths):
    words = [sys.executable, "-m", "inception_tf.predict", run_dir, *paths, "--format=jsonl"]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [json.loads(line)["classes"] for line in done.stdout.splitlines()]


@needs_browser
def test_dropped_images_get_the_commands_classes_and_their_crops(run, folder, page):  # noqa: F811
    assert "step 40" in wait_for(page, "document.querySelector('#model').textContent.slice(3)")
    paths = [path for path in images_of(folder) if path.endswith(("b.png", "c.JPEG", "x.jpg"))]
    articles = drop(page, *paths)
    assert [one["name"] for one in articles] == [os.path.basename(path) for path in paths[::-1]]
    sizes = {"b.png": (81, 73), "c.JPEG": (72, 86), "x.jpg": (45, 125)}
    for article, classes in zip(articles, told_by_command(run[0], *paths)[::-1], strict=True):
        rows = [[row[0], *row[-2:]] for row in article["rows"]]
        for row, one in zip(rows, classes, strict=True):
            assert abs(float(row[0].rstrip("%")) - 100 * one["probability"]) < 0.011
            assert row[1:] == [str(one["class"]), one["name"]]
        whole, seen = map(tuple, article["images"])
        assert whole == sizes[article["name"]] and seen == (SIDE_PX, SIDE_PX)


@needs_browser
def test_a_bad_file_is_told_as_text_and_the_page_goes_on(folder, page, tmp_path):  # noqa: F811
    (tmp_path / EVIL).write_text("<b>no image</b>")
    good, bad = drop(page, tmp_path / EVIL, images_of(folder)[0])
    assert bad["name"] == EVIL and bad["images"] == []
    assert "Not an image that can be read" in bad["error"] and len(good["rows"]) == 3
    with open(tmp_path / "large.jpg", "wb") as stream:
        stream.truncate(20_000_001)
    (large,) = drop(page, tmp_path / "large.jpg")
    assert large["error"] == "An image may have 20,000,000 bytes."
    assert page.evaluate("document.title") == "inception_tf: classes of images"


@needs_browser
def test_chosen_and_pasted_files_are_taken(folder, page, served):  # noqa: F811
    page.call("DOM.enable")
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
    count = page.evaluate("document.querySelectorAll('td').length")
    page.call("DOM.setFileInputFiles", nodeId=node, files=[images_of(folder)[2]])
    wait_for(page, f"document.querySelectorAll('td').length > {count}")
    pasted = base64.b64encode(pathlib.Path(images_of(folder)[1]).read_bytes()).decode()
    page.evaluate(
        "{ const data = new DataTransfer();"
        f" const bytes = Uint8Array.from(atob('{pasted}'), one => one.charCodeAt(0));"
        " data.items.add(new File([bytes], 'pasted.png'));"
        " dispatchEvent(new ClipboardEvent('paste', {clipboardData: data})); 0 }"
    )
    wait_for(page, "document.querySelector('article h2').textContent == 'pasted.png'"
             " && document.querySelectorAll('article:first-child td').length")  # fmt: skip
    # Nothing came from elsewhere in all this, and nothing complained.
    places = {event["request"]["url"] for event in page.told("Network.requestWillBeSent")}
    allowed = {served, served + "model", served + "classify"}
    assert {one for one in places if not one.startswith(("data:", "blob:"))} == allowed
    for method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
        assert page.told(method) == []
    # The browser itself notes the answer 422 of the bad file, and nothing else.
    entries = [event["entry"]["text"] for event in page.told("Log.entryAdded")]
    assert all("422" in text for text in entries) and len(entries) <= 1
    for width_px in (360, 1000):
        page.call("Emulation.setDeviceMetricsOverride", width=width_px, height=740,
                  deviceScaleFactor=1, mobile=width_px < 600)  # fmt: skip
        wide, screen = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
        assert wide <= screen == width_px


def ask(url, method, path, body=None, headers=None):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request(method, path, body=body, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


def test_the_server_itself_refuses_what_the_browser_would_not_send(served):
    assert ask(served, "GET", "/")[0] == 200
    assert ask(served, "GET", "/", headers={"Host": "evil.example"})[0] == 403
    status, text, headers = ask(served, "POST", "/classify", body=bytes(20_000_001))
    assert status == 413 and "20,000,000 bytes" in text
    assert "Python" not in headers["Server"] and "Werkzeug" not in headers["Server"]
    chunks = (bytes(2**20) for _ in range(2))
    assert ask(served, "POST", "/classify", body=chunks)[0] == 411  # of no known length


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_it_ends_at_once_when_it_is_asked_to(run, number, status):  # noqa: F811
    with serving(run[0], "--host=localhost", "--device=cpu") as (process, url):
        assert url.startswith("http://localhost:") and ask(url, "GET", "/model")[0] == 200
        process.send_signal(number)
        began = time.monotonic()
        assert process.wait(timeout=30) == status and time.monotonic() - began < 3
        assert "Traceback" not in process.stderr.read()
