"""Pooling pyramids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.blocks.conv import Conv
from anyolo.nn.rows import Channels


class SPPF(Block):
    """Spatial pyramid pooling by three equal pools in a chain.

    Source: He et al. 2014, arXiv:1406.4729; the chain form is YOLOv5's, with the values of pools 5, 9 and 13.
    """

    width_tensor: ClassVar[str] = "cv2.conv.weight"

    def __init__(self, c_in: int, c_out: int, kernel: int = 5, *, act: str = "SiLU") -> None:
        super().__init__()
        hidden = c_in // 2
        self.cv1 = Conv(c_in, hidden, act=act)
        self.cv2 = Conv(4 * hidden, c_out, act=act)
        self.m = nn.MaxPool2d(kernel, 1, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.cv1(x)]
        for _ in range(3):
            maps.append(self.m(maps[-1]))
        return self.cv2(torch.cat(maps, 1))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, kernel."""
        (kernel,) = row.options(5)
        return cls(row.c_in, row.c_out, kernel, act=row.activation), row.c_out


class SPP(Block):
    """Pools of several sizes side by side.

    Source: He et al. 2014, arXiv:1406.4729.
    """

    width_tensor: ClassVar[str] = "cv2.conv.weight"

    def __init__(
        self, c_in: int, c_out: int, kernels: Sequence[int] = (5, 9, 13), *, act: str = "SiLU"
    ) -> None:
        super().__init__()
        hidden = c_in // 2
        self.cv1 = Conv(c_in, hidden, act=act)
        self.cv2 = Conv((1 + len(kernels)) * hidden, c_out, act=act)
        self.m = nn.ModuleList(nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in kernels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, list of kernels."""
        (kernels,) = row.options((5, 9, 13))
        return cls(row.c_in, row.c_out, kernels, act=row.activation), row.c_out


class SPPCSPC(Block):
    """A pyramid of pools between convolutions, beside a straight branch.

    Source: Wang et al. 2020, arXiv:2011.08036, section 3.3 (CSP form of a pyramid); topology facts of YOLOv7.
    """

    width_tensor: ClassVar[str] = "cv7.conv.weight"

    def __init__(
        self, c_in: int, c_out: int, kernels: Sequence[int] = (5, 9, 13), *, act: str = "SiLU"
    ) -> None:
        super().__init__()
        self.cv1 = Conv(c_in, c_out, act=act)
        self.cv2 = Conv(c_in, c_out, act=act)
        self.cv3 = Conv(c_out, c_out, 3, act=act)
        self.cv4 = Conv(c_out, c_out, act=act)
        self.m = nn.ModuleList(nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in kernels)
        self.cv5 = Conv((1 + len(kernels)) * c_out, c_out, act=act)
        self.cv6 = Conv(c_out, c_out, 3, act=act)
        self.cv7 = Conv(2 * c_out, c_out, act=act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv4(self.cv3(self.cv1(x)))
        y = self.cv6(self.cv5(torch.cat([y, *(pool(y) for pool in self.m)], 1)))
        return self.cv7(torch.cat((y, self.cv2(x)), 1))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, then 1 (repeats) and false (shortcut), which mean nothing here."""
        row.options(1, False)
        return cls(row.c_in, row.c_out, act=row.activation), row.c_out


class HalvingPool(Block):
    """Max-pooling of every cell once; ``nn.MaxPool2d`` stands in the row."""

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: kernel, which is the stride too."""
        (kernel,) = row.options(2, after=0)
        return nn.MaxPool2d(kernel, kernel), row.c_in


class SteadyPool(Block):
    """Max-pooling that keeps the size of the map; ``nn.MaxPool2d`` stands in the row."""

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: kernel, odd."""
        (kernel,) = row.options(3, after=0)
        if kernel % 2 != 1:
            raise ValueError(f"its kernel is odd, got {kernel!r}")
        return nn.MaxPool2d(kernel, 1, kernel // 2), row.c_in
