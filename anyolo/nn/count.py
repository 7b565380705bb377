"""How large a model is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from anyolo.nn.model import Detector
from anyolo.types import SizeHW


@dataclass(frozen=True, slots=True)
class ModelCount:
    """``parameters`` includes frozen ones (such as the 16 bins of a distribution head), ``gradients`` does
    not.

    ``gflops`` counts a multiply and an add as two, of convolutions, for one picture; ``layers`` are modules
    without children.
    """

    parameters: int
    gradients: int
    gflops: float
    layers: int


def count(model: Detector, size_hw: SizeHW) -> ModelCount:
    """Count at an input size. Nothing is computed: the picture is a shape only."""
    parameters = list(model.parameters())
    was_training = model.training
    model.eval()
    channels = int(model.rows.get("ch") or model.rows.get("channels") or 3)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), counter:
        model(torch.empty(1, channels, *size_hw, device=parameters[0].device, dtype=parameters[0].dtype))
    model.train(was_training)
    return ModelCount(
        parameters=sum(p.numel() for p in parameters),
        gradients=sum(p.numel() for p in parameters if p.requires_grad),
        gflops=counter.get_total_flops() / 1e9,
        layers=sum(1 for m in model.modules() if not any(True for _ in m.children())),
    )
