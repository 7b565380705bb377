"""Heads that judge a few box shapes (anchors) in every cell, each with an objectness of its own.

Source: Redmon and Farhadi 2016, arXiv:1612.08242, section 2 (anchors, cell offsets); topology facts of
YOLOv5 for the bounded decoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from anyolo.nn.blocks.base import Inputs
from anyolo.nn.heads.base import Head
from anyolo.nn.heads.points import CellCentres
from anyolo.nn.rows import Channels
from anyolo.structures import HeadOutput, Predictions

BOX = 4


@dataclass(frozen=True, slots=True)
class Parts:
    """One level's raw numbers by meaning, views of its map; P cells row by row, N anchors.

    ``boxes`` (B, N, 4, P): x, y, width, height before the sigmoid. ``objectness`` (B, N, P). ``classes``
    (B, N, K, P), or (B, 1, K, P) where the anchors of a cell share them.
    """

    boxes: Tensor
    objectness: Tensor
    classes: Tensor


class AnchorBased(Head):
    """What heads with anchors have in common: decoding, and the view of a raw map that a loss needs.

    The buffer ``anchors`` (L, N, 2) holds widths and heights in cells of their level (pixels / stride), as
    the field's files do. ``anchors_px`` as written: per level w, h, w, h, ... in input pixels.
    """

    anchors: Tensor
    classes_are_exclusive: ClassVar[bool] = False
    """Whether a box has one class (softmax over them) or any number of them (a sigmoid each)."""

    def __init__(self, nc: int, anchors_px: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.nc = nc
        self.anchors_px = tuple(tuple(float(side) for side in level) for level in anchors_px)
        self.register_buffer("anchors", torch.ones(len(anchors_px), len(anchors_px[0]) // 2, 2))
        self.strides: tuple[int, ...] = ()

    def parts(self, level_BCHW: Tensor) -> Parts:
        raise NotImplementedError

    def scores(self, classes: Tensor) -> Tensor:
        """Raw class numbers (B, N or 1, K, P) to 0..1, (B, N, K, P)."""
        return classes.sigmoid()

    def decode(self, output: HeadOutput) -> Predictions:
        """Rows: level, anchor, y, x."""
        boxes, scores, objectness = [], [], []
        shapes = zip(output.levels, self.anchors.float().unbind(), self.strides, self._centres, strict=True)
        for level, anchors_N2, stride, centres in shapes:
            raw = self.parts(level.float())
            centres_P2 = centres([level])[:, :2]
            boxes.append(boxes_of(raw.boxes, centres_P2, (anchors_N2 * stride).unsqueeze(1), stride))
            scores.append(self.scores(raw.classes).transpose(2, 3).flatten(1, 2))
            objectness.append(raw.objectness.sigmoid().flatten(1))
        return Predictions(torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(objectness, 1))

    def set_strides(self, strides: tuple[int, ...]) -> None:
        self.strides = strides
        self._centres = [CellCentres([stride]) for stride in strides]
        if not self.anchors.is_meta:
            scale = [[side / s for side in level] for level, s in zip(self.anchors_px, strides, strict=True)]
            self.anchors.copy_(torch.tensor(scale).view_as(self.anchors))

    def read_anchors(self) -> Tensor:
        return self.anchors * self.anchors.new_tensor(self.strides).view(-1, 1, 1)

    def write_anchors(self, anchors_px_LN2: Tensor) -> None:
        self.anchors.copy_(
            anchors_px_LN2.to(self.anchors) / self.anchors.new_tensor(self.strides).view(-1, 1, 1)
        )

    def fix_size(self, size_hw: tuple[int, int] | None) -> None:
        for centres in self._centres:
            centres.fix_size(size_hw)


def boxes_of(raw_BN4P: Tensor, centres_P2: Tensor, anchors_N12: Tensor, stride: float) -> Tensor:
    """Raw x, y, w, h to (B, N * P, 4) xyxy in the units of ``centres`` and ``anchors``.

    A centre lies within one cell around that of its own cell, a side within 4 times its anchor's.
    """
    share_BNP4 = raw_BN4P.sigmoid().transpose(2, 3) * 2
    xy, wh = torch.split(share_BNP4, 2, 3)
    centre, half = (xy - 1) * stride + centres_P2, wh * wh * (anchors_N12 / 2)
    return torch.cat((centre - half, centre + half), 3).flatten(1, 2)


class AnchorHead(AnchorBased):
    """Per level one 1x1 convolution to N * (4 + 1 + nc) channels: per anchor x, y, w, h, objectness, classes.

    Raises ValueError for anchors that are not one list of w, h pairs per level, equally long.
    """

    nearly_one: ClassVar[float] = 0.99999
    """What is taken off the number of classes, so that one class has a bias too."""

    def __init__(self, channels: Sequence[int], nc: int, anchors_px: Any) -> None:
        super().__init__(nc, check_anchors(anchors_px, len(channels)))
        self.m = nn.ModuleList(nn.Conv2d(c, self.anchors.shape[1] * (BOX + 1 + nc), 1) for c in channels)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        return HeadOutput(tuple(conv(x) for conv, x in zip(self.m, features, strict=True)))

    def parts(self, level_BCHW: Tensor) -> Parts:
        batch, anchors = level_BCHW.shape[0], self.anchors.shape[1]
        rows = level_BCHW.reshape(batch, anchors, BOX + 1 + self.nc, -1)
        boxes, objectness, classes = torch.split(rows, [BOX, 1, self.nc], 2)
        return Parts(boxes, objectness.squeeze(2), classes)

    def set_strides(self, strides: tuple[int, ...]) -> None:
        """Take the strides, anchors in cells, and shift the biases once: objects and classes are rare.

        Source: Lin et al. 2017, arXiv:1708.02002, section 3.3; YOLOv5 (8 objects per 640 px picture).
        """
        super().set_strides(strides)
        with torch.no_grad():
            for conv, stride in zip(self.m, strides, strict=True):
                bias = cast(Tensor, conv.bias).view(self.anchors.shape[1], -1)
                bias[:, BOX] += math.log(8 / (640 / stride) ** 2)
                bias[:, BOX + 1 :] += math.log(0.6 / (self.nc - self.nearly_one))

    @torch.no_grad()
    def adopt(self, other: Head) -> tuple[str, ...]:
        if not isinstance(other, AnchorHead) or other.anchors.shape != self.anchors.shape:
            return ()
        adopted = []
        for level, (own, theirs) in enumerate(zip(self.m, other.m, strict=True)):
            for name, tensor in own.named_parameters():
                source = theirs.get_parameter(name)
                if tensor.shape[1:] == source.shape[1:] and self.nc != other.nc:
                    count, rest = self.anchors.shape[1], tensor.shape[1:]
                    kept = source.view(count, -1, *rest)[:, : BOX + 1]
                    tensor.view(count, -1, *rest)[:, : BOX + 1].copy_(kept)
                    adopted.append(f"m.{level}.{name}")
        return tuple(adopted)

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: the number of classes, and the anchors in pixels."""
        nc, anchors_px = row.args
        if nc != row.nc:
            raise ValueError(f"its first argument is nc, {row.nc}, got {nc!r}")
        return cls([c for c in row.channels if isinstance(c, int)], row.nc, anchors_px), ()


def check_anchors(written: Any, levels: int) -> list[list[float]]:
    """A model file's anchors, a list ``w, h, w, h, ...`` in pixels per level; ValueError if they are not."""
    wanted = f"anchors are {levels} lists (a level each, finest first) of w,h,w,h,... in pixels, equally long"
    rows = [_numbers(row) for row in written] if isinstance(written, Sequence) else []
    sizes = {len(row) for row in rows}
    if len(rows) != levels or len(sizes) != 1 or sizes.pop() % 2 or not all(rows):
        raise ValueError(f"{wanted}; got {written!r}")
    if min(side for row in rows for side in row) <= 0:
        raise ValueError(f"{wanted}, all above 0; got {written!r}")
    return rows


def _numbers(row: Any) -> list[float]:
    """One level's sides; pairs may stand in lists of their own. Empty for anything else."""
    if not isinstance(row, Sequence) or isinstance(row, str):
        return []
    flat = [side for entry in row for side in (entry if isinstance(entry, Sequence) else [entry])]
    are_numbers = all(isinstance(side, int | float) and not isinstance(side, bool) for side in flat)
    return [float(side) for side in flat] if are_numbers else []
