"""Memory that a process of this machine may still take."""

import ctypes
import pathlib

_MEMINFO = pathlib.Path("/proc/meminfo")
# Where a container's own limit stands, by the version of control groups: (limit, used so far).
_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def host_bytes(*, meminfo=_MEMINFO, cgroup_files=_CGROUP_FILES) -> int | None:
    """Memory that is free on this machine and within the container's limit; None if unknown."""
    free = [_available_bytes(meminfo)]
    for limit_file, used_file in cgroup_files:
        limit, used = _number(limit_file), _number(used_file)
        if limit is not None and used is not None:
            free.append(max(0, limit - used))
    known = [one for one in free if one is not None]
    return min(known) if known else None


def _available_bytes(meminfo):
    try:
        lines = pathlib.Path(meminfo).read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return 1024 * int(value.split()[0])
    return None


def _number(path):
    """The number in a file; None where there is no file, or 'max'."""
    try:
        return int(pathlib.Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def gpu_bytes(*, open_driver=lambda: ctypes.CDLL("libcuda.so.1")) -> int | None:
    """Memory of the first GPU that this process may use, in use or not; None if unknown."""
    size = ctypes.c_size_t()
    try:
        driver = open_driver()
        if driver.cuInit(0) or driver.cuDeviceTotalMem_v2(ctypes.byref(size), 0):
            return None
    except (OSError, AttributeError):
        return None
    return size.value
