"""The weights that a run begins with where `training.init_from` names some."""

import dataclasses
import os
import pathlib
import zlib

import numpy as np

from inception_tf.errors import CheckpointError, ConfigError
from inception_tf.models.weights import assignment
from inception_tf.models.weights.identity import identity_of_spec, read_fields
from inception_tf.models.weights.source import WeightSource
from inception_tf.run_directory import RunDirectory
from inception_tf.training.checkpoint import CheckpointStore


def fill_model(model, experiment, inputs, strategy):
    """Fills a network with the weights of `training.init_from`, on every device alike.

    Args:
      model: of the run, with drawn weights; `training.new_head` leaves its heads as they are.
      experiment: an Experiment.
      inputs: the data, whose classes the run is for.
      strategy: of the network.

    Returns:
      Text for the user: where each weight comes from, and what was left.

    Raises:
      CheckpointError: a run directory without a checkpoint that verifies.
      DataError: weights that cannot be read, or are not those of this network.
      ConfigError: weights for other classes without `new_head`.
    """
    training = experiment.training
    place = pathlib.Path(training.init_from).expanduser()
    # Not any directory: a slim checkpoint may be named by its own.
    if RunDirectory(place).holds_run():
        source, lines = _weights_of_run(place, training, inputs)
    else:
        source, lines = assignment.read_weights(training.init_from, cache_dir=cache_dir()), []
    with strategy.scope():
        report = assignment.assign_weights(
            model,
            source,
            identity=identity_of(experiment, num_classes=inputs.num_classes),
            new_head=training.new_head,
        )
    return "\n".join([*lines, report.text()])


def identity_of(experiment, *, num_classes):
    """NetworkIdentity of the network that an Experiment declares."""
    return identity_of_spec(
        experiment.model,
        num_classes=num_classes,
        evaluation_crop=dataclasses.asdict(experiment.evaluation_crop),
    )


def cache_dir() -> pathlib.Path:
    """Where published weights are kept: $INCEPTION_TF_CACHE, else ~/.cache/inception_tf."""
    named = os.environ.get("INCEPTION_TF_CACHE")
    return pathlib.Path(named or "~/.cache/inception_tf").expanduser()


def _weights_of_run(run_dir, training, inputs):
    """A run's newest good checkpoint as a source, and lines that say which it is.

    Where the run keeps an average of a weight the average is taken: it is what the run evaluates.
    """
    directory, store = RunDirectory(run_dir), CheckpointStore.of_run(run_dir)
    facts = directory.read_facts()
    info, skipped = store.newest_verified()
    if facts is None or info is None:
        raise CheckpointError(
            "A directory to begin from must hold a run with a checkpoint that verifies.",
            received=f"training.init_from = {training.init_from!r}"
            + "".join(f"; {path}: {why}" for path, why in skipped),
            remedy="Give the run directory of a training run, or a file of weights.",
        )
    lines = [f"skipped {path}: {reason}" for path, reason in skipped]
    values = store.read(info)
    has_averages = any(name.startswith("average/") for name in values)
    kind = "averaged weights" if has_averages else "raw weights (it keeps no averages)"
    lines.append(f"begins with the {kind} of {run_dir} at step {info.step:,}")
    if not training.new_head:
        lines += _check_classes(facts, inputs, run_dir)
    arrays = {
        name.removeprefix("model/"): values.get(name.replace("model/", "average/", 1), value)
        for name, value in values.items()
        if name.startswith("model/")
    }
    identity = None
    if facts.identity is not None and not directory.has_changed_network():
        identity = read_fields(facts.identity, path=directory.facts_file)
    source = WeightSource(
        path=str(info.path),
        format="own",
        network=identity and identity.network,
        arrays=arrays,
        identity=identity,
    )
    return source, lines


def _check_classes(facts, inputs, run_dir):
    """What to say about a run's classes, whose head is kept.

    Raises:
      ConfigError: the data has another number of classes.
    """
    if facts.num_classes != inputs.num_classes:
        raise ConfigError(
            "An imported classifier must have the classes of the data.",
            received=f"{facts.num_classes:,} classes in {run_dir}, {inputs.num_classes:,} in the "
            "data",
            remedy="training.new_head = True keeps the trunk and begins with a new classifier.",
        )
    if facts.class_names == tuple(inputs.class_names):
        return []
    pairs = zip(facts.class_names, inputs.class_names)
    before, now = next((pair for pair in pairs if pair[0] != pair[1]), ("unnamed", "named"))
    return [
        f"WARNING: the imported classifier was trained on classes of other names ({before}, here "
        f"{now}); training.new_head = True begins with a new one"
    ]


def digest_of(model) -> str:
    """CRC-32 of all variables of a network, in hexadecimal."""
    digest = 0
    for variable in model.weights:
        digest = zlib.crc32(np.ascontiguousarray(variable.value.numpy()), digest)
    return f"{digest:08x}"
