"""Exports a run as SavedModel: python -m inception_tf.export --run_dir=runs/irv2 --out=DIR."""

from inception_tf import flags as shared_flags  # isort: skip  (imports TensorFlow quietly)

from absl import flags

from inception_tf import experiment, run_config
from inception_tf.errors import ConfigError

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(shared_flags)  # --help shows them

flags.DEFINE_string("out", None, "Gets the version directory 1, or the next number.")


def main(argv):
    """Exports and checks on real images; the exit status."""
    del argv
    shared_flags.check_run_dir()
    if FLAGS.out is None:
        raise ConfigError("An export needs a place.", remedy="Give --out=DIR.")
    resolved = run_config.resolve_saved(
        FLAGS.run_dir,
        gin_params=FLAGS.gin_param,
        overrides=shared_flags.overrides(),
        reads=("model", "data", "evaluation_crop", "export", "cluster", "watchdog"),
    )
    text = experiment.export(
        experiment.Experiment(**resolved.sections), run_dir=FLAGS.run_dir, out_dir=FLAGS.out
    )
    if text:
        print(text)
    return 0


if __name__ == "__main__":
    shared_flags.run(main)
