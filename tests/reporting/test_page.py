"""The page of a report: nothing of a name becomes markup, nothing is fetched, bytes repeat."""

import base64
import html.parser
import re

import pytest

from inception_tf.errors import ConfigError
from inception_tf.reporting import page
from inception_tf.reporting.page_contents import Report, Run, WorstClass, WorstClasses

EVIL = "<script>alert(1)</script>\"'&"


def report(**changes):
    run = Run(
        label=EVIL, path=EVIL, network="inception_v4", variant="released", num_classes=10,
        steps_per_epoch=10.0, total_steps=40, config_text=EVIL,
        eval_rows=[
            {"step": 10, "kind": "eval", "eval_averaged/top1": 0.9, "eval_averaged/top5": 1.0}
        ],
        differences=[("model.name", EVIL, "b")],
    )  # fmt: skip
    worst = WorstClasses(
        label=EVIL, what=EVIL, note=EVIL,
        classes=(WorstClass(index=0, name=EVIL, num_examples=4, num_wrong=2, num_wrong_top5=1,
                            taken_for=((EVIL, 2),), images=(b"\xff\xd8jpeg",)),),
    )  # fmt: skip
    fields = {"runs": (run,), "measured": (), "worst": (worst,), "notes": (EVIL,)}
    return Report(**{**fields, **changes})


class Elements(html.parser.HTMLParser):
    """Every element of a page with its attributes, and all of its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "deep" / "er"
    path = page.write_report(out, report())
    return out, path.read_text(encoding="utf-8")


def test_names_are_text_and_never_markup(written):
    elements = Elements(written[1])
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "iframe", "object", "embed", "base", "form"}
    assert elements.text.count("<script>alert(1)</script>") >= 9
    known = {"alt", "charset", "class", "content", "href", "id", "lang", "name", "rel", "src",
             "style", "tabindex"}  # fmt: skip
    assert {name for _, attrs in elements.found for name in attrs} <= known


def test_the_page_needs_nothing_else(written):
    out, text = written
    elements = Elements(text).found
    places = [attrs[name] for _, attrs in elements for name in ("src", "href") if name in attrs]
    assert places and all(place.startswith(("data:", "#")) for place in places)
    assert "url(" not in text and "@import" not in text
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    files = sorted(out.glob("*.png"))
    assert {path.read_bytes() for path in files} == {base64.b64decode(image) for image in images}
    assert len(files) == 8
    assert base64.b64encode(b"\xff\xd8jpeg").decode() in text


def test_every_image_says_what_it_shows(written):
    images = [attrs for tag, attrs in Elements(written[1]).found if tag == "img"]
    assert images and all(attrs["alt"] for attrs in images)


def test_the_same_sources_give_the_same_bytes_and_stale_figures_go(written, tmp_path):
    out, _ = written
    (tmp_path / "figure_21.png").write_bytes(b"of an earlier report")
    (tmp_path / "mine.png").write_bytes(b"")
    page.write_report(tmp_path, report())
    names = {path.name for path in out.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == names | {"mine.png"}
    for name in names:
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_a_report_of_evaluations_alone_has_no_curves(tmp_path):
    text = page.write_report(tmp_path, report(runs=())).read_text(encoding="utf-8")
    assert "Worst classes" in text and "Over time" not in text
    assert list(tmp_path.glob("*.png")) == []


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out must name a directory .*file"):
        page.write_report(tmp_path / "file", report(runs=()))
