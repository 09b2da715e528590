"""What a benchmark ran on: processor, its instruction sets, cores, versions of packages."""

import importlib.metadata
import os
import pathlib
import platform

# Those that decide which kernels oneDNN chooses.
_INSTRUCTION_SETS = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16",
    "amx_int8", "asimd", "bf16", "sve",
)  # fmt: skip
_PACKAGES = ("tensorflow", "keras", "torch", "timm")


def machine_facts(cpuinfo=pathlib.Path("/proc/cpuinfo")):
    """Name -> value: 'processor', 'instruction_sets', 'cores', and each package's version or None.

    Args:
      cpuinfo: file as Linux writes it; without one the processor is what Python calls it.
    """
    fields = {}
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    flags = (fields.get("flags") or fields.get("Features", "")).split()
    return {
        "processor": fields.get("model name") or platform.processor() or platform.machine(),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
