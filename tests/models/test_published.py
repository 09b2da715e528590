"""Published weights: fetched once, verified at every use. A server of this machine stands in."""

import contextlib
import hashlib
import http.server
import multiprocessing
import re
import socket
import threading

import pytest

from inception_tf.errors import ConfigError, DataError
from inception_tf.models.weights.published import PUBLISHED, PublishedFile, fetch

CONTENT = bytes(range(256)) * 20_000
NAME = "keras:inception_v3"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.paths.append(self.path)
        if self.path != "/weights/file.h5":
            self.send_error(404)
            return
        server.may_answer.wait(20)
        self.send_response(200)
        if server.sends_length:
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: server.num_sent])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.paths, server.num_sent, server.sends_length = [], len(CONTENT), True
    server.may_answer = threading.Event()
    server.may_answer.set()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def published(port, *, name="file.h5", md5=None):
    md5 = md5 or hashlib.md5(CONTENT).hexdigest()
    return {NAME: PublishedFile(url=f"http://127.0.0.1:{port}/weights/{name}", md5=md5)}


def visible(directory):
    return sorted(p.name for p in directory.iterdir() if not p.name.endswith(".lock"))


def test_addresses_and_digests_are_the_published_ones():
    folder = "https://storage.googleapis.com/tensorflow/keras-applications/"
    ending = "_weights_tf_dim_ordering_tf_kernels"
    assert {name: (file.url, file.md5) for name, file in PUBLISHED.items()} == {
        "keras:inception_v3": (
            f"{folder}inception_v3/inception_v3{ending}.h5", "9a0d58056eeedaa3f26cb7ebd46da564",
        ),
        "keras:inception_v3_notop": (
            f"{folder}inception_v3/inception_v3{ending}_notop.h5",
            "bcbd6486424b2319ff4ef7d526e38f63",
        ),
        "keras:inception_resnet_v2": (
            f"{folder}inception_resnet_v2/inception_resnet_v2{ending}.h5",
            "e693bd0210a403b3192acc6073ad2e96",
        ),
        "keras:inception_resnet_v2_notop": (
            f"{folder}inception_resnet_v2/inception_resnet_v2{ending}_notop.h5",
            "d19885ff4a710c122648d3b5c3b684e4",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("sends_length", [True, False])
def test_a_file_is_fetched_once(server, tmp_path, capsys, sends_length):
    server.sends_length = sends_length
    files, cache = published(server.server_port), tmp_path / "made" / "cache"
    path = fetch(NAME, cache_dir=cache, files=files)
    assert path == cache / "file.h5"
    assert path.read_bytes() == CONTENT
    assert visible(cache) == ["file.h5"]
    assert capsys.readouterr().err == ""  # this is no terminal, and a bar would fill a log
    server.shutdown()  # from here on there is no network
    assert fetch(NAME, cache_dir=cache, files=files) == path
    assert server.paths == ["/weights/file.h5"]
    assert capsys.readouterr().err == ""


def test_a_wrong_digest_leaves_nothing_and_says_what_to_do(server, tmp_path):
    files = published(server.server_port, md5="0" * 32)
    with pytest.raises(DataError) as caught:
        fetch(NAME, cache_dir=tmp_path, files=files)
    came = hashlib.md5(CONTENT).hexdigest()
    for part in (files[NAME].url, came, "0" * 32, str(tmp_path / "file.h5"), "yourself"):
        assert part in str(caught.value)
    assert visible(tmp_path) == []


def test_an_interrupted_transfer_leaves_nothing_and_can_be_begun_again(server, tmp_path):
    files = published(server.server_port)
    server.num_sent = 1_000_000
    with pytest.raises(DataError, match=r"1,000,000 of 5,120,000|IncompleteRead"):
        fetch(NAME, cache_dir=tmp_path, files=files)
    assert visible(tmp_path) == []
    server.num_sent = len(CONTENT)
    assert fetch(NAME, cache_dir=tmp_path, files=files).read_bytes() == CONTENT


def test_what_a_killed_download_left_is_written_over(server, tmp_path):
    (tmp_path / ".file.h5.tmp").write_bytes(b"x" * 10_000_000)
    path = fetch(NAME, cache_dir=tmp_path, files=published(server.server_port))
    assert path.read_bytes() == CONTENT
    assert visible(tmp_path) == ["file.h5"]


@pytest.mark.parametrize("damage", ["one bit", "cut short"])
def test_a_damaged_file_in_the_cache_is_seen_at_the_next_use(server, tmp_path, damage):
    files = published(server.server_port)
    path = fetch(NAME, cache_dir=tmp_path, files=files)
    content = bytearray(CONTENT)
    content[7] ^= damage == "one bit"
    path.write_bytes(content if damage == "one bit" else content[:-1])
    with pytest.raises(DataError, match="Delete it") as caught:
        fetch(NAME, cache_dir=tmp_path, files=files)
    for part in (files[NAME].url, files[NAME].md5, str(path)):
        assert part in str(caught.value)


def refusing_url():
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/file.h5"


@pytest.mark.parametrize("kind", ["refused", "unresolvable", "not found", "unwritable"])
def test_offline_the_message_has_address_digest_and_place(server, tmp_path, kind):
    cache = tmp_path / "cache"
    url = {
        "refused": refusing_url(),
        "unresolvable": "http://no-such-host.invalid/file.h5",
        "not found": f"http://127.0.0.1:{server.server_port}/other/file.h5",
        "unwritable": f"http://127.0.0.1:{server.server_port}/weights/file.h5",
    }[kind]
    if kind == "unwritable":
        cache.write_text("a file where the directory should be")
    files = {NAME: PublishedFile(url=url, md5="a" * 32)}
    with pytest.raises(DataError) as caught:
        fetch(NAME, cache_dir=cache, files=files)
    for part in (url, "a" * 32, str(cache / "file.h5"), "yourself"):
        assert part in str(caught.value)


def test_a_file_put_there_by_hand_needs_no_network(tmp_path):
    (tmp_path / "file.h5").write_bytes(CONTENT)
    files = {
        NAME: PublishedFile(url=refusing_url(), md5=hashlib.md5(CONTENT).hexdigest()),
    }
    assert fetch(NAME, cache_dir=tmp_path, files=files).read_bytes() == CONTENT


def _fetch_in_process(port, cache, barrier, results):
    barrier.wait(20)
    results.put(fetch(NAME, cache_dir=cache, files=published(port)).read_bytes() == CONTENT)


def test_of_several_processes_one_fetches_and_all_have_it(server, tmp_path):
    # The server does not answer before all have asked for the file.
    server.may_answer.clear()
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    arguments = (server.server_port, tmp_path, barrier, results)
    processes = [context.Process(target=_fetch_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    barrier.wait(20)
    threading.Timer(0.5, server.may_answer.set).start()
    assert [results.get(timeout=30) for _ in processes] == [True] * 3
    for process in processes:
        process.join(10)
    assert server.paths == ["/weights/file.h5"]
    assert visible(tmp_path) == ["file.h5"]


def test_an_unknown_name_is_an_error_with_the_nearest_one():
    with pytest.raises(ConfigError, match=re.escape("Did you mean keras:inception_v3")):
        fetch("keras:inceptionv3")
