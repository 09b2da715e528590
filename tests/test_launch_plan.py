"""Which workers a machine starts, and which GPUs each of them sees."""

import json

import pytest

from inception_tf import errors, launch
from inception_tf.launch_plan import GPU_LIST, free_ports, plan_here, plan_hosts, visible_gpus


def gpus_of(plan):
    return [own.get(GPU_LIST) for own in plan.environments({}).values()]


def machine(directory, *, gpus):
    """A /dev with GPUs, and what else NVIDIA's driver puts there."""
    for name in [*(f"nvidia{number}" for number in range(gpus)), "nvidiactl", "nvidia-uvm", "null"]:
        (directory / name).touch()
    return directory


@pytest.mark.parametrize("gpus", [0, 1, 8, 11])
def test_gpus_are_counted_as_the_driver_shows_them(tmp_path, gpus):
    found = visible_gpus({}, devices=machine(tmp_path, gpus=gpus))
    assert found == [str(number) for number in range(gpus)]


def test_the_list_of_visible_devices_wins(tmp_path):
    machine(tmp_path, gpus=8)
    assert visible_gpus({GPU_LIST: "4,6"}, devices=tmp_path) == ["4", "6"]
    for hidden in ("", "-1"):
        assert visible_gpus({GPU_LIST: hidden}, devices=tmp_path) == []


def test_without_a_number_there_is_a_worker_per_gpu_and_one_without_gpus():
    plan = plan_here(["0", "1", "2"])
    assert plan.num_workers == 3 and gpus_of(plan) == ["0", "1", "2"]
    plan = plan_here(["0", "1", "2", "3"], devices_per_worker=2)
    assert plan.num_workers == 2 and gpus_of(plan) == ["0,1", "2,3"]
    plan = plan_here([])
    assert plan.num_workers == 1 and gpus_of(plan) == [None]


def test_a_number_of_workers_shares_the_gpus_in_order():
    assert gpus_of(plan_here(["4", "5", "6", "7"], num_workers=2)) == ["4,5", "6,7"]
    assert gpus_of(plan_here(["4", "5", "6", "7"], num_workers=1)) == ["4,5,6,7"]
    assert gpus_of(plan_here(["4", "5", "6"], num_workers=2, devices_per_worker=1)) == ["4", "5"]
    assert gpus_of(plan_here([], num_workers=2)) == [None, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 3}, "evenly.*3 workers on 4 GPUs .4,5,6,7.*--devices_per_worker"),
        ({"num_workers": 8}, "evenly.*8 workers on 4 GPUs"),
        ({"num_workers": 3, "devices_per_worker": 2}, "3 workers x 2 devices need 6 GPUs"),
        ({"devices_per_worker": 3}, "evenly.*3 per worker of 4 GPUs.*--workers"),
    ],
)
def test_gpus_that_cannot_be_shared_so_are_no_silent_loss(options, message):
    with pytest.raises(errors.ConfigError, match=message):
        plan_here(["4", "5", "6", "7"], **options)


def test_each_host_starts_its_entries_of_the_list():
    hosts = "a:5000,b:5000,b:5001,[fd00::1]:5000"
    found = {}
    for this_host in ("0", "1,2", "3"):
        found.update(plan_hosts([], hosts=hosts, this_host=this_host).environments({}))
    assert list(found) == [0, 1, 2, 3]
    for index, own in found.items():
        task = {"cluster": {"worker": hosts.split(",")}, "task": {"type": "worker", "index": index}}
        assert json.loads(own["TF_CONFIG"]) == task


def test_the_entries_of_one_host_share_its_gpus():
    hosts = "a:5000,a:5001,b:5000,b:5001"
    assert gpus_of(plan_hosts(["0", "1"], hosts=hosts, this_host="2,3")) == ["0", "1"]
    assert gpus_of(plan_hosts(["0", "1"], hosts=hosts, this_host="2")) == ["0,1"]


@pytest.mark.parametrize(
    ("hosts", "this_host", "message"),
    [
        ("a", "0", "host:port per worker.*'a'"),
        ("a:5000,", "0", "host:port per worker"),
        ("a:5000 b:5000", "0", "host:port per worker"),
        ("a:5000,a:5000", "0", "each address once.*ports of their own"),
        ("a:5000,b:5000", "2", "0 to 1.*'2'"),
        ("a:5000,b:5000", "0,0", "0 to 1"),
        ("a:5000,b:5000", "b", "0 to 1"),
        ("a:5000,b:5000", None, "0 to 1.*nothing.*--this_host=0"),
    ],
)
def test_hosts_that_cannot_be_meant_so_are_refused(hosts, this_host, message):
    with pytest.raises(errors.ConfigError, match=message):
        plan_hosts([], hosts=hosts, this_host=this_host)


def test_options_that_exclude_each_other_are_refused(capsys):
    assert launch.main(["--this_host=0", "--", "true"]) == errors.EXIT_USER_ERROR
    assert "--this_host needs --hosts" in capsys.readouterr().err
    words = ["--hosts=a:1,b:1", "--this_host=0", "--workers=2", "--", "true"]
    assert launch.main(words) == errors.EXIT_USER_ERROR
    assert "--workers 2" in capsys.readouterr().err


def test_workers_that_were_told_to_use_the_cpu_share_no_gpus(monkeypatch):
    monkeypatch.setenv(GPU_LIST, "0,1")
    for command, gpus in (["--device=cpu"], [None]), ([], ["0", "1"]):
        options, words = launch.parse_command_line(["--", "true", *command])
        assert launch._plan(options, words).gpus == (tuple(gpus) if gpus[0] else None)


def test_ports_differ_and_are_free():
    assert len(set(free_ports(20))) == 20
