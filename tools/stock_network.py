"""A network of this project from Keras' own layers, as keras.applications would hold it."""

import keras

# Layers that are Keras' own already, and which of their arguments a network of ours sets.
_POOL = ("pool_size", "strides", "padding")
_KEPT = {
    "AveragePooling2D": _POOL,
    "Concatenate": (),
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "activation", "kernel_initializer"),
    "Dense": ("units", "activation", "kernel_initializer"),
    "GlobalAveragePooling2D": (),
    "MaxPooling2D": _POOL,
}


def build_stock_network(layers):
    """A functional keras.Model of Conv2D, BatchNormalization and their like; logits, as ours.

    A `ConvUnit` becomes Conv2D without bias, BatchNormalization without gamma and ReLU, which are
    named `<layer>`, `<layer>_norm` and `<layer>_relu`; a `ResidualSum` Rescaling, Add and ReLU.
    All other layers are Keras' own already. Policies and initializers stay as they are.

    Args:
      layers: of `layer_list.layers_of`.

    Raises:
      ValueError: a layer that is not known here.
    """
    first, *rest = layers
    images = keras.Input(first["config"]["batch_shape"][1:], name=first["name"])
    found = {first["name"]: images}
    for layer in rest:
        inputs = [found[name] for name in layer["inputs"]]
        found[layer["name"]] = _apply(layer, inputs)
    return keras.Model(images, found[rest[-1]["name"]])


def _apply(layer, inputs):
    kind, name, config = layer["kind"], layer["name"], layer["config"]
    dtype = config.get("dtype")
    if kind == "ConvUnit":
        x = keras.layers.Conv2D(
            config["filters"], config["kernel_size"], strides=config["strides"],
            padding=config["padding"], use_bias=False, dtype=dtype, name=name,
            kernel_initializer=config["kernel_initializer"],
        )(*inputs)  # fmt: skip
        x = keras.layers.BatchNormalization(
            scale=config["use_scale"], momentum=config["momentum"], epsilon=config["epsilon"],
            dtype=dtype, name=f"{name}_norm",
        )(x)  # fmt: skip
        return _relu(x, layer)
    if kind == "ResidualSum":
        x, up = inputs
        up = keras.layers.Rescaling(config["scale"], dtype=dtype, name=f"{name}_scaled")(up)
        x = keras.layers.Add(dtype=dtype, name=f"{name}_sum")([x, up])
        return _relu(x, layer)
    if kind == "Dropout":
        return keras.layers.Dropout(config["rate"], dtype=dtype, name=name)(*inputs)
    if kind not in _KEPT:
        raise ValueError(f"no layer of Keras stands for {kind} {name}")
    arguments = {argument: config[argument] for argument in _KEPT[kind]}
    kept = getattr(keras.layers, kind)(**arguments, dtype=dtype, name=name)
    return kept(inputs if kind == "Concatenate" else inputs[0])


def _relu(x, layer):
    if not layer["config"]["use_relu"]:
        return x
    dtype = layer["config"]["dtype"]
    return keras.layers.Activation("relu", dtype=dtype, name=f"{layer['name']}_relu")(x)
