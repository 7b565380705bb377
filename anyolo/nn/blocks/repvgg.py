"""Branches in training that are one convolution in use.

Source: Ding et al. 2021, arXiv:2101.03697 (RepVGG); topology facts of YOLOv5-Lite.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.blocks.conv import activation, fold
from anyolo.nn.rows import Channels


class RepVGGBlock(Block):
    """Sum of a 3x3, a 1x1 and, where shapes allow, an identity branch, each with its batch norm."""

    width_tensor: ClassVar[str] = "rbr_dense.conv.weight"

    def __init__(self, c_in: int, c_out: int, stride: int = 1, *, act: str = "SiLU") -> None:
        super().__init__()
        self.nonlinearity = activation(act)
        self.rbr_identity = nn.BatchNorm2d(c_in) if c_in == c_out and stride == 1 else None
        self.rbr_dense: nn.Module = _branch(c_in, c_out, 3, stride)
        self.rbr_1x1: nn.Module | None = _branch(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rbr_dense(x)
        if self.rbr_1x1 is not None:
            y = y + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            y = y + self.rbr_identity(x)
        return self.nonlinearity(y)  # type: ignore[no-any-return]

    def fuse(self) -> None:
        """One 3x3 convolution of all branches; eval mode only."""
        if self.rbr_1x1 is None:
            return
        whole, point = (_folded(branch) for branch in (self.rbr_dense, self.rbr_1x1))
        assert whole.bias is not None and point.bias is not None
        with torch.no_grad():
            whole.weight.add_(F.pad(point.weight, (1, 1, 1, 1)))
            whole.bias.add_(point.bias)
            if self.rbr_identity is not None:
                straight = nn.Conv2d(whole.in_channels, whole.out_channels, 1, bias=False).to(whole.weight)
                straight.weight.copy_(torch.eye(whole.in_channels).view(straight.weight.shape))
                passing = fold(straight, self.rbr_identity)
                assert passing.bias is not None
                whole.weight.add_(F.pad(passing.weight, (1, 1, 1, 1)))
                whole.bias.add_(passing.bias)
        self.rbr_dense, self.rbr_1x1, self.rbr_identity = whole, None, None

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, kernel (always 3), stride."""
        kernel, stride = row.options(3, 1)
        if kernel != 3:
            raise ValueError(f"its kernel is 3, got {kernel!r}")
        return cls(row.c_in, row.c_out, stride, act=row.activation), row.c_out


def _branch(c_in: int, c_out: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(c_out)))


def _folded(branch: nn.Module) -> nn.Conv2d:
    return fold(cast(nn.Conv2d, branch.conv), cast(nn.BatchNorm2d, branch.bn))
