"""Predictions of networks from wherever they are, each image's computed once and kept."""

import dataclasses
import functools
import hashlib
import pathlib
import time

import numpy as np
import tensorflow as tf

from inception_tf import inputs as run_inputs
from inception_tf import initial_weights, model_source
from inception_tf.data.block_pipeline import block_dataset
from inception_tf.data.image import EvaluationCrop, decode_whole
from inception_tf.errors import ConfigError
from inception_tf.evaluation import crop_images, crops
from inception_tf.evaluation.inference import Inference
from inception_tf.evaluation.predictions import PredictionStore
from inception_tf.evaluation.predictor import Predictor, crop_batches
from inception_tf.models.layers import is_seed_state
from inception_tf.reporting.progress import ImageProgress
from inception_tf.run_directory import RunDirectory
from inception_tf.serving.formats import is_export
from inception_tf.serving.loaded import ExportInference, load_export

_CROPS_PER_BLOCK = 2048  # what an interruption may cost
_MOST_IMAGES_PER_BLOCK = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """A network with its weights, ready to predict.

    Attributes:
      source: as the user named it.
      what: a sentence that says which weights these are.
      weights: 'averaged' or 'raw', of a run; else ''.
      step: of a run's checkpoint or of an export, else None.
      inference: its logits.
      values: (trainable, non-trainable) for it; None for an export, which has its own.
      digest: of all its weights and of what it computes with them.
      num_classes: K without background.
      class_names: K names, or None where nobody said them.
      background_class: whether output 0 is the background.
      crop: of its single-crop evaluation.
      network, variant: its place in the catalog; None of an export, which does not say it.
      notes: what else the user should know, one line each.
    """

    source: str
    what: str
    weights: str
    step: int | None
    inference: Inference | ExportInference
    values: tuple | None
    digest: str
    num_classes: int
    class_names: tuple[str, ...] | None
    background_class: bool
    crop: EvaluationCrop
    network: str | None = None
    variant: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def title(self):
        """Source and weights: 'runs/irv2 averaged'."""
        return f"{self.source} {self.weights}".strip()

    @property
    def size(self):
        """{'height_px', 'width_px'} of the images that it takes."""
        height_px, width_px, _ = self.inference.input_shape
        return {"height_px": height_px, "width_px": width_px}


def open_member(source, *, cluster, resolve_run, weights=None, step=None, **options) -> Member:
    """A run directory, an export, a file of weights or published ones, as a member.

    Args:
      source: a path, or a name of published weights.
      cluster: on whose devices it is to work.
      resolve_run: from a run directory to its Experiment.
      weights: 'averaged' or 'raw', of a run.
      step: of a run's checkpoint; None takes the newest good one.
      **options: network, variant and input_px of `model_source.open_model`.

    Raises:
      UserError: it cannot be used.
    """
    if is_export(source):
        return _open_export(source, cluster, weights=weights, step=step, **options)
    opened = model_source.open_model(
        source, resolve_run=resolve_run, weights=weights, step=step, cluster=cluster, **options
    )
    if opened.num_classes is None:
        raise ConfigError("An evaluation needs a classifier.", received=opened.what)
    model = opened.model
    is_run = RunDirectory(source).holds_run()
    return Member(
        source=str(source),
        what=opened.what,
        weights=(weights or "averaged") if is_run else "",
        step=opened.step,
        inference=Inference(model, cluster.strategy),
        values=(model.trainable_variables, model.non_trainable_variables),
        digest=_digest_of_model(model),
        num_classes=opened.num_classes,
        class_names=opened.class_names,
        background_class=opened.background_class,
        crop=opened.crop,
        network=opened.network,
        variant=opened.variant,
        notes=opened.notes,
    )


def _open_export(source, cluster, **options):
    model_source.refuse_choices(source, **options)
    export = load_export(source)
    about = export.metadata
    return Member(
        source=str(source),
        what=f"export {export.path} of step {about['step']:,}, {about['weights']} weights",
        weights="",
        step=about["step"],
        inference=ExportInference(export, cluster.strategy, num_local=cluster.num_local),
        values=None,
        digest=_digest_of_files(export.path),
        num_classes=len(about["class_names"]),
        class_names=tuple(about["class_names"]),
        background_class=about["background_class"],
        crop=EvaluationCrop(**about["evaluation_crop"]),
    )


def check_classes(member, inputs):
    """Raises ConfigError unless the records have the classes of the member."""
    if member.num_classes != inputs.num_classes:
        raise ConfigError(
            "The records must have the classes of the network.",
            received=f"{inputs.num_classes} in {inputs.data_dir}, {member.num_classes} of "
            f"{member.what}",
        )
    names = member.class_names
    if names and inputs.class_names and tuple(names) != tuple(inputs.class_names):
        pairs = enumerate(zip(names, inputs.class_names))
        index = next(index for index, pair in pairs if len(set(pair)) > 1)
        raise ConfigError(
            "The records must have the classes of the network, in the same order.",
            received=f"class {index} is {inputs.class_names[index]!r} in {inputs.data_dir}, "
            f"{names[index]!r} of {member.what}",
        )


def predict(
    member, *, crop_name, average, inputs, experiment, cluster, directory=None,
    on_batch=lambda: None, tell=lambda line: None, clock=time.monotonic,
) -> PredictionStore:  # fmt: skip
    """The member's predictions of every image of the evaluation split, in one protocol.

    All workers call it; each computes its share of the blocks that lack. Then the chief can read
    the store.

    Args:
      member: a Member.
      crop_name: as of `crops.protocol`.
      average: over the crops: 'probabilities' or 'logits'.
      inputs: the records.
      experiment: an Experiment; its data and evaluation sections count.
      directory: where predictions are kept; None: with the run, or in the user's cache.
      on_batch: called before every batch.
      tell: takes a line now and then of how far this worker's share is.
      clock: function without arguments that returns seconds.

    Raises:
      DataError: a record that cannot be read or decoded.
    """
    reader = inputs.readers[experiment.data.eval_split]
    protocol = crops.protocol(crop_name, **member.size)
    num_crops = protocol.num_crops

    def decode(jpeg):
        return crop_images.make_squares(decode_whole(jpeg), protocol=protocol, recipe=member.crop)

    crops_of = functools.partial(crop_images.cut_crops, protocol=protocol)
    store = PredictionStore(
        directory or _directory_of(member.source),
        facts=_facts_of(member, protocol, average, inputs, reader, experiment),
        num_examples=reader.num_examples,
        block_examples=max(1, min(_MOST_IMAGES_PER_BLOCK, _CROPS_PER_BLOCK // num_crops)),
    )
    missing = _agreed_missing(store, cluster)
    batches = crop_batches(num_crops, replica_batch=experiment.evaluation.replica_batch)
    own = missing[cluster.worker_index :: cluster.num_workers]
    if own:
        predictor = Predictor(
            member.inference, member.values, batches=batches, crops_of=crops_of, average=average
        )
        elements = iter(
            block_dataset(
                reader,
                [store.record_ids(block) for block in own],
                images=batches.images,
                num_local=cluster.num_local,
                decode=decode,
                spec=experiment.data,
                label_offset=int(member.background_class),
            )
        )
        worker = f", worker {cluster.worker_index}" * (cluster.num_workers > 1)
        what = f"{member.title}, {crop_name}{worker}"
        _fill(store, own, predictor, elements, reader, on_batch, what=what, clock=clock, tell=tell)
    cluster.gather(0)  # nobody reads before everybody has written
    return store


def _fill(store, blocks, predictor, elements, reader, on_batch, **told):
    """Computes and keeps the blocks, and tells how far they are: `told` as of ImageProgress."""
    ids = np.concatenate([store.record_ids(block) for block in blocks])
    progress = ImageProgress(num_images=len(ids), **told)
    try:
        for block in blocks:
            num_images = len(store.record_ids(block))
            found = predictor.predict(elements, num_images=num_images, on_batch=on_batch)
            store.save(block, found)
            progress.add(num_images)
    except tf.errors.OpError as error:
        run_inputs.raise_data_error(error, reader, record_ids=ids)


def _directory_of(source):
    if RunDirectory(source).holds_run():
        return pathlib.Path(source) / "evaluations" / "predictions"
    return initial_weights.cache_dir() / "predictions"


def _facts_of(member, protocol, average, inputs, reader, experiment):
    """All that decides the predictions but for the order of sums in kernels."""
    index = reader.index
    content = hashlib.sha256()
    for array in (index.offset, index.length, index.crc, index.shard):
        content.update(np.ascontiguousarray(array))
    return {
        "weights": member.digest,
        "protocol": dataclasses.asdict(protocol),
        "num_crops": protocol.num_crops,
        "recipe": dataclasses.asdict(member.crop),
        "average": average if protocol.num_crops > 1 else None,
        "background_class": member.background_class,
        "tf32": experiment.cluster.tf32,
        "data": content.hexdigest(),
        "split": experiment.data.eval_split,
        "label_base": inputs.manifest.label_base,
        "tensorflow": tf.__version__,
    }


def _agreed_missing(store, cluster):
    """The blocks that lack, as the chief sees them."""
    missing = store.open() if cluster.is_chief else []
    if cluster.num_workers == 1:
        return missing
    count = cluster.gather(len(missing))[0]
    column = np.zeros([max(count, 1), 1], np.int64)
    column[: len(missing), 0] = missing
    return [row[0] for row in cluster.gather(column)][:count]


def _digest_of_model(model):
    # The same weights give something else with another epsilon, residual scale or precision.
    digest = hashlib.sha256(model.to_json().encode())
    for variable in model.weights:
        if not is_seed_state(variable.path):
            digest.update(variable.path.encode())
            digest.update(np.ascontiguousarray(variable.numpy()))
    return digest.hexdigest()


def _digest_of_files(path):
    digest = hashlib.sha256()
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        digest.update(file.relative_to(path).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
