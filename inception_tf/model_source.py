"""A trained network from wherever a user has one: a run directory, or weights from elsewhere."""

import dataclasses

import keras
import tensorflow as tf

from inception_tf import initial_weights, products
from inception_tf.data.image import EvaluationCrop, decode_evaluation
from inception_tf.data.photo import PhotoEdits, edit_as_built
from inception_tf.errors import ConfigError, DataError
from inception_tf.models.weights import assignment, conversion
from inception_tf.run_directory import RunDirectory

DEFAULT_INPUT_PX = 299  # the size at which all published weights were trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """A network with its weights, and what is needed to feed and to read it.

    Attributes:
      model: keras.Model, images float32 [N, H, W, 3] in [-1, 1] -> logits float32 [N, outputs];
        without auxiliary head, and without top where the weights have none.
      network, variant: its place in the catalog.
      num_classes: K without background; None without top.
      background_class: whether output 0 is the background.
      class_names: K names, or None where nobody said them.
      input_height_px, input_width_px: of the images that it takes.
      crop: of its evaluation.
      step: of a run's checkpoint, else None.
      what: a sentence that says which weights these are.
      notes: what else the user should know, one line each.
      photo_edits: what was done to the images of its records, and is to be done to others.
    """

    model: keras.Model
    network: str
    variant: str
    num_classes: int | None
    background_class: bool
    class_names: tuple[str, ...] | None
    input_height_px: int
    input_width_px: int
    crop: EvaluationCrop
    step: int | None
    what: str
    notes: tuple[str, ...] = ()
    photo_edits: PhotoEdits = PhotoEdits()

    def decode(self, image_bytes):
        """From an image file's bytes, string scalar, to the model's input, float32 [H, W, 3].

        The evaluation's own function, for every source, after the edits of its records.
        """
        return decode_evaluation(
            edit_as_built(image_bytes, edits=self.photo_edits),
            crop=self.crop,
            height_px=self.input_height_px,
            width_px=self.input_width_px,
        )


@dataclasses.dataclass(frozen=True)
class _OneProcess:
    """What reading a run asks of a cluster, where there is none: where the variables go."""

    strategy: tf.distribute.Strategy


def open_run(
    experiment, run_dir, *, averaged=True, step=None, input_px=None, cluster=None
) -> OpenedModel:
    """The network of a run, with the weights of its newest good checkpoint, or that of a step.

    Args:
      experiment: an Experiment, as the run's saved configuration says it.
      run_dir: of the run.
      averaged: take the average of each weight that has one.
      step: of the checkpoint; None takes the newest good one.
      input_px: side of the images that the network is to take; None takes the run's.
      cluster: on whose devices the variables go; None takes TensorFlow's default device.

    Raises:
      UserError: no run, no usable checkpoint, or images too small for the network.
    """
    cluster = cluster or _OneProcess(tf.distribute.get_strategy())
    spec = dataclasses.replace(experiment.model, aux_head=False)  # it is for training alone
    if input_px is not None:
        spec = dataclasses.replace(spec, input_height_px=input_px, input_width_px=input_px)
    experiment = dataclasses.replace(experiment, model=spec)
    trained = products.read_run(experiment, RunDirectory(run_dir), cluster, step=step)
    has_averages = any(name.startswith("average/") for name in trained.variables)
    trainable, non_trainable = trained.values(averaged=averaged)
    for variable, value in (
        *zip(trained.model.trainable_variables, trainable),
        *zip(trained.model.non_trainable_variables, non_trainable),
    ):
        variable.assign(value)
    kind = "averaged" if averaged and has_averages else "raw"
    why = " (it keeps no averages)" if averaged and not has_averages else ""
    return OpenedModel(
        model=trained.model,
        network=spec.name,
        variant=spec.variant,
        num_classes=trained.facts.num_classes,
        background_class=spec.background_class,
        class_names=trained.facts.class_names or None,
        input_height_px=spec.input_height_px,
        input_width_px=spec.input_width_px,
        crop=experiment.evaluation_crop,
        step=trained.step,
        what=f"{kind} weights{why} of {run_dir} at step {trained.step:,}: {spec.name}, "
        f"{spec.variant}",
        notes=tuple(trained.skipped),
        photo_edits=trained.facts.photo_edits,
    )


def open_weights(source, *, network=None, variant=None, input_px=None, cluster=None) -> OpenedModel:
    """A network of the catalog with weights from a file or published ones.

    What the file does not say of itself is taken from the arguments. A file of this project says
    it all; in others the names tell the network and the classifier's shape the classes.

    Args:
      source: see models/weights/assignment.py.
      network: name in the catalog; None takes what the weights are of.
      variant: None takes what the file says, else the one whose weights are published.
      input_px: side of the images that the network is to take; None takes what the file says, or
        299.
      cluster: on whose devices the variables go; None takes TensorFlow's default device.

    Raises:
      ConfigError: nobody says which network it is, or there is no such variant.
      DataError: the weights cannot be read, or are not those of this network.
    """
    cluster = cluster or _OneProcess(tf.distribute.get_strategy())
    found = assignment.read_weights(source, cache_dir=initial_weights.cache_dir())
    identity = conversion.network_to_build(found, network=network, variant=variant)
    height_px = input_px or identity.input_height_px or DEFAULT_INPUT_PX
    width_px = input_px or identity.input_width_px or DEFAULT_INPUT_PX
    assumed = [] if input_px or identity.input_height_px else [f"{height_px}x{width_px} px"]
    crop = _crop_of(identity, source)
    if crop is None:
        crop = EvaluationCrop()
        assumed.append(f"the crop {crop.recipe} of {crop.central_fraction:.1%}")
    notes = ()
    if assumed:
        notes = (f"The weights do not say it, so images of them are {', '.join(assumed)}.",)
    with cluster.strategy.scope():
        model = conversion.build_network_of(identity, input_shape=(height_px, width_px, 3))
        given = dataclasses.replace(identity, input_height_px=height_px, input_width_px=width_px)
        report = assignment.assign_weights(model, found, identity=given)
    num_outputs, has_background = identity.num_outputs, bool(identity.background_class)
    return OpenedModel(
        model=model,
        network=identity.network,
        variant=identity.variant,
        num_classes=None if num_outputs is None else num_outputs - int(has_background),
        background_class=has_background,
        class_names=None,
        input_height_px=height_px,
        input_width_px=width_px,
        crop=crop,
        step=None,
        what=f"weights of {source} ({found.format}): {identity.network}, {identity.variant}",
        notes=(*notes, *report.notes),
    )


def _crop_of(identity, source):
    """The EvaluationCrop that weights say; None where they say none.

    Raises:
      DataError: it is none.
    """
    if identity.evaluation_crop is None:
        return None
    try:
        return EvaluationCrop(**identity.evaluation_crop)
    except (TypeError, ConfigError) as error:
        raise DataError(
            "Weights must say an evaluation crop that there is.",
            received=f"{source}: {identity.evaluation_crop!r:.200}",
        ) from error


def open_model(
    source,
    *,
    resolve_run,
    weights=None,
    step=None,
    network=None,
    variant=None,
    input_px=None,
    cluster=None,
) -> OpenedModel:
    """The network of a run directory, or of a file of weights or published ones.

    Args:
      source: a path, or a name of published weights (models/weights/).
      resolve_run: from a run directory to its Experiment; asked of run directories alone.
      weights: 'averaged' or 'raw', of a run; None takes averaged ones.
      step: of a run's checkpoint; None takes the newest good one.
      network, variant: of weights whose file does not say it.
      input_px: see `open_run` and `open_weights`.
      cluster: see `open_run`.

    Raises:
      UserError: the source cannot be used, or has no such choice.
    """
    if not RunDirectory(source).holds_run():
        if weights is not None or step is not None:
            raise ConfigError(
                "Averaged or raw weights and a step can be chosen of a run directory.",
                received=f"{weights or ''} {step or ''}".strip() + f" for {source}",
            )
        return open_weights(
            source, network=network, variant=variant, input_px=input_px, cluster=cluster
        )
    if network is not None or variant is not None:
        raise ConfigError(
            "A run's own config says its network and variant.",
            received=f"{network or ''} {variant or ''}".strip() + f" for {source}",
            remedy="Leave them out.",
        )
    averaged = weights in (None, "averaged")
    return open_run(
        resolve_run(source),
        source,
        averaged=averaged,
        step=step,
        input_px=input_px,
        cluster=cluster,
    )


def refuse_choices(source, **choices):
    """Raises ConfigError where one of the choices of `open_model` was made for an export."""
    given = {name: value for name, value in choices.items() if value is not None}
    if given:
        raise ConfigError(
            "An export is used as it was written.",
            received=", ".join(f"--{name}={value}" for name, value in given.items())
            + f" for {source}",
        )
