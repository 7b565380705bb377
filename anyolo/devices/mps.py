"""Apple's graphics processors through Metal."""

from __future__ import annotations

import torch
from torch import Tensor

from anyolo.devices.base import Device, DeviceProfile, Memory


class MPS(Device):
    profile = DeviceProfile(
        name="mps",
        torch_type="mps",
        install="PyTorch for macOS on Apple silicon (macOS 13 or newer): pip install torch",
        autocast_dtypes=(torch.float16, torch.bfloat16),
        float64=False,
        sources=("https://docs.pytorch.org/docs/stable/notes/mps.html",),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        if not torch.backends.mps.is_built():
            return f"this torch ({torch.__version__}) is built without Metal; it exists for macOS only"
        if not torch.backends.mps.is_available():
            return "Metal is not available (it needs macOS 13 and Apple silicon or an AMD card)"
        return None

    @property
    def torch_device(self) -> torch.device:
        return torch.device("mps")

    def synchronize(self) -> None:
        torch.mps.synchronize()

    def memory(self) -> Memory | None:
        used, limit = torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
        return Memory(used, limit)

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
