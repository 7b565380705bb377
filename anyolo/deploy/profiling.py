"""How long modules, functions and operators take here, forward and backward, and what they keep in memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from anyolo.devices import Device
from anyolo.nn.count import count_parameters, shapes_of, tensors_in
from anyolo.nn.model import Detector

WARMUP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """``forward_ms`` and ``backward_ms`` are medians; the latter None where there is nothing to derive.

    ``memory_mb`` (millions of bytes) is what the forward pass keeps for the backward one, and its outputs;
    ``gflops`` those of the forward pass.
    """

    name: str
    input: str
    parameters: int
    gflops: float
    memory_mb: float
    forward_ms: float
    backward_ms: float | None
    output: str

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def profile_one(name: str, operation: Callable[..., Any], given: Any, device: Device, n: int) -> ProfileRow:
    """Time ``operation(given)`` ``n`` times; ``given`` is what it takes, a tensor or a list of them."""
    if isinstance(operation, nn.Module):
        operation = device.to(operation)
    given = _ready(given, device)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = operation(given)
    for tensor in tensors_in(output):
        keep(tensor)
    memory = sum(kept.values())
    forward, backward = [], []
    for _ in range(n + WARMUP):
        there, back = _once(operation, given, device)
        forward.append(there)
        backward.append(back)
    behind = [seconds for seconds in backward[WARMUP:] if seconds is not None]
    return ProfileRow(
        name=name,
        input=_words(given),
        parameters=count_parameters(operation) if isinstance(operation, nn.Module) else 0,
        gflops=counter.get_total_flops() / 1e9,
        memory_mb=memory / 1e6,
        forward_ms=statistics.median(forward[WARMUP:]) * 1e3,
        backward_ms=statistics.median(behind) * 1e3 if behind else None,
        output=_words(output),
    )


def profile_all(
    inputs: Sequence[Any], operations: Iterable[Callable[..., Any]], device: Device, n: int
) -> list[ProfileRow]:
    """Every operation with every input, in that order."""
    return [
        profile_one(_name(operation), operation, given, device, n)
        for given in inputs
        for operation in operations
    ]


def profile_rows(model: Detector, images: Tensor, device: Device, n: int) -> list[ProfileRow]:
    """Every row of a model with the maps it gets in use."""
    model, inputs = device.to(model), []
    hooks = [block.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for block in model.model]
    try:
        with torch.no_grad():
            model(device.to(images))
    finally:
        for hook in hooks:
            hook.remove()
    return [
        profile_one(f"{index} {_name(block)}", block, given, device, n)
        for index, (block, given) in enumerate(zip(model.model, inputs, strict=True))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """One operator of a forward and backward pass, all its ``calls`` together."""

    name: str
    calls: int
    ms: float
    share: float

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def profile_operators(operation: Callable[..., Any], given: Any, device: Device, n: int) -> list[OperatorRow]:
    """The operators of forward and backward, the slowest first, each waited for; means of ``n`` passes."""
    if isinstance(operation, nn.Module):
        operation = device.to(operation)
    given = _ready(given, device)
    _once(operation, given, device)
    watch = _Watch(device)
    with watch:
        for _ in range(n):
            _once(operation, given, device)
    total = sum(seconds for _, seconds in watch.spent.values()) or 1.0
    rows = [
        OperatorRow(name=name, calls=calls // n, ms=seconds / n * 1e3, share=seconds / total)
        for name, (calls, seconds) in watch.spent.items()
    ]
    return sorted(rows, key=lambda row: -row.ms)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, device: Device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.spent: dict[str, tuple[int, float]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self.device.synchronize()
        calls, seconds = self.spent.get(str(func), (0, 0.0))
        self.spent[str(func)] = calls + 1, seconds + time.perf_counter() - start
        return result


def _once(operation: Callable[..., Any], given: Any, device: Device) -> tuple[float, float | None]:
    """Seconds forward and, where anything can be derived, backward."""
    device.synchronize()
    start = time.perf_counter()
    output = operation(given)
    device.synchronize()
    there = time.perf_counter() - start
    sums = [tensor.float().sum() for tensor in tensors_in(output) if tensor.requires_grad]
    if not sums:
        return there, None
    total = torch.stack(sums).sum()
    device.synchronize()
    start = time.perf_counter()
    total.backward()  # type: ignore[no-untyped-call]
    device.synchronize()
    return there, time.perf_counter() - start


def _ready(given: Any, device: Device) -> Any:
    """On the device; floats as leaves that take a gradient, so that the first layer's backward counts."""
    if isinstance(given, list | tuple):
        return type(given)(_ready(own, device) for own in given)
    moved = device.to(given.detach())
    return moved.requires_grad_() if moved.is_floating_point() else moved


def _name(operation: Callable[..., Any]) -> str:
    return getattr(operation, "__name__", type(operation).__name__)


def _words(value: Any) -> str:
    return " ".join("x".join(map(str, shape)) for shape in shapes_of(value))
