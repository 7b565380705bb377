"""One optimizer update: the whole of training that happens on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from anyolo.devices import Device, Scaler
from anyolo.structures import Batch, HeadOutput, LossReport, Preprocess, Targets

Criterion = Callable[[HeadOutput, Targets], LossReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """What a step needs to know. ``reduction`` is how the family's micro-batches add up."""

    preprocess: Preprocess
    dtype: torch.dtype = torch.float32
    reduction: Literal["sum", "mean"] = "sum"
    clip_norm: float = 0.0


@dataclass(frozen=True, slots=True)
class StepReport:
    """Detached scalars on the device: mean loss items over the update's images, and the gradient norm."""

    items: Mapping[str, Tensor]
    norm: Tensor


def train_step(
    model: nn.Module,
    criterion: Criterion,
    micro_batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    device: Device,
    scaler: Scaler,
    config: StepConfig,
) -> StepReport:
    """Forward, loss and backward for every micro-batch, then one clipped optimizer step."""
    count = sum(len(batch.images) for batch in micro_batches)
    items: dict[str, Tensor] = {}
    for batch in micro_batches:
        images, targets = device.arrange(device.to(batch.images)), device.to(batch.targets)
        with device.region("forward"), device.autocast(config.dtype):
            output = model(config.preprocess.normalise(images))
        share = len(batch.images) / count
        with device.region("loss"):
            losses = criterion(output, targets)
            total = losses.total if config.reduction == "sum" else losses.total * share
            for name, value in losses.items.items():
                items[name] = items[name] + value * share if name in items else value * share
        with device.region("backward"):
            scaler.backward(total)
    with device.region("optimizer"):
        norm = scaler.step(optimizer, clip_norm=config.clip_norm)
    return StepReport(items, norm)
