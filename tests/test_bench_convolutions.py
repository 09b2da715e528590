"""tools/bench_convolutions.py: its ways compute one and the same thing."""

import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))

import bench_convolutions as bench  # noqa: E402


@pytest.mark.parametrize(
    "kernel, strides, padding",
    [
        ((1, 1, 3, 5), (1, 1), "same"),
        ((3, 3, 3, 5), (1, 1), "same"),
        ((3, 3, 3, 5), (1, 1), "valid"),
        ((7, 1, 3, 5), (1, 1), "same"),
        ((3, 3, 3, 5), (2, 2), "valid"),
    ],
)
def test_every_way_gives_tensorflows_own_gradient(kernel, strides, padding):
    one = bench.Convolution((9, 8, 3), kernel, strides, padding)
    x = tf.random.stateless_normal([4, 9, 8, 3], [0, 0])
    weights = tf.random.stateless_normal(kernel, [0, 1])
    y = tf.nn.conv2d(x, weights, strides, padding.upper())
    found = one.ways(x, weights, tf.random.stateless_normal(y.shape, [0, 2]))
    others = {way: own for way, own in bench.OWN.items() if way in found}
    assert len(others) == {(1, 1): 4}.get(kernel[:2], 2 if strides == (1, 1) else 0)
    for way, own in others.items():
        expected = found[own]().numpy()
        np.testing.assert_allclose(found[way](), expected, rtol=1e-4, atol=1e-4)


def test_siblings_of_a_network_are_found():
    model = bench.build_model(
        bench.ModelSpec(name="inception_resnet_v2", width_multiplier=0.05, block_counts=(1, 1, 1)),
        num_classes=3,
    )
    shapes, siblings = bench.convolutions_of(model)
    assert sum(shapes.values()) == 4 + 1 + 7 + 7 + 4 + 5 + 7 + 5 + 1
    # Mixed_5b and block35 have three, block17 and block8 two, Mixed_6a none, Mixed_7a three.
    assert sorted(map(len, siblings.elements())) == [2, 2, 3, 3, 3]
