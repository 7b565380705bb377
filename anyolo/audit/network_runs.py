"""One network run in one way: forward, decoding, loss and training step on a device in a number type.

Every function gives its results on the host, so that two ways can be compared.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anyolo.audit.host import Host
from anyolo.config.schema import LossConfig, OptimConfig
from anyolo.devices import Device
from anyolo.families.base import FamilySpec
from anyolo.nn.inference import Inference
from anyolo.nn.model import Detector
from anyolo.structures import Batch, HeadOutput, Predictions, Preprocess, Targets
from anyolo.train.optim import build_optimizer
from anyolo.train.step import StepConfig, train_step

ATTEMPTS = 16
OPTIMIZER = OptimConfig(optimizer="SGD", lr0=0.01, momentum=0.9, weight_decay=5e-4, nbs=4)


@dataclass(frozen=True, slots=True)
class Way:
    """``dtype`` is the number type inside the network. float64 is the truth, on the host only."""

    device: Device
    dtype: torch.dtype

    @property
    def is_exact(self) -> bool:
        return self.dtype == torch.float64

    def model(self, model: Detector) -> Detector:
        return copy.deepcopy(model).double() if self.is_exact else model

    def preprocess(self, preprocess: Preprocess) -> Preprocess:
        return _Exact(**preprocess.to_json()) if self.is_exact else preprocess

    @property
    def autocast(self) -> torch.dtype:
        return torch.float32 if self.is_exact else self.dtype


class _Exact(Preprocess):
    def normalise(self, images: Tensor) -> Tensor:
        return super().normalise(images).double()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Raw maps of the head, and what became of them; on the host."""

    levels: tuple[Tensor, ...]
    predictions: Predictions
    seconds: float


def look(model: Detector, preprocess: Preprocess, images: Tensor, way: Way) -> Seen:
    """Inference as users run it: fused, in the device's layout. ``images`` (B, C, H, W) uint8."""
    inference = Inference(way.model(model), way.device, way.preprocess(preprocess), dtype=way.autocast)
    inference(images)  # the first pass may compile and allocate
    way.device.synchronize()
    start = time.perf_counter()
    output = inference.raw(images)
    predictions = inference.decode(output)
    way.device.synchronize()
    seconds = time.perf_counter() - start
    return Seen(
        levels=tuple(_home(x) for x in output.levels), predictions=_brought(predictions), seconds=seconds
    )


def decode(model: Detector, levels: tuple[Tensor, ...], device: Device) -> Predictions:
    """Decode maps that lie on the host."""
    own = _placed(model, device)
    moved = HeadOutput(tuple(device.arrange(device.to(x)) for x in levels))
    with torch.no_grad(), device.region("decode"):
        predictions = own.decode(moved)
    return _brought(predictions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Loss items, and the gradient of the total in every map."""

    items: dict[str, Tensor]
    gradients: tuple[Tensor, ...]


def judge(model: Detector, spec: FamilySpec, output: HeadOutput, targets: Targets, device: Device) -> Judged:
    """The loss of given maps (on the host, float32), and its gradient."""
    criterion = device.to(spec.criterion(_placed(model, device), LossConfig()))
    levels, aux = (
        tuple(device.arrange(device.to(x)).detach().requires_grad_() for x in maps)
        for maps in (output.levels, output.aux)
    )
    moved = device.to(targets)
    with device.region("loss"):
        report = criterion(HeadOutput(levels, aux), moved)
    with device.region("backward"):
        device.scaler(None).backward(report.total)
    gradients = tuple(_home(x.grad) for x in levels + aux if x.grad is not None)
    return Judged(items={name: _home(x) for name, x in report.items.items()}, gradients=gradients)


def training_maps(model: Detector, preprocess: Preprocess, images: Tensor, device: Device) -> HeadOutput:
    """The maps that the loss sees, float32, on the host."""
    with torch.no_grad():
        output = copy.deepcopy(model).train()(preprocess.normalise(device.to(images)))
    return HeadOutput(*(tuple(x.detach() for x in maps) for maps in (output.levels, output.aux)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """``gradients`` as the optimizer got them, ``updates`` what it added to each weight, ``statistics`` the
    running means and variances afterwards; by tensor name.
    """

    items: dict[str, Tensor]
    gradients: dict[str, Tensor]
    updates: dict[str, Tensor]
    statistics: dict[str, Tensor]
    seconds: float


def step(model: Detector, spec: FamilySpec, preprocess: Preprocess, batch: Batch, way: Way) -> Stepped:
    """One training step from the weights of ``model``, by the code that trains.

    Loss scaling may leave out steps whose gradients overflow: they are tried again with the smaller scale.
    Raises RuntimeError where no attempt came through.
    """
    device = way.device
    own = device.prepare((way.model(model) if way.is_exact else copy.deepcopy(model)).train())
    before = {name: _home(x) for name, x in own.named_parameters()}
    criterion = device.to(spec.criterion(own, LossConfig()))
    optimizer = build_optimizer(own, OPTIMIZER, device, batch=len(batch.images))
    config = StepConfig(
        preprocess=way.preprocess(preprocess),
        dtype=way.autocast,
        reduction=spec.loss_reduction,
        clip_norm=OPTIMIZER.clip_norm,
    )
    gradients: dict[str, Tensor] = {}

    def keep(*_: Any) -> None:
        with device.host():
            fresh = {name: _home(x.grad) for name, x in own.named_parameters() if x.grad is not None}
            if attempts == ATTEMPTS or all(bool(x.isfinite().all()) for x in fresh.values()):
                gradients.update(fresh)

    handle = optimizer.register_step_pre_hook(keep)
    scaler = device.scaler(way.autocast)
    attempts, seconds, items = 0, 0.0, {}
    while not gradients and attempts < ATTEMPTS:
        attempts += 1
        start = time.perf_counter()
        report = train_step(own, criterion, [batch], optimizer, device, scaler, config)
        items = {name: _home(x) for name, x in report.items.items()}
        seconds = time.perf_counter() - start
    handle.remove()
    if not gradients:
        raise RuntimeError(f"all of {ATTEMPTS} steps were left out: the gradients overflow at every scale")
    statistics = {name: _home(x) for name, x in own.named_buffers() if x.is_floating_point()}
    return Stepped(
        items=items,
        gradients=gradients,
        updates={name: _home(x) - before[name] for name, x in own.named_parameters() if name in gradients},
        # a step that was tried again has moved them more than once
        statistics=statistics if attempts == 1 else {},
        seconds=seconds,
    )


def _placed(model: Detector, device: Device) -> Detector:
    """The model on the device, or itself where it lies there already."""
    is_there = device.torch_device == Host().torch_device and not device.profile.channels_last
    return model if is_there else device.prepare(copy.deepcopy(model))


def _home(tensor: Tensor) -> Tensor:
    """A copy on the host, in float64, which holds every number of the others."""
    return tensor.detach().cpu().double().clone()


def _brought(predictions: Predictions) -> Predictions:
    objectness = predictions.objectness
    return Predictions(
        _home(predictions.boxes_xyxy).float(),
        _home(predictions.scores).float(),
        None if objectness is None else _home(objectness).float(),
    )
