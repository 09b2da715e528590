"""The container image: what it copies, installs and runs, without building it."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / "launch" / "kubernetes"
LINES = [
    line.split(maxsplit=1)
    for line in (FOLDER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def words_of(instruction):
    return [rest for name, rest in LINES if name == instruction]


def copied():
    return [source for line in words_of("COPY") for source in line.split()[:-1]]


def test_the_image_installs_the_checkout_with_the_tested_versions():
    (base,) = words_of("FROM")
    assert re.fullmatch(r"python:3\.1[123]-slim", base)
    install = words_of("RUN")[0]
    assert "pip install" in install and "-c constraints.txt" in install
    assert all((CHECKOUT / source).exists() for source in copied())
    # What setup.py reads, and what it installs.
    assert {"setup.py", "pyproject.toml", "constraints.txt", "README.md"} <= set(copied())
    assert {"inception_tf", "configs"} <= set(copied())


def test_the_image_sees_what_it_copies_and_nothing_else_of_the_checkout():
    text = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())


def test_the_image_runs_the_training_as_a_user_without_rights():
    (user,) = words_of("USER")
    uid, gid = map(int, user.split(":"))
    assert uid > 0 and f"--uid {uid}" in words_of("RUN")[1]
    manifest = (FOLDER / "train.jobset.yaml").read_text(encoding="utf-8")
    job = next(iter(yaml.safe_load_all(manifest)))["spec"]["replicatedJobs"][0]["template"]["spec"]
    security = job["template"]["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True and security["fsGroup"] == gid
    (entry,) = words_of("ENTRYPOINT")
    assert json.loads(entry) == ["python", "-m", "inception_tf.train"]


@pytest.mark.slow
def test_what_the_image_copies_can_be_installed(tmp_path):
    source = tmp_path / "build"
    source.mkdir()
    for name in copied():
        subprocess.run(["cp", "-r", CHECKOUT / name, source], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "-c", "constraints.txt",
         "--target", str(tmp_path / "installed"), "."],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if "No matching distribution found for setuptools" in done.stdout + done.stderr:
        pytest.skip("needs setuptools for the build, from a package index")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "installed" / "inception_tf" / "configs" / "irv2.gin").is_file()
