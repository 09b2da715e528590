"""The wire format of records: TFRecord frames and the Example message inside them.

A shard is a plain sequence of frames, without header or footer:

  uint64  length of the payload, little-endian
  uint32  masked CRC-32C of those 8 bytes
  bytes   payload: one serialized tf.train.Example
  uint32  masked CRC-32C of the payload

The Example has the keys of the released `build_imagenet_data.py`, or those that a Schema names.
"""

import dataclasses
import struct

import google_crc32c
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from inception_tf.data import files
from inception_tf.errors import DataError

HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES  # beside the payload

# A bounding box as TensorFlow orders it: ymin, xmin, ymax, xmax, as shares of height and width.
Box = tuple[float, float, float, float]

_MAX_PAYLOAD_BYTES = 2**31 - 1  # the limit of a protobuf message, and of the index's int32


class BadFrame(ValueError):
    """Bytes that are no record; the message gives the reason without its place."""


@dataclasses.dataclass(frozen=True)
class Frames:
    """Where the records of one shard lie.

    Attributes:
      offset: int64 [M], first byte of each frame in its file.
      length: int32 [M], bytes of each payload.
      crc: uint32 [M], masked CRC-32C of each payload, as the file states it.
    """

    offset: np.ndarray
    length: np.ndarray
    crc: np.ndarray


def masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord files store it: rotated right by 15 bits, plus a constant.

    The mask exists because a CRC over data that holds its own CRC is degenerate.
    """
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def build_frame(payload: bytes) -> bytes:
    """The bytes of one record as they stand in a shard."""
    length = struct.pack("<Q", len(payload))
    checksums = (struct.pack("<I", masked_crc(data)) for data in (length, payload))
    return b"".join((length, next(checksums), payload, next(checksums)))


def read_payload(frame: bytes, *, length: int, crc: int) -> bytes:
    """The payload of one frame after checking both of its checksums.

    Args:
      frame: the bytes from the frame's first byte on, `length` + 16 where the file has them.
      length: payload bytes that the index promises.
      crc: masked CRC-32C of the payload that the index promises.

    Raises:
      BadFrame: the frame is cut short, is not the one of the index, or fails a checksum.
    """
    if len(frame) < length + FRAME_BYTES:
        raise BadFrame(f"the file ends {length + FRAME_BYTES - len(frame):,} bytes too early")
    if parse_header(frame[:HEADER_BYTES]) != length:
        raise BadFrame(f"the record no longer has the {length:,} bytes of the index")
    payload = frame[HEADER_BYTES : HEADER_BYTES + length]
    (stated,) = struct.unpack_from("<I", frame, HEADER_BYTES + length)
    computed = masked_crc(payload)
    if computed != stated or computed != crc:
        raise BadFrame("the payload fails its checksum (CRC-32C)")
    return payload


def parse_header(header: bytes) -> int:
    """The payload length in bytes that a frame's first 12 bytes state.

    Raises:
      BadFrame: the header is cut short, fails its checksum or states an impossible length.
    """
    if len(header) < HEADER_BYTES:
        raise BadFrame("the file ends inside the record's length")
    length, stated = struct.unpack("<QI", header)
    if masked_crc(header[:8]) != stated:
        raise BadFrame("the record's length fails its checksum (CRC-32C)")
    if length > _MAX_PAYLOAD_BYTES:
        raise BadFrame(f"a record of {length:,} bytes is longer than 2 GiB")
    return length


def scan_frames(path: str) -> Frames:
    """Where every record of one shard lies, from its headers alone.

    Costs one read of 16 bytes per record: a payload's checksum stands directly before the
    next header. Payloads are not read, so a damaged payload is left to `read_payload`.

    Raises:
      DataError: a damaged header or a file cut short; names the file and the byte offset.
    """
    offsets, lengths, checksums = [], [], []
    size = files.identify(path).num_bytes
    file = files.open_file(path)
    try:
        offset = 0
        header = file.read_at(0, HEADER_BYTES)
        while offset < size:
            length = parse_header(header)
            end = offset + length + FRAME_BYTES
            if end > size:
                raise BadFrame(f"the file ends {end - size:,} bytes too early")
            tail = file.read_at(end - FOOTER_BYTES, FOOTER_BYTES + HEADER_BYTES)
            offsets.append(offset)
            lengths.append(length)
            checksums.append(int.from_bytes(tail[:FOOTER_BYTES], "little"))
            offset, header = end, tail[FOOTER_BYTES:]
    except BadFrame as bad:
        raise DataError(
            "Every byte of a shard must belong to a whole record.",
            received=f"{bad}, in {path} at byte {offset:,}",
            remedy="Copy or build this shard again.",
        ) from None
    finally:
        file.close()
    return Frames(
        offset=np.array(offsets, np.int64),
        length=np.array(lengths, np.int32),
        crc=np.array(checksums, np.uint32),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schema:
    """Under which keys an Example holds what a Record says.

    Attributes:
      image, label: keys that every record has, with one value each.
      synset, filename, height, width: keys that it may have; '' where the schema has none.
      takes_png: whether images may be PNGs; else all are JPEGs.
    """

    image: str
    label: str
    synset: str = ""
    filename: str = ""
    height: str = ""
    width: str = ""
    takes_png: bool = False


RELEASED = Schema(
    image="image/encoded",
    label="image/class/label",
    synset="image/class/synset",
    filename="image/filename",
    height="image/height",
    width="image/width",
)


@dataclasses.dataclass(frozen=True)
class Record:
    """What one Example says.

    Attributes:
      jpeg: the encoded image, of a schema that takes them perhaps a PNG.
      label: as stored: 1..K where 0 is the background, or 0..K-1.
      synset: name of the class, '' where the record has none.
      filename: base name of the source image, '' where the record has none.
      height_px, width_px: as claimed by the record, 0 where it claims nothing.
    """

    jpeg: bytes
    label: int
    synset: str
    filename: str
    height_px: int
    width_px: int


def parse_example(payload: bytes, *, schema: Schema = RELEASED) -> Record:
    """What one serialized Example says.

    Raises:
      BadFrame: no Example, or one without exactly one image and one label.
    """
    features = parse_features(payload)

    def values(key, kind):  # looking up an absent key would insert it
        return getattr(features[key], kind).value if key in features else ()

    def first(key, kind, default):
        found = values(key, kind)
        return found[0] if found else default

    images = values(schema.image, "bytes_list")
    labels = values(schema.label, "int64_list")
    if len(images) != 1 or len(labels) != 1:
        keys = ", ".join(sorted(features)) or "none"
        raise BadFrame(
            f"the record must hold one {schema.image} (bytes) and one {schema.label} (int64);"
            f" its keys: {keys}"
        )
    return Record(
        jpeg=images[0],
        label=labels[0],
        synset=first(schema.synset, "bytes_list", b"").decode("utf-8", "replace"),
        filename=first(schema.filename, "bytes_list", b"").decode("utf-8", "replace"),
        height_px=first(schema.height, "int64_list", 0),
        width_px=first(schema.width, "int64_list", 0),
    )


def parse_features(payload: bytes):
    """The features of one serialized Example by key, as protobuf's map.

    Raises:
      BadFrame: no Example.
    """
    try:
        return tf.train.Example.FromString(payload).features.feature
    except DecodeError:
        raise BadFrame("the payload is not a tf.train.Example") from None


def build_example(record: Record, *, text: str, boxes: tuple[Box, ...] = ()) -> bytes:
    """The serialized Example of the released schema, the same bytes at every call.

    Colorspace and channels say RGB and 3 for every image, as the released builder does, also
    where the JPEG is greyscale: readers decode with three channels.

    Args:
      record: the record's content.
      text: the class in words.
      boxes: bounding boxes of the labelled object.
    """

    def of_bytes(*values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def of_ints(*values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def of_floats(values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    ymin, xmin, ymax, xmax = zip(*boxes) if boxes else ((), (), (), ())
    features = {
        "image/encoded": of_bytes(record.jpeg),
        "image/height": of_ints(record.height_px),
        "image/width": of_ints(record.width_px),
        "image/colorspace": of_bytes(b"RGB"),
        "image/channels": of_ints(3),
        "image/format": of_bytes(b"JPEG"),
        "image/filename": of_bytes(record.filename.encode()),
        "image/class/label": of_ints(record.label),
        "image/class/synset": of_bytes(record.synset.encode()),
        "image/class/text": of_bytes(text.encode()),
        "image/object/bbox/xmin": of_floats(xmin),
        "image/object/bbox/xmax": of_floats(xmax),
        "image/object/bbox/ymin": of_floats(ymin),
        "image/object/bbox/ymax": of_floats(ymax),
        "image/object/bbox/label": of_ints(*[record.label] * len(boxes)),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # A message's map has no order of its own: without this the bytes differ between runs.
    return example.SerializeToString(deterministic=True)
