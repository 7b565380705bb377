"""The smallest anchor head: three prediction convolutions for all levels, classes once per cell.

Source: topology facts of Yolo-FastestV2.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from anyolo.nn.blocks.base import Inputs
from anyolo.nn.heads.anchor import BOX, AnchorBased, Parts, check_anchors
from anyolo.nn.rows import Channels
from anyolo.structures import HeadOutput


class SharedAnchorHead(AnchorBased):
    """Two features per level, for boxes and for the rest, all of as many channels.

    Raw map of a level: N * 4 box channels (x, y, w, h inside), N objectness, nc classes shared by the
    anchors of a cell, of which a box has one (softmax).
    """

    classes_are_exclusive: ClassVar[bool] = True

    def __init__(self, channels: int, levels: int, nc: int, anchors_px: Any) -> None:
        super().__init__(nc, check_anchors(anchors_px, levels))
        anchors = self.anchors.shape[1]
        self.output_reg_layers = nn.Conv2d(channels, BOX * anchors, 1)
        self.output_obj_layers = nn.Conv2d(channels, anchors, 1)
        self.output_cls_layers = nn.Conv2d(channels, nc, 1)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """``features``: boxes and rest of the finest level, boxes and rest of the next, ..."""
        levels = []
        for box, rest in zip(features[::2], features[1::2], strict=True):
            parts = (self.output_reg_layers(box), self.output_obj_layers(rest), self.output_cls_layers(rest))
            levels.append(torch.cat(parts, 1))
        return HeadOutput(tuple(levels))

    def parts(self, level_BCHW: Tensor) -> Parts:
        batch, anchors = level_BCHW.shape[0], self.anchors.shape[1]
        rows = level_BCHW.reshape(batch, level_BCHW.shape[1], -1)
        boxes, objectness, classes = torch.split(rows, [BOX * anchors, anchors, self.nc], 1)
        return Parts(boxes.reshape(batch, anchors, BOX, -1), objectness, classes.unsqueeze(1))

    def scores(self, classes: Tensor) -> Tensor:
        return classes.softmax(2).expand(-1, self.anchors.shape[1], -1, -1)

    def set_strides(self, strides: tuple[int, ...]) -> None:
        """``strides`` of the features; both of a level have the same."""
        if strides[::2] != strides[1::2]:
            raise ValueError(f"takes two features per level, got strides {strides}")
        super().set_strides(strides[::2])

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: the number of classes, and the anchors in pixels."""
        nc, anchors_px = row.args
        if nc != row.nc:
            raise ValueError(f"its first argument is nc, {row.nc}, got {nc!r}")
        if len(set(row.channels)) != 1 or not isinstance(row.channels[0], int) or len(row.channels) % 2:
            raise ValueError(f"takes two maps per level, equally wide, got channels {row.channels}")
        return cls(row.channels[0], len(row.channels) // 2, row.nc, anchors_px), ()
