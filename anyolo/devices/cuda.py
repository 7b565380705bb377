"""NVIDIA (CUDA) and AMD (ROCm) through the same torch interface."""

from __future__ import annotations

import torch

from anyolo.devices.accelerator import Accelerator
from anyolo.devices.base import DeviceProfile, Memory


class CUDA(Accelerator):
    profile = DeviceProfile(
        name="cuda",
        torch_type="cuda",
        install="a PyTorch built for your card: https://pytorch.org/get-started/locally (CUDA or ROCm)",
        autocast_dtypes=(torch.float16, torch.bfloat16),
        grad_scaler=True,
        channels_last=True,
        pin_memory=True,
        foreach=True,
        fused=True,
        compile=True,
        dist_backend="nccl",
    )

    @classmethod
    def unavailable(cls) -> str | None:
        if torch.cuda.is_available():
            return None
        if torch.version.cuda is None and torch.version.hip is None:
            return f"this torch ({torch.__version__}) is built without CUDA and ROCm"
        return "torch sees no CUDA or ROCm device (driver missing or no card)"

    def memory(self) -> Memory | None:
        total = torch.cuda.get_device_properties(self.index).total_memory
        return Memory(torch.cuda.memory_reserved(self.index), total)
