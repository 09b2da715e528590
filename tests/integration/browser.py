"""A headless Chromium that tests drive over a pipe, by the DevTools protocol."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT_SECS = 60


def find_browser():
    """Path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page of a browser.

    Attributes:
      events: everything that the browser told, in order: method and params.
    """

    def __init__(self, to_browser, from_browser):
        self._to_browser, self._from_browser = to_browser, from_browser
        self._received, self._last_id, self._session = b"", 0, None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """The result of a command."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next_message()
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, url, *, width_px, height_px):
        """Loads a page as a screen of this size shows it; returns once it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width_px, height=height_px,
                  deviceScaleFactor=1, mobile=width_px < 600)  # fmt: skip
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next_message()

    def evaluate(self, expression):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def told(self, method):
        """The params of every event of this name since the page was opened."""
        return [event["params"] for event in self.events if event["method"] == method]

    def screenshot(self, path, *, is_whole=False):
        """Writes what the screen shows, or the whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=is_whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next_message(self):
        end = time.monotonic() + _TIMEOUT_SECS
        while b"\0" not in self._received:
            readable, _, _ = select.select([self._from_browser], [], [], end - time.monotonic())
            chunk = os.read(self._from_browser, 2**20) if readable else b""
            assert chunk, "the browser ended, or says nothing"
            self._received += chunk
        line, _, self._received = self._received.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@contextlib.contextmanager
def open_page(profile_dir):
    """A Page of a browser that keeps its files in `profile_dir`."""
    browser_in, to_browser = os.pipe()
    from_browser, browser_out = os.pipe()

    def place_pipes():  # Chromium reads from descriptor 3 and writes to 4
        high = [os.dup(fd) for fd in (browser_in, browser_out)]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    process = subprocess.Popen(
        [find_browser(), "--headless=new", "--no-sandbox", "--disable-gpu",
         "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
         f"--user-data-dir={profile_dir}", "--remote-debugging-pipe", "about:blank"],
        preexec_fn=place_pipes, close_fds=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(browser_in)
    os.close(browser_out)
    try:
        page = Page(to_browser, from_browser)
        yield page
    finally:
        os.close(to_browser)
        os.close(from_browser)
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
