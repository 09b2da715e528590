"""ONNX and TensorFlow Lite: the evaluator's probabilities on the same pixels, or nothing."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data.image import decode_whole, evaluation_levels, to_input
from inception_tf.models.catalog import ModelSpec, build_model
from inception_tf.serving.check import ReferenceImages
from inception_tf.serving.content import Content
from inception_tf.serving.fold import fold
from inception_tf.serving.formats import ExportError
from inception_tf.serving.loaded import load_export
from inception_tf.serving.spec import FORMATS, ExportSpec
from inception_tf.serving.writing import write_export
from tests.serving.test_fold import SLOW, network_of
from tests.serving.test_signatures import CROP, NAMES, PREPROCESSING, drawn_jpegs

needs_onnx = [
    pytest.mark.skipif(
        not all(map(__import__("importlib").util.find_spec, ("onnx", "onnxruntime"))),
        reason="needs the extra [onnx]",
    )
]
