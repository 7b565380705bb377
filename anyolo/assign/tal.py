"""Task-aligned assignment: every true box picks the points that both classify and locate it best.

Source: Feng et al. 2021, arXiv:2108.07755 (TOOD), section 3.2; constants and order of the rules as in YOLOv8.
Dense masks with static shapes only: no index lists, no counts that depend on the data, no scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyolo.assign.overlap import clipped_ciou
from anyolo.structures import Targets
from anyolo.types import SizeHW

EPS = 1e-9
LEAST = 1e-30
"""Smallest alignment that counts; below it a point's share of the loss is nothing in float32."""
CHUNK_ON_HOST, CHUNK_ELSEWHERE = 250_000, 4_000_000
"""Most elements of one (B, T, A) tensor; further images wait for their turn. Some ten such tensors live at a
time. On the host they should stay in the cache (a quarter faster); elsewhere every turn costs sixty launches.
"""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Per point: ``owner_BA`` int64, the true box it answers for, and ``score_BA`` float32 in 0..1, how well.

    A point is positive where its score is above 0; elsewhere its owner means nothing.
    """

    owner_BA: Tensor
    score_BA: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAligned:
    """``min_side``: where candidate points are chosen, sides of true boxes are enlarged to so many pixels."""

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    min_side: float = 0.0

    @torch.no_grad()
    def __call__(
        self,
        targets: Targets,
        boxes_BA4: Tensor,
        logits_BAK: Tensor,
        points_A2: Tensor,
        sizes_hw: Sequence[SizeHW],
    ) -> Assignment:
        """Assign.

        Args:
            targets: true boxes.
            boxes_BA4: predicted boxes, xyxy in input pixels, float32.
            logits_BAK: predicted class logits, any float type.
            points_A2: x and y of the points in input pixels.
            sizes_hw: rows and columns of every level's grid of points.
        """
        most = CHUNK_ON_HOST if boxes_BA4.is_cpu else CHUNK_ELSEWHERE
        images = max(1, most // (targets.mask.shape[1] * len(points_A2)))
        parts = []
        for start in range(0, len(boxes_BA4), images):
            own = slice(start, start + images)
            part = Targets(targets.labels[own], targets.mask[own])
            inside_BTA = self._inside(part, points_A2, sizes_hw)
            overlap_BTA = clipped_ciou(part.labels[..., 1:], boxes_BA4[own], inside_BTA)
            align_BTA = self._class_scores(logits_BAK[own], part.labels[..., 0].long())
            align_BTA *= overlap_BTA.pow(self.beta / 2).square_()  # pow(6) takes ten times as long as pow(3)
            parts.append(self._assign(align_BTA, overlap_BTA))
        return Assignment(torch.cat([p.owner_BA for p in parts]), torch.cat([p.score_BA for p in parts]))

    def _inside(self, targets: Targets, points_A2: Tensor, sizes_hw: Sequence[SizeHW]) -> Tensor:
        """(B, T, A) 1.0 where the point lies strictly inside a real true box: per axis, then the product."""
        low_BT2, high_BT2 = torch.split(targets.labels[..., 1:], 2, -1)
        grow_BT2 = (self.min_side - (high_BT2 - low_BT2)).clamp(min=0) / 2
        low_BT2, high_BT2 = low_BT2 - grow_BT2, high_BT2 + grow_BT2
        grids = torch.split(points_A2, [rows * columns for rows, columns in sizes_hw])
        levels = []
        for grid, (rows, columns) in zip(grids, sizes_hw, strict=True):
            x, y = grid[:columns, 0], grid.view(rows, columns, 2)[:, 0, 1]
            in_x = _between(x, low_BT2[..., :1], high_BT2[..., :1])
            in_y = _between(y, low_BT2[..., 1:], high_BT2[..., 1:]) * targets.mask.unsqueeze(2)
            levels.append((in_y.unsqueeze(3) * in_x.unsqueeze(2)).flatten(2))
        return torch.cat(levels, 2)

    def _class_scores(self, logits_BAK: Tensor, classes_BT: Tensor) -> Tensor:
        """(B, T, A): every point's score for the class of the true box, to the power alpha."""
        batch, points, classes = logits_BAK.shape
        if classes > classes_BT.shape[1]:
            picked_BAT = logits_BAK.gather(2, classes_BT.unsqueeze(1).expand(-1, points, -1))
            return picked_BAT.transpose(1, 2).contiguous().float().sigmoid_().pow_(self.alpha)
        scores_BKA = logits_BAK.transpose(1, 2).contiguous().float().sigmoid().pow_(self.alpha)
        first_B1 = torch.arange(0, batch * classes, classes, device=classes_BT.device).unsqueeze(1)
        rows = (classes_BT + first_B1).flatten()
        return scores_BKA.view(-1, points).index_select(0, rows).view(batch, -1, points)

    def _assign(self, align_BTA: Tensor, overlap_BTA: Tensor) -> Assignment:
        """From alignment and overlap, both 0 at points that are no candidates; uses up its arguments."""
        topk = min(self.topk, align_BTA.shape[2])
        # of a tie at the last place all are chosen
        last_BT1 = align_BTA.topk(topk, dim=2).values[..., -1:]
        chosen_BTA = (align_BTA >= last_BT1.clamp(min=LEAST)).float()

        # a point chosen by several boxes goes to the one it overlaps most, even if that one had not chosen it
        count_B1A = chosen_BTA.sum(1, keepdim=True)
        contested_B1A = (count_B1A > 1).float()
        claim_BTA = chosen_BTA.mul_(1 - contested_B1A).add_(overlap_BTA * contested_B1A)
        owner_BA = claim_BTA.max(1).indices
        ids_T1 = torch.arange(align_BTA.shape[1], device=owner_BA.device).unsqueeze(1)
        owned_BTA = (owner_BA.unsqueeze(1) == ids_T1).float().mul_(count_B1A.clamp(max=1))

        align_BTA *= owned_BTA
        gain_BT = overlap_BTA.mul_(owned_BTA).amax(2) / (align_BTA.amax(2) + EPS)
        return Assignment(owner_BA, align_BTA.mul_(gain_BT.unsqueeze(2)).sum(1))


def _between(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (x > low).float() * (x < high).float()
