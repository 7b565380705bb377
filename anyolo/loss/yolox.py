"""Loss of decoupled heads without anchors: SimOTA, squared IoU, objectness of all points, classes.

Source: Ge et al. 2021, arXiv:2107.08430, section 2.1; facts of YOLOX 0.3.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from anyolo.assign.simota import SimOTA
from anyolo.assign.slots import slots, take
from anyolo.config.schema import LossConfig
from anyolo.devices.distributed import at_least_one, shared_counts
from anyolo.loss.phase import Phased
from anyolo.loss.positives import positives_and_classes
from anyolo.loss.terms import binary_cross_entropy
from anyolo.nn.heads.decoupled import BOX, DecoupledHead
from anyolo.nn.model import Detector
from anyolo.ops.boxes import xyxy_to_cxcywh
from anyolo.ops.tiles import images_at_once
from anyolo.structures import HeadOutput, LossReport, Targets


class DecoupledCriterion(Phased):
    """``(HeadOutput, Targets) -> LossReport``: everything is divided by the positive points of the batch.

    In the last phase the distance of raw boxes to theirs counts too (item ``l1``, else 0). Everything runs in
    float32, whatever the maps come in. Holds nothing that is trained.
    """

    def __init__(self, model: Detector, config: LossConfig) -> None:
        super().__init__()
        self.gains = {"box": config.box, "obj": config.obj, "cls": config.cls, "l1": 1.0}
        self.assign = SimOTA()
        self._head = (cast(DecoupledHead, model.head),)  # in a tuple: its weights are not the criterion's

    def forward(self, output: HeadOutput, targets: Targets) -> LossReport:
        terms = self._terms(output.levels, targets)
        items = {name: terms[name] * gain for name, gain in self.gains.items()}
        total = items["box"] + items["obj"] + items["cls"] + items["l1"]
        return LossReport(total=total, items={name: item.detach() for name, item in items.items()})

    def _terms(self, levels: tuple[Tensor, ...], targets: Targets) -> dict[str, Tensor]:
        """Box, objectness, class and L1 loss over the number of positive points, before gains."""
        (head,) = self._head
        maps, centres = head.flatten(levels), head.centres(levels)
        with torch.no_grad():
            raw, objectness, logits = torch.split(maps, [BOX, 1, head.nc], 2)
            tiles = torch.split(raw, images_at_once(raw, len(centres) * BOX))
            boxes = torch.cat([head.boxes(tile.float(), centres) for tile in tiles])
            sizes_hw = [(x.shape[2], x.shape[3]) for x in levels]
            found = self.assign(targets, boxes, logits, objectness.squeeze(2), centres, sizes_hw)
            most = min(len(centres), self.assign.most * targets.most())
            point_BS, slot_BA = slots(found.positive_BA, most)
            positive_BS = found.positive_BA.gather(1, point_BS)
            overlap_BS = found.overlap_BA.gather(1, point_BS)
            true = take(targets.labels, found.owner_BA.gather(1, point_BS))
            centres = centres.index_select(0, point_BS.flatten()).view(*point_BS.shape, 3)
            normaliser = at_least_one(*shared_counts(positive_BS.sum()))

        rows, everywhere = positives_and_classes(maps, point_BS, slot_BA, BOX, BOX + 1)
        raw, objectness, logits = torch.split(rows, [BOX, 1, head.nc], 2)
        ids = torch.arange(head.nc, device=rows.device, dtype=rows.dtype)
        wanted = (true[..., :1] == ids).float() * overlap_BS.unsqueeze(2)
        iou = _iou(head.boxes(raw, centres), true[..., 1:])
        classes = binary_cross_entropy(logits, wanted).sum(2)
        return {
            "box": (positive_BS - iou * iou * positive_BS).sum() / normaliser,
            "obj": (everywhere - (objectness.squeeze(2) * positive_BS).sum()) / normaliser,
            "cls": (classes * positive_BS).sum() / normaliser,
            "l1": self._distance(raw, true[..., 1:], centres, positive_BS) / normaliser,
        }

    def _distance(self, raw: Tensor, true_xyxy: Tensor, centres: Tensor, positive_BS: Tensor) -> Tensor:
        """How far raw boxes are from those that would decode to the true ones, summed; 0 before the last
        phase.
        """
        if not self.is_last_phase:
            return torch.zeros_like(positive_BS.sum())
        point, stride = torch.split(centres, [2, 1], 2)
        middle, size = torch.split(xyxy_to_cxcywh(true_xyxy), 2, 2)
        wanted = torch.cat(((middle - point) / stride + 0.5, (size / stride + 1e-8).log()), 2)
        return ((raw - wanted).abs().sum(2) * positive_BS).sum()


def _iou(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """IoU of boxes side by side, (..., 4) to (...)."""
    ax1, ay1, ax2, ay2 = first_xyxy.unbind(-1)
    bx1, by1, bx2, by2 = second_xyxy.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    inter = width * height
    return inter / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter + 1e-16)
