"""How fast the device is at what a detector does, against the CPU. Information, never a verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.audit.cases import Draw
from anyolo.audit.compare_operators import Announce
from anyolo.audit.listening import listening
from anyolo.devices import Device

REPEATS = 5


class Timing(NamedTuple):
    """Best of some runs, in milliseconds; None where the device cannot."""

    name: str
    device_ms: float | None
    host_ms: float

    @property
    def ratio(self) -> float | None:
        """Below 1 the device is faster."""
        return None if self.device_ms is None else self.device_ms / self.host_ms


def _map(draw: Draw) -> tuple[Tensor, ...]:
    return (draw.normal(1, 64, 80, 80),)


def _with_kernel(*shape: int) -> Callable[[Draw], tuple[Tensor, ...]]:
    return lambda draw: (*_map(draw), draw.normal(*shape))


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight[:, 0, 0, 0], training=True)


# Sizes of a picture of 640 x 640 pixels.
JOBS: dict[str, tuple[Callable[[Draw], tuple[Tensor, ...]], Callable[..., object]]] = {
    "conv2d 3x3": (_with_kernel(64, 64, 3, 3), lambda x, w: F.conv2d(x, w, padding=1)),
    "conv2d 1x1": (_with_kernel(64, 64, 1, 1), F.conv2d),
    "conv2d depthwise": (_with_kernel(64, 1, 5, 5), lambda x, w: F.conv2d(x, w, padding=2, groups=64)),
    "batch_norm, training": (_with_kernel(64, 1, 1, 1), _norm),
    "silu": (_map, F.silu),
    "max_pool2d 5x5": (_map, lambda x: F.max_pool2d(x, 5, 1, 2)),
    "upsample nearest": (_map, lambda x: F.interpolate(x, scale_factor=2.0)),
    "cat of channels": (_map, lambda x: torch.cat((x, x), 1)),
    "softmax of 16 bins": (lambda d: (d.normal(8400, 4, 16),), lambda x: x.softmax(-1)),
    "topk 10 of 8400": (lambda d: (d.uniform(64, 8400),), lambda x: x.topk(10, -1)),
    "gather": (lambda d: (d.normal(8400, 64), d.whole(0, 8400, 400, 64)), lambda x, i: x.gather(0, i)),
    "cumsum of 8400": (lambda d: (d.uniform(16, 8400),), lambda x: x.cumsum(1)),
    "matmul 512": (lambda d: (d.normal(512, 512),), lambda x: x @ x),
    "copy to the device": (lambda d: (torch.zeros(1, 3, 640, 640, dtype=torch.uint8),), lambda x: x),
    "copy to the host": (lambda d: (d.normal(8400, 84),), lambda x: x.cpu()),
}


def measure_speed(device: Device, host: Device, announce: Announce) -> Iterator[Timing]:
    """Every job on both; never raises for what the device does."""
    for name, (make, run) in JOBS.items():
        announce(f"speed of {name}")
        inputs = make(Draw())
        with listening(), torch.no_grad():
            host_ms = _time(inputs, run, host, moves=name.startswith("copy to the device"))
            try:
                device_ms = _time(inputs, run, device, moves=name.startswith("copy to the device"))
            except Exception:  # the operator tests say what is wrong with it
                yield Timing(name, None, host_ms)
                continue
        yield Timing(name, device_ms, host_ms)


def _time(inputs: tuple[Tensor, ...], run: Callable[..., object], device: Device, *, moves: bool) -> float:
    """Milliseconds; ``moves``: moving the inputs is the job."""
    best = float("inf")
    moved = inputs if moves else tuple(device.to(x) for x in inputs)
    for _ in range(REPEATS):
        device.synchronize()
        start = time.perf_counter()
        with device.region("other"):
            run(*(tuple(device.to(x) for x in moved) if moves else moved))
        device.synchronize()
        best = min(best, time.perf_counter() - start)
    return best * 1e3
