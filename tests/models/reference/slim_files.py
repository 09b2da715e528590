"""TF1 checkpoints with the variables of tf-slim's released files, and random values."""

import numpy as np
import tensorflow as tf

from reference.layer_rows import Values, random_values, read_rows

_BATCH_NORM = {
    "gamma": "BatchNorm/gamma",
    "beta": "BatchNorm/beta",
    "mean": "BatchNorm/moving_mean",
    "variance": "BatchNorm/moving_variance",
}


def random_slim_arrays(network, *, seed, num_classes=1001):
    """Model variables of a released checkpoint, {name: float32 array}.

    Convolutions are [H, W, C, C'], also the logits of Inception-v3; dense layers are [C, C'].
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for row in read_rows(network, num_classes=num_classes).values():
        values = random_values(row, rng)
        is_dense = row.padding == "-"
        arrays[f"{row.name}/weights"] = values.kernel[0, 0] if is_dense else values.kernel
        if row.norm == "bias":
            arrays[f"{row.name}/biases"] = values.bias
        else:
            for field in ("beta", "mean", "variance"):
                arrays[f"{row.name}/{_BATCH_NORM[field]}"] = getattr(values, field)
    return arrays


def slim_values(arrays):
    """Function Row -> Values that reads slim-named arrays."""

    def read(row):
        kernel = arrays[f"{row.name}/weights"]
        if row.padding == "-":
            kernel = kernel[None, None]
        fields = {field: arrays.get(f"{row.name}/{key}") for field, key in _BATCH_NORM.items()}
        return Values(kernel=kernel, bias=arrays.get(f"{row.name}/biases"), **fields)

    return read


def write_slim_checkpoint(prefix, arrays, *, averages=None, has_slots=False):
    """Writes a TF1 checkpoint with `tf.compat.v1.train.Saver`.

    Args:
      prefix: path without the `.index` and `.data-...` endings.
      arrays: {variable name: array}.
      averages: None, or {variable name: array} of the weight averages.
      has_slots: add RMSProp's two slots per trainable variable, as a training run leaves them.
    """
    variables = dict(arrays)
    for name, average in (averages or {}).items():
        variables[f"{name}/ExponentialMovingAverage"] = average
    for name, array in arrays.items():
        if has_slots and "/moving_" not in name:
            variables[f"{name}/RMSProp"] = np.ones_like(array)
            variables[f"{name}/RMSProp_1"] = np.zeros_like(array)
    variables["global_step"] = np.int64(157_585)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        feeds = {}
        for name, array in variables.items():
            fed = tf.compat.v1.placeholder(array.dtype, array.shape)
            tf.compat.v1.Variable(fed, name=name, use_resource=True)
            feeds[fed] = array
        session.run(tf.compat.v1.global_variables_initializer(), feeds)
        tf.compat.v1.train.Saver().save(session, str(prefix), write_meta_graph=False)
