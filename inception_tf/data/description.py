"""What a data set declares of itself: splits, shards, classes and the label convention."""

import dataclasses

from inception_tf.data import tfrecord


@dataclasses.dataclass(frozen=True)
class ShardEntry:
    """One shard, relative to the data directory; `crc32c` covers the whole file, unmasked.

    What only manifest.json states is None for other records: `num_bytes` of TensorFlow Datasets,
    `crc32c` of all.
    """

    file: str
    num_records: int
    num_bytes: int | None
    crc32c: int | None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a data directory declares.

    Attributes:
      label_base: stored label of the first class: 1 (0 is the background) or 0.
      num_classes: K, without background.
      class_names: K names in the order of the labels.
      splits: the shards of every split, in order.
      class_counts: records of each of the K classes by split; None if unknown.
      source: what the records were made from.
      options: how they were made.
      schema: keys of the records.
      origin: whose records they are, as the start-up summary names them; '' of our own.
    """

    label_base: int
    num_classes: int
    class_names: tuple[str, ...]
    splits: dict[str, tuple[ShardEntry, ...]]
    class_counts: dict[str, tuple[int, ...]] | None
    source: dict
    options: dict
    schema: tfrecord.Schema = tfrecord.RELEASED
    origin: str = ""

    def num_records(self, split: str) -> int:
        """Records of one split."""
        return sum(shard.num_records for shard in self.splits[split])
