"""What tools/bench_input.py times: floors, stages, this project's pipelines and the usual ones."""

import functools

import numpy as np
import tensorflow as tf

from inception_tf.cluster import Assignment
from inception_tf.data import evaluation_pipeline, image, order, pipeline, png
from inception_tf.data.augmentation import Augmentation

SIDE_PX = 299
SIZE = {"height_px": SIDE_PX, "width_px": SIDE_PX}
FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}
AUTOTUNE = tf.data.AUTOTUNE


def key_of(position):
    """The key of an image's augmentation."""
    return tf.stack([tf.constant(0, tf.int64), position])


def window_of(jpeg, position):
    """The crop that training draws at a position."""
    crop_key, _ = tf.unstack(tf.random.split(key_of(position), num=2, alg="philox"))
    return image.sample_window(png.image_shape(jpeg), crop_key, augmentation=Augmentation())


def from_memory(jpegs, decode, *, threads):
    """One pass over images whose bytes are in memory, each decoded by `decode(jpeg, position)`."""
    dataset = tf.data.Dataset.from_tensor_slices((jpegs, np.arange(len(jpegs), dtype=np.int64)))
    return with_threads(dataset.repeat().map(decode, num_parallel_calls=threads), threads)


def with_threads(dataset, threads):
    """As this project's own pipelines run: one thread an image."""
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    options.threading.private_threadpool_size = threads
    return dataset.with_options(options)


def stages(jpegs, *, threads):
    """Name -> dataset: the floors, and the images of this project after each stage."""

    def train(**changes):
        return lambda jpeg, position: image.decode_training(
            jpeg, key_of(position), augmentation=Augmentation(**changes), **SIZE
        )

    def evaluate(recipe):
        crop = image.EvaluationCrop(recipe=recipe)
        return lambda jpeg, _: image.decode_evaluation(jpeg, crop=crop, **SIZE)

    decoders = {
        "decode_whole": lambda jpeg, _: tf.io.decode_jpeg(jpeg, channels=3),
        "decode_crop": lambda jpeg, position: tf.io.decode_and_crop_jpeg(
            jpeg, window_of(jpeg, position), channels=3
        ),
        "exact_crop": lambda jpeg, position: image.decode_window(jpeg, window_of(jpeg, position)),
        "crop_resize_bilinear": train(color="none", resize_methods=("bilinear",)),
        "crop_resize_four": train(color="none"),
        "train_fast_colour": train(color="fast", resize_methods=("bilinear",)),
        "train_full_colour": train(),
        "eval_slim_tf1": evaluate("slim_tf1"),
        "eval_slim_tf2": evaluate("slim_tf2"),
        "eval_keras_timm": evaluate("keras_timm"),
    }
    return {
        name: from_memory(jpegs, decode, threads=threads) for name, decode in decoders.items()
    }


def own_pipelines(reader, *, replica_batch, threads):
    """Name -> dataset of this project's pipelines, from records to batches."""
    spec = pipeline.DataSpec(num_parallel_calls=threads)
    train = pipeline.train_dataset(
        reader,
        assignment=Assignment(num_replicas=1, replica_batch=replica_batch),
        num_examples=reader.num_examples,
        start_step=0,
        seed=0,
        augmentation=Augmentation(),
        spec=spec,
        **SIZE,
    )
    evaluation = evaluation_pipeline.eval_dataset(
        reader,
        num_examples=reader.num_examples,
        replica_batch=replica_batch,
        num_physical=1,
        first_local=0,
        num_local=1,
        crop=image.EvaluationCrop(),
        spec=spec,
        **SIZE,
    )
    return {
        "train_pipeline": train,
        "eval_pipeline": evaluation.repeat(),
    }


def usual_pipelines(files, *, replica_batch, threads):
    """Name -> dataset of the pipelines as public TensorFlow code writes them."""

    def parsed():
        records = tf.data.Dataset.from_tensor_slices(list(files)).interleave(
            tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=threads
        )
        return records.shuffle(1000).repeat()

    def train(record):
        example = tf.io.parse_single_example(record, FEATURES)
        pixels = tf.io.decode_jpeg(example["image/encoded"], channels=3)
        pixels = tf.image.convert_image_dtype(pixels, tf.float32)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(pixels),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1,
            aspect_ratio_range=(0.75, 1.33),
            area_range=(0.05, 1.0),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        pixels = tf.slice(pixels, begin, size)
        methods = ("bilinear", "nearest", "bicubic", "area")
        pixels = one_of(
            [lambda m=m: tf.image.resize(pixels, [SIDE_PX, SIDE_PX], method=m) for m in methods]
        )
        pixels = tf.image.random_flip_left_right(tf.ensure_shape(pixels, [SIDE_PX, SIDE_PX, 3]))
        pixels = one_of([functools.partial(usual_colours, pixels, turn) for turn in range(4)])
        return (tf.clip_by_value(pixels, 0.0, 1.0) - 0.5) * 2.0, example["image/class/label"]

    def evaluate(record):
        example = tf.io.parse_single_example(record, FEATURES)
        pixels = tf.io.decode_jpeg(example["image/encoded"], channels=3)
        pixels = tf.image.convert_image_dtype(pixels, tf.float32)
        pixels = tf.image.central_crop(pixels, 0.875)
        pixels = tf.image.resize(pixels, [SIDE_PX, SIDE_PX])
        return (pixels - 0.5) * 2.0, example["image/class/label"]

    def batched(decode):
        images = parsed().map(decode, num_parallel_calls=AUTOTUNE)
        return images.batch(replica_batch, drop_remainder=True).prefetch(AUTOTUNE)

    return {"usual_train": batched(train), "usual_eval": batched(evaluate)}


def one_of(branches):
    """The result of a branch drawn at random."""
    return tf.switch_case(tf.random.uniform([], maxval=len(branches), dtype=tf.int32), branches)


def usual_colours(pixels, turn):
    """slim's four orderings of tf.image's own operations."""
    operations = {
        "b": lambda x: tf.image.random_brightness(x, 32.0 / 255.0),
        "s": lambda x: tf.image.random_saturation(x, 0.5, 1.5),
        "h": lambda x: tf.image.random_hue(x, 0.2),
        "c": lambda x: tf.image.random_contrast(x, 0.5, 1.5),
    }
    for name in ("bshc", "sbch", "chbs", "hscb")[turn]:
        pixels = operations[name](pixels)
    return pixels


def readers(reader, *, batch):
    """Name -> dataset: the same records, sequentially and in a training epoch's order."""

    def at_random(ids):
        return tf.numpy_function(lambda ids: reader.read(ids)[0], [ids], tf.string, stateful=False)

    num_examples = reader.num_examples
    ids = tf.data.Dataset.range(num_examples).repeat().batch(batch).map(
        lambda places: order.record_ids(places, seed=0, num_examples=num_examples)
    )
    sequential = tf.data.TFRecordDataset(list(reader.index.files)).repeat().map(
        lambda record: tf.io.parse_single_example(record, FEATURES)["image/encoded"]
    )
    return {
        "read_sequential": sequential.batch(batch),
        "read_random": ids.map(at_random, num_parallel_calls=4, deterministic=True),
    }


def sequential_training(reader, *, replica_batch, threads):
    """This project's training images from records read one after the other."""
    records = tf.data.TFRecordDataset(list(reader.index.files)).repeat().enumerate()

    def decode(position, record):
        jpeg = tf.io.parse_single_example(record, FEATURES)["image/encoded"]
        return image.decode_training(
            jpeg, key_of(position), augmentation=Augmentation(), **SIZE
        )

    images = records.map(decode, num_parallel_calls=threads, deterministic=True)
    images = images.batch(replica_batch, drop_remainder=True).prefetch(2)
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    return images.with_options(options)
