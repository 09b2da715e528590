"""What is compared between workers before the first step, with workers that are threads."""

import dataclasses
import errno
import os
import pathlib
import socket
import threading
import types

import numpy as np
import pytest

from inception_tf import own_port, preflight
from inception_tf.errors import CheckpointError, ConfigError, DataError, NoRoomError, UserError
from inception_tf.run_directory import RunDirectory


class Workers:
    """Clusters whose `gather` waits for all of them, as the real one does, one thread each."""

    def __init__(self, count):
        self._values = [None] * count
        self._barrier = threading.Barrier(count, timeout=10)
        self.clusters = [
            types.SimpleNamespace(
                num_workers=count,
                worker_index=index,
                is_chief=index == 0,
                num_local=1,
                gather=self._gatherer(index),
            )
            for index in range(count)
        ]

    def _gatherer(self, index):
        def gather(value):
            self._values[index] = value
            self._barrier.wait()
            values = list(self._values)
            self._barrier.wait()
            return values if np.ndim(values[0]) == 0 else np.hstack(values).tolist()

        return gather

    def all(self, function):
        """What the function makes of each cluster, or the UserError that it raises."""
        ends = [None] * len(self.clusters)

        def work(index):
            try:
                ends[index] = function(self.clusters[index])
            except UserError as error:
                ends[index] = error

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(ends))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ends


def texts_of(ends):
    return [str(end) for end in ends]


# -- the port --------------------------------------------------------------------------------------


HERE = ("127.0.0.1", "192.0.2.7", "::1")


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one.getsockname()[1]


def test_a_port_in_use_is_named_with_its_host_and_the_likely_causes(listener):
    waits = []
    with pytest.raises(ConfigError) as caught:
        own_port.check_own_port(f"127.0.0.1:{listener}", sleep=waits.append)
    text = str(caught.value)
    assert f"127.0.0.1:{listener}, must be free on {socket.gethostname()}" in text
    assert "Address already in use" in text
    assert "older worker" in text and "the same index" in text
    assert sum(waits) == 10.0  # for an older worker that is about to end


def test_a_port_that_becomes_free_in_time_passes():
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    assert own_port.check_own_port(address, sleep=lambda secs: listener.close()) is None


def test_a_listener_on_ipv6_alone_is_in_the_way_too():
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as one:
        port = one.getsockname()[1]
        with pytest.raises(ConfigError, match=f"localhost:{port}, must be free"):
            own_port.check_own_port(f"localhost:{port}", sleep=lambda secs: None)


def test_a_free_port_stays_free():
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    assert own_port.check_own_port(f"127.0.0.1:{port}") is None
    assert own_port.check_own_port(f"127.0.0.1:{port}") is None
    socket.create_server(("127.0.0.1", port)).close()


def test_a_worker_that_is_alone_has_no_port_to_test():
    assert own_port.check_own_port(None) is None


@pytest.mark.parametrize("address", ["host", "host:", ":5000", "host:port", "host:70000", "h:0"])
def test_an_address_without_a_usable_port_is_refused(address):
    with pytest.raises(ConfigError, match="must be host:port"):
        own_port.check_own_port(address)


def test_an_address_of_another_machine_is_told_and_no_error():
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    line = own_port.check_own_port(f"192.0.2.99:{port}", addresses_of=lambda: HERE)
    assert f"192.0.2.99:{port}" in line and "192.0.2.7" in line and "swapped" in line
    for known in ("192.0.2.7", "127.0.0.1", "localhost", "[::1]"):
        assert own_port.check_own_port(f"{known}:{port}", addresses_of=lambda: HERE) is None
    assert own_port.check_own_port(f"192.0.2.99:{port}", addresses_of=lambda: None) is None


# -- equal facts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(1, 2), (0, 9), (4, 4, 3)])
def test_texts_of_any_length_reach_every_worker(lengths):
    texts = ["ü" * length + "x" for length in lengths]
    workers = Workers(len(texts))
    ends = workers.all(lambda one: preflight.gather_text(one, texts[one.worker_index]))
    assert ends == [texts] * len(texts)


def agree(workers, produce, facts_of=lambda value: value):
    return workers.all(
        lambda one: preflight.agreed(
            one, lambda: produce(one), facts_of, rule="All must be equal.", remedy="Make it so."
        )
    )


def test_equal_facts_pass_and_the_product_is_each_workers_own():
    ends = agree(Workers(2), lambda one: (one.worker_index, "x"), lambda pair: {"fact": pair[1]})
    assert ends == [(0, "x"), (1, "x")]


def test_every_worker_ends_with_the_same_error_of_field_values_and_workers():
    facts = [{"seed": "1", "numpy": "2.0"}, {"seed": "7", "numpy": "2.0"}, {"numpy": "2.0"}]
    ends = agree(Workers(3), lambda one: facts[one.worker_index])
    assert {type(end) for end in ends} == {ConfigError} and len(set(texts_of(ends))) == 1
    text = str(ends[0])
    assert "seed: 1 on worker 0; 7 on worker 1; (none) on worker 2" in text
    assert "numpy" not in text and "All must be equal." in text and "Make it so." in text


def test_many_differences_and_many_workers_are_counted_rather_than_listed():
    rows = preflight.differences([{"a": "1"}] + [{"a": "2"}] * 20)
    assert rows == ["a: 1 on worker 0; 2 on workers 1, 2, 3, 4 and 16 more"]
    facts = [{str(n): str(index) for n in range(30)} for index in range(2)]
    text = str(agree(Workers(2), lambda one: facts[one.worker_index])[1])
    assert text.count(" on worker 1") == 10 and "and 20 more differences" in text


def test_an_error_of_one_worker_ends_all_with_its_text_and_none_waits():
    def produce(one):
        if one.worker_index == 1:
            raise DataError("Shard 3 must be there.")
        return {}

    ends = agree(Workers(3), produce)
    assert set(texts_of(ends)) == {"Worker 1 cannot go on: Shard 3 must be there."}
    assert {end.exit_status for end in ends} == {2}


def test_an_error_that_all_workers_have_stays_their_own():
    def produce(one):
        raise DataError("Shard 3 must be there.")

    ends = agree(Workers(2), produce)
    assert {type(end) for end in ends} == {DataError}
    assert set(texts_of(ends)) == {"Shard 3 must be there."}


def test_different_errors_of_several_workers_are_all_told_by_each():
    def produce(one):
        raise DataError(f"Shard {one.worker_index} must be there.")

    ends = agree(Workers(2), produce)
    assert set(texts_of(ends)) == {
        "Worker 0 cannot go on: Shard 0 must be there.\n"
        "Worker 1 cannot go on: Shard 1 must be there."
    }


def test_a_worker_that_is_alone_keeps_its_own_error():
    def produce(one):
        raise CheckpointError("None verifies.")

    (end,) = agree(Workers(1), produce)
    assert isinstance(end, CheckpointError)


def test_facts_are_of_what_decides_the_result_and_not_of_where_records_lie():
    cluster = types.SimpleNamespace(
        device_kind="CPU", intra_op_threads=2, num_workers=2, num_local=1
    )
    values = {"training.seed": 3, "data.data_dir": "/local/7", "--synthetic": True}
    facts = preflight.start_facts(cluster, values)
    assert facts["training.seed"] == "3" and facts["--synthetic"] == "True"
    assert "data.data_dir" not in facts
    assert {"python", "tensorflow", "keras", "numpy", "device type"} <= facts.keys()
    own = "code of inception_tf/preflight.py"
    assert facts[own] == preflight._digest(pathlib.Path(preflight.__file__).read_bytes())


@dataclasses.dataclass
class Index:
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    crc: np.ndarray
    files: tuple = ("a", "b")

    def __len__(self):
        return len(self.offset)


def inputs(**changes):
    """Inputs of four records with changes to the arrays of their index, or to the labels."""
    arrays = {name: np.arange(4) for name in ("shard", "offset", "length", "crc")}
    index = Index(**{**arrays, **{k: v for k, v in changes.items() if k in arrays}})
    return types.SimpleNamespace(
        is_synthetic=False,
        num_classes=2,
        class_names=changes.get("class_names", ("cat", "dog")),
        manifest=types.SimpleNamespace(label_base=changes.get("label_base", 1)),
        photo_edits="none",
        readers={"train": types.SimpleNamespace(index=index)},
        stays=changes.get("stays"),
    )


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"label_base": 0}, "label base"),
        ({"class_names": ("dog", "cat")}, "class names"),
        ({"crc": np.array([0, 1, 2, 4])}, "train content"),
        ({"offset": np.array([0, 2, 1, 3])}, "train content"),
        ({"shard": np.array([0, 1, 2, 2])}, "train content"),
        ({"stays": np.array([False, True])}, "blacklist"),
    ],
)
def test_whatever_decides_the_records_is_a_fact(change, fact):
    (row,) = preflight.differences(
        [preflight.data_facts(inputs()), preflight.data_facts(inputs(**change))]
    )
    assert row.startswith(f"{fact}: ")


def test_another_blacklist_is_another_fact():
    stays = [np.array([False, True, True]), np.array([False, True, False])]
    assert preflight.differences([preflight.data_facts(inputs(stays=one)) for one in stays])


# -- the run directory -----------------------------------------------------------------------------


def check_shared(paths):
    return Workers(len(paths)).all(
        lambda one: preflight.check_shared(
            one, RunDirectory(paths[one.worker_index]), sleep=lambda secs: None
        )
    )


def test_one_directory_for_all_passes_and_nothing_is_left(tmp_path):
    new, old = tmp_path / "a" / "new", tmp_path / "old"
    old.mkdir()
    (old / "run.json").write_text("{}")
    leftover = old / f"{preflight._TOKEN}ofakilledstart"
    leftover.touch()
    os.utime(leftover, (1e9, 1e9))
    assert check_shared([new] * 3) == [None] * 3
    assert check_shared([old] * 2) == [None] * 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["old", "run.json"]


def test_the_file_of_a_job_that_starts_at_the_same_moment_is_left(tmp_path):
    other = tmp_path / f"{preflight._TOKEN}ofanotherjob"
    other.touch()
    assert check_shared([tmp_path] * 2) == [None] * 2
    assert list(tmp_path.iterdir()) == [other]


def test_another_directory_is_refused_everywhere_with_both_places(tmp_path):
    paths = [tmp_path / "one", tmp_path / "one", tmp_path / "two"]
    ends = check_shared(paths)
    assert len(set(texts_of(ends))) == 1 and isinstance(ends[0], ConfigError)
    text = str(ends[0])
    assert f"worker 2 ({paths[2]} on {socket.gethostname()})" in text
    assert f"worker 0 ({paths[0]} on " in text and "worker 1 (" not in text
    assert "same --run_dir on a file system that they share" in text
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_seen_late_is_waited_for(tmp_path):
    path, waits = tmp_path / "late", []

    def sleep(secs):
        waits.append(secs)
        if len(waits) == 3:
            path.write_text("late")

    assert preflight._sees(tmp_path, "late", sleep=sleep)
    assert len(waits) == 3
    waits.clear()
    path.unlink()
    assert not preflight._sees(tmp_path, "never", sleep=waits.append)
    assert sum(waits) == 10.0


def test_a_chief_that_cannot_write_ends_all_workers(tmp_path):
    (tmp_path / "file").touch()
    ends = check_shared([tmp_path / "file" / "run"] * 2)
    assert len(set(texts_of(ends))) == 1
    assert "chief must be able to write" in str(ends[0]) and "Not a directory" in str(ends[0])


def test_a_full_disk_at_the_start_ends_all_workers_with_its_own_status(tmp_path, monkeypatch):
    def write_text(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", write_text)
    ends = check_shared([tmp_path / "run"] * 2)
    assert len(set(texts_of(ends))) == 1 and isinstance(ends[1], NoRoomError)
    assert f"{tmp_path / 'run'}: [Errno 28]" in str(ends[0]) and "Make room" in str(ends[0])
    assert list(tmp_path.iterdir()) == []
