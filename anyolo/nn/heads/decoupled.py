"""The decoupled head without anchors: one box, one objectness and the classes in every cell.

Source: Ge et al. 2021, arXiv:2107.08430, section 2.1; topology facts of YOLOX.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from anyolo.nn.blocks.base import Inputs
from anyolo.nn.blocks.conv import Conv
from anyolo.nn.blocks.depthwise import SeparableConv
from anyolo.nn.heads.base import Head
from anyolo.nn.heads.points import CellCentres
from anyolo.nn.rows import Channels
from anyolo.structures import HeadOutput, Predictions

BOX = 4
PRIOR = 0.01
"""Share of objects and of each class at the start."""


class DecoupledHead(Head):
    """Per level 4 box numbers, 1 objectness logit, nc class logits.

    A box is x and y of its centre from the corner of the cell, in cells, and the logarithms of its width and
    height in cells. Both branches are as wide as the finest level. ``separable``: their 3x3 convolutions are
    depthwise, then pointwise.
    """

    def __init__(
        self, channels: tuple[int, ...], nc: int, *, separable: bool = False, act: str = "SiLU"
    ) -> None:
        super().__init__()
        self.nc = nc
        conv, hidden = SeparableConv if separable else Conv, channels[0]

        def branches() -> nn.ModuleList:
            pairs = ([conv(hidden, hidden, 3, act=act), conv(hidden, hidden, 3, act=act)] for _ in channels)
            return nn.ModuleList(nn.Sequential(*pair) for pair in pairs)

        def predictions(c_out: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(hidden, c_out, 1) for _ in channels)

        self.cls_convs, self.reg_convs = branches(), branches()
        self.cls_preds, self.reg_preds, self.obj_preds = predictions(nc), predictions(BOX), predictions(1)
        self.stems = nn.ModuleList(Conv(c, hidden, act=act) for c in channels)
        self.set_strides(tuple(8 * 2**level for level in range(len(channels))))

    def forward(self, features: list[Tensor]) -> HeadOutput:
        levels = []
        for level, x in enumerate(features):
            x = self.stems[level](x)
            box, cls = self.reg_convs[level](x), self.cls_convs[level](x)
            parts = (self.reg_preds[level](box), self.obj_preds[level](box), self.cls_preds[level](cls))
            levels.append(torch.cat(parts, 1))
        return HeadOutput(tuple(levels))

    def decode(self, output: HeadOutput) -> Predictions:
        raw, objectness, classes = torch.split(self.flatten(output.levels).float(), [BOX, 1, self.nc], 2)
        boxes = self.boxes(raw, self.centres(output.levels))
        return Predictions(boxes, classes.sigmoid(), objectness.squeeze(2).sigmoid())

    def flatten(self, levels: tuple[Tensor, ...]) -> Tensor:
        """All levels in one, (B, A, 4 + 1 + K). Channels innermost: a plain copy of channels-last maps."""
        return torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in levels], 1)

    def boxes(self, raw: Tensor, centres: Tensor) -> Tensor:
        """Raw boxes (..., 4) and centres of cells (..., 3) to boxes (..., 4), xyxy in input pixels."""
        points, stride = torch.split(centres, [2, 1], -1)
        shift, size = torch.split(raw, 2, -1)
        middle, half = points + (shift - 0.5) * stride, size.exp() * (stride * 0.5)
        return torch.cat((middle - half, middle + half), -1)

    def set_strides(self, strides: tuple[int, ...]) -> None:
        """Take the strides and set the last biases: objects and classes are rare.

        Source: Lin et al. 2017, arXiv:1708.02002, section 3.3.
        """
        self.strides = strides
        self.centres = CellCentres(strides)
        with torch.no_grad():
            for conv in (*self.cls_preds, *self.obj_preds):
                cast(Tensor, conv.bias).fill_(-math.log((1 - PRIOR) / PRIOR))

    def fix_size(self, size_hw: tuple[int, int] | None) -> None:
        self.centres.fix_size(size_hw)

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: the number of classes, whether the 3x3 convolutions are separable."""
        (separable,) = row.options(False)
        if row.args[:1] != (row.nc,):
            raise ValueError(f"its first argument is nc, {row.nc}, got {list(row.args)}")
        channels = tuple(c for c in row.channels if isinstance(c, int))
        return cls(channels, row.nc, separable=bool(separable), act=row.activation), ()
