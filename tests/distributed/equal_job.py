"""Five updates of a small model on drawn numbers: run alone or by torchrun, the weights must be the same.

    equal_job.py MODEL IMAGES OUT

writes the weights and the loss items of the first process to OUT.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from anyolo.config.schema import LossConfig
from anyolo.devices import open_device
from anyolo.devices.distributed import Group, join
from anyolo.families import build_model
from anyolo.structures import Batch, Targets
from anyolo.train.step import StepConfig, train_step

STEPS, SIDE = 5, 96


def batches(images: int) -> list[Batch]:
    """Five batches of random pixels and boxes, with other counts of boxes in every picture."""
    generator = torch.Generator().manual_seed(5)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    made = []
    for _ in range(STEPS):
        low = rand(images, 6, 2) * (SIDE - 48)
        boxes = torch.cat(((rand(images, 6, 1) * 3).floor(), low, low + 12 + rand(images, 6, 2) * 36), 2)
        mask = (torch.arange(6) < (rand(images, 1) * 7).floor()).float()
        pixels = (rand(images, 3, SIDE, SIDE) * 255).to(torch.uint8)
        made.append(Batch(pixels, Targets(boxes * mask.unsqueeze(2), mask), ()))
    return made


def train(name: str, images: int, group: Group) -> dict[str, torch.Tensor]:
    device = open_device("cpu")
    device.seed(1)
    spec, model = build_model(name, nc=3)
    criterion = spec.criterion(model, LossConfig(loss_ota=name == "yolov7-tiny"))
    model = device.prepare(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # their statistics are those of a process's own pictures
            module.eval()
    forward = group.spread(model, device, sync_bn=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    config = StepConfig(
        preprocess=spec.preprocess, reduction=spec.loss_reduction, clip_norm=10.0, group=group
    )
    items: dict[str, torch.Tensor] = {}
    for batch in batches(images):
        report = train_step(
            forward, criterion, [_own(batch, group)], optimizer, device, device.scaler(None), config
        )
        items = {f"item {name}": value for name, value in report.items.items()}
    means = {key: group.sum(value) / group.world for key, value in items.items()}
    return {**{key: value.detach().clone() for key, value in model.named_parameters()}, **means}


def _own(batch: Batch, group: Group) -> Batch:
    labels, mask = group.own(batch.targets.labels), group.own(batch.targets.mask)
    return Batch(group.own(batch.images), Targets(labels, mask), ())


if __name__ == "__main__":
    group = join(open_device("cpu"))
    found = train(sys.argv[1], int(sys.argv[2]), group)
    if group.is_first:
        torch.save(found, sys.argv[3])
    group.leave()
    # a thread of the communication that still works when the interpreter ends aborts the process
    names = [Path(task, "comm").read_text() for task in Path("/proc/self/task").glob("*")]
    assert not [name for name in names if "gloo" in name], names
