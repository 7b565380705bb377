"""The training loss on the host (``loss_device=cpu``), for a device on which it fails or comes out wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anyolo.devices import Device
from anyolo.structures import HeadOutput, LossReport, Targets

_HOST = torch.device("cpu")


class HostLoss(nn.Module):
    """A criterion (with all it holds on the host) for maps that lie on ``device``.

    Its backward runs at once, so that the device sees nothing of the loss but one copy each way: the maps to
    the host, their gradients back.
    """

    def __init__(self, criterion: nn.Module, device: Device) -> None:
        super().__init__()
        self.criterion, self.device = criterion, device

    def forward(self, output: HeadOutput, targets: Targets) -> LossReport:
        maps, levels = (*output.levels, *output.aux), len(output.levels)
        needs_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in maps)
        with self.device.host():
            copies = [x.detach().to(_HOST, torch.float32).requires_grad_(needs_gradient) for x in maps]
            moved = HeadOutput(tuple(copies[:levels]), tuple(copies[levels:]))
            report: LossReport = self.criterion(moved, targets.to(_HOST))
            if not needs_gradient:
                return report
            found = torch.autograd.grad(report.total, copies, allow_unused=True)
            gradients = [
                torch.zeros_like(x) if gradient is None else gradient.to(x.device, x.dtype)
                for x, gradient in zip(maps, found, strict=True)
            ]
            total = report.total.detach().to(maps[0].device)
        return LossReport(total=_Known.apply(total, gradients, *maps), items=report.items)  # type: ignore[no-untyped-call]


class _Known(torch.autograd.Function):
    """A number whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: list[Tensor], *maps: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(gradient * outer[0] for gradient in ctx.gradients))
