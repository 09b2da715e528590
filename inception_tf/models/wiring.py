"""Which layer of a functional model takes what."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class Wire:
    """A layer and where its inputs come from.

    Attributes:
      layer: keras.layers.Layer that is called once in its model.
      sources: names of the layers that give its inputs, in their order; none for the input layer.
    """

    layer: keras.layers.Layer
    sources: tuple[str, ...]


def producers_of(model):
    """id of a KerasTensor -> the layer of a functional model that gives it."""
    return {id(x): layer for layer in model.layers for x in keras.tree.flatten(layer.output)}


def sources_of(layer, producers):
    """The layers that a layer takes its inputs from; none for the input layer.

    Args:
      producers: as `producers_of` gives it.
    """
    if isinstance(layer, keras.layers.InputLayer):
        return []
    return [producers[id(x)] for x in keras.tree.flatten(layer.input)]


def wires(model, outputs) -> list[Wire]:
    """All layers that some outputs need, each after those that it takes.

    Args:
      model: functional keras.Model that calls each of its layers once.
      outputs: KerasTensor, or a structure of them.
    """
    producers = producers_of(model)
    needed = {}
    pending = [producers[id(output)] for output in keras.tree.flatten(outputs)]
    while pending:
        layer = pending.pop()
        if layer.name in needed:
            continue
        sources = sources_of(layer, producers)
        needed[layer.name] = tuple(source.name for source in sources)
        pending.extend(sources)
    # Keras lists the layers of a functional model each after those that it takes.
    return [Wire(layer, needed[layer.name]) for layer in model.layers if layer.name in needed]
