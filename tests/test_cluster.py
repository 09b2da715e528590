"""Which declared replica runs where, and who this process is."""

import importlib
import json

import pytest

from inception_tf import cluster
from inception_tf.cluster import Assignment, Cluster, ClusterSpec
from inception_tf.errors import ConfigError


def test_papers_replicas_on_eight_devices_take_three_rounds():
    assignment = Assignment(num_replicas=20, replica_batch=32, num_physical=8)
    assert assignment.global_batch == 640
    assert assignment.rounds == 3
    assert [len(assignment.declared_of(physical)) for physical in range(8)] == [3] * 4 + [2] * 4
    assert list(assignment.declared_of(3)) == [3, 11, 19]
    assert list(assignment.declared_of(4)) == [4, 12]


@pytest.mark.parametrize("num_replicas", [1, 2, 7, 20, 50])
def test_every_declared_replica_runs_exactly_once(num_replicas):
    for num_physical in range(1, num_replicas + 1):
        assignment = Assignment(
            num_replicas=num_replicas, replica_batch=2, num_physical=num_physical
        )
        shares = [list(assignment.declared_of(physical)) for physical in range(num_physical)]
        assert sorted(sum(shares, [])) == list(range(num_replicas))
        counts = [len(share) for share in shares]
        assert max(counts) == assignment.rounds and max(counts) - min(counts) <= 1


def test_more_devices_than_declared_replicas_are_refused_with_a_remedy():
    with pytest.raises(ConfigError) as caught:
        Assignment(num_replicas=4, replica_batch=32, num_physical=8)
    message = str(caught.value)
    assert "8 devices for 4 declared replicas" in message
    assert "cluster.devices_per_worker" in message and "training.num_replicas" in message


@pytest.mark.parametrize("name", ["num_replicas", "replica_batch"])
def test_assignment_of_nothing_is_refused(name):
    with pytest.raises(ConfigError, match=name):
        Assignment(**{"num_replicas": 2, "replica_batch": 2, name: 0})


class TwoReplicaStrategy:
    num_replicas_in_sync = 6


def test_each_worker_is_given_its_own_devices():
    assignments = [
        Cluster(
            strategy=TwoReplicaStrategy(),
            device_kind="CPU",
            device_names=("CPU", "CPU"),
            num_workers=3,
            worker_index=index,
            num_local=2,
            intra_op_threads=1,
            deterministic=True,
        ).assign(num_replicas=20, replica_batch=4)
        for index in range(3)
    ]
    assert [assignment.first_local for assignment in assignments] == [0, 2, 4]
    assert {assignment.num_physical for assignment in assignments} == {6}
    assert {assignment.num_local for assignment in assignments} == {2}


def read(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    return cluster.read_workers()


def test_without_tf_config_there_is_one_worker(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.read_workers() == (["localhost"], 0)


def test_tf_config_names_the_workers_and_this_one(monkeypatch):
    config = {
        "cluster": {"worker": ["a:1", "b:1", "c:1"]},
        "task": {"type": "worker", "index": 2},
    }
    assert read(monkeypatch, config) == (["a:1", "b:1", "c:1"], 2)


@pytest.mark.parametrize(
    ("task", "index"), [({"type": "chief", "index": 0}, 0), ({"type": "worker", "index": 1}, 2)]
)
def test_a_chief_comes_before_the_workers(monkeypatch, task, index):
    config = {"cluster": {"worker": ["a:1", "b:1"], "chief": ["z:1"]}, "task": task}
    assert read(monkeypatch, config) == (["z:1", "a:1", "b:1"], index)


def test_another_number_of_workers_than_the_config_asks_for_is_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    cluster.check_num_workers(ClusterSpec(num_workers=1))
    cluster.check_num_workers(ClusterSpec())
    with pytest.raises(ConfigError) as caught:
        cluster.check_num_workers(ClusterSpec(num_workers=5))
    for text in ("5 workers", "1 worker (no TF_CONFIG, no Slurm step)", "launch --workers 5"):
        assert text in str(caught.value)
    task = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    cluster.check_num_workers(ClusterSpec(num_workers=2))
    with pytest.raises(ConfigError, match=r"Received: 2 workers \(TF_CONFIG\)"):
        cluster.check_num_workers(ClusterSpec(num_workers=1))
    with pytest.raises(ConfigError, match="cluster.num_workers must be at least 1"):
        ClusterSpec(num_workers=0)


WORKERS = {"worker": ["a:1", "b:1"]}


# None of these may end as one worker that trains alone.
@pytest.mark.parametrize(
    "config",
    [
        "",
        "{}",
        "null",
        "[]",
        '{"cluster": {"worker": ["a:1"]',
        {"cluster": WORKERS},
        {"task": {"type": "worker", "index": 0}},
        {"cluster": WORKERS, "task": {"type": "worker"}},
        {"cluster": WORKERS, "task": {"index": 0}},
        {"cluster": WORKERS, "task": {"type": "worker", "index": "first"}},
        {"cluster": ["a:1"], "task": {"type": "worker", "index": 0}},
        {"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}},
    ],
)
def test_malformed_tf_config_is_refused(monkeypatch, config):
    with pytest.raises(ConfigError, match="TF_CONFIG must name the cluster.*unset TF_CONFIG"):
        read(monkeypatch, config)


@pytest.mark.parametrize(
    ("tasks", "task"),
    [
        (WORKERS, {"type": "worker", "index": 2}),
        (WORKERS, {"type": "worker", "index": -1}),
        (WORKERS, {"type": "chief", "index": 0}),
        (WORKERS, {"type": "evaluator", "index": 0}),
        (WORKERS, {"type": ["worker"], "index": 0}),
        ({}, {"type": "worker", "index": 0}),
        ({**WORKERS, "ps": ["c:1"]}, {"type": "worker", "index": 0}),
    ],
)
def test_a_task_outside_the_cluster_is_refused(monkeypatch, tasks, task):
    with pytest.raises(ConfigError, match="this task among them"):
        read(monkeypatch, {"cluster": tasks, "task": task})


@pytest.mark.parametrize(
    "tasks",
    [{"worker": ["a:1", "b:1", "a:1"]}, {"chief": ["a:1"], "worker": ["b:1", "a:1"]}],
)
def test_an_address_named_twice_is_refused(monkeypatch, tasks):
    with pytest.raises(ConfigError, match="an address twice"):
        read(monkeypatch, {"cluster": tasks, "task": {"type": "worker", "index": 0}})


@pytest.mark.parametrize(
    "options", [{"device": "tpu"}, {"devices_per_worker": 0}, {"intra_op_threads": 0}]
)
def test_hardware_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigError, match=f"cluster.{next(iter(options))}"):
        ClusterSpec(**options)


@pytest.fixture
def machine(monkeypatch):
    """Pretends a machine without a GPU that TensorFlow lists, for one reason or another."""

    def pretend(*, has_device=True, visible=None, missing=(), has_cuda=True):
        monkeypatch.setattr(cluster.tf.config, "list_physical_devices", lambda kind: [])
        monkeypatch.setattr(cluster.tf.test, "is_built_with_cuda", lambda: has_cuda)
        monkeypatch.setattr(cluster, "_has_nvidia_device", lambda: has_device)
        monkeypatch.setattr(cluster, "_can_open", lambda name: name not in missing)
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return pretend


@pytest.mark.parametrize("device", ["auto", "gpu"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"missing": ["libcudnn.so.9"]},
            r"cannot be opened: libcudnn\.so\.9\..*\[gpu\].*--device=cpu",
        ),
        ({"has_cuda": False}, r"built without CUDA.*\[gpu\]"),
        ({}, "every library of CUDA is there.*TF_CPP_MIN_LOG_LEVEL=0"),
        ({"visible": "7"}, "CUDA_VISIBLE_DEVICES='7'"),
    ],
)
def test_a_gpu_that_tensorflow_cannot_open_is_an_error_with_its_cause(
    machine, device, options, message
):
    machine(**options)
    with pytest.raises(ConfigError, match=message):
        cluster._device_kind(ClusterSpec(device=device))
    assert cluster._device_kind(ClusterSpec(device="cpu")) == "CPU"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visible": ""}, "CUDA_VISIBLE_DEVICES='', which hides all.*Unset"),
        ({"visible": "-1"}, "CUDA_VISIBLE_DEVICES='-1', which hides all.*Unset"),
        ({"has_device": False}, "no device /dev/nvidia0.*--device=cpu"),
    ],
)
def test_without_a_device_that_may_be_used_auto_means_the_cpu(machine, options, message):
    machine(**options)
    assert cluster._device_kind(ClusterSpec(device="auto")) == "CPU"
    with pytest.raises(ConfigError, match=f"'gpu' needs a GPU.*{message}"):
        cluster._device_kind(ClusterSpec(device="gpu"))


def test_libraries_of_nvidias_wheels_count_as_there(monkeypatch, tmp_path):
    name = "libcudnn_of_a_test.so.9"
    assert not cluster._can_open(name)
    (tmp_path / "nvidia" / "cudnn" / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "cudnn" / "lib" / name).touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert cluster._can_open(name)


def test_devices_are_called_what_their_driver_calls_them(monkeypatch):
    gpus = ["gpu:0", "gpu:1", "gpu:2"]
    details = {"gpu:0": {"device_name": "NVIDIA H200"}, "gpu:1": {}}
    monkeypatch.setattr(cluster.tf.config, "get_visible_devices", lambda kind: gpus)
    monkeypatch.setattr(cluster.tf.config.experimental, "get_device_details", details.get)
    assert cluster._device_names("GPU", 2) == ("NVIDIA H200", "GPU")
    assert cluster._device_names("CPU", 2) == ("CPU", "CPU")
