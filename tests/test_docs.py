"""The documentation runs: commands are parsed by the doors they name, Python is executed."""

import argparse
import ast
import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from inception_tf import parameters
from inception_tf.errors import UserError

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "launch/README.md"]
PAGES += sorted(str(p.relative_to(CHECKOUT)) for p in (CHECKOUT / "docs").glob("*.md"))
CONFIGS = sorted(str(p.relative_to(CHECKOUT)) for p in (CHECKOUT / "configs").rglob("*.gin"))
# Programs of others that copy records, as far as their own pages say how they are called.
STAGING = {
    "mkdir": r"mkdir -p /\S+",
    "gcloud": r"gcloud storage rsync --recursive gs://\S+ /\S+",
    "gsutil": r"gsutil -m rsync -r gs://\S+ /\S+",
}
SHELLS = ("bash", "console", "sh")


class WrongCommandError(Exception):
    """A documented command that does not work as written."""


class ParsedError(Exception):
    """Raised in place of what a door does after its command line was accepted."""


def blocks(text, *languages):
    """Contents of the fenced blocks in one of the languages."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [body for language, body in fences if language in languages]


def commands(page):
    """Every command of a page, one string each: from its blocks, or a config's comments."""
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    if page.endswith(".gin"):
        text = re.sub(r"\\\n#\s*", "", text)
        return re.findall(r"^#\s+((?:python|make) .*)$", text, re.MULTILINE)
    found = []
    for body in blocks(text, *SHELLS):
        prompts = [line for line in body.splitlines() if line.startswith("$ ")]
        lines = "\n".join(prompts) if prompts else body
        for line in lines.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ").strip()
            if line and not line.startswith("#"):
                found.append(line)
    return found


def inline_commands(page):
    """Commands of our own inside a sentence; `<...>` stands for what the reader fills in."""
    text = re.sub(r"^```.*?^```", "", (CHECKOUT / page).read_text(), flags=re.M | re.S)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    ours = ("python -m inception_tf", "python tools/", "make ", "pip ")
    return [span for span in spans if span.startswith(ours) and "<" not in span]


def check_command(command):
    """Raises WrongCommandError unless a command can be run from the checkout as written."""
    words = shlex.split(command, comments=True)
    program, rest = words[0], words[1:]
    if program == "make":
        check_make(rest)
    elif program == "pip":
        check_pip(rest)
    elif program == "tensorboard":
        check_tensorboard(rest)
    elif program == ".":
        check_file(rest)
    elif program in STAGING:
        check_staging(words)
    elif program in ("python", ".venv/bin/python"):
        check_python(rest)
    else:
        raise WrongCommandError(f"this test does not know `{program}`")


def check_file(words):
    if words != [".venv/bin/activate"] and not (CHECKOUT / words[0]).exists():
        raise WrongCommandError(f"there is no {words[0]}")


def check_tensorboard(words):
    if words[0] != "--logdir":
        raise WrongCommandError(f"tensorboard {words}")


def check_staging(words):
    if not re.fullmatch(STAGING[words[0]], " ".join(words)):
        raise WrongCommandError(f"{words[0]} is not called as {STAGING[words[0]]}")


def check_make(words):
    targets = re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        if "=" not in word and word not in targets:
            raise WrongCommandError(f"make has no target {word}")


def check_pip(words):
    extras = re.findall(r'^        "(\w+)": ', (CHECKOUT / "setup.py").read_text(), re.MULTILINE)
    for before, word in zip(["", *words], words, strict=False):
        if before == "-c":
            check_file([word])
        for extra in re.findall(r"\.\[(.*)\]", word):
            if extra not in extras:
                raise WrongCommandError(f"setup.py has no extra {extra}")


def check_python(words):
    if words[0] != "-m":
        check_file(words)
        check_tool(words[0], words[1:])
        return
    module, arguments = words[1], words[2:]
    if module == "pytest":
        check_file([word for word in arguments if word.startswith("tests")] or ["tests"])
    elif module.startswith("inception_tf."):
        check_door(module, arguments)
    elif module != "venv":
        raise WrongCommandError(f"this test does not know python -m {module}")


def check_tool(path, arguments):
    """A thin command line is as good as the one of the door behind it."""
    text = (CHECKOUT / path).read_text()
    door = re.search(r"from inception_tf\.(\w+) import main", text)
    if door is not None:
        verbs = re.findall(r'main\(\["(\w+)"', text)
        check_door(f"inception_tf.{door[1]}", [*verbs, *arguments])


def check_door(module, arguments):
    door = CHECKOUT / (module.replace(".", "/") + ".py")
    if not door.exists():
        raise WrongCommandError(f"there is no {module}")
    if "add_argument" in door.read_text():
        check_argparse_door(module, arguments)
    else:
        check_absl_door(door, arguments)
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--gin_file" and value not in ("", "..."):
            check_file([value])
        if name == "--gin_param":
            try:
                parameters.check_parameter(value.split("=")[0].strip(), received=value)
            except UserError as error:
                raise WrongCommandError(str(error)) from error


def check_argparse_door(module, arguments):
    """Has the door itself parse its command line, and stops it there."""
    if "--" in arguments:  # a launcher: the command of its workers follows
        check_command(shlex.join(arguments[arguments.index("--") + 1 :]))
    real = argparse.ArgumentParser.parse_args

    def parse_then_stop(parser, args=None, namespace=None):
        real(parser, args, namespace)
        raise ParsedError

    door = importlib.import_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_then_stop)
        try:
            door.main(arguments)
        except ParsedError:
            return
        except SystemExit as error:
            raise WrongCommandError(f"{module} refuses {arguments}") from error
    raise WrongCommandError(f"{module} never parsed {arguments}")


def absl_flags(path):
    """Flag name -> kind ('bool', 'string', ...) that a file defines."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr.startswith("DEFINE_"):
                found[node.args[0].value] = node.func.attr.removeprefix("DEFINE_")
    return found


def check_absl_door(door, arguments):
    known = absl_flags(door) | absl_flags(CHECKOUT / "inception_tf" / "flags.py") | {"help": "bool"}
    takes_places = "takes_places=True" in door.read_text(encoding="utf-8")
    for argument in arguments:
        if takes_places and not argument.startswith("-"):
            continue
        name, equals, _ = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in known:
            raise WrongCommandError(f"{door.stem} has no flag {argument}")
        if not equals and not known[name].startswith("bool"):
            raise WrongCommandError(f"{door.stem}: {argument} needs a value")


@pytest.mark.parametrize("page", PAGES + CONFIGS)
def test_every_command_of_the_page_can_be_given_as_written(page):
    for command in commands(page):
        check_command(command)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_inside_a_sentence_names_what_exists(page):
    for command in inline_commands(page):
        words = shlex.split(command)
        if words[:2] == ["python", "-m"]:
            door = CHECKOUT / (words[2].replace(".", "/") + ".py")
            assert door.exists(), command
        else:
            check_command(command)


def test_every_flag_named_in_the_readme_exists():
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    known = set()
    for path in (CHECKOUT / "inception_tf").glob("*.py"):
        known |= set(absl_flags(path)) | set(re.findall(r'"--(\w+)"', path.read_text()))
    named = set(re.findall(r"`--(\w+)", text))
    assert named and named <= known, named - known


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page):
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (CHECKOUT / page).parent.joinpath(target).exists(), target


def test_the_readme_opens_with_the_two_commands():
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert blocks(text, *SHELLS)[0].split("\n")[:2] == ["make train", "make test"]
    assert len(commands("README.md")) >= 10


@pytest.mark.parametrize(
    "command",
    [
        "make tarin",
        "pip install -e '.[gpus]'",
        "pip install -c constraint.txt -e .",
        "python -m inception_tf.trian --gin_file=configs/irv2.gin",
        "python -m inception_tf.train --gin_files=configs/irv2.gin",
        "python -m inception_tf.train --gin_file=configs/irv3_.gin",
        "python -m inception_tf.train --gin_file=configs/irv2.gin --gin_param='training.sed = 1'",
        "python -m inception_tf.train --gin_file=configs/irv2.gin --data_dir",
        "python -m inception_tf.records bild digits --out data/digits",
        "python -m inception_tf.records build digits",
        "python -m inception_tf.launch --worker -- python -m inception_tf.train",
        "python -m inception_tf.launch --workers 2 -- python -m inception_tf.train --gin=x",
        "python tools/no_such_tool.py",
        "python tools/extract_features.py keras:inception_v3 photos --outt features.npy",
        "python tools/import_weights.py keras:inception_v3",
        "curl example.org",
        "gsutil rsync -r gs://bucket/imagenet /data/imagenet",
        "gcloud storage rsync gs://bucket/imagenet /data/imagenet",
        "gcloud storage rsync --recursive /data/imagenet gs://bucket/imagenet",
        "mkdir /data/imagenet",
    ],
)
def test_a_command_that_does_not_work_is_found(command):
    with pytest.raises(WrongCommandError):
        check_command(command)


@pytest.mark.slow
def test_the_python_page_runs_from_top_to_bottom(tmp_path):
    text = (CHECKOUT / "docs" / "python.md").read_text(encoding="utf-8")
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(text, "python")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "largest difference of the logits: 0.0" in done.stdout
    top1 = float(re.search(r"top-1 ([0-9.]+), .* 360 images", done.stdout).group(1))
    assert top1 > 0.2, "the network of the page learnt nothing: chance is 0.1"
