"""Storages and the tensors that look at them, with every claim of the file checked before memory is taken."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyolo.errors import CheckpointError
from anyolo.families.safe_values import TENSOR_BYTES, Budget

STORAGE_DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.storage.UntypedStorage": torch.uint8,
}
MAX_DIMENSIONS = 25
SAMPLE = 4096  # numbers looked at to tell the byte order
MIN_SAMPLE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """``raw`` are the bytes to be filled, ``values`` the same memory as a flat tensor of the right type."""

    raw: NDArray[np.uint8]
    values: Tensor

    @staticmethod
    def allocate(dtype: torch.dtype, count: int) -> Storage:
        data = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
        return Storage(data.numpy(), data.view(dtype))

    def part(self, offset: int, count: int) -> Storage:
        """``count`` numbers from ``offset``, in the same memory."""
        width = self.values.dtype.itemsize
        end = offset + count
        return Storage(self.raw[offset * width : end * width], self.values[offset:end])

    def finish(self, *, is_swapped: bool) -> None:
        """Call once the bytes are in: puts them into this machine's byte order and checks truth values."""
        if is_swapped:
            self.raw.view(f"u{_width(self.values.dtype)}").byteswap(inplace=True)
        if self.values.dtype == torch.bool and self.raw.size and int(self.raw.max()) > 1:
            raise CheckpointError("a truth value that is neither 0 nor 1")


def check_byte_order(storages: Iterable[Storage]) -> None:
    """CheckpointError if the numbers make sense only the other way round, whatever the file says of it.

    The longest storage of floats tells, where it is long enough: of weights at most a few are denormal or
    enormous, of swapped ones at least an eighth.
    """
    floats = [storage.values for storage in storages if storage.values.is_floating_point()]
    sample = max(floats, key=Tensor.numel, default=torch.empty(0))[:SAMPLE]
    if sample.numel() < MIN_SAMPLE:
        return
    raw = sample.view(torch.uint8).numpy().view(f"u{_width(sample.dtype)}")
    other = torch.from_numpy(raw.byteswap().view(np.uint8)).view(sample.dtype)
    if _absurd_share(sample) > 0.08 + _absurd_share(other) and _absurd_share(other) < 0.02:
        raise CheckpointError("wrong byte order: its numbers make sense only in the order it does not state")


def _width(dtype: torch.dtype) -> int:
    """Bytes that are swapped with one another."""
    return dtype.itemsize // (2 if dtype.is_complex else 1)


def _absurd_share(values: Tensor) -> float:
    """How much of some floats is no sane weight: infinite, denormal or enormous."""
    limits = torch.finfo(values.dtype)
    size = values.abs()
    is_sane = ((size >= limits.tiny) & (size <= min(1e8, limits.max / 4))) | (size == 0)
    return 1.0 - is_sane.double().mean().item()


def rebuild_tensor(args: tuple[Any, ...], budget: Budget) -> Tensor:
    """``_rebuild_tensor[_v2](storage, offset, size, stride, ...)``: a view that stays inside its storage."""
    storage, offset, size, stride = args[:4]
    if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple:
        raise CheckpointError("a tensor without a storage")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise CheckpointError(f"a tensor of {len(size)} sizes and {len(stride)} strides")
    for number in (offset, *size, *stride):
        if type(number) is not int or number < 0:
            raise CheckpointError("a tensor whose sizes are not whole numbers")
    values = storage.values
    numel = math.prod(size)
    budget.spend(TENSOR_BYTES)
    budget.view(numel * max(values.itemsize, 4))  # a model is made of it in float32
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if numel else offset - 1
    if last >= values.numel():
        raise CheckpointError(f"a tensor of {numel} numbers in a storage of {values.numel()}")
    return values.as_strided(size, stride, values.storage_offset() + offset)


def rebuild_parameter(args: tuple[Any, ...], budget: Budget) -> Tensor:
    """``_rebuild_parameter[_with_state](tensor, requires_grad, hooks, ...)``: the plain tensor."""
    if not isinstance(args[0], Tensor):
        raise CheckpointError("a parameter without a tensor")
    return args[0]


def rebuild_typed(args: tuple[Any, ...], budget: Budget) -> Tensor:
    """``_rebuild_from_type_v2(function, type, args, state)``: the tensor, without its subclass."""
    function, inner = args[0], args[2]
    if getattr(function, "make", None) not in (rebuild_tensor, rebuild_parameter):
        raise CheckpointError("a tensor of a kind that is not known here")
    return rebuild_parameter((function.make(inner, budget),), budget)
