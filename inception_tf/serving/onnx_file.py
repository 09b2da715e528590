"""The ONNX file: whole levels in, probabilities out; written from a folded network.

It takes uint8 [N, H, W, 3], the evaluation crop rounded to whole levels, and gives float32 [N, K].
Inside it is channels first, as ONNX is. Its metadata stand in the file, under `METADATA_KEY`.
"""

import contextlib
import json

import numpy as np

from inception_tf.errors import ConfigError
from inception_tf.serving import fold
from inception_tf.serving.formats import ExportError

METADATA_KEY = "inception_tf"
INPUT, OUTPUT = "images", "probabilities"
# Of 2021: runtimes read what is older than they are.
_OPSET, _IR_VERSION = 15, 8


def write_file(path, network, content):
    """Writes the file, without metadata.

    Args:
      path: of the file.
      network: a FoldedNetwork.
      content: a Content.

    Raises:
      ConfigError: the package `onnx` is absent.
    """
    with _saying_what_to_install():
        import onnx
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    height_px, width_px, channels = network.input_shape
    builder = _GraphBuilder(onnx)
    num_dropped = int(content.background_class)
    builder.add_input()
    for operation in network.operations:
        builder.add(operation)
    builder.add_output(network, num_dropped=num_dropped)
    num_classes = network.num_outputs - num_dropped
    graph = helper.make_graph(
        builder.nodes,
        "inception_tf",
        [helper.make_tensor_value_info(
            INPUT, onnx.TensorProto.UINT8, ["N", height_px, width_px, channels])],
        [helper.make_tensor_value_info(OUTPUT, float32, ["N", num_classes])],
        builder.weights,
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="inception_tf"
    )
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def add_metadata(path, metadata_text):
    """Appends the metadata to a file that has none; what was written before stays as it is."""
    with _saying_what_to_install():
        import onnx
    # Protocol buffers that follow each other are one, whose lists are those of both.
    more = onnx.ModelProto()
    onnx.helper.set_model_props(more, {METADATA_KEY: metadata_text})
    with path.open("ab") as file:
        file.write(more.SerializeToString())


def read_metadata(path) -> dict:
    """What a file says of itself.

    Raises:
      ConfigError: onnxruntime is absent.
      ExportError: it does not load, or is not one of this project.
    """
    try:
        return json.loads(_session(path).get_modelmeta().custom_metadata_map[METADATA_KEY])
    except (KeyError, ValueError) as error:
        raise _not_ours(path, error) from error


def open_file(path):
    """Function uint8 [N, H, W, 3] -> float32 [N, K] of a file.

    Raises:
      ConfigError: onnxruntime is absent.
      ExportError: it does not load.
    """
    session = _session(path)
    return lambda levels: session.run([OUTPUT], {INPUT: levels})[0]


def _session(path):
    with _saying_what_to_install():
        import onnxruntime
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no common base
        raise _not_ours(path, error) from error


def _not_ours(path, error):
    return ExportError(
        "An ONNX file must be one that `python -m inception_tf.export` wrote.",
        received=f"{path}: {error}",
    )


def versions():
    """Package -> version of what writes and runs the file."""
    with _saying_what_to_install():
        import onnx
        import onnxruntime
    return {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}


@contextlib.contextmanager
def _saying_what_to_install():
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            "ONNX files need the packages onnx and onnxruntime.",
            received=f"{error.name} is not installed",
            remedy="pip install 'inception-tf[onnx]'",
        ) from error


class _GraphBuilder:
    """Nodes and weights of an ONNX graph, channels first."""

    def __init__(self, onnx):
        self._onnx = onnx
        self.nodes, self.weights = [], []

    def add_input(self):
        """Whole levels [N, H, W, C] to [-1, 1], [N, C, H, W], as `data.image.to_input`."""
        cast = self._node("Cast", [INPUT], "levels", to=self._onnx.TensorProto.FLOAT)
        unit = self._node("Mul", [cast, self._weight("one_level", np.float32(1 / 255))], "unit")
        shifted = self._node("Sub", [unit, self._weight("half", np.float32(0.5))], "shifted")
        scaled = self._node("Mul", [shifted, self._weight("two", np.float32(2))], "scaled")
        self._node("Transpose", [scaled], _output_of(fold.INPUT), perm=[0, 3, 1, 2])

    def add(self, operation):
        """The nodes of a folded network's operation."""
        inputs = [_output_of(name) for name in operation.inputs]
        name = operation.name
        output = f"{name}/linear" if operation.has_relu else _output_of(name)
        window = {
            "kernel_shape": list(operation.window), "strides": list(operation.strides),
            "auto_pad": "SAME_UPPER" if operation.padding == "same" else "VALID",
        }  # fmt: skip
        kind = operation.kind
        if kind == fold.CONV:
            kernel = self._weight(f"{name}/kernel", operation.kernel.transpose(3, 2, 0, 1))
            bias = self._weight(f"{name}/bias", operation.bias)
            self._node("Conv", [*inputs, kernel, bias], output, **window)
        elif kind == fold.DENSE:
            kernel = self._weight(f"{name}/kernel", operation.kernel)
            bias = self._weight(f"{name}/bias", operation.bias)
            self._node("Gemm", [*inputs, kernel, bias], output)
        elif kind == fold.AFFINE:
            scale = self._weight(f"{name}/scale", operation.kernel[:, np.newaxis, np.newaxis])
            shift = self._weight(f"{name}/shift", operation.bias[:, np.newaxis, np.newaxis])
            scaled = self._node("Mul", [*inputs, scale], f"{name}/scaled")
            self._node("Add", [scaled, shift], output)
        elif kind == fold.ADD:
            self._node("Add", inputs, output)
        elif kind == fold.CONCAT:
            self._node("Concat", inputs, output, axis=1)
        elif kind == fold.MAX_POOL:
            self._node("MaxPool", inputs, output, **window)
        elif kind == fold.AVERAGE_POOL:
            self._node("AveragePool", inputs, output, count_include_pad=0, **window)
        elif kind == fold.GLOBAL_MEAN:
            self._node("ReduceMean", inputs, output, axes=[2, 3], keepdims=0)
        if operation.has_relu:
            self._node("Relu", [output], _output_of(name))

    def add_output(self, network, *, num_dropped):
        """Logits to the classes' probabilities, the background left out after the softmax."""
        softmax = f"{OUTPUT}/all" if num_dropped else OUTPUT
        self._node("Softmax", [_output_of(network.logits)], softmax, axis=1)
        if num_dropped:
            ends = (num_dropped, network.num_outputs, 1)
            start, end, axis = (
                self._weight(name, np.array([value], np.int64))
                for name, value in zip(("first", "end", "axis"), ends)
            )
            self._node("Slice", [softmax, start, end, axis], OUTPUT)

    def _node(self, kind, inputs, output, **attributes):
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def _weight(self, name, value):
        value = np.ascontiguousarray(value)
        self.weights.append(self._onnx.numpy_helper.from_array(value, name))
        return name


def _output_of(name):
    """Name of an operation's output in the graph; that of the images has been prepared."""
    return "prepared" if name == fold.INPUT else name
