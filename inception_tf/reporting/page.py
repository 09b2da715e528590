"""The page of a report: one HTML file that needs nothing else, and the figures beside it as PNG."""

import base64
import html
import pathlib
import re
from collections.abc import Sequence

from inception_tf import durable
from inception_tf.counts import count_of
from inception_tf.errors import ConfigError
from inception_tf.reporting import page_figures, page_tables
from inception_tf.reporting.page_contents import Report
from inception_tf.reporting.page_figures import Figure
from inception_tf.reporting.page_tables import PageTable

PAGE_FILE = "index.html"
_FIGURE_STEMS = (
    *(f"figure_{number}" for number in range(21, 27)),
    *(stem for stem, *_ in page_figures.TIMELINES),
)

# No script, no font and no picture from elsewhere: what a browser shows stands in the file.
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1a1a1a; line-height: 1.45;
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 12px 16px 48px; }
h1 { font-size: 22px; margin: 4px 0 10px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 36px 0 10px; padding-top: 10px; border-top: 2px solid #1a1a1a; }
h3 { font-size: 16px; margin: 18px 0 6px; overflow-wrap: anywhere; }
p { margin: 6px 0; overflow-wrap: anywhere; }
.note { color: #444; font-size: 14px; }
.results { display: flex; flex-wrap: wrap; gap: 10px; margin: 0 0 12px; }
.result { border: 1px solid #999; border-left: 8px solid; border-radius: 4px; padding: 6px 12px;
  flex: 1 1 260px; min-width: 0; }
.result b { font-size: 22px; margin-right: 6px; white-space: nowrap; }
.result span { margin-right: 14px; }
.result p { margin: 1px 0; font-size: 14px; }
.first { display: grid; grid-template-columns: minmax(0, 1fr); gap: 14px; align-items: start; }
.grid { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); }
figure { margin: 0; min-width: 0; }
figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: 14px; color: #444; }
.box { overflow-x: auto; max-width: 100%; }
.differs .box { max-height: 430px; overflow-y: auto; border: 1px solid #bbb; }
table { border-collapse: collapse; font-size: 14px; }
th, td { border: 1px solid #bbb; padding: 3px 8px; text-align: left; vertical-align: top; }
th { background: #eee; }
.box th { position: sticky; top: 0; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td:empty { background: #f7f7f7; }
.differs h2 { font-size: 18px; margin: 0 0 6px; padding: 0; border: 0; }
.differs td { overflow-wrap: anywhere; }
.classes { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 280px), 1fr)); }
.class { border: 1px solid #bbb; border-radius: 4px; padding: 8px; min-width: 0; }
.class img { width: calc(25% - 4px); max-width: 112px; vertical-align: top; margin: 2px 4px 2px 0; }
pre { overflow-x: auto; border: 1px solid #bbb; padding: 8px; font-size: 14px; }
summary { cursor: pointer; font-weight: 600; padding: 6px 0; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
@media (max-width: 600px) {
  .results { flex-wrap: nowrap; overflow-x: auto; } .result { flex: 1 0 86%; }
  .result b { font-size: 18px; margin-right: 4px; } .result span { margin-right: 6px; }
}
@media (min-width: 1000px) {
  .first { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .first .second { order: 2; } .first .differs { order: 3; }
}
"""


def write_report(directory, report: Report) -> pathlib.Path:
    """Writes the page and its figures; the page's path.

    Each file is there whole or not at all, the page last. The same sources give the same bytes.
    Figures of an earlier report that this one does not have are removed.

    Args:
      directory: made where it is absent.

    Raises:
      ConfigError: it cannot be written.
    """
    directory = pathlib.Path(directory)
    draw = {
        "main": page_figures.main_figures,
        "pairs": page_figures.pair_figures,
        "timelines": page_figures.timeline_figures,
    }
    groups = {name: draw_all(report.runs) if report.runs else [] for name, draw_all in draw.items()}
    text = page_html(report, groups)
    drawn = {figure.name: figure.png for figures in groups.values() for figure in figures}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, png in drawn.items():
            durable.save_bytes(directory / f"{name}.png", png)
        durable.save_text(directory / PAGE_FILE, text)
        for name in set(_FIGURE_STEMS) - set(drawn):
            (directory / f"{name}.png").unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            "--out must name a directory that can be written.",
            received=f"{directory} ({error.strerror})",
        ) from None
    return directory / PAGE_FILE


def page_html(report: Report, groups: dict[str, list[Figure]]) -> str:
    """The text of the page.

    Args:
      report: what it shows.
      groups: 'main', 'pairs' and 'timelines' -> figures.
    """
    names = ", ".join(run.label for run in report.runs)
    names = names or ("evaluations" if report.measured else "claims")
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>Report: {_text(names)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Report: {_text(names)}</h1>",
        *_first_screen(report, groups["main"]),
        *_pairs(groups["pairs"]),
        _section("Over time", _grid(groups["timelines"]), when=report.runs),
        *_tables(report),
        *_worst(report),
        *_claims(report),
        *_configs(report),
        _section("Sources", *(f'<p class="note">{_text(line)}</p>' for line in _sources(report))),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


# -- sections ----------------------------------------------------------------------------------


def _first_screen(report, figures):
    """Results, curves, and what differs from the paper."""
    if not report.runs:
        return []
    cards = []
    for number, run in enumerate(report.runs):
        color = page_figures.COLORS[number % len(page_figures.COLORS)]
        cards.append(_card(page_tables.result_of(run), color))
    top1, top5 = (_figure(figure) for figure in figures)
    differs = "".join(
        f"<h3>{_text(table.title)}</h3>{_table(table)}"
        for table in page_tables.paper_differences(report.runs)
    )
    return [
        f'<div class="results" tabindex="0">{"".join(cards)}</div>',
        f'<div class="first">{top1}'
        f'<div class="differs" id="differs"><h2>What differs from the paper</h2>{differs}</div>'
        f'<div class="second">{top5}</div></div>',
    ]


def _card(result, color):
    errors = ""
    if result.top1:
        errors = (
            f"<p><b>{_text(result.top1)}</b><span>top-1</span> "
            f"<b>{_text(result.top5)}</b>top-5 error</p>"
        )
    lines = [f"{result.label}: {result.network}; {result.progress}", *result.details]
    text = "".join(f"<p>{_text(line)}</p>" for line in lines)
    text += f'<p><a href="#differs">{_broken(result.differs)}</a></p>'
    return f'<div class="result" style="border-left-color: {color}">{errors}{text}</div>'


def _pairs(figures):
    if not figures:
        return []
    return [_section("As figures 21 to 24 of arXiv 1602.07261", _grid(figures))]


def _tables(report):
    published = page_tables.published_tables(report.measured)
    intro = (
        '<p class="note">Published values are as printed, measured ones are of this project. '
        "A blank is what was not printed, or not measured.</p>"
    )
    parts = [intro]
    parts += [f"<h3>{_text(table.title)}</h3>{_table(table)}" for table in published]
    sections = [_section("Tables 2 to 5 of both papers", *parts)]
    if report.measured:
        everything = page_tables.measured_table(report.measured)
        sections.append(_section(everything.title, _table(everything)))
    return sections


def _worst(report):
    parts = []
    for worst in report.worst:
        parts.append(f"<h3>{_text(worst.label)}</h3>")
        parts += [f'<p class="note">{_text(line)}</p>' for line in (worst.what, worst.note) if line]
        if worst.classes:
            parts.append(f'<div class="classes">{"".join(map(_class, worst.classes))}</div>')
    if any(one.images for worst in report.worst for one in worst.classes):
        told = "The images are the first of each class in the records, be they right or wrong."
        parts.append(f'<p class="note">{told}</p>')
    return [_section("Worst classes", *parts)] if parts else []


def _class(one):
    taken = ", ".join(f"{name} ({count})" for name, count in one.taken_for)
    lines = [
        f"top-1: {one.num_wrong} of {one.num_examples} images wrong "
        f"({100 * one.num_wrong / one.num_examples:.1f}%); top-5: {one.num_wrong_top5} wrong",
        *([f"most taken for: {taken}"] if taken else []),
    ]
    images = "".join(
        f'<img alt="{_text(f"an evaluation image of {one.name}")}" '
        f'src="{_data_uri("image/jpeg", image)}">'
        for image in one.images
    )
    text = "".join(f'<p class="note">{_text(line)}</p>' for line in lines)
    return f'<div class="class"><strong>{_text(one.name)}</strong>{text}<div>{images}</div></div>'


def _claims(report):
    parts = []
    for claim in report.claims:
        title = f"Claim {claim.number}: {claim.title}"
        table = PageTable(
            title=title, header=claim.header, rows=claim.rows,
            numeric=frozenset(range(1, len(claim.header))),
        )  # fmt: skip
        figure = Figure(
            name=f"claim_{claim.number}", png=claim.png, title=title, alt=title,
            caption=claim.verdict,
        )  # fmt: skip
        parts += [f"<h3>{_text(title)}: {_text(claim.verdict)}</h3>", _table(table)]
        parts += [f'<p class="note">{_text(line)}</p>' for line in claim.lines]
        parts.append(_figure(figure))
    return [_section("The papers' claims, tried small", *parts)] if parts else []


def _configs(report):
    if not report.runs:
        return []
    parts = []
    if len(report.runs) > 1:
        differing = page_tables.run_differences(report.runs)
        parts.append(f"<h3>{_text(differing.title)}</h3>{_table(differing)}")
    parts += [
        f"<details><summary>The resolved config of {_text(run.label)}</summary>"
        f'<pre tabindex="0">{_text(run.config_text)}</pre></details>'
        for run in report.runs
    ]
    return [_section("Config", *parts)]


def _sources(report):
    for run in report.runs:
        told = ", ".join(
            (
                f"{count_of(len(run.train_rows), 'row')} of training",
                f"{len(run.eval_rows)} of evaluation",
                count_of(len(run.restarts), "restart"),
            )
        )
        yield f"{run.label}: {run.path}; {told}"
    yield from (f"evaluation: {path}" for path in dict.fromkeys(m.path for m in report.measured))
    yield from report.notes


# -- elements ----------------------------------------------------------------------------------


def _section(title, *parts, when=True):
    return f"<section><h2>{_text(title)}</h2>{''.join(parts)}</section>" if when else ""


def _grid(figures: Sequence[Figure]):
    return f'<div class="grid">{"".join(map(_figure, figures))}</div>'


def _figure(figure):
    caption = f"<strong>{_text(figure.title)}.</strong> {_text(figure.caption)}"
    return (
        f'<figure><img alt="{_text(figure.alt)}" src="{_data_uri("image/png", figure.png)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(table: PageTable):
    def cells(row, tag):
        for column, cell in enumerate(row):
            kind = ' class="n"' if column in table.numeric else ""
            yield f"<{tag}{kind}>{_broken(cell)}</{tag}>"

    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    if not table.rows:
        return note
    head = f"<tr>{''.join(cells(table.header, 'th'))}</tr>"
    body = "\n".join(f"<tr>{''.join(cells(row, 'td'))}</tr>" for row in table.rows)
    # A keyboard scrolls what can have the focus.
    return f'<div class="box" tabindex="0"><table>{head}\n{body}</table></div>{note}'


def _broken(text):
    """Text in which a long name such as model.input_height_px may go on in the next line."""
    return re.sub(r"(?<=\w)([._])(?=[a-z])", r"\1<wbr>", _text(text))


def _text(value):
    return html.escape(str(value), quote=True)


def _data_uri(kind, content):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
