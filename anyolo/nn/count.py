"""How large a model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anyolo.nn.measure import PROBE
from anyolo.nn.model import Detector
from anyolo.types import SizeHW


@dataclass(frozen=True, slots=True)
class ModelCount:
    """``parameters`` includes frozen ones (such as the 16 bins of a distribution head), ``gradients`` does
    not.

    ``gflops`` counts a multiply and an add as two, of convolutions and linear layers, for one picture;
    ``layers`` are the modules without children.
    """

    parameters: int
    gradients: int
    gflops: float
    layers: int


def count(model: Detector, size_hw: SizeHW) -> ModelCount:
    """Count at an input size, from one pass over a small blank picture: convolutions grow with the area."""
    parameters = list(model.parameters())
    flops = _flops(model) * (size_hw[0] * size_hw[1]) / PROBE**2
    return ModelCount(
        parameters=sum(p.numel() for p in parameters),
        gradients=sum(p.numel() for p in parameters if p.requires_grad),
        gflops=flops / 1e9,
        layers=sum(1 for m in model.modules() if not any(True for _ in m.children())),
    )


def _flops(model: Detector) -> int:
    """For a picture of PROBE by PROBE."""
    found = 0

    def add(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal found
        weight = module.get_parameter("weight")
        found += 2 * output.numel() * weight[0].numel()

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    was_training = model.training
    sample = next(model.parameters())
    try:
        with torch.no_grad():
            model.eval()(
                torch.zeros(1, model.channels, PROBE, PROBE, device=sample.device, dtype=sample.dtype)
            )
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found
