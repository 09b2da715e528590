"""PNGs inside records: windows equal slices, for every kind of PNG, beside JPEGs."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from inception_tf.data import encoded
from inception_tf.data import image
from inception_tf.data import jpeg
from inception_tf.data import png

PIXELS = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)


def as_png(mode, **options):
    """(PNG bytes, the RGB pixels that Pillow reads from it)."""
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(stream, "PNG", **options)
    pixels = np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("RGB"))
    return stream.getvalue(), pixels


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA"])
def test_windows_of_pngs_equal_slices(mode):
    data, pixels = as_png(mode)
    assert png.image_shape(tf.constant(data)).numpy().tolist()[:2] == [33, 47]
    for top, left, h, w in [(0, 0, 33, 47), (0, 46, 33, 1), (32, 0, 1, 47), (5, 1, 9, 40)]:
        window = tf.constant([top, left, h, w])
        found = png.decode_window(data, window, of_jpeg=image.decode_window).numpy()
        np.testing.assert_array_equal(found, pixels[top : top + h, left : left + w])
    np.testing.assert_array_equal(encoded.decode_image(data), pixels)


def test_jpegs_are_left_to_the_decoder_of_jpegs():
    data = tf.io.encode_jpeg(PIXELS)
    window = tf.constant([3, 5, 11, 20])
    np.testing.assert_array_equal(
        png.decode_window(data, window, of_jpeg=image.decode_window),
        image.decode_window(data, window),
    )
    assert png.image_shape(data).numpy().tolist() == [33, 47, 3]


def test_training_takes_a_png_as_it_takes_its_pixels():
    # A PNG of the pixels that a JPEG decodes to is the same picture without a loss.
    augmentation = image.Augmentation()
    train = tf.function(
        lambda data, position: image.decode_training(
            data, tf.stack([tf.constant(7, tf.int64), position]),
            augmentation=augmentation, height_px=24, width_px=20,
        ),
    )  # fmt: skip
    of_jpeg = tf.io.encode_jpeg(PIXELS)
    of_png = tf.io.encode_png(tf.io.decode_jpeg(of_jpeg))
    for position in range(20):
        position = tf.constant(position, tf.int64)
        np.testing.assert_array_equal(train(of_png, position), train(of_jpeg, position))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda data: data[:-1], "cut short"),
        (lambda data: data + b"\0", "cut short"),
        (lambda data: data[:8] + data[33:], "no header"),
        (lambda data: data[:16] + bytes(8) + data[24:], "no size"),
        (lambda data: data[:16] + b"\0\0\xff\xdc\0\0\xff\xdc" + data[24:], "65500 x 65500"),
    ],
)
def test_a_damaged_png_is_no_whole_one(damage, reason):
    data, _ = as_png("RGB")
    png.check_whole(data)
    with pytest.raises(jpeg.BadImage, match=reason):
        encoded.check_image(damage(data), takes_png=True)


def test_a_png_is_taken_only_where_the_schema_takes_it():
    data, _ = as_png("RGB")
    encoded.check_image(data, takes_png=True)
    with pytest.raises(jpeg.BadImage, match="not a JPEG"):
        encoded.check_image(data, takes_png=False)


def test_damage_below_a_crop_of_a_png_is_seen():
    data, _ = as_png("RGB")
    place = data.rindex(b"IEND") - 30  # inside the last rows
    data = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
    png.check_whole(data)
    with pytest.raises(jpeg.BadImage, match="cannot be decoded"):
        encoded.decode_image(data)
    with pytest.raises(tf.errors.InvalidArgumentError):
        png.decode_window(data, tf.constant([0, 0, 2, 2]), of_jpeg=image.decode_window)
