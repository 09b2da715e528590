"""The door that plans for more workers: tools/plan_scaling.py."""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib import image

from inception_tf import plan_scaling
from inception_tf.reporting import scaling

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
# A step of 20 x 32 images at 600 images/s, Inception-ResNet-v2, 25 Gb/s.
PAPER = ["--step_secs=1.0667", "--parameter_bytes=223494944", "--link_gbits_per_sec=25"]


def run(capsys, *arguments):
    """What a successful command printed, and the object of its last line."""
    status = plan_scaling.main([*PAPER, *arguments])
    printed = capsys.readouterr()
    assert (status, printed.err) == (0, "")
    return printed.out, json.loads(printed.out.splitlines()[-1])


def table(text):
    """{workers: cells} of the printed table."""
    rows = [line.split() for line in text.splitlines() if line.startswith(" ")]
    return {int(cells[0].replace(",", "")): cells for cells in rows}


def test_the_last_line_says_which_figures_are_whose(capsys):
    _, plan = run(capsys, "--update_secs=0.05")
    assert plan["measured"] == {
        "step_secs": 1.0667, "update_secs": 0.05, "images_per_sec": pytest.approx(640 / 1.0667),
    }  # fmt: skip
    assert plan["given"] == {
        "num_replicas": 20, "replica_batch": 32, "devices_per_worker": 1,
        "parameter_bytes": 223494944, "link_gbits_per_sec": 25, "reduction": "exact",
        "scaling": "strong",
    }  # fmt: skip
    assert plan["assumed"] == {
        "latency_secs": 1e-5, "backward_share": pytest.approx(2 / 3), "least_exposed_share": 0.1,
    }  # fmt: skip
    assert [row["num_workers"] for row in plan["arithmetic"]] == [1, 2, 4, 5, 8, 10, 16, 20]
    assert plan["arithmetic"][0]["communication_secs"] == 0
    assert plan["arithmetic"][0]["step_secs"] == pytest.approx(1.0667)


def test_table_and_last_line_are_the_same_rows(capsys):
    text, plan = run(capsys, "--scaling=weak", "--reduction=float32", "--num_replicas=4")
    cells = table(text)
    assert list(cells) == [2**exponent for exponent in range(11)]
    for row in plan["arithmetic"]:
        expected = [
            f"{row['num_workers']:,}", "4", f"{128 * row['num_workers']:,}",
            f"{row['sent_bytes'] / 1e6:,.1f}", f"{1e3 * row['communication_secs']:,.1f}",
            f"{1e3 * row['step_secs']:,.1f}", f"{100 * row['efficiency']:.1f}%",
        ]  # fmt: skip
        assert cells[row["num_workers"]][:7] == expected
        assert cells[row["num_workers"]][9] == f"{100 * row['overlapped_efficiency']:.1f}%"


def test_the_flags_reach_the_arithmetic(capsys):
    _, plan = run(
        capsys, "--num_replicas=50", "--replica_batch=16", "--devices_per_worker=2",
        "--update_secs=0.1", "--latency_secs=0", "--backward_share=0.5",
        "--least_exposed_share=0.2", "--reduction=bfloat16", "--workers=25,3",
    )  # fmt: skip
    measured = scaling.MeasuredStep(
        step_secs=1.0667, update_secs=0.1, num_replicas=50, replica_batch=16, devices_per_worker=2
    )
    for number, row in zip((1, 3, 25), plan["arithmetic"], strict=True):
        expected = scaling.predict(
            measured,
            num_workers=number,
            parameter_bytes=223494944,
            reduction="bfloat16",
            link=scaling.Link(gbits_per_sec=25, latency_secs=0),
            overlap=scaling.Overlap(backward_share=0.5, least_exposed_share=0.2),
        )
        assert scaling.Prediction(**row) == expected


def test_the_text_says_what_is_measured_and_what_is_arithmetic(capsys):
    text, _ = run(capsys)
    words = [line.split()[0] for line in text.split("\n\n")[0].splitlines()]
    assert words == ["measured", "given", "given", "assumed", "arithmetic"]
    assert "1,066.7 ms a step on one worker: 600 images/s" in text
    assert "exact sums: 8 bytes a value; 25 Gb/s" in text


def test_pictures_of_both_kinds_show_the_plan(capsys, tmp_path):
    text, _ = run(capsys, f"--out={tmp_path}/plan.svg")
    words = {e.text for e in ElementTree.parse(tmp_path / "plan.svg").iter() if e.text}
    assert {"workers", "efficiency, %", "images/s", "measured", "without overlap",
            "with overlap", "the step of one worker is measured, everything else is arithmetic",
            "strong scaling, exact sums, 25 Gb/s"} <= words  # fmt: skip
    first = (tmp_path / "plan.svg").read_bytes()
    run(capsys, f"--out={tmp_path}/plan.svg")
    assert (tmp_path / "plan.svg").read_bytes() == first
    assert run(capsys, f"--out={tmp_path}/plan.PNG")[0] == text
    pixels = image.imread(tmp_path / "plan.PNG", format="png")
    assert pixels.shape[:2] == (540, 1200) and len(np.unique(pixels)) > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.PNG", "plan.svg"]


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--step_secs=0", "step_secs must be a finite number above 0. Received: 0.0. Give perf/"),
        ("--step_secs=-1", "Received: -1.0."),
        ("--step_secs=fast", "Received: 'fast'. Give perf/secs_per_step"),
        ("--step_secs=nan", "Received: nan."),
        ("--parameter_bytes=0", "parameter_bytes must be"),
        ("--parameter_bytes=213MB", "Received: '213MB'. Give 4 times the parameters"),
        ("--link_gbits_per_sec=inf", "link_gbits_per_sec must be"),
        ("--link_gbits_per_sec=", "Received: ''."),
        ("--latency_secs=-1e-5", "at least 0"),
        ("--update_secs=2", "a part of step_secs"),
        ("--num_replicas=2.5", "Received: '2.5'. Give training.num_replicas"),
        ("--replica_batch=0", "replica_batch must be a whole number of at least 1"),
        ("--devices_per_worker=21", "1 x 21 devices for 20 declared replicas"),
        ("--backward_share=1.5", "in [0, 1]"),
        ("--reduction=exat", "Did you mean exact?"),
        ("--scaling=wek", "Did you mean weak?"),
        ("--workers=4,21", "21 x 1 devices for 20 declared replicas. Plan for fewer, or with"),
        ("--workers=4,,8", "Received: ''. Give numbers of workers"),
        ("--workers=1025", "up to 1024 workers"),
        ("--out=plan.pdf", "--out must end with .png or .svg. Received: plan.pdf"),
        ("--out=/nowhere/plan.png", "Received: /nowhere/plan.png (No such file"),
    ],
)
def test_faults_are_told_in_one_sentence(capsys, argument, message):
    assert plan_scaling.main([*PAPER, argument]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and message in printed.err


@pytest.mark.parametrize("missing", range(3))
def test_what_was_measured_has_no_default(capsys, missing):
    with pytest.raises(SystemExit) as ended:
        plan_scaling.main(PAPER[:missing] + PAPER[missing + 1 :])
    assert ended.value.code == 2 and "required" in capsys.readouterr().err


def test_the_page_shows_what_its_commands_print(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pictures go here
    page = (CHECKOUT / "docs" / "scaling.md").read_text(encoding="utf-8")
    pairs = re.findall(r"```bash\n(.*?)```\n+```text\n(.*?)```", page, re.DOTALL)
    assert len(pairs) == 2
    for command, shown in pairs:
        words = shlex.split(command.replace("\\\n", " "))
        assert words[:2] == ["python", "tools/plan_scaling.py"]
        assert plan_scaling.main(words[2:]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if not line.startswith("{")] == shown.split("\n")[:-1] + [""]
    assert (tmp_path / "plan.svg").exists()


def test_the_tool_runs_without_tensorflow():
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_path('tools/plan_scaling.py', run_name='__main__')\n"
        "except SystemExit as ended:\n    sys.exit(ended.code or int('tensorflow' in sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *PAPER], cwd=CHECKOUT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout.splitlines()[-1])["measured"]["step_secs"] == 1.0667
