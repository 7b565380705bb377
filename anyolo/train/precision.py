"""Mixed precision by measurement: used where this machine runs it faster and as accurately, and said why."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anyolo.devices import Device
from anyolo.structures import Batch, Preprocess, Targets
from anyolo.train.step import Criterion

MIN_SPEEDUP = 1.15
MAX_LOSS_ERROR = 0.02
# Random weights normalised over four pictures are ill-conditioned: bfloat16 reaches 0.88 there, 0.86 to
# 0.99 from trained weights, and trains both to the mAP of float32 (docs/results.md); a broken kernel is far
# below.
MIN_GRADIENT_COSINE = 0.8
PROBE_IMAGES = 4


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtype of forward passes in training, and the sentence that explains it."""

    dtype: torch.dtype
    reason: str


def choose_precision(
    model: nn.Module,
    criterion: Criterion,
    batch: Batch,
    device: Device,
    preprocess: Preprocess,
    *,
    amp: bool,
    is_asked_for: bool,
    strict: bool,
) -> Precision:
    """Try a few passes in float32 and in the device's mixed types on copies of ``model``; the fastest that
    agrees.

    "Agrees" is a loss within 2% and a gradient that points the same way (cosine above 0.8).
    A device without such a type gives a notice where the user typed ``amp`` himself (``is_asked_for``), and
    with ``strict`` DeviceError.
    """
    if not amp:
        return Precision(torch.float32, "float32, because amp=False")
    if not device.profile.autocast_dtypes:
        if is_asked_for:
            device.decline("amp", "float32 is used", strict=strict)
        return Precision(torch.float32, f"float32: {device.profile.limit('amp')}")
    few = Batch(
        batch.images[:PROBE_IMAGES],
        Targets(batch.targets.labels[:PROBE_IMAGES], batch.targets.mask[:PROBE_IMAGES]),
        batch.records[:PROBE_IMAGES],
    )
    generator = torch.get_rng_state()
    base = _probe(model, criterion, few, device, preprocess, torch.float32)
    chosen, fastest_s, notes = torch.float32, base.seconds / MIN_SPEEDUP, []
    for dtype in device.profile.autocast_dtypes:
        tried = _probe(model, criterion, few, device, preprocess, dtype)
        loss_error = abs(tried.loss - base.loss) / max(abs(base.loss), 1e-9)
        cosine = float(nn.functional.cosine_similarity(tried.gradient, base.gradient, dim=0))
        is_accurate = loss_error <= MAX_LOSS_ERROR and cosine >= MIN_GRADIENT_COSINE
        if is_accurate and tried.seconds < fastest_s:
            chosen, fastest_s = dtype, tried.seconds
        notes.append(
            f"{_name(dtype)} ran {base.seconds / tried.seconds:.2f} times as fast as float32 here, "
            f"loss off by {loss_error:.2%}, gradient cosine {cosine:.3f}"
        )
    torch.set_rng_state(generator)
    return Precision(chosen, f"{_name(chosen)}, as measured: {'; '.join(notes)}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class _Probe:
    seconds: float
    loss: float
    gradient: Tensor


def _probe(
    model: nn.Module, criterion: Any, batch: Batch, device: Device, preprocess: Preprocess, dtype: torch.dtype
) -> _Probe:
    """The faster of two passes after a first that does not count (other load only ever slows)."""
    trial = copy.deepcopy(model).train()
    scaler, seconds = device.scaler(dtype), []
    images, targets = preprocess.normalise(device.arrange(device.to(batch.images))), device.to(batch.targets)
    loss = torch.zeros(())
    for _ in range(3):
        trial.zero_grad(set_to_none=True)
        device.synchronize()
        start = time.perf_counter()
        with device.autocast(dtype):
            output = trial(images)
        loss = criterion(output, targets).total
        scaler.backward(loss)
        device.synchronize()
        seconds.append(time.perf_counter() - start)
    gradient = torch.cat(
        [p.grad.detach().float().flatten().cpu() for p in trial.parameters() if p.grad is not None]
    )
    return _Probe(min(seconds[1:]), float(loss.detach()), gradient)
