"""A head with anchors that learns a shift before and a gain behind its convolutions: training form of Detect.

Source: Wang et al. 2021, arXiv:2105.04206, sections 3.2 and 4 (implicit knowledge); topology facts of YOLOv7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from anyolo.nn.heads.anchor import BOX, AnchorHead
from anyolo.structures import HeadOutput

SPREAD = 0.02
"""Standard deviation of both around what changes nothing."""


class Implicit(nn.Module):
    """``implicit`` (1, C, 1, 1), the same for every picture and cell; like a bias it does not decay."""

    decays: ClassVar[bool] = False

    def __init__(self, channels: int, mean: float) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.empty(1, channels, 1, 1).normal_(mean, SPREAD))


class ImplicitHead(AnchorHead):
    """Per level ``im * conv(ia + x)``; folded, it is an ``AnchorHead`` in all but name."""

    nearly_one: ClassVar[float] = 0.99

    def __init__(self, channels: Sequence[int], nc: int, anchors_px: Any) -> None:
        super().__init__(channels, nc, anchors_px)
        self.ia = nn.ModuleList(Implicit(c, 0.0) for c in channels)
        self.im = nn.ModuleList(Implicit(self.anchors.shape[1] * (BOX + 1 + nc), 1.0) for _ in channels)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        if not len(self.ia):  # folded
            return super().forward(features)
        levels = zip(self.m, features, self.ia, self.im, strict=True)
        return HeadOutput(
            tuple(
                conv(x + cast(Tensor, shift.implicit)) * cast(Tensor, gain.implicit)
                for conv, x, shift, gain in levels
            )
        )

    @torch.no_grad()
    def fuse(self) -> None:
        """Take shifts and gains into the convolutions; the tensors are then an ``AnchorHead``'s."""
        for conv, shift, gain in zip(self.m, self.ia, self.im, strict=bool(len(self.ia))):
            weight, bias = cast(Tensor, conv.weight), cast(Tensor, conv.bias)
            bias.add_((weight * cast(Tensor, shift.implicit)).sum((1, 2, 3)))
            bias.mul_(cast(Tensor, gain.implicit).flatten())
            weight.mul_(cast(Tensor, gain.implicit).view(-1, 1, 1, 1))
        self.ia, self.im = nn.ModuleList(), nn.ModuleList()
