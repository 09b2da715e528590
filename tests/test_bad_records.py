"""Records that a run leaves out: told to every worker, kept once, left out again after a resume."""

import json
import threading
import types

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.bad_records import BadRecordLog
from inception_tf.cluster import Assignment, Cluster
from inception_tf.data import pipeline, tfrecord
from inception_tf.data.image import Augmentation
from inception_tf.data.manifest import open_index
from inception_tf.data.records import BadRecord, RecordReader
from inception_tf.errors import DataError

NUM_RECORDS = 12
BAD = (3, 4, 11)  # two neighbours, and the last one, whose substitute is record 0
SHARDS = ("train-00000-of-00002", "train-00001-of-00002")


def make_jpeg(number):
    pixels = np.full([20, 24, 3], 20 * number, np.uint8)
    pixels[:10, :, 0] = 255 - 20 * number
    return tf.io.encode_jpeg(pixels).numpy()


@pytest.fixture
def data_dir(tmp_path):
    """12 records with labels 1 to 12 in 2 shards, 3 of them without an image that decodes."""
    out = tmp_path / "data"
    out.mkdir()
    for shard, numbers in zip(SHARDS, (range(6), range(6, NUM_RECORDS))):
        frames = []
        for number in numbers:
            data = make_jpeg(number)
            if number in BAD:
                data = data.replace(b"\xff\xdb", b"\xff\xfe")
            record = tfrecord.Record(data, number + 1, "", f"{number}.JPEG", 20, 24)
            frames.append(tfrecord.build_frame(tfrecord.build_example(record, text="")))
        (out / shard).write_bytes(b"".join(frames))
    return out


def open_reader(data_dir, *, max_bad_records=3, max_bad_share=1.0, on_bad_record="skip"):
    manifest, index = open_index(data_dir, "train", label_base=1)
    return RecordReader(index, manifest, on_bad_record=on_bad_record,
                        max_bad_records=max_bad_records, max_bad_share=max_bad_share)  # fmt: skip


class Workers:
    """Clusters whose `gather` waits for all of them, as the real one does, one thread each."""

    def __init__(self, count):
        self._barrier = threading.Barrier(count)
        self._words = [None] * count
        self.num_collectives = 0
        self.clusters = [
            types.SimpleNamespace(
                num_workers=count, is_chief=index == 0, gather=self._gatherer(index)
            )
            for index in range(count)
        ]

    def _gatherer(self, index):
        def gather(word):
            self._words[index] = word
            self._barrier.wait(timeout=20)
            words = np.stack([np.asarray(word) for word in self._words], -1)
            self.num_collectives += index == 0
            self._barrier.wait(timeout=20)
            # As the real one: of a number the list of all workers', of a column a row for each.
            return words.reshape(*words.shape[:-2], -1).tolist()

        return gather


def on_all(function, *arguments):
    """Results of one call per worker at the same time."""
    results = [None] * len(arguments[0])

    def call(index, each):
        results[index] = function(*each)

    threads = [
        threading.Thread(target=call, args=(i, each)) for i, each in enumerate(zip(*arguments))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def stored_lines(run_dir):
    return [json.loads(line) for line in (run_dir / "bad_records.jsonl").read_text().splitlines()]


def make_logs(run_dir, readers, *, workers=None):
    workers = workers or Workers(len(readers))
    return [
        BadRecordLog(run_dir, {"train": reader}, cluster)
        for reader, cluster in zip(readers, workers.clusters)
    ]


def test_each_record_is_one_line_that_says_where_it_lies_and_why(data_dir, tmp_path):
    reader = open_reader(data_dir)
    (log,) = make_logs(tmp_path, [reader])
    assert log.exchange() == [] and log.summary() == ""
    assert not log.path.exists()
    reader.read(np.array([11, 3]))
    lines = log.exchange()
    assert [line.split(":")[0] for line in lines] == [
        "left out bad record 3 of 'train'",
        "left out bad record 4 of 'train'",  # the substitute of 3
        "left out bad record 11 of 'train'",
    ]
    rows = stored_lines(tmp_path)
    assert [row["record_id"] for row in rows] == list(BAD)
    for row in rows:
        place = int(reader.index.offset[row["record_id"]])
        assert row["offset"] == place and row["shard"] == SHARDS[row["record_id"] // 6]
        assert row["split"] == "train" and row["key"] == f"{row['record_id']}.JPEG"
        assert "cannot be decoded" in row["reason"] and set(row) == {
            "split", "record_id", "shard", "offset", "key", "reason"
        }  # fmt: skip
    assert log.exchange() == [] and len(stored_lines(tmp_path)) == 3
    assert log.summary().startswith("left out as bad: 3 of 12 records of 'train' (0.25 of them)")


def test_what_one_worker_finds_all_know_and_only_the_chief_writes(data_dir, tmp_path):
    readers = [open_reader(data_dir, max_bad_records=3) for _ in range(3)]
    logs = make_logs(tmp_path, readers)
    readers[1].read(np.array([11]))
    readers[2].read(np.array([4]))
    found = on_all(BadRecordLog.exchange, logs)
    assert [len(lines) for lines in found] == [2, 2, 2]
    assert [row["record_id"] for row in stored_lines(tmp_path)] == [4, 11]
    assert readers[0].bad_records == readers[1].bad_records == readers[2].bad_records
    assert all("cannot be decoded" in bad.reason for bad in readers[0].bad_records)
    readers[0].read(np.array([3]))
    readers[2].read(np.array([3]))  # both at once: still one line
    on_all(BadRecordLog.exchange, logs)
    assert [row["record_id"] for row in stored_lines(tmp_path)] == list(BAD)
    on_all(BadRecordLog.check_budget, logs)


def test_all_finds_of_all_workers_travel_in_one_collective(data_dir, tmp_path):
    workers = Workers(3)
    readers = [open_reader(data_dir) for _ in range(3)]
    logs = make_logs(tmp_path, readers, workers=workers)
    on_all(BadRecordLog.exchange, logs)
    assert workers.num_collectives == 1  # that nobody has found anything
    readers[0].read(np.array([3]))  # and 4
    readers[2].read(np.array([11]))
    assert [len(lines) for lines in on_all(BadRecordLog.exchange, logs)] == [3, 3, 3]
    assert workers.num_collectives == 3


def test_a_cluster_takes_a_column_as_these_workers_do():
    cluster = Cluster(
        strategy=tf.distribute.MirroredStrategy(["CPU:0"]), device_kind="CPU",
        device_names=("CPU",), num_workers=3, worker_index=1, num_local=1, intra_op_threads=1,
        deterministic=True,
    )  # fmt: skip
    # The two other workers are not there and add nothing.
    found = np.array([7, -1, 2**40])[:, np.newaxis]
    assert cluster.gather(found) == [[0, 7, 0], [0, -1, 0], [0, 2**40, 0]]
    assert cluster.gather(5) == [0, 5, 0]
    alone = Workers(1).clusters[0]
    assert alone.gather(found) == [[7], [-1], [2**40]] and alone.gather(5) == [5]


def test_bad_boxes_have_their_own_reason_on_every_worker(tmp_path):
    boxes = ((0.0, 0.0, 3.0, 1.0),)
    frames = [
        tfrecord.build_frame(
            tfrecord.build_example(
                tfrecord.Record(make_jpeg(number), number + 1, "", f"{number}.JPEG", 20, 24),
                text="", boxes=boxes if number == 1 else (),
            )
        )
        for number in range(3)
    ]  # fmt: skip
    (tmp_path / "train-00000-of-00001").write_bytes(b"".join(frames))
    readers = [open_reader(tmp_path) for _ in range(2)]
    readers[0].read_with_boxes(np.array([1]))
    on_all(BadRecordLog.exchange, make_logs(tmp_path, readers))
    assert readers[0].bad_records == readers[1].bad_records
    assert readers[1].bad_records[0].reason == "a side of a box is at 3, outside the image"
    assert readers[1].bad_records[0].key == "1.JPEG"


def test_the_budget_is_that_of_all_workers_together(data_dir, tmp_path):
    readers = [open_reader(data_dir, max_bad_records=2) for _ in range(2)]
    logs = make_logs(tmp_path, readers)
    readers[0].read(np.array([11]))
    readers[1].read(np.array([3]))  # and its neighbour 4
    on_all(BadRecordLog.exchange, logs)
    for log in logs:
        with pytest.raises(DataError, match="max_bad_records = 2 .*3 bad ones of 12"):
            log.check_budget()


def test_a_find_between_two_words_of_an_exchange_is_told_at_the_next(data_dir, tmp_path):
    readers = [open_reader(data_dir) for _ in range(2)]
    logs = make_logs(tmp_path, readers)
    gather = logs[1]._cluster.gather

    def gather_while_reading(word):
        readers[1].read(np.array([11]))  # tf.data's threads do not wait
        return gather(word)

    logs[1]._cluster.gather = gather_while_reading
    on_all(BadRecordLog.exchange, logs)
    logs[1]._cluster.gather = gather
    assert readers[0].bad_records == []
    on_all(BadRecordLog.exchange, logs)
    assert [bad.record_id for bad in readers[0].bad_records] == [11]
    assert [row["record_id"] for row in stored_lines(tmp_path)] == [11]


def test_a_resumed_run_leaves_out_the_same_records_even_if_they_were_mended(data_dir, tmp_path):
    reader = open_reader(data_dir)
    (log,) = make_logs(tmp_path, [reader])
    images, labels = reader.read(np.arange(NUM_RECORDS))
    log.exchange()
    for shard in SHARDS:
        data = (data_dir / shard).read_bytes()
        frames = tfrecord.scan_frames(str(data_dir / shard))
        whole = b""
        for offset, length in zip(frames.offset.tolist(), frames.length.tolist()):
            record = tfrecord.parse_example(data[offset + 12 : offset + 12 + length])
            mended = tfrecord.Record(make_jpeg(record.label - 1), record.label, "",
                                     record.filename, 20, 24)  # fmt: skip
            whole += tfrecord.build_frame(tfrecord.build_example(mended, text=""))
        (data_dir / shard).write_bytes(whole)
    again = open_reader(data_dir)
    (resumed,) = make_logs(tmp_path, [again])
    resumed.restore()
    assert again.read(np.arange(NUM_RECORDS))[0].tolist() == images.tolist()
    assert again.bad_records == reader.bad_records
    assert resumed.exchange() == [] and len(stored_lines(tmp_path)) == 3
    unaware = open_reader(data_dir)
    assert unaware.read(np.arange(NUM_RECORDS))[1].tolist() == list(range(NUM_RECORDS))
    assert labels.tolist() != list(range(NUM_RECORDS))


def test_a_run_that_has_used_up_its_budget_does_not_start_again(data_dir, tmp_path):
    reader = open_reader(data_dir)
    reader.read(np.arange(NUM_RECORDS))
    make_logs(tmp_path, [reader])[0].exchange()
    with pytest.raises(DataError, match="max_bad_records = 2 "):
        make_logs(tmp_path, [open_reader(data_dir, max_bad_records=2)])[0].restore()
    (log,) = make_logs(tmp_path, [open_reader(data_dir, on_bad_record="raise")])
    log.restore()  # this policy leaves out nothing, whatever the file says
    assert log.exchange() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda row: {**row, "offset": row["offset"] + 1},
        lambda row: {**row, "shard": SHARDS[1]},
        lambda row: {**row, "record_id": 99},
        lambda row: {**row, "more": 1},
        lambda row: {key: value for key, value in row.items() if key != "reason"},
        lambda row: [],
    ],
)
def test_a_file_of_other_records_is_refused(data_dir, tmp_path, change):
    reader = open_reader(data_dir)
    reader.read(np.array([3]))
    make_logs(tmp_path, [reader])[0].exchange()
    first = stored_lines(tmp_path)[0]
    (tmp_path / "bad_records.jsonl").write_text(json.dumps(change(first)) + "\n")
    with pytest.raises(DataError, match="bad_records.jsonl line 1"):
        make_logs(tmp_path, [open_reader(data_dir)])[0].restore()


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"{", b"[" * 100_000, b"null", b"7", b'{"split": []}', b"\n", b"NaN"]
)
def test_a_file_of_any_bytes_is_no_traceback(data_dir, tmp_path, content):
    (tmp_path / "bad_records.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="bad_records.jsonl line 1"):
        make_logs(tmp_path, [open_reader(data_dir)])[0].restore()


@pytest.mark.parametrize(("count", "share", "is_enough"),
                         [(3, 1.0, True), (2, 1.0, False), (9, 0.25, True), (9, 0.24, False),
                          (2, 0.25, False)])  # fmt: skip
def test_the_budget_is_a_count_and_a_share_whichever_is_reached_first(
    data_dir, count, share, is_enough
):
    reader = open_reader(data_dir, max_bad_records=count, max_bad_share=share)
    if is_enough:
        assert reader.read(np.arange(NUM_RECORDS))[1].tolist()[3:5] == [5, 5]
        return
    with pytest.raises(DataError, match=f"share of max_bad_share = {share:g}.*bad ones of 12"):
        reader.read(np.arange(NUM_RECORDS))


def test_what_another_worker_found_is_left_out_without_being_read(data_dir):
    reader = open_reader(data_dir)
    reader.add_bad(BadRecord(7, SHARDS[1], int(reader.index.offset[7]), "", "elsewhere"))
    assert reader.read(np.array([7]))[1].tolist() == [8]
    assert reader.find_fault(7) is None
    assert reader.find_fault(3).reason == "the JPEG cannot be decoded"


def batches(data_dir, *, num_physical, start_step, num_steps):
    """All images and labels of some steps, from as many readers as there are workers."""
    parts = []
    for first in range(num_physical):
        assignment = Assignment(num_replicas=4, replica_batch=2, num_physical=num_physical,
                                first_local=first)  # fmt: skip
        dataset = pipeline.train_dataset(
            open_reader(data_dir), assignment=assignment, num_examples=NUM_RECORDS,
            start_step=start_step, seed=5, augmentation=Augmentation(), height_px=16, width_px=16,
            spec=pipeline.DataSpec(on_bad_record="skip", max_bad_records=3),
        )  # fmt: skip
        parts.append([
            (batch["images"].numpy(), batch["labels"].numpy())
            for batch in dataset.take(num_steps)
        ])  # fmt: skip
    declared = [[None] * 4 for _ in range(num_steps)]
    for first, part in enumerate(parts):
        for step, (images, labels) in enumerate(part):
            for turn in range(len(labels)):
                declared[step][first + turn * num_physical] = images[turn], labels[turn]
    images = np.array([[each[0] for each in step] for step in declared])
    labels = np.array([[each[1] for each in step] for step in declared])
    return images, labels


def test_substitutes_are_the_same_on_every_topology_and_after_every_resume(data_dir):
    images, labels = batches(data_dir, num_physical=1, start_step=0, num_steps=4)
    assert labels.shape == (4, 4, 2)  # sizes stay exact
    assert not set(BAD) & set(labels.ravel().tolist())
    on_two = batches(data_dir, num_physical=2, start_step=0, num_steps=4)
    np.testing.assert_array_equal(on_two[0], images)
    np.testing.assert_array_equal(on_two[1], labels)
    resumed = batches(data_dir, num_physical=1, start_step=2, num_steps=2)
    np.testing.assert_array_equal(resumed[0], images[2:])
    np.testing.assert_array_equal(resumed[1], labels[2:])
