"""One optimizer update: the whole of training that happens on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from anyolo.devices import Device, Scaler
from anyolo.devices.distributed import Group, together, without_exchange
from anyolo.structures import Batch, HeadOutput, LossReport, Preprocess, Targets

Criterion = Callable[[HeadOutput, Targets], LossReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """What a step needs to know. ``reduction`` is how the family's micro-batches add up; ``group`` are the
    processes that each do a share of the batch, their model averages the gradients.
    """

    preprocess: Preprocess
    dtype: torch.dtype = torch.float32
    reduction: Literal["sum", "mean"] = "sum"
    clip_norm: float = 0.0
    group: Group = field(default_factory=Group)


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
    for number, batch in enumerate(micro_batches, 1):
        # the processes exchange gradients once, on the way back of the last
        with nullcontext() if number == len(micro_batches) else without_exchange(model):
            images, targets = device.arrange(device.to(batch.images)), device.to(batch.targets)
            with device.region("forward"), device.autocast(config.dtype):
                output = model(config.preprocess.normalise(images))
            share = len(batch.images) / count
            with device.region("loss"), together(config.group):
                losses = criterion(output, targets)
                total = losses.total * (config.group.world if config.reduction == "sum" else share)
                for name, value in losses.items.items():
                    items[name] = items[name] + value * share if name in items else value * share
            with device.region("backward"):
                scaler.backward(total)
    with device.region("optimizer"):
        norm = scaler.step(optimizer, clip_norm=config.clip_norm)
    return StepReport(items, norm)
