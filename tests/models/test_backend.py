"""Keras on another backend than TensorFlow is refused in one sentence."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("backend", ["jax", "jaxx"])  # known to Keras, and not
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["-c", "import inception_tf.models.layers"], 1),
        (["-m", "inception_tf.train", "--gin_file=configs/digits.gin"], 2),
    ],
)
def test_another_backend_is_refused_with_the_remedy(backend, arguments, status):
    ended = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == status
    last = ended.stderr.splitlines()[-1]
    assert "needs Keras' TensorFlow backend" in last and "KERAS_BACKEND=tensorflow" in last
    assert status == 1 or last.startswith("error: ") and "Traceback" not in ended.stderr
