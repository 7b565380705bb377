"""Aggregation of layers and the ways down of YOLOv9.

Source: Wang et al. 2024, arXiv:2402.13616, section 4.2 (GELAN); Ding et al. 2021, arXiv:2101.03697 (branches
that become one convolution); topology facts of the official YOLOv9 models.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.blocks.conv import Conv, activation, fold
from anyolo.nn.blocks.csp import C3
from anyolo.nn.rows import Channels

MOST_LINKS = 100
"""Bottlenecks in a row; the official models have up to 3, and a file must not make us build a million."""


class RepConvN(nn.Module):
    """Sum of a 3x3 and a 1x1 branch, each with its batch norm, then the activation; no identity branch."""

    def __init__(self, c_in: int, c_out: int, *, act: str = "SiLU") -> None:
        super().__init__()
        self.conv1 = Conv(c_in, c_out, 3, act="Identity")
        self.conv2: nn.Module | None = Conv(c_in, c_out, act="Identity")
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        return self.act(y if self.conv2 is None else y + self.conv2(x))  # type: ignore[no-any-return]

    def fuse(self) -> None:
        """One 3x3 convolution of both branches, which takes over the activation; eval mode only."""
        if self.conv2 is None:
            return
        whole, point = (_folded(branch) for branch in (self.conv1, self.conv2))
        assert whole.bias is not None and point.bias is not None
        with torch.no_grad():
            whole.weight.add_(F.pad(point.weight, (1, 1, 1, 1)))
            whole.bias.add_(point.bias)
        self.conv1.conv, self.conv1.bn, self.conv1.act = whole, nn.Identity(), self.act
        self.conv2, self.act = None, nn.Identity()


def _folded(branch: nn.Module) -> nn.Conv2d:
    return fold(cast(nn.Conv2d, branch.conv), cast(nn.BatchNorm2d, branch.bn))


class RepBottleneck(nn.Module):
    """A ``RepConvN`` and a 3x3 convolution on top of the input."""

    def __init__(self, channels: int, *, act: str = "SiLU") -> None:
        super().__init__()
        self.cv1 = RepConvN(channels, channels, act=act)
        self.cv2 = Conv(channels, channels, 3, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x))  # type: ignore[no-any-return]


class RepCSP(C3):
    """``C3`` with ``RepBottleneck`` for its links."""

    def __init__(self, c_in: int, c_out: int, n: int = 1, *, act: str = "SiLU") -> None:
        super().__init__(c_in, c_out, 0, act=act)
        self.m = nn.Sequential(*(RepBottleneck(c_out // 2, act=act) for _ in range(n)))


class ELAN1(Block):
    """Split in two halves, a chain of two links on the second, all four concatenated.

    ``c_split`` channels are split, each link gives ``c_link``.
    """

    width_tensor: ClassVar[str] = "cv4.conv.weight"

    def __init__(self, c_in: int, c_out: int, c_split: int, c_link: int, *, act: str = "SiLU") -> None:
        super().__init__()
        self.hidden = c_split // 2
        self.cv1 = Conv(c_in, c_split, act=act)
        self.cv2 = self.link(self.hidden, c_link, act)
        self.cv3 = self.link(c_link, c_link, act)
        self.cv4 = Conv(c_split + 2 * c_link, c_out, act=act)

    def link(self, c_in: int, c_out: int, act: str) -> nn.Module:
        return Conv(c_in, c_out, 3, act=act)

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.cv1(x).split((self.hidden, self.hidden), 1))
        for link in (self.cv2, self.cv3):
            maps.append(link(maps[-1]))
        return self.cv4(torch.cat(maps, 1))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels out, of the split (even), of a link."""
        c_split, c_link = _inner(*row.args[1:])
        _check_even(c_split)
        return cls(row.c_in, row.c_out, c_split, c_link, act=row.activation), row.c_out


class RepNCSPELAN4(ELAN1):
    """The same with a ``RepCSP`` of ``n`` links and a 3x3 convolution for each link."""

    def __init__(
        self, c_in: int, c_out: int, c_split: int, c_link: int, n: int = 1, *, act: str = "SiLU"
    ) -> None:
        self.n = n
        super().__init__(c_in, c_out, c_split, c_link, act=act)

    def link(self, c_in: int, c_out: int, act: str) -> nn.Module:
        return nn.Sequential(RepCSP(c_in, c_out, self.n, act=act), Conv(c_out, c_out, 3, act=act))

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels out, of the split (even), of a link (even); bottlenecks in a link."""
        c_split, c_link = _inner(*row.args[1:3])
        (n,) = row.options(1, after=3)
        _check_even(c_split)
        _check_even(c_link)
        if not 1 <= n <= MOST_LINKS:
            raise ValueError(f"its last argument is a number of bottlenecks, 1 to {MOST_LINKS}, got {n!r}")
        return cls(row.c_in, row.c_out, c_split, c_link, n, act=row.activation), row.c_out


class AConv(Block):
    """Half the size: the mean of each 2x2 neighbourhood, then a 3x3 convolution."""

    width_tensor: ClassVar[str] = "cv1.conv.weight"

    def __init__(self, c_in: int, c_out: int, *, act: str = "SiLU") -> None:
        super().__init__()
        self.cv1 = Conv(c_in, c_out, 3, 2, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv1(F.avg_pool2d(x, 2, 1))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels."""
        return cls(row.c_in, row.c_out, act=row.activation), row.c_out


class ADown(Block):
    """Half the size: the means as in ``AConv``, one half of them through a 3x3 convolution, the other through
    the largest of each 3x3 neighbourhood and a 1x1 convolution.
    """

    def __init__(self, c_in: int, c_out: int, *, act: str = "SiLU") -> None:
        super().__init__()
        self.hidden = c_in // 2
        self.cv1 = Conv(self.hidden, c_out // 2, 3, 2, act=act)
        self.cv2 = Conv(self.hidden, c_out // 2, act=act)

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.split(F.avg_pool2d(x, 2, 1), [self.hidden, self.hidden], 1)
        return torch.cat((self.cv1(first), self.cv2(F.max_pool2d(second, 3, 2, 1))), 1)

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels (even)."""
        _check_even(row.c_in)
        _check_even(row.c_out)
        return cls(row.c_in, row.c_out, act=row.activation), row.c_out


class SPPELAN(Block):
    """A 1x1 convolution and three equal pools in a chain, all four concatenated."""

    width_tensor: ClassVar[str] = "cv5.conv.weight"

    def __init__(self, c_in: int, c_out: int, c_pooled: int, *, act: str = "SiLU") -> None:
        super().__init__()
        self.cv1 = Conv(c_in, c_pooled, act=act)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.cv5 = Conv(4 * c_pooled, c_out, act=act)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.cv1(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.cv5(torch.cat(maps, 1))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels out, of the pooled map."""
        (c_pooled,) = _inner(*row.args[1:])
        return cls(row.c_in, row.c_out, c_pooled, act=row.activation), row.c_out


def _inner(*written: int) -> tuple[int, ...]:
    """Inner channels, which a model's width leaves alone; ValueError for what is no number of channels."""
    if any(isinstance(c, bool) or not isinstance(c, int) or c < 1 for c in written):
        raise ValueError(f"channels are whole numbers from 1, got {list(written)}")
    return written


def _check_even(channels: int) -> None:
    if channels % 2:
        raise ValueError(f"halves its channels, got {channels}")
