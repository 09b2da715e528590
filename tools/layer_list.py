"""A network's layers as plain data, from which peers in other frameworks are built.

A list of dicts, each after those whose outputs it takes: {'kind': class of the layer, 'name',
'inputs': names, 'config': the layer's own `get_config()`}. The first is the input, the last gives
the logits. As JSON, so that a peer can read it without importing TensorFlow.
"""

import json

FILE_NAME = "layers.json"  # of the list in the folder of a case


def layers_of(model):
    """The list of a functional keras.Model with one output."""
    from inception_tf.models.wiring import wires  # TensorFlow, which readers do without

    return [
        {
            "kind": type(wire.layer).__name__,
            "name": wire.layer.name,
            "inputs": list(wire.sources),
            "config": wire.layer.get_config(),
        }
        for wire in wires(model, model.output)
    ]


def write_layers(path, model):
    """Writes the list of a model as JSON."""
    path.write_text(json.dumps(layers_of(model)), encoding="utf-8")


def read_layers(path):
    """The list that `write_layers` wrote, tuples as lists."""
    return json.loads(path.read_text(encoding="utf-8"))
