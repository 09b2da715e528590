"""A network's layers as plain data, from which peers in other frameworks are built.

A list of dicts, each after those whose outputs it takes: {'kind': class of the layer, 'name',
'inputs': names, 'config': the layer's own `get_config()`}. The first is the input, the last gives
the logits. As JSON, so that a peer can read it without importing TensorFlow.
"""

import json

FILE_NAME = "layers.json"  # of the list in the folder of a case


def layers_of(model):
    """The list of a functional keras.Model with one output."""
    producers = {id(layer.output): layer.name for layer in model.layers}
    layers = []
    for layer in model.layers:
        taken = [] if layer.name == model.layers[0].name else layer.input
        taken = taken if isinstance(taken, (list, tuple)) else [taken]
        layers.append(
            {
                "kind": type(layer).__name__,
                "name": layer.name,
                "inputs": [producers[id(tensor)] for tensor in taken],
                "config": layer.get_config(),
            }
        )
    return layers


def write_layers(path, model):
    """Writes the list of a model as JSON."""
    path.write_text(json.dumps(layers_of(model)), encoding="utf-8")


def read_layers(path):
    """The list that `write_layers` wrote, tuples as lists."""
    return json.loads(path.read_text(encoding="utf-8"))
