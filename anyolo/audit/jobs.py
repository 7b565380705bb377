"""What anyolo itself does on a device, once each, on pictures drawn at random: the work an audit looks at."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from anyolo.config.schema import LossConfig, OptimConfig
from anyolo.devices import Device
from anyolo.export.base import Decoded, Exportable
from anyolo.families.checkpoints import Checkpoint
from anyolo.nn.fuse import fuse
from anyolo.nn.inference import Inference
from anyolo.structures import Batch, Targets
from anyolo.train.ema import WeightAverage
from anyolo.train.optim import build_optimizer
from anyolo.train.step import StepConfig, train_step
from anyolo.types import SizeHW


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A model, the device that it is to run on, and the settings of its family's recipe."""

    start: Checkpoint
    device: Device
    size_hw: SizeHW
    loss: LossConfig
    optim: OptimConfig


def train(work: Work) -> None:
    """Three updates and their running averages: two batches in one update, no box at all, many boxes."""
    spec, device = work.start.spec, work.device
    model = device.prepare(copy.deepcopy(work.start.model).train())
    criterion, average = spec.criterion(model, work.loss), WeightAverage(model)
    settings = StepConfig(
        preprocess=work.start.preprocess, reduction=spec.loss_reduction, clip_norm=work.optim.clip_norm
    )
    optimizer = build_optimizer(model, work.optim, device, batch=4)
    scaler = device.scaler(None)
    for boxes in ([(0, 1, 5), (3, 0, 2)], [(0, 0)], [(40, 60)]):
        batches = [_batch(work, counts) for counts in boxes]
        train_step(model, criterion, batches, optimizer, device, scaler, settings)
        with device.region("average"):
            average.update(model)


def validate(work: Work) -> None:
    """Raw maps, their loss, and decoded boxes of two batches, one of them without a box."""
    spec, device = work.start.spec, work.device
    inference = Inference(work.start.model, device, work.start.preprocess)
    criterion = spec.criterion(work.start.model, work.loss)
    for counts in ((0, 1, 12), (0,)):
        batch = _batch(work, counts)
        output = inference.raw(batch.images)
        with torch.no_grad(), device.region("loss"):
            criterion(output, device.to(batch.targets))
        inference.decode(output)


def predict(work: Work) -> None:
    """One picture, from its pixels to boxes that are not yet filtered; the rest happens on the host."""
    Inference(work.start.model, work.device, work.start.preprocess)(_batch(work, (0,)).images)


def export(work: Work) -> None:
    """The graph that an export would trace, at a fixed size: up to decoded boxes, or, for a backend that only
    runs finished graphs, up to the raw maps, which its host decodes.
    """
    images = _batch(work, (0,)).images
    if not work.device.profile.trains:
        Inference(work.start.model, work.device, work.start.preprocess).raw(images)
        return
    detector = fuse(copy.deepcopy(work.start.model).requires_grad_(False))
    detector.fix_size(work.size_hw)
    graph = work.device.prepare(Exportable(Decoded(detector, work.start.preprocess), None).eval())
    graph(work.device.to(images))  # the first call lays the grid
    with torch.no_grad(), work.device.region("forward"):
        graph(work.device.to(images))


JOBS: dict[str, Callable[[Work], None]] = {
    "train": train,
    "val": validate,
    "predict": predict,
    "export": export,
}
"""By the name of the verb whose work it is."""


def _batch(work: Work, counts: tuple[int, ...]) -> Batch:
    """Pictures of noise with so many boxes each: tiny ones, ones as large as the picture, and all between."""
    rng = np.random.default_rng(counts)
    shape = (len(counts), work.start.model.channels, *work.size_hw)
    images = torch.from_numpy(rng.integers(0, 256, shape, np.uint8))
    boxes = [_boxes(rng, count, work.start.model.nc, work.size_hw) for count in counts]
    return Batch(images, Targets.pad(boxes), ())


def _boxes(rng: np.random.Generator, count: int, nc: int, size_hw: SizeHW) -> NDArray[np.float32]:
    """(count, 5): class, x1, y1, x2, y2 in input pixels."""
    limits = np.array([size_hw[1], size_hw[0]], np.float32)
    sides = np.maximum(2, limits * rng.random((count, 1)) ** 2)
    low = (limits - sides) * rng.random((count, 2))
    classes = rng.integers(0, nc, (count, 1))
    return np.concatenate([classes, low, low + sides], 1).astype(np.float32)
