"""The classes that an evaluation found hardest, with some of their images from the records."""

import math
import pathlib

import numpy as np
import tensorflow as tf

from inception_tf.data import encoded, jpeg, manifest
from inception_tf.data.records import RecordReader
from inception_tf.errors import DataError, first_line
from inception_tf.reporting import published
from inception_tf.reporting.page_contents import WorstClass, WorstClasses

NUM_CLASSES = 8
NUM_IMAGES = 4
_LONGEST_PX = 112
_QUALITY = 85
_CHUNK_RECORDS = 64


def worst_of_run(run, files, *, data_dir=None) -> WorstClasses:
    """Of a run's newest evaluation: averaged weights before raw ones, all images, one crop.

    Args:
      run: a Run.
      files: (path, content) of the evaluation files that lie with it.
      data_dir: of the records; None takes those that were evaluated.

    Raises:
      DataError: `data_dir` was given and holds no such records.
    """
    command = f"python -m inception_tf.evaluate {run.path}"
    choices = [
        (path, content, model, subset)
        for path, content in files
        for model in content["models"]
        for subset in model["subsets"]
        if subset.get("classes") and not model["is_ensemble"]
    ]
    if not choices:
        note = f"No evaluation with figures for each class lies with the run. It takes: {command}"
        return WorstClasses(label=run.label, note=note)

    def rank(choice):
        _, _, model, subset = choice
        network = model["networks"][0]
        return (
            network["step"] or 0, network["weights"] == "averaged",
            subset["subset"] == published.EVERY, -(model["num_crops"] or math.inf),
        )  # fmt: skip

    _, content, model, subset = max(choices, key=rank)
    cache_dir = pathlib.Path(run.path) / "index"
    return _worst(run.label, content, model, subset, data_dir=data_dir, cache_dir=cache_dir)


def worst_of_file(path, content, *, data_dir=None) -> WorstClasses:
    """Of the last network of an evaluation file, which is the ensemble where there is one."""
    for model in reversed(content["models"]):
        for subset in model["subsets"]:
            if subset.get("classes"):
                title = f"{path.name}: {model['title']}"
                return _worst(title, content, model, subset, data_dir=data_dir, cache_dir=None)
    return WorstClasses(label=path.name, note="The file has no figures for each class.")


def _worst(label, content, model, subset, *, data_dir, cache_dir):
    step = model["networks"][0]["step"]
    weights = model["networks"][0]["weights"]
    what = ", ".join(
        [model["title"]] * model["is_ensemble"]
        + [f"{weights} weights"] * bool(weights)
        + ([f"step {step:,}"] if step is not None else [])
        + [model["crops"], f"subset {subset['subset']}: {subset['num_examples']:,} images"]
    )
    classes = [one for one in subset["classes"] if one["num_examples"]]
    wrong = [one for one in classes if one["top1_count"] < one["num_examples"]]
    wrong.sort(key=lambda one: (one["top1_count"] / one["num_examples"], one["index"]))
    wrong = wrong[:NUM_CLASSES]
    if not wrong:
        return WorstClasses(label=label, what=what, note="Every image of every class is right.")
    # Labels of records are without the background, which is the first output where there is one.
    first = subset["classes"][0]["index"]
    place = data_dir or content["data"]["data_dir"]
    images, note = {}, ""
    try:
        names = {one["index"] - first: one["name"] for one in wrong}
        # Records without a manifest do not say what label their first class has.
        base = model["networks"][0]["details"].get("label_base") if data_dir is None else None
        images = _examples(
            place, content["data"]["split"], names, cache_dir=cache_dir, label_base=base
        )
    except (DataError, OSError) as error:
        if data_dir is not None:
            raise
        note = (
            f"No images: the records that were evaluated are not there ({first_line(error)}). "
            "Name others with --data_dir."
        )
    return WorstClasses(
        label=label,
        what=what,
        classes=tuple(
            _class(one, subset["confusions"], images.get(one["index"] - first, ())) for one in wrong
        ),
        note=note,
    )


def _class(found, confusions, images):
    taken_for = [
        (one["predicted_name"], one["count"])
        for one in confusions
        if one["label"] == found["index"]
    ]
    return WorstClass(
        index=found["index"],
        name=found["name"],
        num_examples=found["num_examples"],
        num_wrong=found["num_examples"] - found["top1_count"],
        num_wrong_top5=found["num_examples"] - found["top5_count"],
        taken_for=tuple(taken_for[:3]),
        images=tuple(images),
    )


def _examples(data_dir, split, names, *, cache_dir, label_base):
    """label -> JPEG bytes of the first images of these labels, shrunk; reads no more than needed.

    Raises:
      DataError: no such records, or of other classes than `names`: label -> name.
    """
    facts, index = manifest.open_index(
        data_dir, split, cache_dir=cache_dir, label_base=label_base
    )
    theirs = dict(enumerate(facts.class_names))
    if other := [name for label, name in names.items() if theirs.get(label) != name]:
        raise DataError(
            "Images of a class come from records with the classes of the evaluation.",
            received=f"{data_dir}, which has not {other[0]!r} in its place",
        )
    reader = RecordReader(index, facts)
    found = {label: [] for label in names}
    try:
        for first in range(0, reader.num_examples, _CHUNK_RECORDS):
            last = min(first + _CHUNK_RECORDS, reader.num_examples)
            for data, label in zip(*reader.read(np.arange(first, last)), strict=True):
                images = found.get(int(label))
                if images is not None and len(images) < NUM_IMAGES:
                    images += _shrunk(data)
            if all(len(images) == NUM_IMAGES for images in found.values()):
                break
    finally:
        reader.close()
    return found


def _shrunk(data):
    """[JPEG bytes of the image with its longer side at most _LONGEST_PX], [] of one that is bad."""
    try:
        pixels = encoded.decode_image(data)
    except jpeg.BadImage:
        return []
    factor = min(1.0, _LONGEST_PX / max(pixels.shape[:2]))
    size = [max(1, round(factor * side)) for side in pixels.shape[:2]]
    with tf.device("CPU:0"):
        resized = tf.image.resize(pixels, size, method="area")
        levels = tf.cast(tf.round(resized), tf.uint8).numpy()
    return [jpeg.encode_jpeg(levels, quality=_QUALITY)]
