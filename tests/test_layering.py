"""The house: five floors, arrows only downwards, and what may be done on which floor."""

import ast
import pathlib
import textwrap

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "inception_tf"
GROUND = ("cluster", "data", "models", "reporting")
HALLS = ("training", "evaluation", "serving", "claims")
# Three rooms in several files each; the files of one may import each other.
EXPERIMENT = (
    "experiment", "preparation", "session", "products", "inputs", "overview", "run_directory",
    "initial_weights", "model_source", "bad_records", "seen_images", "failed_step", "replay",
    "lost_workers", "meeting", "stopping", "saving", "predictions", "watching",
    "evaluations", "exports", "report_sources", "class_images",
    "preflight", "own_port", "dry_run", "classifier",
)  # fmt: skip
CLUSTER = ("cluster", "assignment", "workers", "slurm")
CONFIG = ("config", "parameters", "bindings", "resolved", "run_config")
DOORS = ("train", "evaluate", "export", "predict", "report")
KEEPERS = (
    "records", "weights", "features", "networks", "show_batch", "checkpoints", "launch",
    "prove_resume", "plan_scaling", "replay_step", "reproduce",
)  # fmt: skip
DOOR_HELPERS = (  # what doors share, and the parts of single ones
    "flags", "quiet_start", "network_tables", "launch_plan", "launch_job", "launch_output",
    "launch_restarts", "model_arguments", "predict_page", "claim_runs", "claim_data",
    "claim_probes",
)  # fmt: skip
DOOR = 5
FLOORS = {
    **dict.fromkeys(("errors", "durable", "counts"), 0),
    **dict.fromkeys((*GROUND, *CLUSTER), 1),
    **dict.fromkeys(HALLS, 2),
    **dict.fromkeys(EXPERIMENT, 3),
    **dict.fromkeys(CONFIG, 4),
    **dict.fromkeys((*DOORS, *KEEPERS, *DOOR_HELPERS), DOOR),
}
DRAWERS = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"}


def modules_of(root):
    """{dotted name without the package: syntax tree} of every module of the package at `root`."""
    trees = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return trees


def room_of(module):
    top = module.split(".")[0]
    for room in (CONFIG, CLUSTER, EXPERIMENT):
        if top in room:
            return room[0]
    return top


def floor_of(module):
    return FLOORS.get(room_of(module), DOOR)


def imports_of(tree, modules):
    """Modules of the package that a module imports anywhere, also inside its functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                inside = full.removeprefix(PACKAGE + ".")
                names.add(full if inside in modules else node.module)
    inside = {n.removeprefix(PACKAGE + ".") for n in names if n.startswith(PACKAGE + ".")}
    return {name for name in inside if name in modules}


def outside_imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node):
    """'os.environ' for the expression os.environ; '' for what is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def wrong_arrows(modules):
    for name, tree in modules.items():
        for target in imports_of(tree, modules):
            if room_of(target) == room_of(name) or not room_of(name):
                continue
            if floor_of(target) == DOOR and room_of(target) in DOOR_HELPERS:
                allowed = floor_of(name) == DOOR
            else:
                allowed = floor_of(target) < floor_of(name)
            if not allowed:
                yield f"{name} imports {target}: floor {floor_of(name)} to {floor_of(target)}"


def unknown_rooms(modules):
    for name in modules:
        if name and name.split(".")[0] not in FLOORS:
            yield f"{name} stands on no floor: declare it in this file"


def circles(modules):
    graph = {name: imports_of(tree, modules) - {name} for name, tree in modules.items()}
    while True:
        leaves = {name for name, targets in graph.items() if not targets & graph.keys()}
        if not leaves:
            break
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    if graph:
        yield f"imports run in a circle among {', '.join(sorted(graph))}"


def relative_imports(modules):
    for name, tree in modules.items():
        if any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(tree)):
            yield f"{name} has a relative import, which these tests do not follow"


def gin_outside_config(modules):
    for name, tree in modules.items():
        if name != "config" and any(i.split(".")[0] == "gin" for i in outside_imports(tree)):
            yield f"{name} imports gin"


def flags_below_config(modules):
    for name, tree in modules.items():
        if floor_of(name) >= FLOORS["config"] or not name:
            continue
        for imported in outside_imports(tree):
            if imported in ("absl.flags", "absl.app", "argparse"):
                yield f"{name} imports {imported}"


def environment_readers(modules):
    for name, tree in modules.items():
        if name == "cluster" or name and floor_of(name) >= FLOORS["experiment"]:
            continue
        used = {dotted(n) for n in ast.walk(tree)} | set(outside_imports(tree))
        for expression in sorted(used & {"os.environ", "os.environb", "os.getenv", "os.putenv"}):
            yield f"{name} uses {expression}"


def clock_readers(modules):
    for name, tree in modules.items():
        if floor_of(name) >= FLOORS["experiment"] or name.endswith("watchdog"):
            continue
        used = {dotted(n) for n in ast.walk(tree)} | set(outside_imports(tree))
        clocks = {f"time.{c}" for c in CLOCKS} | {"datetime.datetime.now", "datetime.now"}
        for expression in sorted(used & clocks):
            yield f"{name} uses {expression}"


def assertions(modules):
    for name, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                yield f"{name} line {node.lineno} has an assert, which python -O removes"


def drawers(modules):
    for name in modules:
        if DRAWERS & set(name.split(".")):
            yield f"{name} is named for no job"


def long_functions(modules):
    for name, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    yield f"{name}.{node.name} has {lines} lines"


RULES = [
    wrong_arrows,
    unknown_rooms,
    circles,
    relative_imports,
    gin_outside_config,
    flags_below_config,
    environment_readers,
    clock_readers,
    assertions,
    drawers,
    long_functions,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule):
    assert list(rule(modules_of(CHECKOUT))) == []


@pytest.mark.parametrize("folder", [PACKAGE, "tools", "launch"])
def test_no_file_is_longer_than_one_sitting(folder):
    long_files = {}
    for path in sorted((CHECKOUT / folder).rglob("*.py")):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            long_files[str(path.relative_to(CHECKOUT))] = lines
    assert long_files == {}


FAULTS = [
    (wrong_arrows, "data/order.py", "from inception_tf import cluster"),
    (wrong_arrows, "models/layers.py", "from inception_tf.data import image"),
    (wrong_arrows, "training/step.py", "from inception_tf.evaluation import metrics"),
    (wrong_arrows, "training/loop.py", "import inception_tf.experiment"),
    (wrong_arrows, "cluster.py", "def f():\n    from inception_tf import config"),
    (wrong_arrows, "train.py", "from inception_tf import evaluate"),
    (wrong_arrows, "experiment.py", "from inception_tf import flags"),
    (unknown_rooms, "toolbox.py", ""),
    (circles, "data/manifest.py", "from inception_tf.data.order import x"),
    (relative_imports, "data/image.py", "from . import manifest"),
    (gin_outside_config, "experiment.py", "import gin"),
    (gin_outside_config, "train.py", "from gin.config import parse_config"),
    (flags_below_config, "experiment.py", "from absl import flags"),
    (environment_readers, "data/image.py", "import os\nx = os.environ.get('HOME')"),
    (environment_readers, "training/step.py", "from os import environ"),
    (environment_readers, "__init__.py", "import os\nx = os.getenv('HOME')"),
    (clock_readers, "training/loop.py", "import time\nnow = time.monotonic()"),
    (clock_readers, "data/image.py", "from time import perf_counter"),
    (assertions, "data/image.py", "assert 1"),
    (drawers, "data/utils.py", ""),
    (long_functions, "data/image.py", "def f():\n" + "    x = 1\n" * 60),
]


@pytest.mark.parametrize(
    ("rule", "path", "text"), FAULTS, ids=[f"{r.__name__}-{p}" for r, p, _ in FAULTS]
)
def test_each_rule_sees_its_fault(tmp_path, rule, path, text):
    house = {
        "__init__.py": "",
        "errors.py": "",
        "durable.py": "",
        "cluster.py": "import os\nfrom inception_tf import errors\nx = os.environ",
        "data/__init__.py": "",
        "data/manifest.py": "from inception_tf import errors",
        "data/order.py": "from inception_tf.data.manifest import x",
        "data/image.py": "",
        "models/__init__.py": "",
        "models/layers.py": "",
        "evaluation/__init__.py": "",
        "evaluation/metrics.py": "",
        "training/__init__.py": "",
        "training/step.py": "from inception_tf.data import order",
        "training/loop.py": "from inception_tf.training import step",
        "experiment.py": "from inception_tf.training import loop\nimport time\nx = time.time()",
        "config.py": "import gin\nfrom inception_tf import experiment",
        "flags.py": "from absl import flags",
        "evaluate.py": "from inception_tf import config, flags",
        "train.py": "from inception_tf import config, flags\nfrom inception_tf.errors import E",
    }
    for name, content in house.items():
        file = tmp_path / PACKAGE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(content))
    assert [list(r(modules_of(tmp_path))) for r in RULES] == [[]] * len(RULES)
    (tmp_path / PACKAGE / path).write_text(text)
    assert list(rule(modules_of(tmp_path))) != []
