"""What `features` and `predict` ask of the command line to open a network of any form."""


def add_to(parser) -> None:
    """Adds what says which weights are meant, how the network is built, and where it runs."""
    add = parser.add_argument
    add("--weights", choices=("averaged", "raw"), help="of a run (default: averaged)")
    add("--step", type=int, help="of a run's checkpoint (default: the newest good one)")
    add("--network", help="of weights whose file does not say it, such as inception_v4")
    add("--variant", help="of that network")
    add("--input_px", type=int, help="side of the network's input (default: what they say, or 299)")
    add("--device", choices=("auto", "cpu"), default="auto", help="auto: a GPU where there is one")


def configure_devices(args) -> None:
    """Sets TensorFlow as every use of a trained network has it; before the first operation."""
    import tensorflow as tf

    if args.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    # As in evaluation: TensorFlow's default would round float32 products to 10 bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def choices(args) -> dict:
    """Keyword arguments of `model_source.open_model`, but for the source."""
    return {
        "resolve_run": _resolve_run,
        "weights": args.weights,
        "step": args.step,
        "network": args.network,
        "variant": args.variant,
        "input_px": args.input_px,
    }


def _resolve_run(run_dir):
    from inception_tf import experiment, run_config

    reads = ("model", "training", "evaluation_crop")
    return experiment.Experiment(**run_config.resolve_saved(run_dir, reads=reads).sections)
