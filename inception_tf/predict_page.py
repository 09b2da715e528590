"""The page of `predict --serve`: drop images, see their classes and what the network saw of them.

A server for one person on one machine: no passwords, no encryption, one image at a time. What is
uploaded is an image file's bytes in memory, and goes to TensorFlow's decoders and nowhere else.
"""

import base64
import hashlib
import ipaddress
import json
import os
import pathlib
import re
import signal
import socket
import threading
import traceback

import numpy as np
import tensorflow as tf
from werkzeug import exceptions
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from inception_tf.data import image_files, jpeg
from inception_tf.errors import EXIT_PREEMPTED, ConfigError
from inception_tf.reporting import answers

MAX_IMAGE_BYTES = 20 * 10**6
MAX_WAITING = 8  # requests with an image, the one that is worked on included
_HTML = pathlib.Path(__file__).with_name("predict_page.html")
_READ_SECS = 30  # for a visitor's next bytes
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Upload(Request):
    max_content_length = MAX_IMAGE_BYTES


class PageApp:
    """The page as a WSGI application.

    GET / is the page, GET /model what it says of the network, and POST /classify takes an image
    file's bytes and answers {"classes": [{"class", "name", "probability"}], "seen": a PNG as a data
    URI}; errors are {"error": text}.

    Args:
      classifier: a Classifier.
      top_k: classes to name.
      host: the address that the server listens on. Requests have to name it, or this machine.
    """

    def __init__(self, classifier, *, top_k: int, host: str):
        self._classifier = classifier
        self._top_k = top_k
        self._names = _own_names(host)
        self._slots = threading.BoundedSemaphore(MAX_WAITING)
        self._one_at_a_time = threading.Lock()
        bytes_of_one = [tf.TensorSpec([], tf.string)]
        self._decode = tf.function(classifier.decode, input_signature=bytes_of_one)
        self._html = _HTML.read_bytes()
        self._policy = _content_policy(self._html.decode("utf-8"))

    def __call__(self, environ, start_response):
        try:
            response = self._answer(_Upload(environ))
        except exceptions.HTTPException as error:
            response = _json({"error": error.description}, status=error.code)
        except Exception:
            traceback.print_exc()
            response = _json({"error": "The server failed: its terminal says why."}, status=500)
        response.headers.update(_HEADERS)
        return response(environ, start_response)

    def _answer(self, request):
        _check_origin(request, self._names)
        if request.path == "/classify":
            _check_method(request, "POST")
            return _json(self._classify_upload(request))
        if request.path not in ("/", "/model"):
            raise exceptions.NotFound("There is no such page.")
        _check_method(request, "GET")
        if request.path == "/model":
            return _json(self._about())
        response = Response(self._html, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = self._policy
        return response

    def _about(self):
        made = self._classifier
        return {
            "what": made.what,
            "notes": list(made.notes),
            "num_classes": made.num_classes,
            "input_px": [made.input_height_px, made.input_width_px],
            "max_bytes": MAX_IMAGE_BYTES,
        }

    def _classify_upload(self, request):
        # The slot comes before the bytes are read: so many images are in memory and no more.
        if not self._slots.acquire(blocking=False):
            raise exceptions.ServiceUnavailable("Too many images wait already: try again.")
        try:
            data = _read(request)
            with self._one_at_a_time:
                return self._classify(data)
        finally:
            self._slots.release()

    def _classify(self, data):
        """The answer to an image file's bytes; UnprocessableEntity where they are none."""
        try:
            jpeg.check_promises(data)  # before a decoder allocates what a header says
            image = self._decode(data)
        except jpeg.BadImage as error:
            raise _not_an_image(error) from None
        except tf.errors.OpError:
            raise _not_an_image(image_files.why_undecodable(data, decode=self._decode)) from None
        (probabilities,) = np.asarray(self._classifier.probabilities(image[tf.newaxis]))
        png = tf.io.encode_png(self._classifier.pixels(image)).numpy()
        return {
            "classes": answers.json_classes(self._classifier.best(probabilities, self._top_k)),
            "seen": "data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        }


def _not_an_image(reason):
    return exceptions.UnprocessableEntity(f"Not an image that can be read: {reason}.")


def _read(request):
    """The bytes of a request, as they are: a form's files would be written to disk."""
    if request.content_length is None:  # werkzeug would cut what goes beyond the limit off
        raise exceptions.LengthRequired("An image has to come with its length.")
    try:
        return request.get_data(cache=False)
    except exceptions.RequestEntityTooLarge:
        raise exceptions.RequestEntityTooLarge(
            f"An image may have {MAX_IMAGE_BYTES:,} bytes."
        ) from None


def _check_method(request, method):
    if request.method != method:
        raise exceptions.MethodNotAllowed([method], f"This takes {method} alone.")


def _check_origin(request, names):
    """Raises Forbidden for a request that another site made a visitor's browser send.

    A name that a stranger points at this machine (DNS rebinding) shows in Host, and a page of
    another site in Origin, which browsers send with every POST.
    """
    host = request.headers.get("Host", "")
    name = re.sub(r":\d+$", "", host).lower()
    if name not in names and not (None in names and _is_address(name)):
        raise exceptions.Forbidden("This page is not served under that name.")
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        raise exceptions.Forbidden("Only this page itself may send images.")


def _own_names(host):
    """What Host may say; None among them stands for any address that is a number."""
    names = {"localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host.lower()}]"}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower(), None}
    return names


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if _is_address(host):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host.lower() == "localhost"


def _is_address(text):
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _content_policy(html):
    """Nothing from elsewhere, and of scripts and styles the very ones that stand in the page."""

    def digest(tag):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1]
        return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")

    return "; ".join([
        "default-src 'none'",
        f"script-src 'sha256-{digest('script')}'",
        f"style-src 'sha256-{digest('style')}'",
        "img-src data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ])  # fmt: skip


def _json(content, *, status=200):
    return Response(json.dumps(content), status=status, content_type="application/json")


class _Handler(WSGIRequestHandler):
    """Reads and answers one connection; says nothing of what visitors did."""

    timeout = _READ_SECS
    server_version = "inception_tf"
    sys_version = ""

    def log_request(self, *_):
        pass

    def log_error(self, *_):
        pass


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
      ConfigError: it cannot: no such address, or a port in use.
    """
    try:
        # Of a name with both kinds of address IPv4, as the server takes it.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][-1]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address[0], port, *address[2:]))  # the system cuts a port to 16 bits
        listener.listen()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            "The page needs an address of this machine and a free port.",
            received=f"{host}, port {port}: {error}",
            remedy="Give --host or --port; --port=0 takes a free one.",
        ) from error
    return listener


def serve(classifier, listener: socket.socket, *, host: str, top_k: int, tell) -> int:
    """Serves the page until Ctrl-C or SIGTERM, which end the process at once with 0 or 143.

    Args:
      classifier: a Classifier.
      listener: of `listen`.
      host: as the user gave it.
      top_k: classes to name.
      tell: called with each line for the user.
    """
    for number, status in ((signal.SIGINT, 0), (signal.SIGTERM, EXIT_PREEMPTED)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            # There is nothing to save, and an image may be in the works in another thread.
            signal.signal(number, lambda *_, status=status: os._exit(status))
    port = listener.getsockname()[1]
    app = PageApp(classifier, top_k=top_k, host=host)
    server = make_server(
        host, port, app, threaded=True, request_handler=_Handler, fd=listener.fileno()
    )
    if not is_loopback(host):
        tell(
            f"warning: whoever can connect to port {port} of this machine can use the page, "
            "unencrypted and without a password (docs/security.md)"
        )
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}/  (Ctrl-C ends it)", flush=True)
    server.serve_forever()
    return 0
