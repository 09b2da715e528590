"""What a fresh machine meets: the interpreter, the environment, the installed files."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
NAMES = ("python3.13", "python3.12", "python3.11", "python3")
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def write_python(folder, *, names=NAMES, before):
    """Interpreters in `folder` that run `before` ahead of any `-c` code they are given."""
    folder.mkdir()
    for name in names:
        file = folder / name
        file.write_text(
            f'#!/bin/sh\n[ "$1" = -c ] || exit 9\n'
            f"exec {sys.executable} -c '{before}; exec(__import__(\"sys\").argv[1])' \"$2\"\n"
        )
        file.chmod(0o755)
    return folder


def run_make(tmp_path, *arguments, path):
    """`make setup` on a bare copy of what it reads; finds programs in `path`, /usr/bin, /bin."""
    for name in ("Makefile", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(CHECKOUT / name, tmp_path)
    environment = {**os.environ, "PATH": f"{path}:/usr/bin:/bin"}
    environment.pop("PYTHON", None)
    environment.pop("MAKEFLAGS", None)
    return subprocess.run(
        ["make", "setup", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@needs_make
def test_an_older_python_is_refused_in_one_sentence_before_anything_is_installed(tmp_path):
    old = write_python(
        tmp_path / "bin", before='import sys; sys.version_info = (3, 10, 13, "final", 0)'
    )
    done = run_make(tmp_path, path=old)
    assert done.returncode != 0
    assert "inception_tf needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert "pip" not in done.stdout + done.stderr
    assert not (tmp_path / ".venv").exists()


@needs_make
def test_a_debian_without_venv_gets_the_remedy(tmp_path):
    bare = write_python(
        tmp_path / "bin",
        names=("python3.12", "python3"),
        before='import sys; sys.modules["ensurepip"] = None',
    )
    done = run_make(tmp_path, "PYTHON=python3.12 python3", path=bare)
    assert done.returncode != 0
    assert "python3.12 python3 cannot make a virtual environment" in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


@needs_make
def test_an_environment_that_is_up_to_date_is_left_alone(tmp_path):
    none = tmp_path / "bin"
    none.mkdir()
    for name in ("Makefile", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(CHECKOUT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    done = subprocess.run(
        ["make", "setup", "PYTHON=no-such-python"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    os.utime(tmp_path / "constraints.txt", (4e9, 4e9))
    done = run_make(tmp_path, "PYTHON=no-such-python", path=none)
    assert done.returncode != 0 and "none was found as: no-such-python" in done.stderr


def test_setup_itself_refuses_an_older_python():
    code = (
        "import sys; sys.version_info = (3, 8, 18, 'final', 0); sys.argv = ['setup.py'];"
        f"exec(open({str(CHECKOUT / 'setup.py')!r}).read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr and "Python 3.8." in done.stderr


def test_constraints_pin_every_requirement_within_its_bounds():
    pins = {}
    for line in (CHECKOUT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[re.sub(r"[-_.]+", "-", name).lower()] = version
    # packaging comes with pytest.
    from packaging.requirements import Requirement

    texts = re.findall(
        r'"([a-z][a-z0-9-]+(?:\[[a-z-]+\])?[<>=][^"]*)"', (CHECKOUT / "setup.py").read_text()
    )
    requirements = [Requirement(text) for text in texts]
    assert len(requirements) >= 12
    for requirement in requirements:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">=", "<"}, requirement
        assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_no_package_host_is_named():
    for name in ("constraints.txt", "setup.py", "Makefile", "pyproject.toml", ".ci/run"):
        text = (CHECKOUT / name).read_text()
        assert "://" not in text and "index-url" not in text and "find-links" not in text, name


def test_every_folder_of_configs_is_installed():
    code = (
        "import setuptools, sys; sys.argv = ['setup.py'];"
        "show = lambda **facts: print(sorted(facts['packages']), facts['package_data']);"
        "setuptools.setup = show;"
        f"exec(open('setup.py').read(), {{'__file__': {str(CHECKOUT / 'setup.py')!r}}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if "No module named 'setuptools'" in done.stderr:
        pytest.skip("needs setuptools")
    assert done.returncode == 0, done.stderr
    for folder in {path.parent for path in (CHECKOUT / "configs").rglob("*.gin")}:
        package = ".".join(("inception_tf", *folder.relative_to(CHECKOUT).parts))
        assert done.stdout.count(f"'{package}'") == 2, package


@pytest.mark.slow
def test_a_wheel_holds_the_package_and_its_configs_and_works_from_any_directory(tmp_path):
    source = tmp_path / "source"
    for folder in ("inception_tf", "configs"):
        shutil.copytree(CHECKOUT / folder, source / folder)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No matching distribution found for setuptools" in done.stdout + done.stderr:
        pytest.skip("needs setuptools for the build, from a package index")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(source)) for path in (source / "inception_tf").rglob("*.py")
    } | {
        f"inception_tf/{path.relative_to(source)}" for path in (source / "configs").rglob("*.gin")
    }
    assert wanted <= held
    assert not {name for name in held if name.startswith(("tests/", "configs/", "tools/"))}

    # Unpacked where no checkout is near, its doors work from any directory.
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "training.num_epochs = 160.0  # configs/irv2.gin" in run(
        "inception_tf.train", "--gin_file=configs/irv2.gin", "--print_config"
    )
    rung = run("inception_tf.train", "--gin_file=configs/ladder/2_rmsprop.gin", "--print_config")
    assert "model.stem = '7x7'  # configs/ladder/1_inception_v2.gin" in rung
    assert "360 records" in run("inception_tf.records", "build", "digits", "--out", "digits")
    run(
        "inception_tf.train",
        "--gin_file=digits",
        "--data_dir=digits",
        "--gin_param=training.num_epochs = None",
        "--gin_param=training.num_steps = 2",
    )
    assert (elsewhere / "runs" / "digits" / "export" / "1" / "saved_model.pb").exists()
