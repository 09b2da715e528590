"""Exports a run: python -m inception_tf.export runs/irv2 --out=DIR [--formats=saved_model,onnx].

SavedModels go to DIR/1, DIR/2, ... as TensorFlow Serving expects them; the other formats beside, as
DIR/onnx/1/model.onnx. Every format is held against the evaluator before it gets its name.
"""

from inception_tf import flags as shared_flags  # isort: skip  (imports TensorFlow quietly)

from absl import flags

from inception_tf import experiment, run_config
from inception_tf.errors import ConfigError

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(shared_flags)  # --help shows them

flags.DEFINE_string("out", None, "Gets the version directory 1, or the next number.")
flags.DEFINE_list(
    "formats", None,
    "Of saved_model, onnx, tflite_float16 and tflite_int8; wins over export.formats.",
)  # fmt: skip


def main(argv):
    """Exports and checks on real images; the exit status."""
    sources = [*argv[1:], *([FLAGS.run_dir] if FLAGS.run_dir else [])]
    if len(sources) > 1:
        raise ConfigError("One run is exported at a time.", received=" ".join(sources))
    FLAGS.run_dir = sources[0] if sources else None
    shared_flags.check_run_dir()
    if FLAGS.out is None:
        raise ConfigError("An export needs a place.", remedy="Give --out=DIR.")
    overrides = shared_flags.overrides()
    if FLAGS.formats is not None:
        overrides["export.formats"] = tuple(FLAGS.formats)
    resolved = run_config.resolve_saved(
        FLAGS.run_dir,
        gin_params=FLAGS.gin_param,
        overrides=overrides,
        reads=("model", "data", "evaluation_crop", "export", "cluster", "watchdog"),
    )
    text = experiment.export(
        experiment.Experiment(**resolved.sections), run_dir=FLAGS.run_dir, out_dir=FLAGS.out
    )
    if text:
        print(text)
    return 0


if __name__ == "__main__":
    shared_flags.run(main, takes_places=True)
