"""The space-to-depth stem of the older models, computed as the one convolution that it is.

Every second pixel becomes a channel, then a convolution follows: the same numbers as one convolution of twice
the kernel and stride on the picture itself. That form needs no strided slices (absent or slow on several
backends) and reads the picture once.

Source: topology facts of YOLOv5 v4 and v5 (order of the four phases).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.blocks.conv import Conv
from anyolo.nn.rows import Channels


class PhaseConv(nn.Conv2d):
    """Weights (O, 4C, k, k) over the phases (even, even), (odd, even), (even, odd), (odd, odd) of (row,
    column) of a picture of C channels; called with the picture, whose sides are even.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.on_pixels(), None, self._doubled(self.stride), self._doubled(self.padding))

    def on_pixels(self) -> Tensor:
        """The weights as (O, C, 2k, 2k) over pixels, by reshapes that every backend has (four dimensions)."""
        c_out, phases, k, _ = self.weight.shape
        c_in = phases // 4
        columns_last = self.weight.reshape(c_out, 2, -1).transpose(1, 2)
        rows_inside = columns_last.reshape(c_out, 2, c_in * k, 2 * k).transpose(1, 2)
        return rows_inside.reshape(c_out, c_in, 2 * k, 2 * k)

    def plain(self) -> nn.Conv2d:
        """The convolution on pixels with weights of its own."""
        weight = self.on_pixels().detach()
        conv = nn.Conv2d(
            weight.shape[1],
            weight.shape[0],
            weight.shape[2:],  # type: ignore[arg-type]
            self._doubled(self.stride),
            self._doubled(self.padding),
            bias=False,
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            conv.weight.copy_(weight)
        return conv.requires_grad_(self.weight.requires_grad).train(self.training)

    @staticmethod
    def _doubled(pair: tuple[int, ...] | str) -> tuple[int, int]:
        return 2 * int(pair[0]), 2 * int(pair[1])


class Focus(Block):
    """Pixels to channels, then a convolution; halves the sides."""

    width_tensor: ClassVar[str] = "conv.conv.weight"

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, *, act: str = "SiLU") -> None:
        super().__init__()
        self.conv = Conv(4 * c_in, c_out, kernel, stride, act=act)
        self.conv.conv = PhaseConv(4 * c_in, c_out, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]

    def fuse(self) -> None:
        """Hold the weights over pixels; the block inside folds its batch norm itself."""
        if isinstance(self.conv.conv, PhaseConv):
            self.conv.conv = self.conv.conv.plain()

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, kernel, stride."""
        kernel, stride = row.options(1, 1)
        return cls(row.c_in, row.c_out, kernel, stride, act=row.activation), row.c_out
