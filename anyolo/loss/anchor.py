"""Loss of heads with anchors: overlap of every match, objectness of every anchor, class of every match.

Source: Redmon et al. 2016, arXiv:1506.02640, section 2.2 (objectness); facts of YOLOv5 and Yolo-FastestV2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from anyolo.assign.ota import Candidates, refine
from anyolo.assign.ratio import Matches, last_in_cell, match_by_ratio
from anyolo.config.schema import LossConfig
from anyolo.devices.distributed import at_least_one, shared_counts
from anyolo.loss.cells import pick_cells, slots_of_cells, spread
from anyolo.loss.terms import binary_cross_entropy
from anyolo.nn.heads.anchor import AnchorBased, boxes_of
from anyolo.nn.model import Detector
from anyolo.ops.boxes import cxcywh_to_xyxy
from anyolo.ops.iou import ciou
from anyolo.structures import HeadOutput, LossReport, Targets
from anyolo.types import SizeHW

NOMINAL_SIDE, NOMINAL_LEVELS, NOMINAL_CLASSES = 640, 3, 80
"""The input, levels and classes that relative gains are written for."""
BALANCE_PACE = 1e-4
"""Share of a level's balance that one batch may replace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorRules:
    """What families differ in.

    ``balance``: weight of the objectness of each level, finest first. ``overlap_is_objectness``: a match's
    objectness should be its overlap, else 1. ``gains_are_relative``: gains are those of 3 levels, 80 classes
    and 640 pixels. ``sums_images``: the total counts every image, else it is their mean. The class loss of a
    head with exclusive classes is divided by their number.
    """

    balance: tuple[float, ...] = (4.0, 1.0, 0.4)
    overlap_is_objectness: bool = True
    gains_are_relative: bool = True
    sums_images: bool = True


@dataclass(frozen=True, slots=True)
class Level:
    """One level's matches with the numbers of the maps there; of the maps themselves only objectness."""

    match: Matches
    slot_BP: Tensor
    anchors_N2: Tensor
    stride: int
    size_hw: SizeHW
    objectness_BNP: Tensor
    boxes_BN4M: Tensor
    classes_BGKM: Tensor


class AnchorCriterion(nn.Module):
    """``(HeadOutput, Targets) -> LossReport``, in float32 whatever the maps come in; items are per image.

    Holds nothing that is trained; its one buffer is the balance of the levels.
    """

    balance: Tensor

    def __init__(self, model: Detector, config: LossConfig, rules: AnchorRules | None = None) -> None:
        super().__init__()
        head = cast(AnchorBased, model.head)
        self.rules, self.config = rules or AnchorRules(), config
        self._head = (head,)  # in a tuple: its weights are not the criterion's
        levels = len(head.anchors)
        balance = self.rules.balance if len(self.rules.balance) == levels else (4.0, 1.0, 0.25, 0.06, 0.02)
        self.register_buffer("balance", torch.tensor(balance[:levels]), persistent=config.autobalance)
        self.gains = {"box": config.box, "obj": config.obj, "cls": config.cls}
        if self.rules.gains_are_relative:
            height, width = config.imgsz if isinstance(config.imgsz, tuple) else (config.imgsz,) * 2
            shares = (1.0, height * width / NOMINAL_SIDE**2, head.nc / NOMINAL_CLASSES)
            for name, share in zip(self.gains, shares, strict=True):
                self.gains[name] *= share * NOMINAL_LEVELS / levels

    def forward(self, output: HeadOutput, targets: Targets) -> LossReport:
        (head,) = self._head
        maps = zip(output.levels, head.anchors.unbind(), head.strides, strict=True)
        levels = [self._level(level, anchors, stride, targets) for level, anchors, stride in maps]
        if self.config.loss_ota and torch.is_grad_enabled():  # what is judged is judged by every match
            refined = refine(targets, [self._candidates(level) for level in levels])
            levels = [replace(level, match=match) for level, match in zip(levels, refined, strict=True)]
        # in one exchange with the other processes, if there are any
        *counts, images = shared_counts(*(level.match.valid_BNM.sum() for level in levels), len(targets.mask))
        terms = zip(*map(self._terms, levels, map(at_least_one, counts)), strict=True)
        box, obj, cls = (torch.stack(parts) for parts in terms)
        if isinstance(images, Tensor):
            obj = obj * (len(targets.mask) / images)
        # a copy, for the balance moves on before the way back
        sums = {"box": box.sum(), "obj": (obj * self.balance.clone()).sum(), "cls": cls.sum()}
        if self.config.autobalance and torch.is_grad_enabled():
            self._rebalance(obj.detach())
        items = {name: value * self.gains[name] for name, value in sums.items()}
        total = items["box"] + items["obj"] + items["cls"]
        if self.rules.sums_images:
            total = total * images
        return LossReport(total=total, items={name: item.detach() for name, item in items.items()})

    def _level(self, level_BCHW: Tensor, anchors_N2: Tensor, stride: int, targets: Targets) -> Level:
        (head,) = self._head
        raw = head.parts(level_BCHW)
        anchors_N2 = anchors_N2.to(level_BCHW.device, torch.float32)
        size_hw = (level_BCHW.shape[2], level_BCHW.shape[3])
        match = match_by_ratio(targets, anchors_N2, stride, size_hw, self.config.anchor_t)
        slot_BP = slots_of_cells(match.cell_BM, size_hw)
        boxes_BN4M = pick_cells(raw.boxes, match.cell_BM, slot_BP)
        classes = pick_cells(raw.classes, match.cell_BM, slot_BP)
        return Level(match, slot_BP, anchors_N2, stride, size_hw, raw.objectness, boxes_BN4M, classes)

    def _candidates(self, level: Level) -> Candidates:
        """What a level's slots are judged by, no gradient kept."""
        cell_BM, stride = level.match.cell_BM, level.stride
        columns = level.size_hw[1]
        cell = cell_BM.float()
        row = ((cell + 0.5) / columns).floor()
        centres = torch.stack((cell - row * columns, row), 2).add(0.5).unsqueeze(1) * stride
        anchors_N12 = (level.anchors_N2 * stride).unsqueeze(1)
        boxes = boxes_of(level.boxes_BN4M.detach(), centres, anchors_N12, stride)
        shape = level.match.valid_BNM.shape
        index = cell_BM.unsqueeze(1).expand(shape)
        return Candidates(
            match=level.match,
            boxes_BNM4=boxes.view(*shape, 4),
            objectness_BNM=level.objectness_BNP.detach().gather(2, index).float(),
            classes_BGKM=level.classes_BGKM.detach(),
            columns=columns,
            stride=stride,
        )

    def _terms(self, level: Level, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Box and class loss of one level over the ``count`` of matches, 0 without one, and its mean
        objectness loss.
        """
        (head,) = self._head
        match = level.match
        overlap_BNM = self._overlap(level.boxes_BN4M, match, level.anchors_N2)
        box = ((overlap_BNM.neg() + 1) * match.valid_BNM).sum() / count

        wanted_BNP = self._objectness(overlap_BNM.detach(), match, level.slot_BP)
        obj = self._cross_entropy(level.objectness_BNP.float(), wanted_BNP, self.config.obj_pw).mean()

        if head.nc == 1:
            return box, obj, torch.zeros_like(obj)
        return box, obj, self._classes(level.classes_BGKM, match) / count

    def _overlap(self, raw_BN4M: Tensor, match: Matches, anchors_N2: Tensor) -> Tensor:
        """CIoU of every slot's box, (B, N, M), both from the corner of the cell and in cells."""
        middle = anchors_N2.new_full((1, 2), 0.5)
        boxes = boxes_of(raw_BN4M, middle, anchors_N2.unsqueeze(1), 1.0)
        return ciou(boxes.view(*match.valid_BNM.shape, 4), cxcywh_to_xyxy(match.boxes_BGM4))

    def _objectness(self, overlap_BNM: Tensor, match: Matches, slot_BP: Tensor) -> Tensor:
        """What objectness should be in every cell, (B, N, P): of several matches the last one's."""
        value = overlap_BNM.clamp(min=0) if self.rules.overlap_is_objectness else torch.ones_like(overlap_BNM)
        # the last slot of the cell may be no match of this anchor: look further back
        last_BNM = last_in_cell(match.cell_BM, match.valid_BNM)
        value = nn.functional.pad(value * match.valid_BNM, (1, 0)).gather(2, last_BNM)
        return spread(value, slot_BP)

    def _classes(self, logits_BGKM: Tensor, match: Matches) -> Tensor:
        """Class loss summed over the matches, mean over the classes."""
        (head,) = self._head
        ids = torch.arange(head.nc, device=logits_BGKM.device, dtype=torch.float32)
        wanted = (match.classes_BGM.unsqueeze(2) == ids.view(1, 1, -1, 1)).float()
        if head.classes_are_exclusive:
            loss_BGM = -(logits_BGKM.log_softmax(2) * wanted).sum(2)
        else:
            smooth = self.config.label_smoothing
            wanted = wanted * (1 - smooth) + smooth / 2
            loss_BGM = self._cross_entropy(logits_BGKM, wanted, self.config.cls_pw).sum(2)
        return (loss_BGM * match.valid_BNM).sum() / head.nc

    def _cross_entropy(self, logits: Tensor, wanted: Tensor, positive_weight: float) -> Tensor:
        return binary_cross_entropy(
            logits, wanted, positive_weight=positive_weight, gamma=self.config.fl_gamma
        )

    @torch.no_grad()
    def _rebalance(self, obj_L: Tensor) -> None:
        """Move the weights towards equal objectness losses; that of stride 16 (else the second) stays 1."""
        (head,) = self._head
        balance = self.balance * (1 - BALANCE_PACE) + obj_L.reciprocal() * BALANCE_PACE
        pivot = head.strides.index(16) if 16 in head.strides else min(1, len(head.strides) - 1)
        self.balance.copy_(balance / balance[pivot])
