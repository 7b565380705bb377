"""Apple's graphics processors through Metal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from anyolo.devices.base import Device, DeviceProfile
from anyolo.devices.host_memory import Memory, Peak


def _autocast_dtypes() -> tuple[torch.dtype, ...]:
    """torch has mixed precision for Metal since 2.5."""
    return (torch.float16, torch.bfloat16) if torch.amp.is_autocast_available("mps") else ()


class MPS(Device):
    profile = DeviceProfile(
        name="mps",
        torch_type="mps",
        install="pip install torch on a Mac with Apple silicon (macOS 13 or newer)",
        autocast_dtypes=_autocast_dtypes(),
        float64=False,
        limits=(
            ("amp", "torch before 2.5 has no mixed precision for Metal"),
            ("half", "torch before 2.5 has no mixed precision for Metal"),
            ("compile", "torch.compile for Metal is a prototype, which is not used here"),
        ),
        sources=("https://docs.pytorch.org/docs/stable/notes/mps.html",),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        if not torch.backends.mps.is_built():
            return f"this torch ({torch.__version__}) is built without Metal, which is for macOS only"
        if not torch.backends.mps.is_available():
            return "Metal is not available: it needs macOS 13 and Apple silicon"
        return None

    @property
    def torch_device(self) -> torch.device:
        return torch.device("mps")

    def hardware(self) -> str:
        name = getattr(torch.backends.mps, "get_name", None)  # torch 2.8 and newer
        return str(name()) if name else ""

    def synchronize(self) -> None:
        torch.mps.synchronize()

    def memory(self) -> Memory | None:
        limit = torch.mps.recommended_max_memory()
        return Memory(limit - torch.mps.driver_allocated_memory(), limit)

    def held_bytes(self) -> int | None:
        return int(torch.mps.driver_allocated_memory())

    @contextmanager
    def watch_memory(self) -> Iterator[Peak]:
        """Metal has no high water mark, but torch gives nothing back before ``empty_cache``."""
        peak = Peak()
        yield peak
        self.synchronize()
        peak.peak_bytes = self.held_bytes()

    def empty_cache(self) -> None:
        torch.mps.empty_cache()

    def seed(self, seed: int) -> None:
        super().seed(seed)
        torch.mps.manual_seed(seed)

    def rng_state(self) -> Tensor | None:
        return torch.mps.get_rng_state()

    def set_rng_state(self, state: Tensor | None) -> None:
        if state is not None:
            torch.mps.set_rng_state(state)
