"""Blocks of the ShuffleNet V2 backbones: half of the channels passes by, then all are shuffled.

Shuffling is written with four dimensions and no strided slice: two maps stacked in their rows and read as one
map of twice the channels alternate channel by channel.

Source: Ma et al. 2018, arXiv:1807.11164 (ShuffleNet V2); topology facts of YOLOv5-Lite and Yolo-FastestV2.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.blocks.conv import ChainOf, unit
from anyolo.nn.rows import Channels


def alternate(first: Tensor, second: Tensor) -> Tensor:
    """(B, C, H, W) twice to (B, 2C, H, W): channels 0, 2, 4, ... of the first, 1, 3, 5, ... of the second."""
    batch, channels, height, width = first.shape
    return torch.cat((first, second), 2).reshape(batch, 2 * channels, height, width)


def separate(x: Tensor) -> tuple[Tensor, Tensor]:
    """The way back: (B, 2C, H, W) to its even and its odd channels."""
    batch, channels, height, width = x.shape
    rows = x.reshape(batch, channels // 2, 2 * height, width)
    return rows[:, :, :height], rows[:, :, height:]


class StemPool(Block):
    """3x3 convolution of stride 2, batch norm, ReLU, then a pool of stride 2: a quarter of the sides."""

    width_tensor: ClassVar[str] = "conv.0.weight"

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = ChainOf(*unit(c_in, c_out, 3, 2, act="ReLU"))
        self.maxpool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool(self.conv(x))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels."""
        row.options()
        return cls(row.c_in, row.c_out), row.c_out


class ShuffleBlock(Block):
    """Two branches shuffled at the output (``branch1`` passes by at stride 1)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        half = c_out // 2
        self.stride = stride
        if stride == 1:
            self.branch1: nn.Module = nn.Identity()
        else:
            self.branch1 = ChainOf(*unit(c_in, c_in, 3, stride, groups=c_in), *unit(c_in, half, act="ReLU"))
        self.branch2 = ChainOf(
            *unit(half if stride == 1 else c_in, half, act="ReLU"),
            *unit(half, half, 3, stride, groups=half),
            *unit(half, half, act="ReLU"),
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.chunk(x, 2, 1) if self.stride == 1 else (x, x)
        return alternate(self.branch1(first), self.branch2(second))

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, stride."""
        (stride,) = row.options(1)
        _check_halves(row, stride)
        return cls(row.c_in, row.c_out, stride), row.c_out


class ShuffleV2Block(Block):
    """Two branches shuffled at the input (``branch_proj`` at stride 2, else the even channels pass by)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        hidden = c_out // 2
        self.stride = stride
        c_main = c_in if stride == 2 else c_in // 2
        self.branch_main = ChainOf(
            *unit(c_main, hidden, act="ReLU"),
            *unit(hidden, hidden, 3, stride, groups=hidden),
            *unit(hidden, c_out - c_main, act="ReLU"),
        )
        if stride == 2:
            self.branch_proj = ChainOf(*unit(c_in, c_in, 3, 2, groups=c_in), *unit(c_in, c_in, act="ReLU"))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            passing, main = self.branch_proj(x), x
        else:
            passing, main = separate(x)
        return torch.cat((passing, self.branch_main(main)), 1)

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, stride."""
        (stride,) = row.options(1)
        _check_halves(row, stride)
        return cls(row.c_in, row.c_out, stride), row.c_out


def _check_halves(row: Inputs, stride: int) -> None:
    if stride not in (1, 2):
        raise ValueError(f"stride is 1 or 2, got {stride!r}")
    if stride == 1 and row.c_in != row.c_out:
        raise ValueError(f"keeps its channels at stride 1, got {row.c_in} and {row.c_out}")
