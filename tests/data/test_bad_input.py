"""Odd and broken image files, damaged shards, and arbitrary bytes: only our own errors leave."""

import csv
import dataclasses
import io
import os
import pathlib
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import durable, inputs
from inception_tf.data import check, encoded, jpeg, jpeg_header, pipeline, tfrecord
from inception_tf.data.manifest import open_index, read_manifest, save_manifest
from inception_tf.data.records import RecordReader
from inception_tf.errors import ConfigError, DataError
from inception_tf.models.catalog import ModelSpec
from tests.data.conftest import picture

ODD_IMAGES = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "odd_images"
SHARD = "train-00001-of-00003"  # records 4 to 8
PLAIN = tf.io.encode_jpeg(picture(0), quality=90).numpy()


def odd_files():
    if not (ODD_IMAGES / "expected.csv").exists():
        skip = pytest.mark.skip(reason="../shared/data is absent: odd images not tested")
        return [pytest.param(None, marks=skip)]
    with open(ODD_IMAGES / "expected.csv", newline="") as stream:
        return [pytest.param(row, id=row["file"]) for row in csv.DictReader(stream)]


def write_shard(path, images, *, shift=0):
    """Records of these images with labels 1, 2, ...; all of 40 x 48 px."""
    records = [
        tfrecord.Record(data, number, f"n{number:02d}", f"{number}.JPEG", 40, 48)
        for number, data in enumerate(images, 1 + shift)
    ]
    frames = [tfrecord.build_frame(tfrecord.build_example(r, text="")) for r in records]
    path.write_bytes(b"".join(frames))
    return frames


def open_plain(directory, **options):
    """A reader of records without manifest.json that begin at label 1."""
    manifest, index = open_index(directory, "train", label_base=1)
    return RecordReader(index, manifest, **options)


def peak_kib():
    with open("/proc/self/status") as stream:
        return int(next(line for line in stream if line.startswith("VmHWM")).split()[1])


def reset_peak():
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this kernel does not reset the peak of a process's memory")


# ------------------------------------------------------------------ image files


@pytest.mark.parametrize("row", odd_files())
def test_odd_files_are_decoded_where_pillow_decodes_a_jpeg_and_refused_elsewhere(row, tmp_path):
    data = (ODD_IMAGES / row["file"]).read_bytes()
    is_good = row["format"] == "JPEG" and row["decode_with_pillow"] == "ok"
    write_shard(tmp_path / "train-00000-of-00001", [PLAIN, data])
    reader = open_plain(tmp_path, on_bad_record="skip", max_bad_records=1)
    images, labels = reader.read(np.array([0, 1]))
    assert images.tolist() == ([PLAIN, data] if is_good else [PLAIN, PLAIN])
    assert labels.tolist() == ([0, 1] if is_good else [0, 0])
    assert [bad.record_id for bad in reader.bad_records] == ([] if is_good else [1])
    if is_good:  # EXIF data turns nothing: the size is the stored one
        size = jpeg.decode_whole(data).shape[:2]
        assert size == (int(row["height"]), int(row["width"]))
        assert jpeg_header.frame_size_px(data) == size
    else:
        with pytest.raises(DataError, match="00000-of-00001 at byte .*record 1"):
            plain = open_plain(tmp_path)
            plain.read(np.array([1]))
            plain.diagnose(np.array([1]))


@pytest.mark.parametrize("row", odd_files())
def test_the_builder_takes_or_refuses_odd_files_and_allocates_no_promised_size(row):
    data = (ODD_IMAGES / row["file"]).read_bytes()
    reset_peak()
    before = peak_kib()
    try:
        made = jpeg.build_record_image(data)
    except jpeg.BadImage:
        assert row["format"] in ("", "GIF", "TIFF") or row["decode_with_pillow"] != "ok" or (
            row["file"] == "pillow/truncated_end_chunk.png"
        )
    else:
        assert (made.height_px, made.width_px) == (int(row["height"]), int(row["width"]))
        assert jpeg.decode_whole(made.jpeg).shape == (made.height_px, made.width_px, 3)
    assert peak_kib() - before < 100 * 2**10


def segments(data):
    """(first byte, end) of every marker segment up to the end of the SOS header."""
    place = 2
    while True:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        yield place, place + 2 + length
        place += 2 + length
        if marker == 0xDA:
            return


def made_by_pillow(form, *, mode="RGB"):
    """A file that TensorFlow does not write."""
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow")
    stream = io.BytesIO()
    pillow.fromarray(picture(2)).convert(mode).save(stream, form)
    return stream.getvalue()


STYLES = {
    "baseline": lambda: PLAIN,
    "progressive": lambda: tf.io.encode_jpeg(picture(1), progressive=True).numpy(),
    "rotated_by_exif": lambda: with_orientation(PLAIN, 6),
    "cmyk": lambda: made_by_pillow("JPEG", mode="CMYK"),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_jpeg_cut_in_any_segment_is_refused_with_and_without_an_end_marker(style):
    data = STYLES[style]()
    header_end = 0
    for begin, end in segments(data):
        for place in {begin, begin + 1, begin + 3, (begin + end) // 2, end - 1}:
            for cut in (data[:place], data[:place] + b"\xff\xd9"):
                with pytest.raises(jpeg.BadImage):
                    encoded.check_image(cut, takes_png=False)
                    encoded.decode_image(cut)
        header_end = end
    for place in range(header_end, len(data) - 1, 97):  # within the scans
        with pytest.raises(jpeg.BadImage, match="cut short"):
            encoded.check_image(data[:place], takes_png=False)


def patched(place, value):
    """PLAIN with other bytes at a place of its frame header, counted from the marker."""
    frame = PLAIN.index(b"\xff\xc0")
    return PLAIN[: frame + place] + value + PLAIN[frame + place + len(value) :]


def with_orientation(data, orientation):
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def with_tables_before_the_frame(data):
    """The Huffman tables, which encoders write after the frame header, before it."""
    parts = [data[begin:end] for begin, end in segments(data)]
    tables = [part for part in parts if part[1] == 0xC4]
    others = [part for part in parts if part[1] != 0xC4]
    return data[:2] + b"".join(tables + others) + data[2 + sum(map(len, parts)) :]


# 2 x + y in levels at column x and row y, 40 x 48 px, as `cjpeg -arithmetic -grayscale -quality 10`
# codes it: neither TensorFlow nor Pillow writes arithmetic coding.
ARITHMETIC = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb00831000500037003c0046003c003200500046004100"
    "46005a00550050005f007800c800820078006e006e007800f500af00b9009100c8012200ff0131012c011d00"
    "ff011801130140016801cc01860140015401b301590113011801900221019501b301db01ea02030208020301"
    "3601810235025d023001f4025801cc01f9020301efffc9000b080028003001011100ffcc000600101005ffda"
    "0008010100003f00fdc0a278a6fb5d83892b688474d9444ae2196b4effd9"
)
ACCEPTED = {
    "arithmetic": ARITHMETIC,
    "tables_first": with_tables_before_the_frame(PLAIN),
    "stuffed_zeros_between_segments": PLAIN[:20] + b"\xff\0" * 3 + PLAIN[20:],
    "greyscale": tf.io.encode_jpeg(picture(2)[..., :1], format="grayscale").numpy(),
    "progressive": tf.io.encode_jpeg(picture(2), progressive=True).numpy(),
    "rotated_by_exif": with_orientation(PLAIN, 6),
    "bytes_after_the_end": PLAIN + b"notes",
    "fill_bytes_between_segments": PLAIN[:2] + b"\xff" * 40 + PLAIN[2:],
}
REFUSED = {
    "zero_bytes": (b"", "empty"),
    "zeros": (bytes(1000), "not a JPEG: it begins with 00 00"),
    "text": (b"<html>not found</html>", "not a JPEG: it begins with 3c 68"),
    "png_16_bit": (tf.io.encode_png(picture(3).astype(np.uint16) * 257).numpy(), "not a JPEG"),
    "gif": (b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
            "not a JPEG: it begins with 47 49 46 38"),
    "webp": (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(24), "not a JPEG: it begins with 52 49"),
    "start_marker_only": (b"\xff\xd8\xff", "states no size"),
    "start_and_end": (b"\xff\xd8\xff\xd9", "states no size"),
    "12_bits": (patched(4, b"\x0c"), "cannot be"),
    "lossless": (patched(1, b"\xc3"), "cannot be"),
    "no_rows": (patched(5, b"\0\0"), "states no size"),
    "huge": (patched(5, b"\xff\xdc\xff\xdc"), "promises 65500 x 65500 px"),
}  # fmt: skip


def test_cmyk_is_read_and_webp_refused(tmp_path):
    cmyk, webp = made_by_pillow("JPEG", mode="CMYK"), made_by_pillow("WEBP")
    write_shard(tmp_path / "train-00000-of-00001", [cmyk, webp])
    reader = open_plain(tmp_path, on_bad_record="skip", max_bad_records=1)
    images, labels = reader.read(np.array([0, 1]))
    assert images.tolist() == [cmyk, cmyk] and labels.tolist() == [0, 0]
    assert jpeg.decode_whole(cmyk).shape == (40, 48, 3)
    assert "not a JPEG: it begins with 52 49 46 46" in reader.bad_records[0].reason
    (problem,) = check.check_records(tmp_path, label_base=1).problems
    assert problem.offset == reader.bad_records[0].offset


@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_libjpeg_knows_is_read_as_it_stands(kind, tmp_path):
    write_shard(tmp_path / "train-00000-of-00001", [ACCEPTED[kind]])
    images, _ = open_plain(tmp_path, on_bad_record="skip", max_bad_records=1).read(np.array([0]))
    assert images[0] == ACCEPTED[kind]
    assert jpeg.decode_whole(images[0]).shape == (40, 48, 3)
    assert jpeg_header.frame_size_px(images[0]) == (40, 48)
    assert check.check_records(tmp_path, label_base=1).problems == ()


def test_arithmetic_coding_gives_its_pixels():
    rows, columns = np.mgrid[0:40, 0:48]
    error = jpeg.decode_whole(ARITHMETIC)[..., 0].astype(int) - (2 * columns + rows)
    assert b"\xff\xc9" in ARITHMETIC and np.abs(error).max() <= 12  # at quality 10


@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_jpeg_of_ours_is_named_or_skipped(kind, policy, tmp_path):
    data, reason = REFUSED[kind]
    frames = write_shard(tmp_path / "train-00000-of-00001", [PLAIN, data, PLAIN])
    if policy == "skip":
        reader = open_plain(tmp_path, on_bad_record="skip", max_bad_records=1)
        assert reader.read(np.array([1, 0]))[1].tolist() == [2, 0]
        (bad,) = reader.bad_records
        assert (bad.offset, bad.key) == (len(frames[0]), "2.JPEG") and reason in bad.reason
        return
    reader = open_plain(tmp_path)
    with pytest.raises(DataError, match=f"{reason}.*2.JPEG.*at byte {len(frames[0]):,}"):
        reader.read(np.array([1]))
        reader.diagnose(np.array([1]))
    (problem,) = check.check_records(tmp_path, label_base=1).problems
    assert problem.offset == len(frames[0]) and reason in problem.reason


def test_a_promised_size_is_not_allocated(tmp_path):
    write_shard(tmp_path / "train-00000-of-00001", [PLAIN, REFUSED["huge"][0]])
    reader = open_plain(tmp_path)
    reader.read(np.array([0]))
    check.check_records(tmp_path, label_base=1)  # what TensorFlow takes once is taken before
    reset_peak()
    before = peak_kib()
    with pytest.raises(DataError, match="65500"):
        reader.read(np.array([1]))
    assert len(check.check_records(tmp_path, label_base=1).problems) == 1
    assert peak_kib() - before < 50 * 2**10  # 12,900 MB were promised


# ------------------------------------------------------------------ records and shards


def copy_index(records):
    """The index that a whole shard had, and the times of the shards."""
    open_index(records, "train")
    return {path: path.stat() for path in records.glob("train-*")}


def damage(records, data, stats):
    """Replaces the shard so that an index made before still seems to fit it."""
    (records / SHARD).write_bytes(data)
    stat = stats[records / SHARD]
    os.utime(records / SHARD, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def byte_classes(offset, length):
    return {
        "length": range(offset, offset + 8),
        "length_crc": range(offset + 8, offset + 12),
        "data": [offset + 12, offset + 13, offset + 12 + length // 2, offset + 11 + length],
        "data_crc": range(offset + 12 + length, offset + 16 + length),
    }


@pytest.mark.parametrize("what", ["length", "length_crc", "data", "data_crc"])
def test_every_flipped_byte_of_a_frame_is_found_with_a_fresh_and_with_an_old_index(records, what):
    whole = (records / SHARD).read_bytes()
    stats = copy_index(records)
    reader = RecordReader(open_index(records, "train")[1], read_manifest(records))
    good = reader.read(np.arange(14))[0]
    offset, length = int(reader.index.offset[6]), int(reader.index.length[6])
    place_of = rf"{SHARD} at byte {offset:,}"
    for number, place in enumerate(byte_classes(offset, length)[what]):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << number % 8
        damage(records, damaged, stats)
        with pytest.raises(DataError, match=f"checksum.*{place_of}|no longer has.*{place_of}"):
            reader.read(np.array([6]))
        others = np.array([i for i in range(14) if i != 6])
        assert reader.read(others)[0].tolist() == good[others].tolist()
        skipping = RecordReader(
            reader.index, reader.manifest, on_bad_record="skip", max_bad_records=1
        )
        assert skipping.read(np.array([5, 6]))[0].tolist() == good[[5, 7]].tolist()
        found = [p.offset for p in check.check_records(records).problems if p.offset is not None]
        assert found == [offset]
        (records / "index-train.npz").unlink(missing_ok=True)
        if what in ("length", "length_crc"):
            with pytest.raises(DataError, match=f"length fails its checksum.*{place_of}"):
                open_index(records, "train")
            continue
        fresh = RecordReader(open_index(records, "train")[1], reader.manifest)
        with pytest.raises(DataError, match=f"payload fails its checksum.*{place_of}"):
            fresh.read(np.array([6]))


def test_a_shard_cut_anywhere_is_found_when_it_is_opened_and_when_it_is_read(records):
    whole = (records / SHARD).read_bytes()
    stats = copy_index(records)
    reader = RecordReader(open_index(records, "train")[1], read_manifest(records))
    offset, length = int(reader.index.offset[8]), int(reader.index.length[8])
    for inside in (0, 4, 8, 10, 12, 12 + length // 2, 12 + length, 14 + length):
        damage(records, whole[: offset + inside], stats)
        with pytest.raises(DataError, match=f"truncated.*{SHARD}"):
            open_index(records, "train")
        with pytest.raises(DataError, match=f"too early.*{SHARD} at byte {offset:,}"):
            reader.read(np.array([8]))
        assert reader.read(np.array([7]))[1].shape == (1,)
        problems = [p for p in check.check_records(records).problems if p.file == SHARD]
        assert "truncated" in problems[0].reason
        assert [p.offset for p in problems if p.offset is not None] == [offset] * (inside > 0)


def test_without_a_manifest_a_cut_between_two_records_is_a_shorter_shard(records, tmp_path):
    """Nothing in such a file says that more was there: only a manifest does."""
    plain = tmp_path / "plain"
    plain.mkdir()
    shard = plain / "train-00000-of-00001"
    frames = write_shard(shard, [PLAIN] * 3)
    whole = shard.read_bytes()
    for inside in (4, 12, 100, len(frames[2]) - 1):
        shard.write_bytes(whole[: len(frames[0]) * 2 + inside])
        with pytest.raises(DataError, match="the file ends"):
            open_index(plain, "train", label_base=1)
        result = check.check_records(plain, label_base=1)
        assert len(result.problems) == 1 and result.splits["train"].num_records == 2
    shard.write_bytes(whole[: len(frames[0]) * 2])
    assert open_plain(plain).num_examples == 2


def test_shards_that_changed_places_are_found(records):
    first, second = records / "train-00000-of-00003", records / SHARD
    shutil.move(first, records / "aside")
    shutil.move(second, first)
    shutil.move(records / "aside", second)
    with pytest.raises(DataError, match="it must have the bytes that the manifest says"):
        open_index(records, "train")
    assert {p.file for p in check.check_records(records).problems} == {first.name, second.name}


def test_shards_of_equal_size_that_changed_places_are_found_by_their_checksums(records):
    first, second = records / "train-00000-of-00003", records / SHARD
    write_shard(first, [PLAIN] * 4)
    write_shard(second, [PLAIN] * 4, shift=1)
    assert first.stat().st_size == second.stat().st_size
    manifest = read_manifest(records)
    entries = [
        dataclasses.replace(entry, num_records=4, num_bytes=path.stat().st_size,
                            crc32c=durable.crc32c_of_file(path))
        for entry, path in zip(manifest.splits["train"], (first, second))
    ]  # fmt: skip
    shards = (*entries, *manifest.splits["train"][2:])
    splits = {**manifest.splits, "train": shards}
    save_manifest(records, dataclasses.replace(manifest, splits=splits))

    def wrong_files():
        problems = check.check_records(records).problems
        return {p.file for p in problems if "file's checksum (CRC-32C)" in p.reason}

    assert wrong_files() == set()
    shutil.move(first, records / "aside")
    shutil.move(second, first)
    shutil.move(records / "aside", second)
    assert wrong_files() == {first.name, second.name}


def test_a_shard_that_stands_twice_is_found(records):
    shutil.copy(records / "train-00000-of-00003", records / SHARD)
    with pytest.raises(DataError, match=SHARD):
        open_index(records, "train")
    result = check.check_records(records)
    reasons = [problem.reason for problem in result.problems if problem.file == SHARD]
    assert "the shard is a copy of train-00000-of-00003" in reasons
    assert result.splits["train"].num_duplicates == 4  # all of the shard


def test_an_index_older_than_its_shard_never_gives_another_record(records):
    stats = copy_index(records)
    reader = RecordReader(open_index(records, "train")[1], read_manifest(records))
    good = reader.read(np.arange(14))[0].tolist()
    index = reader.index
    data = (records / SHARD).read_bytes()
    frames = [
        data[int(index.offset[i]) : int(index.offset[i]) + int(index.length[i]) + 16]
        for i in range(4, 9)
    ]
    damage(records, b"".join(reversed(frames)), stats)  # same bytes, same time, another order
    stale = RecordReader(open_index(records, "train")[1], reader.manifest)
    for record_id in range(4, 9):
        try:
            assert stale.read(np.array([record_id]))[0][0] == good[record_id]
        except DataError as error:
            assert SHARD in str(error)
    os.utime(records / SHARD)  # as any tool that does not keep times leaves it
    fresh = RecordReader(open_index(records, "train")[1], reader.manifest)
    assert fresh.read(np.arange(4, 9))[0].tolist() == good[8:3:-1]


def test_a_record_of_equal_length_in_the_place_of_another_is_found(tmp_path):
    """Lengths, times and both checksums fit: only the checksum that the index kept does not."""
    shard = tmp_path / "train-00000-of-00001"
    frames = write_shard(shard, [PLAIN, PLAIN])
    assert len(frames[0]) == len(frames[1])
    reader = open_plain(tmp_path)
    shard.write_bytes(frames[1] + frames[0])
    with pytest.raises(DataError, match="payload fails its checksum.*at byte 0"):
        reader.read(np.array([0]))


def test_a_record_that_was_left_out_is_not_blamed_for_another_error(tmp_path):
    write_shard(tmp_path / "train-00000-of-00001", [PLAIN, b"no image"])
    reader = open_plain(tmp_path, on_bad_record="skip", max_bad_records=1)
    reader.read(np.array([0, 1]))
    assert [bad.record_id for bad in reader.bad_records] == [1]
    reader.diagnose(np.array([0, 1]))  # neither of them failed in the graph


def test_only_training_leaves_records_out(tmp_path):
    write_shard(tmp_path / "train-00000-of-00001", [PLAIN, b"no image"])
    spec = pipeline.DataSpec(
        data_dir=str(tmp_path), label_base=1, on_bad_record="skip", max_bad_records=1
    )
    for trains in (True, False):
        found = inputs.open_inputs(
            spec, ModelSpec(), run_dir=tmp_path, splits=["train"], trains=trains
        )
        assert found.readers["train"].skips is trains
    with pytest.raises(ConfigError, match="two splits must differ"):
        dataclasses.replace(spec, eval_split="train")


def test_a_check_sees_a_box_that_training_would_refuse(tmp_path):
    record = tfrecord.Record(PLAIN, 1, "n01", "1.JPEG", 40, 48)
    payload = tfrecord.build_example(record, text="", boxes=((0.0, 0.0, 3.0, 1.0),))
    (tmp_path / "train-00000-of-00001").write_bytes(tfrecord.build_frame(payload))
    (problem,) = check.check_records(tmp_path, label_base=1).problems
    assert "box" in problem.reason
