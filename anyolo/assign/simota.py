"""SimOTA: every true box picks as many of the cheapest points near its centre as its overlaps add up to.

Source: Ge et al. 2021, arXiv:2107.08430, section 2.1; cost and order of the rules as in YOLOX 0.3.
Candidates have static slots: a centre square holds at most 9 points of a level, so that few boxes meet few
points. Ranks are thresholds, so that nothing is sorted, counted or scattered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyolo.assign.slots import slots, spread, take
from anyolo.ops.boxes import xyxy_to_cxcywh
from anyolo.ops.iou import pairwise_iou
from anyolo.ops.tiles import images_at_once
from anyolo.structures import Targets
from anyolo.types import SizeHW

FAR = 1e6
"""Cost of a point outside the box's own centre square; taken where the square holds too few."""
NEVER = 1e12
"""Cost of a slot without a candidate."""
LOG_FLOOR = -100.0


@dataclass(frozen=True, slots=True)
class Owners:
    """Per point: ``positive_BA`` float32, 1 where it answers for a true box, ``owner_BA`` int64, for which,
    and ``overlap_BA`` float32, its IoU with it. Owner and overlap mean nothing at other points.
    """

    positive_BA: Tensor
    owner_BA: Tensor
    overlap_BA: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOTA:
    """``radius``: half a side of the centre square, in strides. ``most``: points that one box may get."""

    radius: float = 1.5
    overlap_weight: float = 3.0
    most: int = 10

    @torch.no_grad()
    def __call__(
        self,
        targets: Targets,
        boxes_BA4: Tensor,
        logits_BAK: Tensor,
        objectness_BA: Tensor,
        centres_A3: Tensor,
        sizes_hw: Sequence[SizeHW],
    ) -> Owners:
        """Assign.

        Args:
            targets: true boxes.
            boxes_BA4: predicted boxes, xyxy in input pixels, float32.
            logits_BAK, objectness_BA: logits, any float type.
            centres_A3: x, y and stride of the points, in input pixels.
            sizes_hw: rows and columns of every level's grid of points.
        """
        per_level = math.ceil(2 * self.radius) ** 2
        images = images_at_once(boxes_BA4, targets.most() * len(centres_A3))
        parts = []
        for start in range(0, len(boxes_BA4), images):
            own = slice(start, start + images)
            most = slice(targets.most(own))
            labels_BT5, mask_BT = targets.labels[own, most], targets.mask[own, most]
            near_BA = self._near_any(labels_BT5, mask_BT, centres_A3, sizes_hw)
            slot_count = min(len(centres_A3), labels_BT5.shape[1] * per_level * len(sizes_hw))
            point_BP, slot_BA = slots(near_BA, slot_count)
            is_candidate_BP = near_BA.gather(1, point_BP)

            overlap_BTP = pairwise_iou(labels_BT5[..., 1:], take(boxes_BA4[own], point_BP))
            overlap_BTP *= is_candidate_BP.unsqueeze(1)
            objectness_BP = objectness_BA[own].gather(1, point_BP)
            cost_BTP = class_costs(take(logits_BAK[own], point_BP), objectness_BP, labels_BT5[..., 0])
            cost_BTP -= (overlap_BTP + 1e-8).log_().mul_(self.overlap_weight)
            centres_BP3 = centres_A3.index_select(0, point_BP.flatten()).view(*point_BP.shape, 3)
            cost_BTP += (self._inside(labels_BT5, centres_BP3) - 1).mul_(-FAR)
            is_pair_BTP = mask_BT.unsqueeze(2) * is_candidate_BP.unsqueeze(1)
            cost_BTP += (is_pair_BTP - 1).mul_(-NEVER)
            found = self._settle(cost_BTP, overlap_BTP, is_pair_BTP)
            parts.append([spread(values_BP, slot_BA) for values_BP in found])
        positive_BA, owner_BA, overlap_BA = (torch.cat(own) for own in zip(*parts, strict=True))
        return Owners(positive_BA, owner_BA.long(), overlap_BA)

    def _near_any(
        self, labels_BT5: Tensor, mask_BT: Tensor, centres_A3: Tensor, sizes_hw: Sequence[SizeHW]
    ) -> Tensor:
        """1.0 at points in the centre square of any true box, (B, A). Row times column indicators, summed
        over the boxes by a product of matrices.
        """
        x_BT1, y_BT1 = torch.split(xyxy_to_cxcywh(labels_BT5[..., 1:])[..., :2], 1, 2)
        found = []
        for grid, size in zip(torch.split(centres_A3, [h * w for h, w in sizes_hw]), sizes_hw, strict=True):
            x, y, stride = grid[: size[1], 0], grid.view(*size, 3)[:, 0, 1], grid[0, 2]
            in_x_BTW = _near(x, x_BT1, stride * self.radius)
            in_y_BTH = _near(y, y_BT1, stride * self.radius) * mask_BT.unsqueeze(2)
            found.append(torch.bmm(in_y_BTH.transpose(1, 2), in_x_BTW).flatten(1))
        return torch.cat(found, 1).clamp_(max=1)

    def _inside(self, labels_BT5: Tensor, centres_BP3: Tensor) -> Tensor:
        """1.0 where a point is in the centre square of the box itself, (B, T, P)."""
        x_BT1, y_BT1 = torch.split(xyxy_to_cxcywh(labels_BT5[..., 1:])[..., :2], 1, 2)
        x_B1P, y_B1P, stride_B1P = torch.split(centres_BP3.transpose(1, 2), 1, 1)
        reach = stride_B1P * self.radius
        return _near(x_B1P, x_BT1, reach).mul_(_near(y_B1P, y_BT1, reach))

    def _settle(
        self, cost_BTP: Tensor, overlap_BTP: Tensor, is_pair_BTP: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Whether each candidate answers for a box, for which and how well it overlaps it, (B, P) each."""
        most = min(self.most, cost_BTP.shape[2])
        wanted_BT1 = overlap_BTP.topk(most, dim=2).values.sum(2, keepdim=True).floor_().clamp_(1, most)
        value_BTP = cost_BTP.neg_()
        best = value_BTP.topk(most, dim=2).values
        last_BT1 = best.gather(2, wanted_BT1.long() - 1)
        chosen_BTP, tied_BTP = (value_BTP > last_BT1).float(), (value_BTP == last_BT1).float()
        room_BT1 = wanted_BT1 - chosen_BTP.sum(2, keepdim=True)
        # of equal costs at the last place the first points are taken
        chosen_BTP += tied_BTP * (tied_BTP.cumsum(2) <= room_BT1).float()
        chosen_BTP *= is_pair_BTP

        # a point chosen by several boxes goes to the one to which it is cheapest, even if that one had not
        # chosen it
        choosers_BP = chosen_BTP.sum(1)
        alone_BP, contested_BP = (choosers_BP == 1).float(), (choosers_BP > 1).float()
        numbers = torch.arange(chosen_BTP.shape[1], device=chosen_BTP.device, dtype=torch.float32)
        only_BP = (chosen_BTP * numbers.view(1, -1, 1)).sum(1)
        owner_BP = only_BP * alone_BP + value_BTP.argmax(1).float() * contested_BP
        overlap_BP = overlap_BTP.gather(1, owner_BP.long().unsqueeze(1)).squeeze(1)
        return alone_BP + contested_BP, owner_BP, overlap_BP


def class_costs(logits_BPK: Tensor, objectness_BP: Tensor, classes_BT: Tensor) -> Tensor:
    """Cross entropy of every point's class scores with every true class alone, summed over the classes,
    (B, T, P).

    Scores are the root of class times objectness. All classes as unwanted, and for the wanted one the
    difference, picked by a product of matrices: nothing of size B, T, P, K exists.
    """
    score_BPK = (logits_BPK.float().sigmoid() * objectness_BP.float().sigmoid().unsqueeze(2)).sqrt_()
    unwanted_BPK = (-score_BPK).log1p_().clamp_(min=LOG_FLOOR)
    gain_BPK = unwanted_BPK - score_BPK.log_().clamp_(min=LOG_FLOOR)
    ids = torch.arange(score_BPK.shape[2], device=score_BPK.device, dtype=torch.float32)
    is_class_BTK = (classes_BT.unsqueeze(2) == ids).float()
    return torch.bmm(is_class_BTK, gain_BPK.transpose(1, 2)).sub_(unwanted_BPK.sum(2).unsqueeze(1))


def _near(x: Tensor, middle: Tensor, reach: Tensor) -> Tensor:
    """1.0 where ``x`` is strictly within ``reach`` of ``middle``."""
    return (x > middle - reach).float() * (x < middle + reach).float()
