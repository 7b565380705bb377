"""The worst step a run can meet, tried at any batch size on copies: what it holds and how fast it is."""

from __future__ import annotations

import copy
import gc
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyolo.config.schema import TrainVerb
from anyolo.data.index import AnnotationIndex
from anyolo.devices import Device, Scaler
from anyolo.nn.inference import Inference
from anyolo.nn.model import Detector
from anyolo.postprocess import postprocess
from anyolo.structures import Batch, Predictions, Targets
from anyolo.train.batch_fit import Tried
from anyolo.train.ema import WeightAverage
from anyolo.train.optim import build_optimizer, resolve_optimizer
from anyolo.train.precision import Precision
from anyolo.train.prepare import Job, build_criterion, open_loaders, settle_precision
from anyolo.train.step import StepConfig, train_step
from anyolo.types import SizeHW


class Trial:
    """The run's step with the run's device, number type, loss, optimizer and average, on a copy of ``model``.

    Rates of 0, so that the copy's weights stay what they are, whatever it is shown. The optimizer has its
    state from the start.
    """

    def __init__(self, job: Job, model: Detector) -> None:
        self.job, self.device, config = job, job.device, job.config
        self.ema = WeightAverage(model)
        self.device.to(self.ema.model)
        self.model = self.device.prepare(copy.deepcopy(model)).train()
        self.criterion = build_criterion(job, self.model)
        self.precision = _precision(job, self.model, self.criterion)
        optim, _ = resolve_optimizer(
            config.optim,
            job.explicit,
            images=len(job.train_index),
            batch=1,
            epochs=config.schedule.epochs,
            nc=model.nc,
        )
        self.optimizer = build_optimizer(self.model, optim, self.device, batch=1)
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] * 0
        self.nbs = optim.nbs
        self.scaler = TimedScaler(self.device.scaler(self.precision.dtype), self.device)
        self.step = StepConfig(
            preprocess=job.spec.preprocess,
            dtype=self.precision.dtype,
            reduction=job.spec.loss_reduction,
            clip_norm=optim.clip_norm,
        )
        self.train_hw, self.val_hw = worst_sizes(config, job.size_hw, max(model.strides))
        self.boxes = densest_boxes(job.train_index, config)

    def measure(self, batch: int) -> Tried:
        """One update and one look at validation pictures, for their memory, and a second update for its
        speed.
        """
        gc.collect()
        self.device.empty_cache()
        try:
            shown = self.worst_batch(batch, self.train_hw)
            with self.device.watch_memory() as peak:
                self.rate(shown)
                self._judge(self.worst_batch(min(batch, len(self.job.val_index)), self.val_hw))
            return Tried(batch=batch, peak_bytes=peak.peak_bytes, images_per_s=self.rate(shown))
        except (RuntimeError, MemoryError) as error:
            if not self.device.exhausted(error):
                raise
        # past the handler, whose error holds the tensors of the failed step
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        self.device.empty_cache()
        return Tried(batch=batch, peak_bytes=None)

    def time(self, batch: int) -> float:
        """Images per second after an update that does not count; 0 where the memory did not suffice."""
        try:
            shown = self.worst_batch(batch, self.train_hw)
            self.rate(shown)
            return self.rate(shown)
        except (RuntimeError, MemoryError) as error:
            if not self.device.exhausted(error):
                raise
        self.optimizer.zero_grad(set_to_none=True)
        return 0.0

    def rate(self, batch: Batch) -> float:
        """Images per second of an update over as many batches as the run will gather for one."""
        self.device.synchronize()
        start = time.perf_counter()
        train_step(self.model, self.criterion, [batch], self.optimizer, self.device, self.scaler, self.step)
        self.device.synchronize()
        stepped = time.perf_counter()
        with self.device.region("average"):
            self.ema.update(self.model)
        self.device.synchronize()
        update_s = self.scaler.step_s + time.perf_counter() - stepped
        gathered = max(1, round(self.nbs / len(batch.images)))
        micro_s = stepped - start - self.scaler.step_s
        return gathered * len(batch.images) / (gathered * micro_s + update_s)

    def _judge(self, batch: Batch) -> None:
        """As the run judges its average, but for the suppression, which takes one picture at a time."""
        inference = Inference(self.ema.model, self.device, self.step.preprocess, dtype=self.step.dtype)
        output = inference.raw(batch.images)
        with torch.no_grad(), self.device.region("loss"):
            self.criterion(output, self.device.to(batch.targets))
        found = inference.decode(output)
        objectness = None if found.objectness is None else found.objectness[:1]
        wishes = self.job.config.evaluation
        postprocess(
            Predictions(found.boxes_xyxy[:1], found.scores[:1], objectness),
            conf=wishes.conf,
            iou=wishes.iou,
            max_det=wishes.max_det,
            agnostic=wishes.agnostic_nms,
            multi_label=wishes.multi_label,
        )

    def worst_batch(self, size: int, size_hw: SizeHW) -> Batch:
        """Noise, and in every picture all boxes that the fullest one can have."""
        height, width = size_hw
        noise = torch.randint(0, 256, (size, self.model.channels, height, width), dtype=torch.uint8)
        boxes = self.boxes * np.array([1, width, height, width, height], np.float32)
        return Batch(noise, Targets.pad([boxes] * size), ())


class TimedScaler(Scaler):
    """Another scaler, whose last step's seconds are kept: an update is paid once for all its batches."""

    def __init__(self, inner: Scaler, device: Device) -> None:
        self.inner, self.device, self.step_s = inner, device, 0.0

    def backward(self, loss: Tensor) -> None:
        self.inner.backward(loss)

    def step(self, optimizer: torch.optim.Optimizer, *, clip_norm: float = 0.0) -> Tensor:
        self.device.synchronize()
        start = time.perf_counter()
        norm = self.inner.step(optimizer, clip_norm=clip_norm)
        self.device.synchronize()
        self.step_s = time.perf_counter() - start
        return norm

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)


def worst_sizes(config: TrainVerb, size_hw: SizeHW, stride: int) -> tuple[SizeHW, SizeHW]:
    """The largest inputs of training and of validation: multi-scale, and the rim of ``rect`` batches."""
    longest = max(size_hw)
    rimmed = math.ceil(longest / stride + 0.5) * stride
    height, width = (rimmed, rimmed) if config.data.rect else size_hw
    factor = 1 + config.schedule.multi_scale
    grown = tuple(max(stride, round(side * factor / stride) * stride) for side in (height, width))
    return (grown[0], grown[1]) if config.schedule.multi_scale else (height, width), (rimmed, rimmed)


def densest_boxes(index: AnnotationIndex, config: TrainVerb) -> NDArray[np.float32]:
    """(n, 5) ``class, x1, y1, x2, y2`` as shares of the input: what the fullest picture of the run can have.

    With mosaic those of the four pictures with most boxes, each in its quarter; with mixup of eight.
    """
    augment, mixes = config.augment, not config.data.rect
    in_mosaic = 4 if mixes and augment.mosaic else 1
    pictures = in_mosaic * (2 if mixes and augment.mixup else 1)
    own = sorted((item.labels[~item.crowd] for item in index.items), key=len, reverse=True)[:pictures]
    parts = [np.zeros((0, 5), np.float32)]
    for place, labels in enumerate(own):
        centre, half = labels[:, 1:3], labels[:, 3:] / 2
        boxes = np.concatenate((centre - half, centre + half), 1)
        if in_mosaic == 4:
            boxes = boxes / 2 + np.array([place % 2, place // 2 % 2] * 2, np.float32) / 2
        parts.append(np.concatenate((labels[:, :1], boxes), 1).astype(np.float32))
    return np.concatenate(parts)


def _precision(job: Job, model: Detector, criterion: Any) -> Precision:
    """Chosen on pictures of the data, as without a search for the batch."""
    few = replace(job.config.data, batch=4, workers=0, cache=False)
    with open_loaders(replace(job, config=replace(job.config, data=few))) as (loader, _):
        return settle_precision(job, model, criterion, loader, None)
