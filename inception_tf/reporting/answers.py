"""The classes of images as text: a table for people, JSON lines and CSV for programs.

Each form has something for every image, in the order in which they come, a bad one too, so that a
pipe can be read line by line.
"""

import csv
import io
import json
from collections.abc import Sequence

FORMS = ("table", "jsonl", "csv")
_CSV_COLUMNS = ("path", "rank", "class", "name", "probability", "error")


def header_text(form: str) -> str:
    """What stands before the first image."""
    return _csv_rows([_CSV_COLUMNS]) if form == "csv" else ""


def answer_text(form: str, path: str, answers: Sequence, *, num_classes: int) -> str:
    """One image's classes.

    Args:
      form: one of FORMS.
      path: of the image.
      answers: with class_index, name ('' for none) and probability, the best first.
      num_classes: K, for the width of the table.
    """
    if form == "jsonl":
        return _json_line({"path": path, "classes": json_classes(answers)})
    if form == "csv":
        return _csv_rows(
            (path, rank, one.class_index, one.name, one.probability, "")
            for rank, one in enumerate(answers, start=1)
        )
    width = len(str(num_classes - 1))
    lines = [
        f"  {one.probability:7.2%}  {one.class_index:{width}}  {printable(one.name)}".rstrip()
        for one in answers
    ]
    return "\n".join([printable(path), *lines]) + "\n"


def error_text(form: str, path: str, reason: str) -> str:
    """One image that could not be read."""
    if form == "jsonl":
        return _json_line({"path": path, "error": reason})
    if form == "csv":
        return _csv_rows([(path, "", "", "", "", reason)])
    return f"{printable(path)}\n  error: {printable(reason)}\n"


def json_classes(answers: Sequence) -> list[dict]:
    """One image's classes as JSON has them: a class without a name has null."""
    return [
        {"class": one.class_index, "name": one.name or None, "probability": one.probability}
        for one in answers
    ]


def printable(text: str) -> str:
    """The text in one line, without what would move a terminal's cursor or change its colours."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def _json_line(content):
    return json.dumps(content, ensure_ascii=False) + "\n"


def _csv_rows(rows):
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
