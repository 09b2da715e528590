"""The averaged prediction over the crops of each image, block by block, on this worker's devices."""

import dataclasses

import numpy as np
import tensorflow as tf

from inception_tf.evaluation.predictions import Predictions

AVERAGES = ("probabilities", "logits")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropBatches:
    """How C crops of each image are dealt into the network's batches.

    Attributes:
      num_crops: C.
      images: of an element of the data set, and device.
      parts: batches into which an element's crops are cut.
    """

    num_crops: int
    images: int
    parts: int

    @property
    def batch(self) -> int:
        """Crops that the network takes at once."""
        return self.images * self.num_crops // self.parts


def crop_batches(num_crops: int, *, replica_batch: int) -> CropBatches:
    """The deal that fills a device's batch best, in equal parts, with whole images per element.

    Args:
      num_crops: C of each image.
      replica_batch: most crops that the network is to take at once.
    """
    if num_crops <= replica_batch:
        return CropBatches(num_crops=num_crops, images=replica_batch // num_crops, parts=1)
    parts = next(p for p in range(1, num_crops + 1) if num_crops % p == 0 and
                 num_crops // p <= replica_batch)  # fmt: skip
    return CropBatches(num_crops=num_crops, images=1, parts=parts)


class Predictor:
    """Probabilities of images under given weights, averaged over their crops.

    Args:
      inference: an `Inference` of the network.
      values: (trainable, non-trainable) in the order of the model's lists.
      batches: how the crops are dealt out.
      crops_of: from the images of an element, nested tensors [b, ...], to their crops, float32
        [b, C, H, W, 3] in [-1, 1]; part of the compiled step.
      average: 'probabilities', as both papers do, or 'logits', whose softmax is then taken.
    """

    def __init__(self, inference, values, *, batches: CropBatches, crops_of, average: str):
        self._inference = inference
        self._values = inference.local_tensors(values)
        self._batches = batches
        self._crops_of = crops_of
        self._average = average

    def predict(self, elements, *, num_images: int, on_batch=lambda: None) -> Predictions:
        """The predictions of a block's images.

        Args:
          elements: iterator of a `data.block_pipeline.block_dataset`: one element per local device in
            turn, the last ones of the block padded.
          num_images: of the block.
          on_batch: called before every batch.
        """
        num_local, images = self._inference.num_local, self._batches.images
        found = {"probabilities": [], "labels": [], "file_names": []}
        for _ in range(-(-num_images // (num_local * images))):
            on_batch()
            locally = [next(elements) for _ in range(num_local)]
            results = self._run([element.pop("images") for element in locally])
            for element, probabilities in zip(locally, results):
                found["probabilities"].append(probabilities.numpy())
                found["labels"].append(element["labels"].numpy())
                names = element["file_names"].numpy()
                found["file_names"].append(np.array([name.decode() for name in names], np.str_))
        joined = {name: np.concatenate(parts)[:num_images] for name, parts in found.items()}
        return Predictions(**joined)

    def _run(self, images):
        """Probabilities of each local device's images."""
        strategy, num_local = self._inference.strategy, self._inference.num_local
        if num_local == 1:
            return [self._probabilities(images[0], self._values)]
        dealt = strategy.experimental_distribute_values_from_function(
            lambda context: images[context.replica_id_in_sync_group % num_local]
        )
        return strategy.experimental_local_results(
            strategy.run(self._probabilities, args=(dealt, self._values))
        )

    @tf.function
    def _probabilities(self, images, values):
        """Float32 [b, K] of an element's images."""
        deal = self._batches
        size = self._inference.input_shape
        batches = tf.reshape(self._crops_of(images), [deal.parts, deal.batch, *size])
        outputs = self._inference.num_outputs
        if deal.parts == 1:
            logits = self._inference.logits(batches[0], values)
        else:
            # One after the other: together they would need the memory of all.
            logits = tf.map_fn(
                lambda batch: self._inference.logits(batch, values),
                batches,
                fn_output_signature=tf.TensorSpec([deal.batch, outputs], tf.float32),
                parallel_iterations=1,
            )
        # Means in float64: the order of the crops then shows in no digit of the result.
        logits = tf.cast(tf.reshape(logits, [deal.images, deal.num_crops, outputs]), tf.float64)
        if self._average == "logits":
            averaged = tf.nn.softmax(tf.reduce_mean(logits, axis=1))
        else:
            averaged = tf.reduce_mean(tf.nn.softmax(logits), axis=1)
        return tf.cast(averaged, tf.float32)
