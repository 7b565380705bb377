"""What joins branches: concatenation, addition, nearest upsampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.rows import Channels


class Concat(Block):
    """Maps of one size side by side in the channels."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, 1)

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: the dimension, always 1."""
        if row.args not in ((), (1,)):
            raise ValueError(f"joins channels, dimension 1, got {row.args}")
        return cls(), sum(c if isinstance(c, int) else sum(c) for c in row.channels)


class Add(Block):
    """The second of two maps of one shape, weighted, on top of the first."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.add(maps[0], maps[1], alpha=self.alpha)

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: the weight of the second map."""
        (alpha,) = row.options(1.0, after=0)
        first, second = row.channels
        if first != second or not isinstance(first, int):
            raise ValueError(f"adds two maps of the same channels, got {row.channels}")
        return cls(float(alpha)), first


class Upsample(Block):
    """Nearest neighbour, by a whole factor."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = float(factor)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.factor, mode="nearest")

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: nothing (a fixed size is not supported), factor, ``nearest``."""
        size, factor, mode = row.options(None, 2, "nearest", after=0)
        if size is not None or mode != "nearest" or int(factor) != factor:
            raise ValueError(f"takes [None, whole factor, nearest], got {list(row.args)}")
        return cls(int(factor)), row.c_in
