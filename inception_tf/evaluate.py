"""Evaluates networks: python -m inception_tf.evaluate SOURCE [SOURCE ...].

A SOURCE is a run directory, an export, a file of weights, or published ones such as
keras:inception_v3. Run directories are evaluated on the records they were trained with, unless
--data_dir names others; without one of them --data_dir is needed.
"""

from inception_tf import flags as shared_flags  # isort: skip  (imports TensorFlow quietly)

from absl import flags

from inception_tf import evaluations, experiment, run_config, watching
from inception_tf.errors import EXIT_PREEMPTED, ConfigError
from inception_tf.run_directory import RunDirectory

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(shared_flags)  # --help shows them

flags.DEFINE_list(
    "crops", ["1"], "Crops of each image: 1, 10, 12, 144, or names of docs/evaluation.md."
)
flags.DEFINE_enum(
    "average", "probabilities", ["probabilities", "logits"],
    "What is averaged over crops and over the members of an ensemble.",
)  # fmt: skip
flags.DEFINE_bool("ensemble", False, "Evaluate all sources together too.")
flags.DEFINE_list(
    "weights", None,
    "averaged, raw or both, of run directories; default both of a single run, else averaged.",
)  # fmt: skip
flags.DEFINE_integer("step", None, "Of the run's checkpoint; default the newest good one.")
flags.DEFINE_list(
    "subsets", ["all"],
    "Images that count: all, without_blacklist (48,238 of ImageNet's), real (ReaL labels), or files"
    " with a file name or record id in each line.",
)  # fmt: skip
flags.DEFINE_string("imagenet_meta_dir", None, "Directory of the official lists of subsets.")
flags.DEFINE_string("blacklist", None, "The official list of without_blacklist.")
flags.DEFINE_string("real_labels", None, "The file real.json of ReaL labels.")
flags.DEFINE_string(
    "out", None,
    "Directory for the results as JSON and CSV; default evaluations/ in the only run directory.",
)  # fmt: skip
flags.DEFINE_string(
    "predictions_dir", None,
    "Where predictions are kept; default with each run, or in the user's cache.",
)  # fmt: skip
flags.DEFINE_string("network", None, "Of weights whose file does not say it.")
flags.DEFINE_string("variant", None, "Of that network.")
flags.DEFINE_integer("input_px", None, "Side of the input of networks from files of weights.")
flags.DEFINE_bool("watch", False, "Evaluate every checkpoint of one run while it trains.")

_NOT_WATCHED = (
    "crops", "average", "ensemble", "weights", "step", "subsets", "imagenet_meta_dir", "blacklist",
    "real_labels", "out", "predictions_dir", "network", "variant", "input_px",
)  # fmt: skip
_READS = ("model", "data", "evaluation_crop", "evaluation", "cluster", "watchdog")


def main(argv):
    """Evaluates what the command line names; the exit status."""
    sources = [*argv[1:], *([FLAGS.run_dir] if FLAGS.run_dir else [])]
    if not sources:
        raise ConfigError(
            "An evaluation needs a network.",
            remedy="Give a run directory, an export or weights: python -m inception_tf.evaluate "
            "runs/NAME.",
        )
    if FLAGS.gin_file:
        raise ConfigError(
            "A run is used with the config that it saved.",
            received=f"--gin_file={FLAGS.gin_file[0]}",
            remedy="Change single values with --gin_param.",
        )
    if FLAGS.watch:
        return _watch(sources)
    runs = [source for source in sources if RunDirectory(source).holds_run()]
    request = evaluations.Request(
        sources=tuple(sources),
        weights=None if FLAGS.weights is None else tuple(FLAGS.weights),
        step=FLAGS.step,
        crops=tuple(FLAGS.crops),
        average=FLAGS.average,
        is_ensemble=FLAGS.ensemble,
        subsets=tuple(FLAGS.subsets),
        lists={
            "imagenet_meta_dir": FLAGS.imagenet_meta_dir,
            "blacklist": FLAGS.blacklist,
            "real_labels": FLAGS.real_labels,
        },
        out_dir=FLAGS.out or (f"{runs[0]}/evaluations" if len(sources) == len(runs) == 1 else None),
        predictions_dir=FLAGS.predictions_dir,
        of_weights={
            "network": FLAGS.network,
            "variant": FLAGS.variant,
            "input_px": FLAGS.input_px,
        },
    )
    text = evaluations.evaluate(
        _experiment_of(runs[0] if runs else None), request, resolve_run=_experiment_of
    )
    if text:
        print(text)
    return 0


def _experiment_of(run_dir, *, reads=_READS):
    """The Experiment of a run under this command's own bindings; of None ImageNet's."""
    given = {"gin_params": FLAGS.gin_param, "overrides": shared_flags.overrides(), "reads": reads}
    if run_dir is None:
        return experiment.Experiment(**run_config.resolve_without_run(**given).sections)
    return experiment.Experiment(**run_config.resolve_saved(run_dir, **given).sections)


def _watch(sources):
    """Evaluates a run's checkpoints as they come; the exit status."""
    beside = [f"--{name}" for name in _NOT_WATCHED if FLAGS[name].present]
    if len(sources) != 1 or beside:
        raise ConfigError(
            "--watch follows one run directory with its single crop, all images and both weights.",
            received=", ".join(beside) or f"{len(sources)} sources",
            remedy="Evaluate single steps without --watch; the images without the blacklist are "
            "counted too with --gin_param=\"evaluation.blacklist = 'FILE'\".",
        )
    is_complete = watching.watch_run(
        _experiment_of(sources[0], reads=(*_READS, "training")),
        run_dir=sources[0],
        tell=lambda line: print(line, flush=True),
    )
    return 0 if is_complete else EXIT_PREEMPTED


if __name__ == "__main__":
    shared_flags.run(main, takes_places=True)
