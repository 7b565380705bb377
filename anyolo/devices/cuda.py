"""NVIDIA (CUDA) and AMD (ROCm) through the same torch interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anyolo.devices.base import Device, DeviceProfile, Memory, Scaler, _clip


class CUDAScaler(Scaler):
    """Loss scaling for float16."""

    def __init__(self) -> None:
        self.inner = torch.amp.GradScaler("cuda")

    def backward(self, loss: Tensor) -> None:
        self.inner.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, *, clip_norm: float = 0.0) -> Tensor:
        self.inner.unscale_(optimizer)
        norm = _clip(optimizer, clip_norm)
        self.inner.step(optimizer)
        self.inner.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(dict(state))


class CUDA(Device):
    profile = DeviceProfile(
        name="cuda",
        torch_type="cuda",
        autocast_dtypes=(torch.float16, torch.bfloat16),
        grad_scaler=True,
        channels_last=True,
        pin_memory=True,
        foreach=True,
        fused=True,
        dist_backend="nccl",
    )

    @classmethod
    def unavailable(cls) -> str | None:
        if torch.cuda.is_available():
            return None
        if torch.version.cuda is None and torch.version.hip is None:
            return f"this torch ({torch.__version__}) is built without CUDA and ROCm"
        return "torch sees no CUDA or ROCm device (driver missing or no card)"

    def describe(self) -> str:
        return f"cuda:{self.index} ({torch.cuda.get_device_name(self.index)})"

    def scaler(self, dtype: torch.dtype | None) -> Scaler:
        return CUDAScaler() if dtype == torch.float16 else Scaler()

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.index)

    def memory(self) -> Memory | None:
        total = torch.cuda.get_device_properties(self.index).total_memory
        return Memory(torch.cuda.memory_reserved(self.index), total)

    def empty_cache(self) -> None:
        torch.cuda.empty_cache()

    def seed(self, seed: int) -> None:
        super().seed(seed)
        torch.cuda.manual_seed_all(seed)

    def rng_state(self) -> Tensor | None:
        return torch.cuda.get_rng_state(self.index)

    def set_rng_state(self, state: Tensor | None) -> None:
        if state is not None:
            torch.cuda.set_rng_state(state, self.index)
