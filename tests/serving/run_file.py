"""Probabilities of an ONNX or TensorFlow Lite file, by its runtime alone.

Arguments: the file, images (.npy, uint8 [N, H, W, 3]), the file to write.
"""

import importlib.util
import sys

import numpy as np

for absent in ("inception_tf", "tensorflow"):
    if importlib.util.find_spec(absent) is not None:
        sys.exit(f"{absent} is importable: this process proves nothing")

path, images_file, answers_file = sys.argv[1:]
images = np.load(images_file)
if path.endswith(".onnx"):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (answers,) = session.run(["probabilities"], {"images": images})
else:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(source["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], images)
    interpreter.invoke()
    answers = interpreter.get_tensor(target["index"])
np.save(answers_file, answers)
