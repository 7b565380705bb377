"""Backward and optimizer step, with loss scaling where half precision needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Scaler:
    """No loss scaling; the shape of the others."""

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, *, clip_norm: float = 0.0) -> Tensor:
        """Clip, step, clear. Returns the gradient norm before clipping (scalar on the device)."""
        norm = clip(optimizer, clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class TorchScaler(Scaler):
    """Loss scaling for float16 by torch's own scaler. It works in float64, which some backends lack."""

    def __init__(self, torch_type: str) -> None:
        self.inner = torch.amp.GradScaler(torch_type)

    def backward(self, loss: Tensor) -> None:
        self.inner.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, *, clip_norm: float = 0.0) -> Tensor:
        self.inner.unscale_(optimizer)
        norm = clip(optimizer, clip_norm)
        # or fused optimizers are called for steps to be left out too, and torch's SGD (2.13) then starts its
        # momentum with whatever the memory held
        vars(optimizer)["_step_supports_amp_scaling"] = False
        self.inner.step(optimizer)
        self.inner.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(dict(state))


class PlainScaler(Scaler):
    """Loss scaling for float16 in float32 and with a number on the host: nothing that a backend could lack.

    A step whose gradients overflowed is left out and the scale halved; after ``patience`` good steps it is
    doubled. One look at the gradient norm a step waits for the device.

    Source: Micikevicius et al. 2018, arXiv 1710.03740, section 3.2; constants of torch.amp.GradScaler.
    """

    def __init__(self, *, scale: float = 2.0**16, patience: int = 2000) -> None:
        self.scale, self.patience, self.good_steps = scale, patience, 0

    def backward(self, loss: Tensor) -> None:
        (loss * self.scale).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, *, clip_norm: float = 0.0) -> Tensor:
        for parameter in _with_gradients(optimizer):
            assert parameter.grad is not None
            parameter.grad.mul_(1 / self.scale)
        norm = clip(optimizer, clip_norm)
        if norm.isfinite().item():
            optimizer.step()
            self.good_steps += 1
            if self.good_steps == self.patience:
                self.scale, self.good_steps = self.scale * 2, 0
        else:
            self.scale, self.good_steps = self.scale / 2, 0
        optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.scale, self.good_steps = state["scale"], state["good_steps"]


def clip(optimizer: torch.optim.Optimizer, clip_norm: float) -> Tensor:
    """Limit the gradient norm (0 for no limit); the norm before."""
    # foreach=False: the per-tensor form exists on every backend
    return nn.utils.clip_grad_norm_(_with_gradients(optimizer), clip_norm or float("inf"), foreach=False)


def _with_gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
