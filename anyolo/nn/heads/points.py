"""Centres of the cells of every level, in input pixels.

Eager code takes them from the host, computed once per size (an ``arange`` at run time is missing on some backends).
Under tracing the sizes may be symbolic, and there they are computed from the maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses import FakeTensor


class CellCentres:
    """``centres(levels)`` is (3, A) float32 on the maps' device: rows x, y and the stride; levels, then y, then x."""

    def __init__(self, strides: Sequence[int]) -> None:
        self.strides = tuple(strides)
        self._known: dict[tuple[torch.device, tuple[int, ...]], Tensor] = {}
        self._fixed: Tensor | None = None

    def __call__(self, levels: Sequence[Tensor]) -> Tensor:
        if self._fixed is not None:
            return self._fixed.to(levels[0].device)
        if _is_symbolic(levels[0]):
            return torch.cat([_trace(x, stride) for x, stride in zip(levels, self.strides, strict=True)], 1)
        key = levels[0].device, tuple(side for x in levels for side in x.shape[2:])
        if key not in self._known:
            if len(self._known) >= 64:  # multi-scale training meets a few sizes, rect evaluation some dozens
                self._known.clear()
            self._known[key] = torch.from_numpy(_on_host(self.strides, key[1])).to(key[0])
        return self._known[key]

    def fix_size(self, size_hw: tuple[int, int] | None) -> None:
        """From now on only maps of an input of this size, which then stand as constants in a traced graph."""
        if size_hw is None:
            self._fixed = None
            return
        sides = tuple(-(-side // stride) for stride in self.strides for side in size_hw)
        self._fixed = torch.from_numpy(_on_host(self.strides, sides))


def _on_host(strides: Sequence[int], sides: Sequence[int]) -> NDArray[np.float32]:
    levels = []
    for stride, rows, columns in zip(strides, sides[::2], sides[1::2], strict=True):
        y, x = np.mgrid[:rows, :columns].reshape(2, -1)
        levels.append(np.stack(((x + 0.5) * stride, (y + 0.5) * stride, np.full(x.shape, stride))))
    return np.concatenate(levels, 1).astype(np.float32)


def _trace(level: Tensor, stride: int) -> Tensor:
    rows, columns = level.shape[2:]
    y = (torch.arange(rows, device=level.device, dtype=torch.float32) + 0.5) * stride
    x = (torch.arange(columns, device=level.device, dtype=torch.float32) + 0.5) * stride
    x_HW, y_HW = x.view(1, -1) + 0 * y.view(-1, 1), y.view(-1, 1) + 0 * x.view(1, -1)
    return torch.stack((x_HW.flatten(), y_HW.flatten(), torch.full_like(x_HW, stride).flatten()))


def _is_symbolic(level: Tensor) -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or isinstance(level, FakeTensor)
