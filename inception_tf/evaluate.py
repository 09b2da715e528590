"""Evaluates a run: python -m inception_tf.evaluate --run_dir=runs/irv2."""

from inception_tf import flags as shared_flags  # isort: skip  (imports TensorFlow quietly)

from absl import flags

from inception_tf import experiment, run_config

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(shared_flags)  # --help shows them


def main(argv):
    """Evaluates averaged and raw weights, single crop; the exit status."""
    del argv
    shared_flags.check_run_dir()
    resolved = run_config.resolve_saved(
        FLAGS.run_dir,
        gin_params=FLAGS.gin_param,
        overrides=shared_flags.overrides(),
        reads=("model", "data", "evaluation_crop", "evaluation", "cluster", "watchdog"),
    )
    text = experiment.evaluate(
        experiment.Experiment(**resolved.sections), run_dir=FLAGS.run_dir
    )
    if text:
        print(text)
    return 0


if __name__ == "__main__":
    shared_flags.run(main)
