"""The contract of a device: facts (``DeviceProfile``) and verbs (``Device``).

The verbs are written here once, from the facts; an occupant overrides what its vendor does differently.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Movable = TypeVar("Movable", bound=Any)
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """Facts about a backend, no behaviour."""

    name: str
    torch_type: str
    autocast_dtypes: tuple[torch.dtype, ...] = ()
    grad_scaler: bool = False
    float64: bool = True
    channels_last: bool = False
    pin_memory: bool = False
    foreach: bool = False
    fused: bool = False
    dist_backend: str = "gloo"


class Memory(NamedTuple):
    """Bytes in use by this process and bytes there are."""

    used_bytes: int
    total_bytes: int


class Scaler:
    """Backward and optimizer step without loss scaling; the shape of the mixed precision ones."""

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, *, clip_norm: float = 0.0) -> Tensor:
        """Clip, step, clear. Returns the gradient norm before clipping (scalar on the device)."""
        norm = _clip(optimizer, clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def _clip(optimizer: torch.optim.Optimizer, clip_norm: float) -> Tensor:
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    # foreach=False: the per-tensor form exists on every backend
    return nn.utils.clip_grad_norm_(parameters, clip_norm or float("inf"), foreach=False)


class Device:
    """One opened device. ``index`` counts devices of the same backend."""

    profile: DeviceProfile

    def __init__(self, index: int = 0, *, threads: int = 0) -> None:
        self.index = index

    @classmethod
    def unavailable(cls) -> str | None:
        """Why this backend cannot be used here, or None when it can."""
        return None

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.profile.torch_type, self.index)

    def describe(self) -> str:
        """A name for people."""
        return f"{self.profile.name}:{self.index}"

    def to(self, thing: Movable) -> Movable:
        """Move a tensor, module, Targets: anything with ``.to(device)``."""
        return thing.to(self.torch_device)  # type: ignore[no-any-return]

    def prepare(self, model: Module) -> Module:
        """Move a model and give it the memory layout this backend is fastest with."""
        model = model.to(self.torch_device)
        if self.profile.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def arrange(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in the memory layout that ``prepare`` gave the model. Cheapest while still uint8."""
        return images.contiguous(memory_format=torch.channels_last) if self.profile.channels_last else images

    def fused_convolution(self, conv: nn.Conv2d, activation: nn.Module) -> nn.Module | None:
        """``activation(conv(x))`` as one operator for inference, equal up to rounding, or None."""
        return None

    def autocast(self, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
        """Mixed precision in ``dtype``; nothing for None and float32."""
        if dtype is None or dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.profile.torch_type, dtype=dtype)

    def scaler(self, dtype: torch.dtype | None) -> Scaler:
        return Scaler()

    def optimizer_options(self) -> dict[str, bool]:
        """Keyword arguments for torch.optim classes that are safe here."""
        return {"fused": True} if self.profile.fused else {"foreach": self.profile.foreach}

    def synchronize(self) -> None:
        """Wait for the work that was queued."""

    def memory(self) -> Memory | None:
        return None

    def empty_cache(self) -> None:
        pass

    def seed(self, seed: int) -> None:
        """Seed python, numpy, torch and the device."""
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)

    def rng_state(self) -> Tensor | None:
        """The device's own generator, for a bit-exact resume; None where the CPU's generator is used."""
        return None

    def set_rng_state(self, state: Tensor | None) -> None:
        pass

    def exhausted(self, error: BaseException) -> bool:
        """Whether ``error`` says that this device ran out of memory."""
        return "out of memory" in str(error).lower()
