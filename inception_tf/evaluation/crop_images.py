"""The pixels of the crops: squares on the host, cut where the network runs.

All crops of an image come from one decode and one resize per scale. `make_squares` belongs into
the input pipeline; `cut_crops` into the compiled step, so that what travels and waits is the
squares: at 299 px 37 MB an image for 144 crops of 154 MB.
"""

import tensorflow as tf

from inception_tf.data import image as images
from inception_tf.data import resize
from inception_tf.evaluation import crops

# A strip of 1 x 65,500 px would ask for 100 GB at the largest scale.
MAX_ASPECT = 50


def square_shapes(protocol: crops.Protocol) -> tuple[tuple[int, int, int, int], ...]:
    """Shapes of what `make_squares` returns, [squares, side, side, 3] each."""
    if not protocol.short_sides_px:
        return ((1, protocol.height_px, protocol.width_px, 3),)
    shapes = []
    for short_px in protocol.short_sides_px:
        sides = [crops.square_px(protocol, short_px)]
        if _has_resized_squares(protocol, short_px):
            sides.append(protocol.height_px)
        shapes += [(protocol.num_squares, side, side, 3) for side in sides]
    return tuple(shapes)


def make_squares(
    image: tf.Tensor, *, protocol: crops.Protocol, recipe: images.EvaluationCrop
) -> tuple[tf.Tensor, ...]:
    """What the crops of one image are cut from.

    Args:
      image: uint8 [h, w, 3], a whole image.
      protocol: of `crops.protocol`.
      recipe: of the single crop everything; of several crops how images are resized.

    Returns:
      For every scale the squares, float32 levels [squares, side, side, 3] in 0..255, and where
      the protocol has whole squares these again, resized to the network's input. All shapes are
      static: those of `square_shapes`.

    Raises:
      tf.errors.InvalidArgumentError: several crops of an image whose one side is more than
        `MAX_ASPECT` times the other.
    """
    if not protocol.short_sides_px:
        only = images.evaluation_levels(
            image, crop=recipe, height_px=protocol.height_px, width_px=protocol.width_px
        )
        return (only[tf.newaxis],)
    sides = tf.unstack(tf.shape(image, out_type=tf.int64)[:2])
    shortest = tf.minimum(*sides)
    _check_aspect(sides, shortest)
    found = []
    for short_px in protocol.short_sides_px:
        size = crops.resized_sides(protocol, short_px, sides, shortest=shortest)
        scaled = resize.resize_as_recipe(
            image[tf.newaxis], tf.cast(tf.stack(size), tf.int32), recipe=recipe.recipe
        )[0]
        side = crops.square_px(protocol, short_px)
        squares = tf.stack(
            [
                scaled[top : top + side, left : left + side]
                for top, left in crops.square_corners(protocol, short_px, size)
            ]
        )
        found.append(squares)
        if _has_resized_squares(protocol, short_px):
            crop = [protocol.height_px, protocol.width_px]
            found.append(resize.resize_as_recipe(squares, crop, recipe=recipe.recipe))
    return tuple(
        tf.ensure_shape(squares, shape)
        for squares, shape in zip(found, square_shapes(protocol), strict=True)
    )


def cut_crops(squares: tuple[tf.Tensor, ...], *, protocol: crops.Protocol) -> tf.Tensor:
    """The crops of one image, or of each image of a batch.

    Args:
      squares: as of `make_squares`, [..., squares, side, side, 3] each.
      protocol: the same.

    Returns:
      float32 [..., num_crops, H, W, 3] in [-1, 1], in the order of `crops.crop_boxes`.
    """
    squares = [images.to_input(levels) for levels in squares]
    if not protocol.short_sides_px:
        return squares[0]
    remaining = iter(squares)
    found = []
    for short_px in protocol.short_sides_px:
        whole = large = next(remaining)
        if _has_resized_squares(protocol, short_px):
            whole = next(remaining)
        for is_flipped, windows in crops.square_windows(protocol, short_px):
            if is_flipped:  # the squares, which have fewer pixels than their crops
                whole, large = whole[..., ::-1, :], large[..., ::-1, :]
            for top, left, side in windows:
                if side > protocol.height_px:
                    found.append(whole)
                else:
                    found.append(large[..., top : top + side, left : left + side, :])
    return tf.concat(found, axis=-4)


def make_crops(
    image: tf.Tensor, *, protocol: crops.Protocol, recipe: images.EvaluationCrop
) -> tf.Tensor:
    """All crops of one image, where they may be made at once; arguments as of `make_squares`.

    Returns:
      float32 [num_crops, H, W, 3] in [-1, 1], in the order of `crops.crop_boxes`.
    """
    return cut_crops(
        make_squares(image, protocol=protocol, recipe=recipe), protocol=protocol
    )


def _has_resized_squares(protocol, short_px):
    """Whether this scale's squares are taken whole too, and are larger than a crop."""
    takes_whole = "whole" in crops.WINDOWS[protocol.rule.windows]
    return takes_whole and crops.square_px(protocol, short_px) > protocol.height_px


def _check_aspect(sides, shortest):
    tf.debugging.assert_less_equal(
        tf.maximum(*sides),
        MAX_ASPECT * shortest,
        message=f"Several crops need an image whose longer side is at most {MAX_ASPECT} times the "
        "shorter one. Evaluate it with --crops=1.",
    )
