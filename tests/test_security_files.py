"""Files of others are data: nothing in the package reads one in a way that could run code."""

import ast
import os
import pathlib

import numpy as np
import pytest

from inception_tf.data import index

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("inception_tf", "tools", "launch")
# Modules whose readers build whatever objects a file asks for.
LOADERS = {
    "pickle", "_pickle", "cPickle", "pickletools", "cloudpickle", "dill", "joblib", "marshal",
    "shelve", "yaml", "runpy", "code", "imp",
}  # fmt: skip
# Calls by their last name: Keras' and TensorFlow's loaders of objects, and Python's own.
CALLS = {
    "load_model", "load_weights", "model_from_json", "model_from_config", "from_config",
    "deserialize", "deserialize_keras_object", "enable_unsafe_deserialization", "Lambda",
    "import_meta_graph", "import_graph_def", "TFSMLayer",
    "eval", "exec", "compile", "__import__", "extractall", "unpack_archive", "read_pickle",
    "system", "popen",
}  # fmt: skip
# {(file, name)}: the only exceptions, which docs/security.md names.
ALLOWED = {
    # An export that this very run has just written, read back to be checked.
    ("inception_tf/serving/signatures.py", "saved_model.load"),
    # An export that the user names as what to evaluate.
    ("inception_tf/serving/loaded.py", "saved_model.load"),
    # What the benchmarks have just written themselves.
    ("tools/bench_export.py", "saved_model.load"),
    # PyTorch's compiler of a network that stands in memory; it reads no text.
    ("tools/torch_peers.py", "compile"),
    # The name is a constant of our own.
    ("inception_tf/quiet_start.py", "import_module"),
}


def last_names(node):
    """('saved_model', 'load') for the call tf.saved_model.load(...)."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        names.append(node.id)
    return tuple(reversed(names))


def object_loading(tree):
    """Names of what a file of Python does that could run code from a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
            modules += [alias.name for alias in node.names if alias.name in CALLS]
        else:
            modules = []
        yield from (m for m in modules if m.split(".")[0] in LOADERS or m in CALLS)
        if isinstance(node, ast.Call):
            yield from calls_that_load(node)


def calls_that_load(node):
    names = last_names(node.func)
    last = names[-1] if names else ""
    options = {word.arg: word.value for word in node.keywords}
    if last in CALLS and names[0] != "re":
        yield last
    if last == "import_module":
        yield last
    if last == "load" and names[0] == "torch":
        yield "torch.load"
    if names[-2:] == ("saved_model", "load"):
        yield "saved_model.load"
    if last == "load" and names[0] in ("np", "numpy"):
        allowed = options.get("allow_pickle")
        if not (isinstance(allowed, ast.Constant) and allowed.value is False):
            yield "np.load without allow_pickle=False"
    for name in ("allow_pickle", "shell"):
        value = options.get(name)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            yield f"{name}="


def sources():
    for folder in FOLDERS:
        for path in sorted((CHECKOUT / folder).rglob("*.py")):
            yield path.relative_to(CHECKOUT).as_posix(), path.read_text(encoding="utf-8")


def test_no_file_is_read_by_building_the_objects_it_asks_for():
    found = {(path, what) for path, text in sources() for what in object_loading(ast.parse(text))}
    assert found == ALLOWED


def test_the_exceptions_are_the_ones_that_are_meant():
    texts = dict(sources())
    for name in ("signatures", "loaded"):
        assert texts[f"inception_tf/serving/{name}.py"].count("saved_model.load(") == 1
    assert 'import_module("inception_tf.models")' in texts["inception_tf/quiet_start.py"]


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml\nyaml.load(stream)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=is_ours)",
        "model = keras.models.load_model(path)",
        "from keras.models import load_model",
        "model.load_weights(path)",
        "tf.saved_model.load(path)",
        "import torch\ntorch.load(path)",
        "eval(text)",
        "importlib.import_module(name)",
        "archive.extractall(out)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_each_way_to_run_code_from_a_file_is_found(text):
    assert list(object_loading(ast.parse(text)))


class Payload:
    """What unpickling turns into a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_in_a_cached_index_is_not_run(tmp_path):
    cache, folder = tmp_path / "index.npz", tmp_path / "was_run"
    np.savez(cache, shard=np.array([Payload(folder)], object))
    with np.load(cache, allow_pickle=True) as stored:  # the payload does work
        stored["shard"]
    assert folder.is_dir()
    folder.rmdir()
    assert index._load_arrays(cache, {}, with_labels=False) is None
    assert not folder.exists()
