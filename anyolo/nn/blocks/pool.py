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
