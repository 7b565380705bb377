"""Task-aligned assignment: every true box picks the points that both classify and locate it best.

Source: Feng et al. 2021, arXiv:2108.07755 (TOOD), section 3.2; constants and order of the rules as in YOLOv8.
Dense masks with static shapes only: no index lists, no counts that depend on the data, no scatter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anyolo.ops.iou import ciou

EPS = 1e-9
CHUNK = 4_000_000
"""Most elements of one (B, T, A) tensor: 16 MB in float32; more images than fit are taken in turns."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Per point: ``owner_BA`` int64, the index of the true box it answers for; ``score_BA`` float32, how well in 0..1.

    A point is positive where its score is above 0; elsewhere its owner means nothing.
    """

    owner_BA: Tensor
    score_BA: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAligned:
    """``min_side``: true boxes with a shorter side (pixels) are enlarged to it where candidate points are chosen."""

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    min_side: float = 0.0

    @torch.no_grad()
    def __call__(
        self, labels_BT5: Tensor, mask_BT: Tensor, boxes_BA4: Tensor, logits_BKA: Tensor, points_2A: Tensor
    ) -> Assignment:
        """Assign.

        Args:
            labels_BT5, mask_BT: as in ``structures.Targets``.
            boxes_BA4: predicted boxes, xyxy in input pixels.
            logits_BKA: predicted class logits.
            points_2A: x and y of the points in input pixels.
        """
        images = max(1, CHUNK // (labels_BT5.shape[1] * points_2A.shape[1]))
        parts = [
            self._assign(*part, points_2A)
            for part in zip(*(x.split(images) for x in (labels_BT5, mask_BT, boxes_BA4, logits_BKA)), strict=True)
        ]
        return Assignment(torch.cat([p.owner_BA for p in parts]), torch.cat([p.score_BA for p in parts]))

    def _assign(
        self, labels_BT5: Tensor, mask_BT: Tensor, boxes_BA4: Tensor, logits_BKA: Tensor, points_2A: Tensor
    ) -> Assignment:
        classes_BT, true_BT4 = labels_BT5[..., 0].long(), labels_BT5[..., 1:]
        overlap_BTA = ciou(true_BT4.unsqueeze(2), boxes_BA4.unsqueeze(1)).clamp(min=0)
        overlap_BTA = torch.where(self._candidates(true_BT4, mask_BT, points_2A), overlap_BTA, 0.0)
        quality_BTA = _class_logits(logits_BKA, classes_BT).sigmoid().pow(self.alpha) * overlap_BTA.pow(self.beta)
        chosen_BTA = self._best(quality_BTA)
        # A point chosen by several boxes answers for the one it overlaps most, chosen by that one or not.
        count_BA = chosen_BTA.sum(1, keepdim=True)
        owner_BA = torch.where(count_BA > 1, overlap_BTA, chosen_BTA).max(1).indices
        true_ids = torch.arange(labels_BT5.shape[1], device=owner_BA.device).view(1, -1, 1)
        owned_BTA = (owner_BA.unsqueeze(1) == true_ids) & (count_BA > 0)
        quality_BTA = torch.where(owned_BTA, quality_BTA, 0.0)
        overlap_BTA = torch.where(owned_BTA, overlap_BTA, 0.0)
        gain_BT = overlap_BTA.amax(2) / (quality_BTA.amax(2) + EPS)
        score_BA = (quality_BTA * gain_BT.unsqueeze(2)).sum(1)
        return Assignment(owner_BA, score_BA)

    def _candidates(self, true_BT4: Tensor, mask_BT: Tensor, points_2A: Tensor) -> Tensor:
        """(B, T, A) bool: the point lies strictly inside the true box."""
        low_BT2, high_BT2 = true_BT4.split((2, 2), -1)
        grow_BT2 = (self.min_side - (high_BT2 - low_BT2)).clamp(min=0) / 2
        x1, y1 = (low_BT2 - grow_BT2).unsqueeze(2).unbind(-1)
        x2, y2 = (high_BT2 + grow_BT2).unsqueeze(2).unbind(-1)
        x, y = points_2A
        return (x > x1) & (x < x2) & (y > y1) & (y < y2) & (mask_BT > 0).unsqueeze(2)

    def _best(self, quality_BTA: Tensor) -> Tensor:
        """(B, T, A) float 0 or 1: the ``topk`` best points of every box; of a tie at the last place, all."""
        topk = min(self.topk, quality_BTA.shape[2])
        last_BT1 = quality_BTA.topk(topk, dim=2).values[..., -1:]
        return ((quality_BTA >= last_BT1) & (quality_BTA > 0)).float()


def _class_logits(logits_BKA: Tensor, classes_BT: Tensor) -> Tensor:
    """Of every true box the logits of its class: (B, T, A)."""
    batch, classes, points = logits_BKA.shape
    first = torch.arange(0, batch * classes, classes, device=classes_BT.device).unsqueeze(1)
    rows = (classes_BT + first).flatten()
    return logits_BKA.reshape(batch * classes, points).index_select(0, rows).view(batch, -1, points)
