"""What every builder of a network checks of its arguments."""

import math

from inception_tf.errors import ConfigError, did_you_mean


def check_choice(value, choices, *, what):
    """Raises unless `value` is one of the choices; names the nearest one."""
    if isinstance(value, str) and value in choices:
        return
    raise ConfigError(
        f"{what} must be one of {sorted(choices)}.",
        received=repr(value),
        remedy=did_you_mean(repr(value), map(repr, choices)) or None,
    )


def check_counts(values, *, most=math.inf):
    """Counts of the blocks A, B and C as a tuple; raises unless integers from 0 to `most`."""
    if _is_triple(values, (int,)) and all(0 <= value <= most for value in values):
        return tuple(values)
    limit = "at least 0" if math.isinf(most) else f"from 0 to {most}"
    raise ConfigError(
        f"block_counts must be three integers for blocks A, B and C, each {limit}.",
        received=repr(values),
    )


def check_scales(values):
    """Residual scales of the blocks A, B and C as a tuple; raises unless each is at least 0."""
    if _is_triple(values, (int, float)) and all(0 <= value < math.inf for value in values):
        return tuple(values)
    raise ConfigError(
        "residual_scales must be three numbers for blocks A, B and C, each at least 0.",
        received=repr(values),
    )


def check_input_shape(input_shape, *, smallest_px):
    """(height, width, channels), None standing for what is free; raises unless a grid is left.

    Args:
      input_shape: such a triple, or None for RGB images of any size.
      smallest_px: least height and width that leave something of the last grid.
    """
    shape = (None, None, 3) if input_shape is None else input_shape
    sizes = (int, type(None))
    if not _is_triple(shape, sizes) or shape[2] is None or shape[2] < 1:
        raise ConfigError(
            "input_shape must be (height, width, channels), height and width None where they are "
            "free, or None for RGB images of any size.",
            received=repr(input_shape),
        )
    if any(size is not None and size < smallest_px for size in shape[:2]):
        raise ConfigError(
            f"Inputs of this network must be at least {smallest_px} px high and wide; below that "
            "nothing is left of its last grid.",
            received=f"{shape[0]}x{shape[1]} px",
            remedy="Enlarge the images.",
        )
    return tuple(shape)


def _is_triple(values, kinds):
    is_sequence = isinstance(values, (tuple, list)) and len(values) == 3
    return is_sequence and all(type(value) in kinds for value in values)
