"""Centres of the cells of every level, in input pixels.

Eager code takes them from the host, computed once per size (an ``arange`` at run time is missing on some
backends). Under tracing the sizes may be symbolic, and there they are computed from the maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses import FakeTensor

MOST_KNOWN = 64
"""Sizes kept; multi-scale training meets a few, evaluation in rectangles some dozens."""


class CellCentres:
    """``centres(levels)`` is (A, 3) float32 on the maps' device: x, y, stride; level by level, row by row."""

    def __init__(self, strides: Sequence[int]) -> None:
        self.strides = tuple(strides)
        self._known: dict[tuple[torch.device, tuple[int, ...]], Tensor] = {}
        self._fixed: Tensor | None = None

    def __call__(self, levels: Sequence[Tensor]) -> Tensor:
        if self._fixed is not None:
            return self._fixed.to(levels[0].device)
        if _is_symbolic(levels[0]):
            return torch.cat([_traced(x, stride) for x, stride in zip(levels, self.strides, strict=True)])
        key = levels[0].device, tuple(side for x in levels for side in x.shape[2:])
        if key not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = torch.from_numpy(_on_host(self.strides, key[1])).to(key[0])
        return self._known[key]

    def fix_size(self, size_hw: tuple[int, int] | None) -> None:
        """From now on inputs of this size only; a traced graph then holds the centres as a constant."""
        self._fixed = None
        if size_hw is not None:
            sides = [-(-side // stride) for stride in self.strides for side in size_hw]
            self._fixed = torch.from_numpy(_on_host(self.strides, sides))


def _on_host(strides: Sequence[int], sides: Sequence[int]) -> NDArray[np.float32]:
    levels = []
    for stride, rows, columns in zip(strides, sides[::2], sides[1::2], strict=True):
        y, x = np.mgrid[:rows, :columns].reshape(2, -1)
        levels.append(np.stack(((x + 0.5) * stride, (y + 0.5) * stride, np.full(x.shape, stride)), 1))
    return np.concatenate(levels).astype(np.float32)


def _traced(level: Tensor, stride: int) -> Tensor:
    rows, columns = level.shape[2:]
    y = (torch.arange(rows, device=level.device, dtype=torch.float32) + 0.5) * stride
    x = (torch.arange(columns, device=level.device, dtype=torch.float32) + 0.5) * stride
    blank = y.view(-1, 1) * 0 + x.view(1, -1) * 0
    return torch.stack((blank + x.view(1, -1), blank + y.view(-1, 1), blank + stride), 2).flatten(0, 1)


def _is_symbolic(level: Tensor) -> bool:
    is_tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return is_tracing or torch.compiler.is_compiling() or isinstance(level, FakeTensor)
