"""The machine: what there is, and what of it makes anyolo slow or stops it."""

from __future__ import annotations

import math
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

import anyolo
from anyolo.audit.findings import Finding, Severity
from anyolo.audit.host import usable_cores
from anyolo.devices.host_memory import memory_limit

PACKAGES = (
    *("opencv-python-headless", "opencv-python", "numba", "onnxruntime", "faster-coco-eval"),
    *("pydantic", "rich"),
)
WATCHED_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KMP_AFFINITY")
VECTOR_UNITS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_bf16": "AMX BF16",
    "amx_int8": "AMX INT8",
    "asimd": "NEON",
    "bf16": "BF16",
    "sve": "SVE",
    "i8mm": "I8MM",
}
GIB = 2.0**30
LITTLE_DISK, NO_DISK = 2 * GIB, 0.1 * GIB
LITTLE_MEMORY = 3 * GIB
LITTLE_SHARED = 1 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a process can see of its machine. Sizes in bytes; infinite or None where there is no limit or no
    such thing.
    """

    cores: float
    threads: int
    variables: Mapping[str, str]
    vector_units: tuple[str, ...]
    architecture: str
    has_onednn: bool
    has_numba: bool
    autocast_dtypes: tuple[str, ...]
    memory_bytes: float
    memory_limit_bytes: float
    shared_bytes: float | None
    disk_bytes: float
    disk_folder: str


def look_at_machine(folder: Path, autocast_dtypes: tuple[str, ...], root: Path = Path("/")) -> Machine:
    """``folder``: where runs will be written (it need not exist). ``root``: where system files lie."""
    shared = root / "dev/shm"
    place = folder.absolute()
    while not place.is_dir():
        place = place.parent
    return Machine(
        cores=usable_cores(root),
        threads=torch.get_num_threads(),
        variables={name: os.environ[name] for name in WATCHED_VARIABLES if name in os.environ},
        vector_units=vector_units(root),
        architecture=platform.machine(),
        has_onednn=bool(getattr(torch._C, "_has_mkldnn", False)),
        has_numba=find_spec("numba") is not None,
        autocast_dtypes=autocast_dtypes,
        memory_bytes=_physical_memory(),
        memory_limit_bytes=memory_limit(root),
        shared_bytes=float(shutil.disk_usage(shared).total) if shared.is_dir() else None,
        disk_bytes=float(shutil.disk_usage(place).free),
        disk_folder=str(folder),
    )


def versions() -> dict[str, str]:
    """Of this package and those it stands on."""
    found = {
        "anyolo": anyolo.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe_machine(machine: Machine) -> dict[str, str]:
    """For the report: one line per fact."""
    variables = ", ".join(f"{name}={value}" for name, value in machine.variables.items())
    limit = machine.memory_limit_bytes
    return {
        "cores": f"{machine.cores:g} usable of {os.cpu_count()}",
        "threads": f"{machine.threads} of torch" + (f" ({variables})" if variables else ""),
        "vector units": ", ".join(machine.vector_units) or "unknown",
        "half precision": ", ".join(machine.autocast_dtypes) or "none",
        "oneDNN": "present" if machine.has_onednn else "absent",
        **({} if machine.has_numba else {"numba": "absent"}),
        "memory": size(machine.memory_bytes) + ("" if math.isinf(limit) else f", limited to {size(limit)}"),
        "/dev/shm": "none" if machine.shared_bytes is None else size(machine.shared_bytes),
        "free disk": f"{size(machine.disk_bytes)} for {machine.disk_folder}",
    }


def machine_findings(machine: Machine) -> list[Finding]:
    """What to change. Empty on a machine where nothing stands in the way."""
    return [*_thread_findings(machine), *_processor_findings(machine), *_room_findings(machine)]


def _thread_findings(machine: Machine) -> list[Finding]:
    cores = max(1, math.floor(machine.cores))
    variable = machine.variables.get("OMP_NUM_THREADS")
    because = f" (OMP_NUM_THREADS={variable})" if variable else ""
    if machine.threads > math.ceil(machine.cores):
        return [
            _finding(
                "threads",
                "warning",
                "threads",
                f"torch uses {machine.threads} threads{because} on {machine.cores:g} usable cores: they wait "
                f"for each other. Use threads={cores}, or set OMP_NUM_THREADS={cores}.",
            )
        ]
    if machine.threads * 2 <= cores:
        return [
            _finding(
                "threads",
                "info",
                "threads",
                f"torch uses {machine.threads} of {cores} usable cores{because}. If nothing else needs them, "
                f"use threads={cores}.",
            )
        ]
    return []


def _processor_findings(machine: Machine) -> list[Finding]:
    found = []
    if (
        machine.architecture in {"x86_64", "AMD64"}
        and machine.vector_units
        and "AVX2" not in machine.vector_units
    ):
        message = "this processor (or virtual machine) has no AVX2: torch is several times slower on it"
        found.append(_finding("vector", "warning", "processor", message))
    if not machine.autocast_dtypes:
        message = "no units for bfloat16: the CPU computes in float32, amp=True changes nothing on it"
        found.append(_finding("bfloat16", "info", "processor", message))
    if not machine.has_onednn:
        message = (
            "this torch is built without oneDNN: convolutions on the CPU are slow. Install torch from PyPI."
        )
        found.append(_finding("onednn", "warning", "torch", message))
    if not machine.has_numba:
        message = (
            "numba is not installed: suppression of thousands of boxes takes some three times as long. "
            'pip install "anyolo[fast]"'
        )
        found.append(_finding("numba", "info", "packages", message))
    return found


def _room_findings(machine: Machine) -> list[Finding]:
    found = []
    if machine.disk_bytes < LITTLE_DISK:
        severity: Severity = "error" if machine.disk_bytes < NO_DISK else "warning"
        message = f"{size(machine.disk_bytes)} left for runs. Free some, or give project= another place."
        found.append(_finding("disk", severity, machine.disk_folder, message))
    memory = min(machine.memory_bytes, machine.memory_limit_bytes)
    if memory < LITTLE_MEMORY:
        message = f"{size(memory)} for this process. Use a small batch= and workers=0 or 1, and no cache=ram."
        found.append(_finding("memory", "warning", "memory", message))
    if machine.shared_bytes is not None and machine.shared_bytes < LITTLE_SHARED:
        message = (
            f"{size(machine.shared_bytes)}: anyolo's loader does not use it, but torch's DataLoader dies of "
            "it (Bus error). In a container: docker run --shm-size=2g."
        )
        found.append(_finding("shm", "info", "/dev/shm", message))
    return found


def _finding(name: str, severity: Severity, where: str, message: str) -> Finding:
    return Finding(id=f"machine.{name}", severity=severity, where=where, message=message)


def vector_units(root: Path = Path("/")) -> tuple[str, ...]:
    """What the processor says it has; empty where the system does not tell."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    for line in text.splitlines():
        name, _, words = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            flags = set(words.split())
            return tuple(label for flag, label in VECTOR_UNITS.items() if flag in flags)
    return ()


def _physical_memory() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def size(count: float) -> str:
    """Bytes for people."""
    if math.isinf(count):
        return "unknown"
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.0f} MiB"
