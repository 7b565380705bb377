"""Task-aligned assignment: every true box picks the points that both classify and locate it best.

Source: Feng et al. 2021, arXiv:2108.07755 (TOOD), section 3.2; constants and order of the rules as in YOLOv8.
Dense masks with static shapes only: no index lists, no counts that depend on the data, no scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyolo.assign.overlap import clipped_ciou, measure
from anyolo.ops.tiles import images_at_once
from anyolo.structures import Targets
from anyolo.types import SizeHW

EPS = 1e-9
LEAST = 1e-30
"""Smallest alignment that counts; below it a point's share of the loss is nothing in float32."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Per point: ``owner_BA`` int64, the true box it answers for, and ``score_BA`` float32 in 0..1, how well.

    A point is positive where its score is above 0; elsewhere its owner means nothing.
    """

    owner_BA: Tensor
    score_BA: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAligned:
    """``min_side``: where candidate points are chosen, sides of true boxes are enlarged to so many pixels.
    ``everywhere``: a point that several boxes choose may go to one that it does not lie in.
    """

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    min_side: float = 0.0
    everywhere: bool = False

    def left_out(self, sizes_N2: NDArray[np.float64], stride: float) -> float:
        """Expected share of boxes of these widths and heights, in input pixels, that can have no point.

        None lies inside them, wherever chance puts them on a grid of ``stride`` pixels. 0 for no boxes.
        """
        if not len(sizes_N2):
            return 0.0
        met_N2 = np.minimum(np.maximum(sizes_N2, self.min_side) / stride, 1)
        return float(1 - met_N2.prod(1).mean())

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
        images = images_at_once(boxes_BA4, targets.most() * len(points_A2))
        measured_MBT, measured_MBA = measure(targets.labels[..., 1:]), measure(boxes_BA4)
        in_columns, in_rows = self._inside(targets, points_A2, sizes_hw)
        parts = []
        for start in range(0, len(boxes_BA4), images):
            own = slice(start, start + images)
            most = slice(targets.most(own))
            axes = zip(in_rows, in_columns, strict=True)
            levels = [(y[own, most].unsqueeze(3) * x[own, most].unsqueeze(2)).flatten(2) for y, x in axes]
            inside_BTA = torch.cat(levels, 2)
            met_BTA = (
                targets.mask[own, most].unsqueeze(2).expand_as(inside_BTA) if self.everywhere else inside_BTA
            )
            overlap_BTA = clipped_ciou(measured_MBT[:, own, most], measured_MBA[:, own], met_BTA)
            align_BTA = self._class_scores(logits_BAK[own], targets.labels[own, most, 0].long())
            align_BTA *= overlap_BTA.pow(self.beta / 2).square_()  # pow(6) takes ten times as long as pow(3)
            parts.append(self._assign(align_BTA, overlap_BTA, inside_BTA))
        return Assignment(torch.cat([p.owner_BA for p in parts]), torch.cat([p.score_BA for p in parts]))

    def _inside(
        self, targets: Targets, points_A2: Tensor, sizes_hw: Sequence[SizeHW]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Per level, 1.0 where a column (B, T, W) or row (B, T, H) of points is strictly in a true box."""
        low_BT2, high_BT2 = torch.split(targets.labels[..., 1:], 2, -1)
        grow_BT2 = (self.min_side - (high_BT2 - low_BT2)).clamp(min=0) / 2
        low_BT2, high_BT2 = low_BT2 - grow_BT2, high_BT2 + grow_BT2
        grids = torch.split(points_A2, [rows * columns for rows, columns in sizes_hw])
        x = torch.cat([grid[:columns, 0] for grid, (_, columns) in zip(grids, sizes_hw, strict=True)])
        y = torch.cat([grid.view(*size, 2)[:, 0, 1] for grid, size in zip(grids, sizes_hw, strict=True)])
        in_x = _between(x, low_BT2[..., :1], high_BT2[..., :1])
        in_y = _between(y, low_BT2[..., 1:], high_BT2[..., 1:]) * targets.mask.unsqueeze(2)
        rows, columns = ([size[axis] for size in sizes_hw] for axis in (0, 1))
        return torch.split(in_x, columns, 2), torch.split(in_y, rows, 2)

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

    def _assign(self, align_BTA: Tensor, overlap_BTA: Tensor, inside_BTA: Tensor) -> Assignment:
        """From alignment and overlap, both 0 at points that cannot have the box; uses up its arguments."""
        candidates_BTA = inside_BTA.mul_(align_BTA) if self.everywhere else align_BTA
        # of a tie at the last place all are chosen
        chosen_BTA = _reaches(candidates_BTA, _kth_largest(candidates_BTA, self.topk).clamp(min=LEAST))
        # a point chosen by several boxes goes to the one it overlaps most, even if that one had not chosen it
        choosers_B1A = chosen_BTA.sum(1, keepdim=True)
        alone_B1A, contested_B1A = (choosers_B1A <= 1).float(), (choosers_B1A > 1).float()
        claim_BTA = chosen_BTA.mul_(alone_B1A).add_(overlap_BTA * contested_B1A)
        owned_BTA = _reaches(claim_BTA, claim_BTA.amax(1, keepdim=True).clamp(min=LEAST))

        align_BTA *= owned_BTA
        gain_BT = overlap_BTA.mul_(owned_BTA).amax(2) / (align_BTA.amax(2) + EPS)
        # of equal boxes the first answers; falling numbers, because max with indices is slow on a host
        boxes = align_BTA.shape[1]
        falling_T1 = torch.arange(boxes, 0, -1, device=owned_BTA.device, dtype=torch.float32).unsqueeze(1)
        first_B1A = owned_BTA.mul_(falling_T1).amax(1, keepdim=True).neg().add(boxes)
        owner_B1A = first_B1A.long().clamp_(max=boxes - 1)
        score_BA = align_BTA.gather(1, owner_B1A).squeeze(1) * gain_BT.gather(1, owner_B1A.squeeze(1))
        return Assignment(owner_B1A.squeeze(1), score_BA)


def _reaches(values: Tensor, least: Tensor) -> Tensor:
    """1.0 where ``values >= least``, else 0.0. By signs: comparing and converting takes four times longer."""
    return (values - least).sign_().add_(1).clamp_(max=1)


def _kth_largest(values_BTA: Tensor, k: int, groups: int = 8) -> Tensor:
    """(B, T, 1), the k-th largest value of each row, the smallest if there are fewer.

    The k largest values lie in the k groups with the largest maxima, so that only those are sorted: a quarter
    of the time of one ``topk`` over the row.
    """
    batch, rows, points = values_BTA.shape
    even = points - points % groups
    grouped = values_BTA[..., :even].view(batch, rows, groups, even // groups)
    if even // groups <= k:
        return values_BTA.topk(min(k, points), dim=2).values[..., -1:]
    best = grouped.amax(2).topk(k, dim=2).indices.unsqueeze(2).expand(-1, -1, groups, -1)
    few = torch.cat((grouped.gather(3, best).flatten(2), values_BTA[..., even:]), 2)
    return few.topk(k, dim=2).values[..., -1:]


def _between(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (x > low).float() * (x < high).float()
