"""Loss of heads whose boxes are distributions: task-aligned assignment, class BCE, CIoU, focal sides."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from anyolo.assign.tal import TaskAligned
from anyolo.config.schema import LossConfig
from anyolo.loss.positives import positives_and_classes, slots, take
from anyolo.loss.terms import distribution_focal
from anyolo.nn.heads.dfl import BINS, SIDES, DFLHead
from anyolo.nn.model import Detector
from anyolo.ops.iou import ciou
from anyolo.ops.tiles import images_at_once
from anyolo.structures import HeadOutput, LossReport, Targets


class DFLCriterion(nn.Module):
    """``(HeadOutput, Targets) -> LossReport``: the total sums over the images of a batch, items are per
    image.

    Everything runs in float32, whatever the maps come in. Holds nothing that is trained.
    """

    def __init__(self, model: Detector, config: LossConfig) -> None:
        super().__init__()
        self.gains = {"box": config.box, "cls": config.cls, "dfl": config.dfl}
        self.assign = TaskAligned(min_side=config.tal_min_side)
        self._head = (cast(DFLHead, model.head),)  # in a tuple: its weights are not the criterion's

    def forward(self, output: HeadOutput, targets: Targets) -> LossReport:
        terms = self._terms(output.levels, targets)
        items = {name: terms[name] * gain for name, gain in self.gains.items()}
        total = (items["box"] + items["cls"] + items["dfl"]) * len(targets.mask)
        return LossReport(total=total, items={name: item.detach() for name, item in items.items()})

    def _terms(self, levels: tuple[Tensor, ...], targets: Targets) -> dict[str, Tensor]:
        """Box, class and distribution loss over the sum of all scores, before gains."""
        (head,) = self._head
        maps, centres = head.flatten(levels), head.centres(levels)
        with torch.no_grad():
            sides, logits = torch.split(maps, [SIDES, head.nc], 2)
            tiles = torch.split(sides, images_at_once(sides, len(centres) * SIDES))
            boxes = torch.cat([head.boxes(tile.float(), centres) for tile in tiles])
            sizes_hw = [(x.shape[2], x.shape[3]) for x in levels]
            found = self.assign(targets, boxes, logits, centres[:, :2], sizes_hw)
            # a true box has at most topk points, ties at its last place aside
            most = min(len(centres), self.assign.topk * targets.most())
            point_BS, slot_BA = slots(found.score_BA, most)
            score = found.score_BA.gather(1, point_BS)
            true = take(targets.labels, found.owner_BA.gather(1, point_BS))
            point = centres.index_select(0, point_BS.flatten()).view(*point_BS.shape, 3)
            normaliser = found.score_BA.sum().clamp(min=1)

        rows, classes = positives_and_classes(maps, point_BS, slot_BA, SIDES)
        sides, logits = torch.split(rows, [SIDES, head.nc], 2)
        ids = torch.arange(head.nc, device=rows.device, dtype=rows.dtype)
        wanted = (true[..., :1] == ids).float() * score.unsqueeze(2)
        centre, stride = torch.split(point, [2, 1], 2)
        low, high = torch.split(true[..., 1:], 2, 2)
        distances = torch.cat((centre - low, high - centre), 2) / stride
        overlap = ciou(head.boxes(sides, point) / stride, true[..., 1:] / stride)
        focal = distribution_focal(sides.reshape(*score.shape, 4, BINS), distances).mean(2)
        return {
            "box": (score - overlap * score).sum() / normaliser,
            "cls": (classes - (logits * wanted).sum()) / normaliser,
            "dfl": (focal * score).sum() / normaliser,
        }
