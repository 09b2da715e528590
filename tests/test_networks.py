"""The door that shows networks: tools/print_model.py."""

import csv
import io
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from inception_tf.models.catalog import CATALOG
from inception_tf.networks import main

SMALL = ["--width_multiplier=0.1", "--input_px=139x171", "--num_classes=7"]
CHECKOUT = pathlib.Path(__file__).resolve().parents[1]


def run(capsys, *arguments):
    """What a successful command printed."""
    status = main(list(arguments))
    printed = capsys.readouterr()
    assert (status, printed.err) == (0, "")
    return printed.out


def csv_rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def total(rows, column):
    return sum(int(row[column]) for row in rows)


VARIANTS = [(name, variant) for name, variants in CATALOG.items() for variant in variants]
# One variant of each network quickly, all of them with the slow tests.
QUICK = [("inception_v3", "released"), ("inception_resnet_v1", "paper")]


@pytest.mark.parametrize(
    "name, variant",
    [v if v in QUICK else pytest.param(*v, marks=pytest.mark.slow) for v in VARIANTS],
)
def test_csv_has_the_catalogs_counts(capsys, name, variant):
    entry = CATALOG[name][variant]
    rows = csv_rows(run(capsys, name, f"--variant={variant}", "--aux_head", "--csv"))
    trunk = [row for row in rows if row["stage"] != "AuxLogits"]
    assert total(rows, "num_parameters") == entry.num_parameters_with_aux
    assert total(rows, "num_trainable") == entry.num_trainable_with_aux
    assert total(trunk, "num_parameters") == entry.num_parameters
    assert total(trunk, "num_trainable") == entry.num_trainable
    assert total(trunk, "num_multiply_adds") == entry.num_multiply_adds
    headless = [row for row in trunk if row["stage"] != "Logits"]
    assert total(headless, "num_parameters") == entry.num_parameters_without_top


def test_csv_of_one_layer_says_what_it_is(capsys):
    rows = csv_rows(run(capsys, "inception_v4", *SMALL, "--option=block_counts=1,1,1", "--csv"))
    (pool,) = [row for row in rows if row["name"] == "Mixed_6a_Branch_2_MaxPool_1a_3x3"]
    assert pool == {
        "stage": "Mixed_6a", "name": pool["name"], "kind": "max pool", "height": "7", "width": "9",
        "channels": "40", "kernel_height": "3", "kernel_width": "3", "stride": "2",
        "padding": "valid", "num_parameters": "0", "num_trainable": "0", "num_multiply_adds": "0",
        # 3, 7, 11; 15; 15 + 6 * 4 + 2 * 4 = 47; 55; 55 + 4 * 8 = 87; 87 + 2 * 8.
        "receptive_field_height_px": "103", "receptive_field_width_px": "103",
        "num_activation_values": str(7 * 9 * 40), "num_kept_values": str(7 * 9 * 40),
    }  # fmt: skip
    (concat,) = [row for row in rows if row["name"] == "Mixed_6a"]
    assert concat["kernel_height"] == concat["stride"] == concat["padding"] == ""


def test_table_has_sums_totals_and_memory(capsys):
    network = ["inception_resnet_v2", *SMALL, "--option=block_counts=1,0,1"]
    text = run(capsys, *network, "--batch=64", "--precision=mixed_bfloat16")
    lines = text.splitlines()
    assert lines[0] == "inception_resnet_v2, released, block_counts=1,0,1: 139x171 px"
    rows = csv_rows(run(capsys, *network, "--csv"))
    mine = [row for row in rows if row["stage"] == "block35_1"]
    (line,) = [line for line in lines if line.startswith("block35_1 ")]
    assert line.split() == [
        "block35_1", "=", f"{len(mine)}", "layers", f"{total(mine, 'num_parameters'):,}",
        f"{total(mine, 'num_multiply_adds'):,}",
    ]  # fmt: skip
    assert f"parameters       {total(rows, 'num_parameters'):,}, " in text
    assert f"{total(rows, 'num_trainable'):,} of them trainable" in text
    assert f"{total(rows, 'num_multiply_adds'):,} per image" in text
    values = total(rows, "num_activation_values")
    in_float32 = [r for r in rows if r["stage"] in ("images", "Logits")]
    num_bytes = 2 * values + 2 * total(in_float32, "num_activation_values")
    assert (
        f"{values:,} values per image, {64 * num_bytes / 2**30:.2f} GiB for 64 images in "
        "mixed_bfloat16" in text
    )
    assert f"{total(rows, 'num_kept_values'):,} values per image" in text


def test_headless_networks_have_a_table_too(capsys):
    rows = csv_rows(
        run(capsys, "inception_resnet_v1", "--input_px=75", "--width_multiplier=0.05", "--no_top",
            "--option=block_counts=1,1,1", "--option=pooling=avg", "--csv")
    )  # fmt: skip
    assert rows[-1]["name"] == "GlobalPool" and rows[0]["height"] == rows[0]["width"] == "75"


def test_picture_is_of_the_network_that_was_asked_for(capsys, tmp_path):
    file = tmp_path / "v3.svg"
    run(capsys, "inception_v3", *SMALL, "--option=stem=7x7", "--option=first_pool=True",
        f"--svg={file}")  # fmt: skip
    words = [element.text for element in ElementTree.parse(file).iter() if element.text]
    assert "7x7 Conv" in words and "inception_v3, released, stem=7x7, first_pool=True" in words
    assert "Output: 1x1x203" not in words and "Output: 3x4x203" in words


def test_catalog_is_listed_without_a_name(capsys):
    text = run(capsys)
    for name, variants in CATALOG.items():
        for variant, entry in variants.items():
            (line,) = [line for line in text.splitlines() if line.split()[:2] == [name, variant]]
            assert f"{entry.num_parameters:,}" in line and f"{entry.num_multiply_adds:,}" in line


def test_paper_and_released_inception_v4_differ_in_transposed_pairs_alone(capsys):
    text = run(capsys, "--diff", "inception_v4:paper", "inception_v4:released",
               "--width_multiplier=0.1")  # fmt: skip
    stages, pairs = text.split(" layers with weights or a window differ.")
    marked = [line.split()[0] for line in stages.splitlines() if line.endswith("*")]
    changed = ["4a", *(f"6{letter}" for letter in "bcdefgh"), *(f"7{letter}" for letter in "bcd")]
    assert marked == [f"Mixed_{stage}" for stage in changed]
    found = []
    for line in pairs.strip().splitlines()[2:]:
        mine, theirs = (side.split() for side in line.split("  ") if side)
        found.append(mine[0].rsplit("_", 1)[0])
        assert mine[0].rsplit("_", 1)[0] == theirs[0].rsplit("_", 1)[0]
        assert mine[0].rsplit("_", 1)[1].split("x") == theirs[0].rsplit("_", 1)[1].split("x")[::-1]
        assert mine[-1] == theirs[-1]
    expected = [f"Mixed_4a_Branch_1_Conv2d_{tag}" for tag in ("0b", "0c")]
    for stage in "bcdefgh":
        expected += [f"Mixed_6{stage}_Branch_2_Conv2d_0{tag}" for tag in "bcde"]
    for stage in "bcd":
        expected += [f"Mixed_7{stage}_Branch_2_Conv2d_0{tag}" for tag in "bcde"]
    assert found == expected


def test_diff_shows_what_only_one_network_has(capsys):
    text = run(capsys, "--diff", "inception_resnet_v2:paper,block_counts=1,0,1",
               "inception_resnet_v2,block_counts=1,1,1", *SMALL)  # fmt: skip
    lines = text.splitlines()
    assert lines[0] == "A: inception_resnet_v2:paper,block_counts=1,0,1"
    assert lines[1] == "B: inception_resnet_v2:released,block_counts=1,1,1"
    table = {line.split()[0]: line.split()[1:] for line in lines[5:] if line}
    stages = [line.split()[0] for line in lines[5 : lines.index("", 5)]]
    assert len(stages) == len(set(stages))
    assert stages.index("Mixed_6a") < stages.index("block17_1") < stages.index("Mixed_7a")
    assert table["block17_1"][0] == table["block17_1"][2] == "-" and table["block17_1"][-1] == "*"
    assert table["Conv2d_1a_3x3"][-1] != "*"
    only_there = [line.split() for line in lines if line.startswith("-  ")]
    assert any(cells[1] == "block17_1_Conv2d_1x1" for cells in only_there)
    (line,) = [line for line in lines if line.startswith("Mixed_3a_Branch_1_Conv2d_0a_3x3")]
    assert line.endswith("  -")


def test_equal_networks_do_not_differ(capsys):
    text = run(capsys, "--diff", "inception_v3", "inception_v3:released", *SMALL)
    assert text.endswith("\n0 layers with weights or a window differ.\n")
    assert not any(line.endswith("*") for line in text.splitlines())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["inception_v5"], "Did you mean 'inception_v4'"),
        (["inception_v4", "--variant=papr"], "Did you mean 'paper'"),
        (["inception_v3", "--option=stm=7x7"], "Did you mean stem"),
        (["inception_v3", "--option=stem=7x8"], "Did you mean '7x7'"),
        (["inception_v3", "--option=dropout_rate=high"], "dropout_rate must be like 0.2"),
        (["inception_v3", "--option=first_stride=True"], "first_stride must be like 2"),
        (["inception_v4", "--option=block_counts=4"], "three values"),
        (["inception_v4", "--option=seed=4"], "The options of inception_v4 are"),
        (["inception_v4", "--precision=bfloat16"], "Did you mean 'mixed_bfloat16'"),
        (["inception_v4", "--input_px=74"], "at least 75 px"),
        (["inception_v4", "--no_top", "--aux_head"], "Leave one of them out"),
        (["--diff", "inception_v4", "inception_v6"], "The network's name"),
        ([*"inception_v4 --option=block_counts=0,0,0 --svg=/nowhere/x.svg".split()], "written"),
    ],
)
def test_faults_are_told_in_one_sentence(capsys, arguments, message):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and message in printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--csv"],
        ["--svg=x.svg"],
        ["--variant=paper"],
        ["--option", "stem=7x7"],
        ["inception_v4", "--diff", "inception_v3", "inception_v4"],
        ["inception_v4", "--input_px=75y75"],
        ["inception_v4", "--batch=0"],
    ],
)
def test_contradicting_flags_are_refused(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tool_runs():
    ended = subprocess.run(
        [sys.executable, "tools/print_model.py"], cwd=CHECKOUT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("network")
