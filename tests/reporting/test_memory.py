"""Memory that a process may still take, from the files and the driver that tell it."""

import types

from inception_tf.reporting import memory


def files(tmp_path, **contents):
    paths = {}
    for name, text in contents.items():
        paths[name] = tmp_path / name
        paths[name].write_text(text)
    return paths


MEMINFO = "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n"


def test_the_smaller_of_machine_and_container_holds(tmp_path):
    paths = files(tmp_path, meminfo=MEMINFO, limit="4000000000\n", used="1500000000\n", no="max\n")
    nowhere = tmp_path / "nowhere"

    def host_bytes(*cgroup_files):
        return memory.host_bytes(meminfo=paths["meminfo"], cgroup_files=cgroup_files)

    assert host_bytes((paths["limit"], paths["used"])) == 2_500_000_000
    assert host_bytes((paths["no"], paths["used"])) == 8_192_000_000
    assert host_bytes((nowhere, nowhere)) == 8_192_000_000
    assert host_bytes((paths["used"], paths["limit"])) == 0  # above its limit already
    assert memory.host_bytes(meminfo=nowhere, cgroup_files=()) is None


def test_this_machine_tells_something():
    assert memory.host_bytes() > 0


def driver(*, status=0):
    def total(size, device):
        assert device == 0
        size._obj.value = 80 * 2**30
        return 0

    return types.SimpleNamespace(cuInit=lambda flags: status, cuDeviceTotalMem_v2=total)


def test_a_driver_tells_a_devices_memory_and_a_broken_one_nothing():
    assert memory.gpu_bytes(open_driver=driver) == 80 * 2**30
    assert memory.gpu_bytes(open_driver=lambda: driver(status=100)) is None
    assert memory.gpu_bytes(open_driver=types.SimpleNamespace) is None

    def missing():
        raise OSError("libcuda.so.1: cannot open shared object file")

    assert memory.gpu_bytes(open_driver=missing) is None
