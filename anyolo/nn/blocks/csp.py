"""Cross-stage partial blocks.

Source: Wang et al. 2019, arXiv:1911.11929 (CSPNet); topology facts of the official YOLOv5 and v8 models.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.blocks.conv import Conv
from anyolo.nn.blocks.depthwise import SeparableConv
from anyolo.nn.rows import Channels


class Bottleneck(nn.Module):
    """Two 3x3 convolutions; the input is added where ``shortcut`` is on and the channels agree.

    ``separable``: the second one is depthwise, then pointwise.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        shortcut: bool = True,
        *,
        kernels: tuple[int, int] = (3, 3),
        separable: bool = False,
        act: str = "SiLU",
    ) -> None:
        super().__init__()
        last = SeparableConv if separable else Conv
        self.cv1 = Conv(c_in, c_out, kernels[0], act=act)
        self.cv2 = last(c_out, c_out, kernels[1], act=act)
        self.adds_input = shortcut and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.adds_input else y


class C2f(Block):
    """Split in two halves, a chain of bottlenecks on the second, every link concatenated."""

    repeats_inside: ClassVar[bool] = True
    width_tensor: ClassVar[str] = "cv2.conv.weight"

    def __init__(
        self, c_in: int, c_out: int, n: int = 1, shortcut: bool = False, *, act: str = "SiLU"
    ) -> None:
        super().__init__()
        self.hidden = c_out // 2
        self.cv1 = Conv(c_in, 2 * self.hidden, act=act)
        self.cv2 = Conv((2 + n) * self.hidden, c_out, act=act)
        self.m = nn.ModuleList(Bottleneck(self.hidden, self.hidden, shortcut, act=act) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        links = list(self.cv1(x).split((self.hidden, self.hidden), 1))
        for bottleneck in self.m:
            links.append(bottleneck(links[-1]))
        return self.cv2(torch.cat(links, 1))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, shortcut."""
        (shortcut,) = row.options(False)
        return cls(row.c_in, row.c_out, row.repeats, bool(shortcut), act=row.activation), row.c_out


class C3(Block):
    """Two 1x1 branches, bottlenecks (1x1, then 3x3) on the first, joined by a third 1x1."""

    repeats_inside: ClassVar[bool] = True
    width_tensor: ClassVar[str] = "cv3.conv.weight"

    def __init__(
        self,
        c_in: int,
        c_out: int,
        n: int = 1,
        shortcut: bool = True,
        *,
        separable: bool = False,
        act: str = "SiLU",
    ) -> None:
        super().__init__()
        hidden = c_out // 2
        self.cv1 = Conv(c_in, hidden, act=act)
        self.cv2 = Conv(c_in, hidden, act=act)
        self.cv3 = Conv(2 * hidden, c_out, act=act)
        options: dict[str, Any] = {"kernels": (1, 3), "separable": separable, "act": act}
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, **options) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, shortcut, whether the 3x3 convolutions are separable."""
        shortcut, separable = row.options(True, False)
        block = cls(
            row.c_in, row.c_out, row.repeats, bool(shortcut), separable=bool(separable), act=row.activation
        )
        return block, row.c_out
