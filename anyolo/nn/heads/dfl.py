"""The anchor-free, decoupled head whose box sides are distributions.

Source: Li et al. 2020, arXiv:2006.04388, section 3.2 (distribution focal loss); topology facts of YOLOv8.
"""

from __future__ import annotations

import math
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from anyolo.nn.blocks.base import Inputs
from anyolo.nn.blocks.conv import Conv
from anyolo.nn.heads.base import Head
from anyolo.nn.heads.points import CellCentres
from anyolo.nn.rows import Channels
from anyolo.structures import HeadOutput, Predictions

BINS = 16
"""Bins of one side's distribution; its expectation is a distance of 0..15 strides."""
SIDES = 4 * BINS


class DFLHead(Head):
    """Per level 4 * BINS side logits (left, top, right, bottom; bins inside), then nc class logits.

    ``dfl.conv.weight`` is 0..15, frozen, and counts as 16 parameters, as upstream counts it.
    """

    first_side: ClassVar[float] = 2.0
    """Bias of the side logits at the start of training."""

    def __init__(self, channels: tuple[int, ...], nc: int, *, act: str = "SiLU") -> None:
        super().__init__()
        self.nc = nc
        self.cv2, self.cv3 = self.branches(channels, nc, act)
        self.dfl = Expectation()
        self.set_strides(tuple(8 * 2**level for level in range(len(channels))))

    def branches(self, channels: tuple[int, ...], nc: int, act: str) -> tuple[nn.ModuleList, nn.ModuleList]:
        """For every level, what gives its side logits, and its class logits."""
        box, cls = max(16, channels[0] // 4, SIDES), max(channels[0], min(nc, 100))
        sides = (branch(c, box, SIDES, act) for c in channels)
        return nn.ModuleList(sides), nn.ModuleList(branch(c, cls, nc, act) for c in channels)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        return HeadOutput(raw_maps(self.cv2, self.cv3, features))

    def decode(self, output: HeadOutput) -> Predictions:
        sides, classes = torch.split(self.flatten(output.levels).float(), [SIDES, self.nc], 2)
        return Predictions(self.boxes(sides, self.centres(output.levels)), classes.sigmoid())

    def flatten(self, levels: tuple[Tensor, ...]) -> Tensor:
        """All levels in one, (B, A, 4 * BINS + K). Channels innermost: a plain copy of channels-last maps."""
        return torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in levels], 1)

    def boxes(self, sides: Tensor, centres: Tensor) -> Tensor:
        """Side logits (..., 4 * BINS) and centres (..., 3) to boxes (..., 4), xyxy in input pixels."""
        points, stride = torch.split(centres, [2, 1], -1)
        low, high = torch.split(self.dfl(sides) * stride, 2, -1)
        return torch.cat((points - low, points + high), -1)

    def set_strides(self, strides: tuple[int, ...]) -> None:
        """Take the strides and set the last biases: all bins of a side alike, classes rare.

        Source: Ultralytics 8.4 (about 5 objects per 640 px picture).
        """
        self.strides = strides
        self.centres = CellCentres(strides)
        self.set_biases(self.cv2, self.cv3)

    @torch.no_grad()
    def set_biases(self, boxes: nn.ModuleList, classes: nn.ModuleList) -> None:
        for box, cls, stride in zip(boxes, classes, self.strides, strict=True):
            _last_bias(box).fill_(self.first_side)
            _last_bias(cls).fill_(math.log(5 / self.nc / (640 / stride) ** 2))

    def fix_size(self, size_hw: tuple[int, int] | None) -> None:
        self.centres.fix_size(size_hw)

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: the number of classes."""
        if row.args[:1] != (row.nc,):
            raise ValueError(f"its first argument is nc, {row.nc}, got {list(row.args)}")
        channels = tuple(c for c in row.channels if isinstance(c, int))
        return cls(channels, row.nc, act=row.activation), ()


def raw_maps(boxes: nn.ModuleList, classes: nn.ModuleList, features: list[Tensor]) -> tuple[Tensor, ...]:
    """Side logits, then class logits, of every level."""
    branches = zip(boxes, classes, features, strict=True)
    return tuple(torch.cat((box(x), cls(x)), 1) for box, cls, x in branches)


def branch(c_in: int, hidden: int, c_out: int, act: str, *, groups: int = 1) -> nn.Sequential:
    """Two 3x3 convolutions and a 1x1 one with bias; ``groups`` of all but the first."""
    return nn.Sequential(
        Conv(c_in, hidden, 3, act=act),
        Conv(hidden, hidden, 3, groups=groups, act=act),
        nn.Conv2d(hidden, c_out, 1, groups=groups),
    )


def _last_bias(branch: nn.Module) -> Tensor:
    return cast(Tensor, cast(nn.Sequential, branch)[-1].bias)


class Expectation(nn.Module):
    """Expected bin of each side: (..., 4 * BINS) logits to (..., 4) strides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        with torch.no_grad():
            # no arange: on shapes alone (meta device) it imports half of torch, for two seconds
            self.conv.weight.copy_(torch.tensor([float(b) for b in range(BINS)]).view(1, BINS, 1, 1))

    def forward(self, logits: Tensor) -> Tensor:
        per_side = logits.reshape(*logits.shape[:-1], 4, BINS)
        return (per_side.softmax(-1) * self.conv.weight.flatten().to(logits.dtype)).sum(-1)
