"""Depthwise and pointwise convolutions in turn.

Source: Howard et al. 2017, arXiv:1704.04861 (MobileNets); Cui et al. 2021, arXiv:2109.15099 (PP-LCNet);
topology facts of YOLOv5-Lite, Yolo-FastestV2 and YOLOX-nano.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.blocks.conv import Chain, ChainOf, Conv, unit
from anyolo.nn.rows import Channels

HARD = "Hardswish"


class DepthwiseBlock(Block, Chain):
    """Depthwise k x k, then pointwise, each with batch norm and ReLU."""

    width_tensor: ClassVar[str] = "conv2.weight"

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = unit(c_in, c_in, kernel, stride, groups=c_in, act="ReLU")
        self.conv2, self.bn2, self.act2 = unit(c_in, c_out, act="ReLU")

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(x)))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, kernel, stride."""
        kernel, stride = row.options(3, 1)
        return cls(row.c_in, row.c_out, kernel, stride), row.c_out


class SeparableConv(Block):
    """Depthwise k x k, then pointwise, each with batch norm and the model's activation."""

    width_tensor: ClassVar[str] = "pconv.conv.weight"

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, *, act: str = "SiLU") -> None:
        super().__init__()
        self.dconv = Conv(c_in, c_in, kernel, stride, groups=c_in, act=act)
        self.pconv = Conv(c_in, c_out, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.pconv(self.dconv(x))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, kernel, stride."""
        kernel, stride = row.options(3, 1)
        return cls(row.c_in, row.c_out, kernel, stride, act=row.activation), row.c_out


class DepthwisePair(Block):
    """Twice depthwise k x k with ReLU and pointwise without."""

    def __init__(self, channels: int, kernel: int = 5) -> None:
        super().__init__()
        one = (*unit(channels, channels, kernel, groups=channels, act="ReLU"), *unit(channels, channels))
        two = (*unit(channels, channels, kernel, groups=channels, act="ReLU"), *unit(channels, channels))
        self.block = ChainOf(*one, *two)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: kernel."""
        (kernel,) = row.options(5, after=0)
        return cls(row.c_in, kernel), row.c_in


class CBH(Block):
    """A convolution whose activation is hardswish."""

    width_tensor: ClassVar[str] = Conv.width_tensor

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, kernel, stride, groups."""
        kernel, stride, groups = row.options(3, 1, 1)
        return Conv(row.c_in, row.c_out, kernel, stride, groups=groups, act=HARD), row.c_out


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map holds; the weight is a SiLU, as upstream has it, no sigmoid.

    Source: Hu et al. 2017, arXiv:1709.01507.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // reduction, 1)
        self.conv2 = nn.Conv2d(channels // reduction, channels, 1)
        self.act1, self.act2 = nn.ReLU(), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.act1(self.conv1(F.adaptive_avg_pool2d(x, 1)))
        return x * self.act2(self.conv2(weight))  # type: ignore[no-any-return]


class LCBlock(Block):
    """Depthwise k x k, channel weights where asked for, pointwise; hardswish."""

    width_tensor: ClassVar[str] = "pw_conv.conv.weight"

    def __init__(self, c_in: int, c_out: int, stride: int, kernel: int, weighs_channels: bool) -> None:
        super().__init__()
        self.dw_conv = Conv(c_in, c_in, kernel, stride, groups=c_in, act=HARD)
        self.se: nn.Module = SqueezeExcite(c_in) if weighs_channels else nn.Identity()
        self.pw_conv = Conv(c_in, c_out, act=HARD)

    def forward(self, x: Tensor) -> Tensor:
        return self.pw_conv(self.se(self.dw_conv(x)))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, stride, kernel, whether channels are weighted."""
        stride, kernel, weighs_channels = row.options(1, 3, False)
        return cls(row.c_in, row.c_out, stride, kernel, bool(weighs_channels)), row.c_out


class Dense(Block):
    """A bare convolution, hardswish, dropout in training."""

    width_tensor: ClassVar[str] = "dense_conv.weight"

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, dropout: float = 0.2) -> None:
        super().__init__()
        self.dense_conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
        self.act = nn.Hardswish()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.act(self.dense_conv(x)))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, kernel, dropout."""
        kernel, dropout = row.options(1, 0.2)
        return cls(row.c_in, row.c_out, kernel, float(dropout)), row.c_out
