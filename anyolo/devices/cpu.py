"""The CPU: always here, and the judge of all others."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from anyolo.devices.base import Device, DeviceProfile, Memory


def _autocast_dtypes() -> tuple[torch.dtype, ...]:
    """bfloat16 only where the processor multiplies it in hardware; emulated it is slower than float32."""
    cpu = torch.cpu
    for word in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        if getattr(cpu, word, lambda: False)():
            return (torch.bfloat16,)
    return ()


class CPU(Device):
    profile = DeviceProfile(
        name="cpu", torch_type="cpu", autocast_dtypes=_autocast_dtypes(), channels_last=True, fused=True
    )

    def __init__(self, index: int = 0, *, threads: int = 0) -> None:
        super().__init__(0)
        if threads:
            torch.set_num_threads(threads)

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    def describe(self) -> str:
        return f"cpu ({cpu_model()}, {torch.get_num_threads()} threads)"

    def memory(self) -> Memory | None:
        try:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            return Memory(resident, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (OSError, ValueError, AttributeError):
            return None


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
