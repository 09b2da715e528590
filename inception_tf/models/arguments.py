"""What every builder of a network checks of its arguments."""

from inception_tf.errors import ConfigError, did_you_mean

# All four networks share the chain 299 -> 149 -> 147 -> 147 -> 73 -> 71 -> 35 -> 17 -> 8; 75 is the
# smallest input that leaves 1x1 at its end.
MIN_INPUT_PX = 75


def check_choice(value, choices, *, what):
    """Raises unless `value` is one of the choices; names the nearest one."""
    if value in choices:
        return
    raise ConfigError(
        f"{what} must be one of {sorted(choices)}.",
        received=repr(value),
        remedy=did_you_mean(repr(value), map(repr, choices)) or None,
    )


def check_triple(values, what, kinds):
    """Three numbers for blocks A, B and C as a tuple; raises unless each is at least 0."""
    values = tuple(values)
    usable = all(
        isinstance(value, kinds) and not isinstance(value, bool) and value >= 0 for value in values
    )
    if len(values) != 3 or not usable:
        raise ConfigError(
            f"{what} must be three numbers, each at least 0: for blocks A, B and C.",
            received=values,
        )
    return values


def check_input_shape(input_shape):
    """Raises unless (height, width, channels) leaves something of the last grid."""
    if len(input_shape) != 3 or not input_shape[2]:
        raise ConfigError("input_shape must be (height, width, channels).", received=input_shape)
    if any(size is not None and size < MIN_INPUT_PX for size in input_shape[:2]):
        raise ConfigError(
            f"Inputs must be at least {MIN_INPUT_PX} px high and wide; below that nothing is left "
            "of the last grid.",
            received=f"{input_shape[0]}x{input_shape[1]} px",
            remedy="Enlarge the images.",
        )
