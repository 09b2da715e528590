"""The table of a dry run."""

from inception_tf.errors import ConfigError, DataError
from inception_tf.reporting.checklist import Report


def broken():
    raise DataError("Shard 3 must be there.", received="/data/3", remedy="Copy it again.")


def test_a_table_tells_what_was_found_and_that_all_passed():
    report = Report()
    assert report.attempt("disk", lambda: 5, tell=lambda free: f"{free} GiB free\nat /data") == (
        True,
        5,
    )
    report.add("warning", "noisy", "note")
    report.add("step", "not tried", "-")
    assert report.is_passed
    assert report.text().splitlines() == [
        "      check    found",
        "      -------  ----------",
        "ok    disk     5 GiB free",
        "               at /data",
        "note  warning  noisy",
        "-     step     not tried",
        "",
        "dry run: 1 check passed; nothing was saved",
    ]


def test_what_has_to_be_mended_stands_below_in_full_and_nothing_is_cut():
    report = Report()
    assert report.attempt("records", broken, tell=str) == (False, None)
    report.attempt("disk", lambda: "enough", tell=str)
    report.add("port", str(ConfigError("A.\n  b\n")), "MEND")
    assert not report.is_passed
    text = report.text()
    assert "MEND  records  see below" in text and "ok    disk     enough" in text
    assert "to mend: records\n  Shard 3 must be there. Received: /data/3. Copy it again." in text
    assert "to mend: port\n  A.\n  b" in text
    assert text.endswith("dry run: 2 of 3 checks failed; nothing was saved")


def test_each_check_is_told_of_as_it_begins(capsys):
    Report().attempt("disk", lambda: "enough", tell=str)
    assert capsys.readouterr().out == ""
    report = Report(announce=True)
    report.attempt("disk", lambda: print("at work") or "enough", tell=str)
    assert capsys.readouterr().out == "checking: disk\nat work\n"
