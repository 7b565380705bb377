"""Loss of heads with distribution boxes: task-aligned assignment, class BCE, CIoU, distribution focal loss."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from anyolo.assign.tal import TaskAligned
from anyolo.config.schema import LossConfig
from anyolo.loss.terms import bce_sum, dfl
from anyolo.nn.heads.dfl import BINS, DFLHead
from anyolo.nn.model import Detector
from anyolo.ops.iou import ciou
from anyolo.structures import HeadOutput, LossReport, Targets


class DFLCriterion(nn.Module):
    """``(HeadOutput, Targets) -> LossReport``; total is the sum over the images of the batch, items are per image.

    Everything runs in float32, whatever the maps come in. Holds nothing that is trained.
    """

    def __init__(self, model: Detector, config: LossConfig) -> None:
        super().__init__()
        head = cast(DFLHead, model.head)
        self.nc = head.nc
        self.gains = config.box, config.cls, config.dfl
        self.assign = TaskAligned(min_side=config.tal_min_side)
        self._head = (head,)  # in a tuple, so that the head's weights do not become the criterion's

    def forward(self, output: HeadOutput, targets: Targets) -> LossReport:
        box, cls, distribution = self._terms(output.levels, targets)
        box, cls, distribution = (t * g for t, g in zip((box, cls, distribution), self.gains, strict=True))
        total = (box + cls + distribution) * targets.labels.shape[0]
        return LossReport(
            total=total, items={"box": box.detach(), "cls": cls.detach(), "dfl": distribution.detach()}
        )

    def _terms(self, levels: tuple[Tensor, ...], targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        (head,) = self._head
        sides, logits = head.flatten(levels)
        sides, logits = sides.float(), logits.float()
        centres = head.centres(levels)
        points, stride = centres.split((2, 1))
        boxes = head.boxes(sides, centres).transpose(1, 2)
        found = self.assign(targets.labels, targets.mask, boxes.detach(), logits.detach(), points)
        labels = targets.labels.gather(1, found.owner_BA.unsqueeze(2).expand(-1, -1, 5))
        true, score = labels[..., 1:], found.score_BA
        total = score.sum().clamp(min=1)

        ids = torch.arange(self.nc, device=logits.device, dtype=logits.dtype).view(1, -1, 1)
        wanted = (labels[..., 0].unsqueeze(1) == ids).float() * score.unsqueeze(1)
        cls = bce_sum(logits, wanted) / total

        scale = stride.view(1, -1, 1)
        box = ((1 - ciou(boxes / scale, true / scale)) * score).sum() / total

        true = true.transpose(1, 2)
        distances = torch.cat((points - true[:, :2], true[:, 2:] - points), 1) / stride
        per_side = dfl(sides.unflatten(1, (4, BINS)), distances)
        distribution = (per_side.mean(1) * score).sum() / total
        return box, cls, distribution
