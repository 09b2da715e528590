"""The page of `predict --serve`: what it answers, and what it refuses."""

import base64
import io
import re
import threading

import numpy as np
import pytest
import tensorflow as tf
from werkzeug.test import Client

from inception_tf import predict_page
from inception_tf.data import jpeg
from inception_tf.data.image import EvaluationCrop
from tests.test_features import CLASSES, decoded, folder, images_of, photograph  # noqa: F401
from tests.test_predict import TINY_PX, expected_of, tiny  # noqa: F401

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def app(tiny):
    return predict_page.PageApp(tiny[0], top_k=2, host=HOST)


@pytest.fixture
def client(app):
    return Client(app)


def post(client, data, **headers):
    base_url = f"http://{headers.pop('Host', HOST + ':8000')}/"
    return client.post("/classify", data=data, base_url=base_url, headers=headers)


def test_an_image_gets_its_classes_and_the_crop_that_the_network_saw(client, tiny, folder):
    crop = EvaluationCrop(central_fraction=0.8)
    for path in images_of(folder)[:3]:
        answer = post(client, open(path, "rb").read())
        assert answer.status_code == 200
        images = decoded([path], crop=crop, side_px=TINY_PX)
        (expected,) = expected_of(tiny[1], images, background=True)
        order = np.argsort(-expected)[:2]
        classes = answer.json["classes"]
        assert [one["class"] for one in classes] == order.tolist()
        assert [one["name"] for one in classes] == [CLASSES[index] for index in order]
        found = [one["probability"] for one in classes]
        np.testing.assert_allclose(found, expected[order], atol=1e-5)
        png = base64.b64decode(answer.json["seen"].removeprefix("data:image/png;base64,"))
        levels = (images[0].numpy() + 1.0) * 127.5
        assert np.abs(tf.io.decode_png(png).numpy() - levels).max() <= 0.501


def test_the_page_says_what_it_asks_and_fetches_nothing_from_elsewhere(client):
    page = client.get("/", base_url=f"http://{HOST}/")
    assert page.status_code == 200 and page.mimetype == "text/html"
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert re.findall(r"(?:src|href)=\"(?!data:)", page.text) == []
    assert "innerHTML" not in page.text and page.text.count("<script") == 1
    about = client.get("/model", base_url=f"http://{HOST}/").json
    assert about["what"] == "tiny weights" and about["num_classes"] == 3
    assert about["input_px"] == [TINY_PX, TINY_PX]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b" ", "cannot be decoded; it begins with 20"),
        (b"<script>alert(1)</script>", "cannot be decoded; it begins with 3c 73"),
        (b"\xff\xd8\xff\xe0cut", "the JPEG"),
    ],
)
def test_what_is_no_image_is_told_and_the_next_one_is_answered(client, folder, data, message):
    answer = post(client, data)
    assert answer.status_code == 422 and message in answer.json["error"]
    assert answer.mimetype == "application/json"
    assert post(client, open(images_of(folder)[0], "rb").read()).status_code == 200


@pytest.mark.parametrize("encode", [tf.io.encode_jpeg, tf.io.encode_png])
def test_a_picture_that_is_too_large_is_refused_though_it_could_be_decoded(
    client, monkeypatch, encode
):
    data = encode(photograph(1, height=20, width=30)).numpy()
    assert post(client, data).status_code == 200
    monkeypatch.setattr(jpeg, "_MAX_IMAGE_PX", 599)
    answer = post(client, data)
    assert answer.status_code == 422 and "promises 20 x 30 px, more than" in answer.json["error"]


def test_an_upload_that_is_too_large_is_refused_unread(client):
    class Unread(io.BytesIO):
        def read(self, *_):
            raise AssertionError("it was read")

    environ = {
        "wsgi.input": Unread(), "CONTENT_LENGTH": str(predict_page.MAX_IMAGE_BYTES + 1),
        "HTTP_HOST": HOST,
    }  # fmt: skip
    answer = client.post("/classify", environ_overrides=environ)
    assert client.post("/classify", base_url=f"http://{HOST}/").status_code == 411
    assert answer.status_code == 413 and "20,000,000 bytes" in answer.json["error"]


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("[::1]:8000", True),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("192.0.2.7:8000", False),
        ("localhost:8000@evil.example", False),
        ("", False),
    ],
)
def test_only_the_machines_own_names_are_served(app, host, is_served):
    environ = {"HTTP_HOST": host}
    for path in ("/", "/model", "/classify"):
        answer = Client(app).get(path, environ_overrides=environ)
        assert (answer.status_code != 403) == is_served, (path, answer.status_code)


def test_a_page_of_another_site_cannot_send_images(client, folder):
    data = open(images_of(folder)[0], "rb").read()
    assert post(client, data, Origin="http://127.0.0.1:8000").status_code == 200
    others = ("http://evil.example", "null", "http://127.0.0.1:9000", "https://127.0.0.1:8000")
    for origin in others:
        answer = post(client, data, Origin=origin)
        assert answer.status_code == 403 and "classes" not in answer.json


def test_a_page_for_others_is_served_under_numbers_and_its_own_name(tiny):
    app = predict_page.PageApp(tiny[0], top_k=1, host="0.0.0.0")
    for host, status in {"192.0.2.7:8000": 200, "[2001:db8::1]": 200, "evil.example": 403}.items():
        assert Client(app).get("/", environ_overrides={"HTTP_HOST": host}).status_code == status
    assert not predict_page.is_loopback("0.0.0.0") and not predict_page.is_loopback("example.org")
    assert predict_page.is_loopback("127.0.0.1") and predict_page.is_loopback("::1")


def test_there_is_nothing_else(client):
    for path in ("/predict_page.py", "/../setup.py", "/static/", "/classify/"):
        assert client.get(path, base_url=f"http://{HOST}/").status_code == 404
    assert client.get("/classify", base_url=f"http://{HOST}/").status_code == 405
    assert client.post("/", base_url=f"http://{HOST}/").status_code == 405


def test_one_image_is_worked_on_at_a_time_and_a_long_queue_is_refused(tiny, folder):
    data = open(images_of(folder)[0], "rb").read()
    may_go_on, running, most = threading.Event(), [], []

    class Slow:
        def __getattr__(self, name):
            return getattr(tiny[0], name)

        def probabilities(self, images):
            running.append(1)
            most.append(len(running))
            may_go_on.wait(30)
            running.pop()
            return tiny[0].probabilities(images)

    app = predict_page.PageApp(Slow(), top_k=1, host=HOST)
    statuses = []

    def send():
        statuses.append(post(Client(app), data).status_code)

    threads = [threading.Thread(target=send) for _ in range(predict_page.MAX_WAITING + 3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        if statuses.count(503) == 3:
            break
        threading.Event().wait(0.1)
    threading.Event().wait(0.5)  # for the others to come as far as they may
    may_go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * predict_page.MAX_WAITING + [503] * 3
    assert max(most) == 1
    assert post(Client(app), data).status_code == 200


def test_a_fault_of_the_server_is_told_without_its_inside(tiny, folder, capsys):
    class Broken:
        def __getattr__(self, name):
            return getattr(tiny[0], name)

        def probabilities(self, images):
            raise RuntimeError("/secret/place")

    app = predict_page.PageApp(Broken(), top_k=1, host=HOST)
    answer = post(Client(app), open(images_of(folder)[0], "rb").read())
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "/secret/place" in capsys.readouterr().err
