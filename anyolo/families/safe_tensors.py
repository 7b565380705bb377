"""Storages and the tensors that look at them, with every claim of the file checked before memory is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyolo.errors import CheckpointError

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
TENSOR_BYTES = 1024  # what the object itself costs, roughly


class Budget:
    """What a file of this length may make us do: pickle operations, and bytes of views and copies.

    Both cost next to nothing in the file. The longest pickle among known files is YOLOv9-t's, with 190,000
    operations in 8 MB, and real files hardly look at a tensor twice.
    """

    def __init__(self, file_bytes: int) -> None:
        self.operations = 400_000 + file_bytes // 16
        self._left = 4 * file_bytes + (256 << 20)

    def spend(self, size_bytes: int) -> None:
        self._left -= size_bytes
        if self._left < 0:
            raise CheckpointError("this file describes far more data than it holds")


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """``raw`` are the bytes to be filled, ``values`` the same memory as a flat tensor of the right type."""

    raw: NDArray[np.uint8]
    values: Tensor

    @staticmethod
    def allocate(dtype: torch.dtype, count: int) -> Storage:
        data = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
        return Storage(data.numpy(), data.view(dtype))

    def finish(self, *, is_swapped: bool) -> None:
        """Call once the bytes are in: puts them into this machine's byte order and checks truth values."""
        if is_swapped:
            self._swap()
        if self.values.dtype == torch.bool and self.raw.size and int(self.raw.max()) > 1:
            raise CheckpointError("a truth value that is neither 0 nor 1")

    def _swap(self) -> None:
        before = _absurd_share(self.values)
        width = self.values.dtype.itemsize // (2 if self.values.is_complex() else 1)
        self.raw.view(f"u{width}").byteswap(inplace=True)
        if _absurd_share(self.values) > before:
            raise CheckpointError(
                "wrong byte order: its numbers make no sense in the order that the file states"
            )


def _absurd_share(values: Tensor) -> float:
    """How much of a float storage is no sane weight: infinite, denormal or enormous."""
    if not values.is_floating_point() or not values.numel():
        return 0.0
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
    budget.spend(numel * values.itemsize + TENSOR_BYTES)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if numel else offset - 1
    if last >= values.numel():
        raise CheckpointError(f"a tensor of {numel} numbers in a storage of {values.numel()}")
    return values.as_strided(size, stride, offset)


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
