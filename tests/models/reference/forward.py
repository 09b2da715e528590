"""Logits of the released networks with plain TensorFlow operations on tables of rows.

Wiring: slim's `inception_v3.py`, `inception_v4.py` and `inception_resnet_v2.py`; batch norm in
inference mode with epsilon 0.001, no dropout.
"""

import numpy as np
import tensorflow as tf

from reference.layer_rows import read_rows

BATCH_NORM_EPSILON = 0.001
_SCOPES = {
    "inception_v3": "InceptionV3",
    "inception_v4": "InceptionV4",
    "inception_resnet_v2": "InceptionResnetV2",
}


def logits_of(network, images, read_values, *, aux_head=False, counts_padding=False):
    """Logits of a released network.

    Args:
      network: 'inception_v3', 'inception_v4' or 'inception_resnet_v2'.
      images: float32 [N, H, W, 3].
      read_values: function Row -> Values that finds a layer's arrays in its source.
      aux_head: compute the auxiliary logits too; needs an auxiliary grid of 17x17 to 19x19.
      counts_padding: the 3x3 average pools divide by nine at the border too, as timm's
        Inception-v3 does; TensorFlow divides by the number of cells inside the image.

    Returns:
      {'logits': float32 [N, K]}, and 'aux_logits' with an auxiliary head, and 'first_mixed'
      float32 [N, H', W', C'], the grid after module Mixed_5b.
    """
    wiring = {
        "inception_v3": _inception_v3,
        "inception_v4": _inception_v4,
        "inception_resnet_v2": _inception_resnet_v2,
    }[network]
    layers = _Layers(network, read_values, counts_padding=counts_padding)
    first_mixed, aux_grid, grid, logits_name, aux_names = wiring(layers, tf.constant(images))
    outputs = {
        "first_mixed": first_mixed.numpy(),
        "logits": layers.dense(tf.reduce_mean(grid, axis=(1, 2)), logits_name),
    }
    if aux_head:
        outputs["aux_logits"] = layers.aux_head(aux_grid, aux_names)
    return outputs


def _inception_v3(layers, x):
    x = layers.small_stem(x)
    first_mixed = x = layers.mixed(x, "Mixed_5b", average_pool=3)
    for letter in "cd":
        x = layers.mixed(x, f"Mixed_5{letter}", average_pool=3)
    x = layers.mixed(x, "Mixed_6a", max_pool=2)
    for letter in "bcde":
        x = layers.mixed(x, f"Mixed_6{letter}", average_pool=3)
    aux_grid = x
    x = layers.mixed(x, "Mixed_7a", max_pool=2)
    for letter in "bc":
        x = layers.mixed(x, f"Mixed_7{letter}", average_pool=3, siblings=(1, 2))
    aux_names = ("Conv2d_1b_1x1", "Conv2d_2a_5x5", "Conv2d_2b_1x1")
    return first_mixed, aux_grid, x, "Logits/Conv2d_1c_1x1", aux_names


def _inception_v4(layers, x):
    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
        x = layers.conv(x, name)
    x = layers.mixed(x, "Mixed_3a", max_pool=0)
    x = layers.mixed(x, "Mixed_4a")
    x = layers.mixed(x, "Mixed_5a", max_pool=1)
    first_mixed = x = layers.mixed(x, "Mixed_5b", average_pool=3)
    for letter in "cde":
        x = layers.mixed(x, f"Mixed_5{letter}", average_pool=3)
    x = layers.mixed(x, "Mixed_6a", max_pool=2)
    for letter in "bcdefgh":
        x = layers.mixed(x, f"Mixed_6{letter}", average_pool=3)
    aux_grid = x
    x = layers.mixed(x, "Mixed_7a", max_pool=2)
    for letter in "bcd":
        x = layers.mixed(x, f"Mixed_7{letter}", average_pool=3, siblings=(1, 2))
    return first_mixed, aux_grid, x, "Logits/Logits", ("Conv2d_1b_1x1", "Conv2d_2a", "Aux_logits")


def _inception_resnet_v2(layers, x):
    x = layers.small_stem(x)
    first_mixed = x = layers.mixed(x, "Mixed_5b", average_pool=3)
    for number in range(1, 11):
        x = layers.residual(x, f"Repeat/block35_{number}", scale=0.17)
    x = layers.mixed(x, "Mixed_6a", max_pool=2)
    for number in range(1, 21):
        x = layers.residual(x, f"Repeat_1/block17_{number}", scale=0.10)
    aux_grid = x
    x = layers.mixed(x, "Mixed_7a", max_pool=3)
    for number in range(1, 10):
        x = layers.residual(x, f"Repeat_2/block8_{number}", scale=0.20)
    x = layers.residual(x, "Block8", scale=1.0, has_relu=False)
    x = layers.conv(x, "Conv2d_7b_1x1")
    return first_mixed, aux_grid, x, "Logits/Logits", ("Conv2d_1b_1x1", "Conv2d_2a_5x5", "Logits")


class _Layers:
    """Applies the layers of one network, each found by its slim scope."""

    def __init__(self, network, read_values, *, counts_padding):
        self._scope = _SCOPES[network]
        self._rows = read_rows(network)
        self._read_values = read_values
        self._counts_padding = counts_padding

    def conv(self, x, name):
        """Convolution, batch norm or bias, ReLU where the row has one: [N, H, W, C]."""
        row = self._rows[f"{self._scope}/{name}"]
        values = self._read_values(row)
        if row.padding == "SAME":
            # Odd kernels of stride 1: as many zeros before as after.
            x = tf.pad(x, [[0, 0], *([size // 2, size // 2] for size in row.kernel), [0, 0]])
        x = tf.nn.conv2d(x, values.kernel, strides=row.stride, padding="VALID")
        if row.norm == "bias":
            x = x + values.bias
        else:
            gamma = 1 if values.gamma is None else values.gamma
            factor = gamma / np.sqrt(values.variance + np.float32(BATCH_NORM_EPSILON))
            x = (x - values.mean) * factor + values.beta
        return tf.maximum(x, 0) if row.has_relu else x

    def dense(self, features, name):
        """Dense layer of features [N, C] as NumPy logits [N, K]."""
        return self.conv(features[:, None, None, :], name).numpy()[:, 0, 0, :]

    def small_stem(self, x):
        """Stem of Inception-v3 and released Inception-ResNet-v2."""
        for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
            x = self.conv(x, name)
        x = _max_pool(x)
        for name in ("Conv2d_3b_1x1", "Conv2d_4a_3x3"):
            x = self.conv(x, name)
        return _max_pool(x)

    def mixed(self, x, scope, *, average_pool=None, max_pool=None, siblings=()):
        """Concatenation of a module's branches, by index.

        Args:
          x: [N, H, W, C].
          scope: of the module.
          average_pool: index of the branch that starts with a 3x3 average pool.
          max_pool: index of the branch that is a 3x3/2 max pool alone.
          siblings: indices of the branches whose last two convolutions share their input.
        """
        outputs = []
        num_branches = 1 + max(*self._branch_indices(scope), max_pool or 0)
        for index in range(num_branches):
            if index == max_pool:
                outputs.append(_max_pool(x))
                continue
            names = self._branch_names(scope, index)
            ends = names[-2:] if index in siblings else names[-1:]
            trunk = self._average_pool(x) if index == average_pool else x
            for name in names[: -len(ends)]:
                trunk = self.conv(trunk, name)
            outputs.extend(self.conv(trunk, name) for name in ends)
        return tf.concat(outputs, axis=3)

    def residual(self, x, scope, *, scale, has_relu=True):
        """ReLU(x + scale * linear(branches)); the ReLU is left out with `has_relu=False`."""
        x = x + scale * self.conv(self.mixed(x, scope), f"{scope}/Conv2d_1x1")
        return tf.maximum(x, 0) if has_relu else x

    def aux_head(self, x, names):
        """Auxiliary logits [N, K] of a grid that a 5x5/3 average pool takes to 5x5."""
        x = tf.nn.avg_pool2d(x, 5, 3, "VALID")
        for name in names[:2]:
            x = self.conv(x, f"AuxLogits/{name}")
        if x.shape[1:3] != (1, 1):
            raise ValueError(f"The auxiliary head's 5x5 convolution must give 1x1, got {x.shape}.")
        return self.dense(x[:, 0, 0, :], f"AuxLogits/{names[2]}")

    def _branch_names(self, scope, index):
        prefix = f"{self._scope}/{scope}/Branch_{index}/"
        return [
            name.removeprefix(f"{self._scope}/") for name in self._rows if name.startswith(prefix)
        ]

    def _branch_indices(self, scope):
        return [index for index in range(9) if self._branch_names(scope, index)]

    def _average_pool(self, x):
        """3x3 averages at stride 1 of the zero-padded grid, over all nine cells or those inside."""
        padding = [[0, 0], [1, 1], [1, 1], [0, 0]]
        ninths = tf.nn.avg_pool2d(tf.pad(x, padding), 3, 1, "VALID")
        if self._counts_padding:
            return ninths
        inside = tf.nn.avg_pool2d(tf.pad(tf.ones_like(x[:1, :, :, :1]), padding), 3, 1, "VALID")
        return ninths / inside


def _max_pool(x):
    return tf.nn.max_pool2d(x, 3, 2, "VALID")
