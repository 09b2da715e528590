"""What every builder of a network checks of its arguments."""

from inception_tf.errors import ConfigError, did_you_mean

def check_choice(value, choices, *, what):
    """Raises unless `value` is one of the choices; names the nearest one."""
    if value in choices:
        return
    raise ConfigError(
        f"{what} must be one of {sorted(choices)}.",
        received=repr(value),
        remedy=did_you_mean(repr(value), map(repr, choices)) or None,
    )


def check_counts(values, *, most=None):
    """Counts of the blocks A, B and C as a tuple; raises unless integers from 0 to `most`."""
    values = tuple(values)
    usable = all(type(v) is int and 0 <= v and (most is None or v <= most) for v in values)
    if len(values) != 3 or not usable:
        limit = "at least 0" if most is None else f"from 0 to {most}"
        raise ConfigError(
            f"block_counts must be three integers for blocks A, B and C, each {limit}.",
            received=values,
        )
    return values


def check_scales(values):
    """Residual scales of the blocks A, B and C as a tuple; raises unless each is at least 0."""
    values = tuple(values)
    usable = all(type(value) in (int, float) and value >= 0 for value in values)
    if len(values) != 3 or not usable:
        raise ConfigError(
            "residual_scales must be three numbers for blocks A, B and C, each at least 0.",
            received=values,
        )
    return values


def check_input_shape(input_shape, *, smallest_px):
    """Raises unless (height, width, channels) leaves something of the last grid."""
    if len(input_shape) != 3 or not input_shape[2]:
        raise ConfigError("input_shape must be (height, width, channels).", received=input_shape)
    if any(size is not None and size < smallest_px for size in input_shape[:2]):
        raise ConfigError(
            f"Inputs of this network must be at least {smallest_px} px high and wide; below that "
            "nothing is left of its last grid.",
            received=f"{input_shape[0]}x{input_shape[1]} px",
            remedy="Enlarge the images.",
        )
