"""Trains an experiment: python -m inception_tf.train --gin_file=configs/irv2.gin."""

import pathlib

from inception_tf import flags as shared_flags  # isort: skip  (imports TensorFlow quietly)

from absl import flags

from inception_tf import config, dry_run, experiment, run_config
from inception_tf.errors import EXIT_PREEMPTED, EXIT_USER_ERROR, ConfigError
from inception_tf.parameters import SECTIONS
from inception_tf.run_directory import RunDirectory

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(shared_flags)  # --help shows them

flags.DEFINE_bool("synthetic", False, "Train on generated batches, to see what data costs.")
flags.DEFINE_bool("print_config", False, "Print the resolved config and stop.")
flags.DEFINE_bool(
    "dry_run", False, "Try all that a run needs, one step included, save nothing, and tell."
)
flags.DEFINE_string("profile_steps", None, "A:B writes a TensorBoard trace of steps A to B.")
flags.DEFINE_enum(
    "recipe_wins",
    None,
    ["saved", "given"],
    "Which recipe holds where the run directory was begun with another one.",
)


def main(argv):
    """Resolves the config and trains; the exit status."""
    del argv
    resolved = _resolve()
    if FLAGS.print_config:
        print(resolved.text(), end="")
        return 0
    suffix = "-synthetic" if FLAGS.synthetic else ""
    run_dir = pathlib.Path(FLAGS.run_dir or f"runs/{resolved.name}{suffix}")
    if FLAGS.synthetic:
        _check_synthetic(run_dir)
    resolved, changes = run_config.reconcile(resolved, run_dir, recipe_wins=FLAGS.recipe_wins)
    declared = experiment.Experiment(**resolved.sections)
    start_values = resolved.plain_values() | {
        f"--{name}": FLAGS[name].value for name in ("dry_run", "profile_steps", "synthetic")
    }
    if FLAGS.dry_run:
        return _dry_run(declared, run_dir, start_values)
    end = experiment.train(
        declared,
        run_dir=run_dir,
        config_text=resolved.text(),
        start_values=start_values,
        recipe_hash=resolved.recipe_hash(),
        operation_changes=changes,
        paper_rows=run_config.differences_from_paper(resolved),
        is_synthetic=FLAGS.synthetic,
        profile_steps=_parse_profile_steps(FLAGS.profile_steps),
    )
    if end.is_complete:
        return 0
    shared_flags.keep(end.batches)
    return EXIT_PREEMPTED


def _dry_run(declared, run_dir, start_values):
    """Prints what a dry run found; the exit status."""
    text, is_passed = dry_run.dry_run(
        declared, run_dir=run_dir, start_values=start_values, is_synthetic=FLAGS.synthetic
    )
    if text:
        print(text, flush=True)
    return 0 if is_passed else EXIT_USER_ERROR


def _resolve():
    if not FLAGS.gin_file:
        raise ConfigError(
            "A run needs a config.",
            remedy="Give --gin_file=configs/irv2.gin, or another of: "
            + ", ".join(sorted(path.name for path in config.config_folder().glob("*.gin"))),
        )
    return config.resolve(
        gin_files=FLAGS.gin_file,
        gin_params=FLAGS.gin_param,
        overrides=shared_flags.overrides(),
        reads=SECTIONS,
    )


def _check_synthetic(run_dir):
    if RunDirectory(run_dir).config_file.exists():
        raise ConfigError(
            "Generated batches must not go into the directory of a run.",
            received=f"--synthetic with --run_dir={run_dir}, which holds one",
            remedy="Leave --run_dir out, or give a new one.",
        )
    if FLAGS.data_dir is not None:
        raise ConfigError(
            "Generated batches need no records.",
            received=f"--synthetic with --data_dir={FLAGS.data_dir}",
            remedy="Leave one of them out.",
        )


def _parse_profile_steps(text):
    if text is None:
        return None
    try:
        first, last = (int(part) for part in text.split(":"))
        if not 0 <= first < last:
            raise ValueError
    except ValueError as error:
        raise ConfigError(
            "--profile_steps takes two steps A:B with A below B.",
            received=repr(text),
            remedy="For example --profile_steps=100:105.",
        ) from error
    return first, last


if __name__ == "__main__":
    shared_flags.run(main)
