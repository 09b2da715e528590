"""Installs inception_tf and the configs that come with it."""

# An older Python runs this file before pip compares `python_requires`, so that the user reads
# this sentence. It has to parse there: no f-strings, no annotations.
import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        "inception_tf needs Python 3.11, 3.12 or 3.13 (Keras 3.15 runs on nothing older, "
        "TensorFlow 2.21 on nothing newer). This is Python %d.%d. Install one of them and run "
        "the command again with it." % tuple(sys.version_info[:2])
    )

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (HERE / "inception_tf" / "__init__.py").read_text(), re.MULTILINE
).group(1)

# configs/ stands beside the package in a checkout and is installed inside it, every folder that
# holds gin files as a package, so that --gin_file=configs/irv2.gin is found from any directory.
CONFIG_PACKAGES = sorted(
    ".".join(("inception_tf", *folder.relative_to(HERE).parts))
    for folder in {path.parent for path in (HERE / "configs").rglob("*.gin")}
)

DIGITS = ["scikit-learn>=1.5,<2"]
TIMM = ["safetensors>=0.4,<1"]
ONNX = ["onnx>=1.19,<2", "onnxruntime>=1.23,<2"]

setuptools.setup(
    name="inception-tf",
    version=VERSION,
    description="Train, evaluate, export and use Inception networks with the papers' recipe",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=setuptools.find_packages(include=["inception_tf", "inception_tf.*"]) + CONFIG_PACKAGES,
    package_dir={"inception_tf": "inception_tf", "inception_tf.configs": "configs"},
    package_data={
        "inception_tf": ["predict_page.html"],
        **dict.fromkeys(CONFIG_PACKAGES, ["*.gin"]),
    },
    # TensorFlow and Keras to the minor version: promises rest on what they really do.
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "tensorflow-datasets>=4.9.6,<5",
        "importlib-resources>=6,<8",  # tensorflow-datasets imports it and does not ask for it
        "absl-py>=2.1,<3",
        "gin-config>=0.5,<0.6",
        "tensorboard>=2.20,<3",
        "tqdm>=4.66,<5",
        "matplotlib>=3.9,<4",
        "werkzeug>=3.1,<4",  # the page of predict; tensorboard asks for it too
        "google-crc32c>=1.5,<2",
        "numpy>=2.0,<3",
    ],
    extras_require={
        "digits": DIGITS,  # the embedded real images of the first command
        "timm": TIMM,  # weights in timm's format
        "onnx": ONNX,  # exports as ONNX files
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "test": [
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "hypothesis>=6.100,<7",
            "pyyaml>=6,<7",  # the manifests of launch/kubernetes/ are held against
            "jsonschema>=4.23,<5",  # the published schemas
            "ai-edge-litert>=2.1,<3",  # the interpreter of others for TensorFlow Lite files
        ]
        + DIGITS
        + TIMM
        + ONNX,
    },
)
