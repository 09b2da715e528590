"""The config of a run that exists: as it was saved, and held against another or the paper's."""

import dataclasses

from inception_tf import config, preparation
from inception_tf.errors import ConfigError
from inception_tf.models import catalog
from inception_tf.models.weights.identity import identity_of_spec
from inception_tf.parameters import SECTIONS, is_operation
from inception_tf.resolved import describe_differences, differences
from inception_tf.run_directory import RunDirectory

_IMAGENET_CONFIG = "irv2.gin"
# The config that is the paper's run of a network, or of the nearest one that a paper trained.
_PAPER_CONFIGS = {
    ("inception_v3", "released"): "v3.gin",
    ("inception_v4", "released"): "v4.gin",
    ("inception_v4", "paper"): "v4_paper.gin",
    ("inception_resnet_v1", "paper"): "irv1.gin",
    ("inception_resnet_v1", "facenet"): "irv1.gin",  # the rows begin with the variant
    ("inception_resnet_v2", "released"): "irv2.gin",
    ("inception_resnet_v2", "paper"): "irv2_paper.gin",
}


def resolve_saved(run_dir, *, gin_params=(), overrides=None, reads=SECTIONS):
    """The config that a run was last started with, under this command's own bindings.

    What only training reads is passed over in the saved file; a `gin_params` binding that this
    command does not read is refused as anywhere.

    Raises:
      ConfigError: no run was started there.
    """
    path = RunDirectory(run_dir).config_file
    if not path.exists():
        raise ConfigError(
            "A run directory must hold the config that its run was started with.",
            received=str(path),
            remedy="Give the --run_dir of a training run.",
        )
    return config.resolve(
        gin_files=[path],
        gin_params=gin_params,
        overrides=overrides,
        reads=reads,
        exempt_unread=True,
    )


def resolve_without_run(*, gin_params=(), overrides=None, reads):
    """What a command on weights from elsewhere reads: ImageNet's data, devices and batches as in
    the paper's config, under this command's own bindings."""
    return config.resolve(
        gin_files=[_IMAGENET_CONFIG],
        gin_params=gin_params,
        overrides=overrides,
        reads=reads,
        exempt_unread=True,
    )


def reconcile(resolved, run_dir, *, recipe_wins=None):
    """The config that holds in a directory that may have a run already.

    Args:
      resolved: the config that this command was given.
      run_dir: of the run.
      recipe_wins: 'saved' or 'given', where the recipes differ.

    Returns:
      (Resolved, [(parameter, before, now)]): what holds, and what is no longer as it was.

    Raises:
      ConfigError: the run was begun with another recipe and nobody said which one wins.
    """
    if not RunDirectory(run_dir).config_file.exists():
        return resolved, []
    saved = resolve_saved(run_dir)
    found = _real_differences(saved, resolved)
    if found and recipe_wins is None:
        raise ConfigError(
            "A run goes on only with the recipe it began with.",
            received=f"in {run_dir}\n{describe_differences(found)}\n",
            remedy="Give another --run_dir for a new run, or say which recipe holds from here on: "
            "--recipe_wins=saved or --recipe_wins=given.",
        )
    if found and recipe_wins == "saved":
        bound = {name: one.value for name, one in resolved.bound.items() if is_operation(name)}
        resolved, found = resolve_saved(run_dir, overrides=bound), []
    return resolved, differences(saved.operation(), resolved.operation()) + found


def differences_from_paper(resolved):
    """(parameter, paper, this run) of every recipe value that is not the paper's.

    The paper's is what it used for this network in its final results: a rung of the ladder differs
    by the steps that it is below Inception-v3. 'facenet', which no paper trained on ImageNet,
    differs from Inception-ResNet-v1 by its variant.
    """
    model = resolved.sections["model"]
    name = _PAPER_CONFIGS[model.name, model.variant]
    return _real_differences(config.resolve(gin_files=[name], reads=SECTIONS), resolved)


def _real_differences(saved, given):
    """The differences of two recipes, but for a network's option that one of them leaves out.

    Such an option is None in a config and stands for what the network's builder takes.
    """

    def is_real(row):
        parameter, *values = row
        section, _, name = parameter.partition(".")
        if section != "model" or None not in values:
            return True
        network = given.sections["model"].name
        default = catalog.builder_default(network, name)
        return values not in ([None, default], [default, None])

    return [row for row in differences(saved, given) if is_real(row)]


def build_model_of_run(run_dir):
    """The network that a run trains, with initial weights.

    Raises:
      ConfigError: no run was started there.
      CheckpointError: its run.json cannot be read.
    """
    sections = resolve_saved(run_dir, reads=("model", "training")).sections
    return preparation.build_model(
        sections["model"], sections["training"], num_classes=_num_classes_of(run_dir)
    )


def identity_of_run(run_dir):
    """NetworkIdentity of the network that a run trains.

    Raises:
      ConfigError: no run was started there.
      CheckpointError: its run.json cannot be read.
    """
    sections = resolve_saved(run_dir, reads=("model", "evaluation_crop")).sections
    return identity_of_spec(
        sections["model"],
        num_classes=_num_classes_of(run_dir),
        evaluation_crop=dataclasses.asdict(sections["evaluation_crop"]),
    )


def _num_classes_of(run_dir):
    facts = RunDirectory(run_dir).read_facts()
    if facts is None:
        raise ConfigError("A run directory must hold run.json.", received=str(run_dir))
    return facts.num_classes
