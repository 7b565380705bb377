"""Of the matches by ratio, the cheapest for their box: each true box takes as many as overlap it well.

Source: Ge et al. 2021, arXiv:2103.14259 (OTA) and arXiv:2107.08430, section 2.1 (its top-k form, dynamic k);
facts of YOLOv7 for the candidates and the cost. Slots stay where they are: no list, no count and no shape
depends on the data, nothing is scattered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.assign.ratio import Matches
from anyolo.ops.boxes import xyxy_to_cxcywh
from anyolo.ops.iou import pairwise_iou
from anyolo.ops.tiles import images_at_once
from anyolo.structures import Targets

MOST = 10
"""Candidates that a true box takes at most, and overlaps that say how many."""
OVERLAP_WEIGHT, OVERLAP_EPS, REST_EPS = 3.0, 1e-8, 1e-7
NEVER = 1e9
"""More than any candidate can cost."""
DIGIT = 128
"""Base in which candidates and boxes are numbered: its digits are exact in every type of a product."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """One level's matches, with what the network says there; G as in ``Matches``.

    ``boxes_BNM4`` xyxy in input pixels, ``objectness_BNM`` and ``classes_BGKM`` before the sigmoid, all
    float32; ``columns`` of the level's grid, ``stride`` in pixels.
    """

    match: Matches
    boxes_BNM4: Tensor
    objectness_BNM: Tensor
    classes_BGKM: Tensor
    columns: int
    stride: int


@torch.no_grad()
def refine(targets: Targets, levels: Sequence[Candidates]) -> list[Matches]:
    """The matches of every level again, valid where a true box took one, each with the box that took it.

    A candidate competes for all boxes of its picture, not only the one that it came from; whoever is taken by
    several goes to the box for which it is cheapest. An image without boxes, or without candidates, has none.
    """
    labels_BT5, mask_BT = targets.labels[:, : targets.most()], targets.mask[:, : targets.most()]
    slots = sum(level.match.valid_BNM[0].numel() for level in levels)
    images = images_at_once(labels_BT5, labels_BT5.shape[1] * slots)
    owners, chosen = [], []
    for start in range(0, len(labels_BT5), images):
        own = slice(start, start + images)
        owner_BC, chosen_BC = _settle(*_fits(labels_BT5[own], own, levels), mask_BT[own])
        owners.append(owner_BC)
        chosen.append(chosen_BC)
    sizes = [level.match.valid_BNM[0].numel() for level in levels]
    split = zip(
        levels,
        torch.split(torch.cat(owners), sizes, 1),
        torch.split(torch.cat(chosen), sizes, 1),
        strict=True,
    )
    return [_matches(labels_BT5, level, owner_BC, chosen_BC) for level, owner_BC, chosen_BC in split]


def _fits(labels_BT5: Tensor, own: slice, levels: Sequence[Candidates]) -> tuple[Tensor, Tensor]:
    """Of some images: overlap and negative cost of every box and candidate of all levels, (B, T, C)."""
    valid = torch.cat([level.match.valid_BNM[own].flatten(1) for level in levels], 1).unsqueeze(1)
    boxes = torch.cat([level.boxes_BNM4[own].flatten(1, 2) for level in levels], 1)
    overlap_BTC = pairwise_iou(labels_BT5[..., 1:], boxes).mul_(valid)
    gains, others = zip(*(_class_gains(level, own) for level in levels), strict=True)
    gain_BKC, other_B1C = torch.cat(gains, 2), torch.cat(others, 2)
    # of every box the row of its class: the product with indicators of classes, without multiplying
    batch, classes, slots = gain_BKC.shape
    first_B1 = torch.arange(0, batch * classes, classes, device=gain_BKC.device).unsqueeze(1)
    rows = (labels_BT5[..., 0].long() + first_B1).flatten()
    fit_BTC = gain_BKC.view(-1, slots).index_select(0, rows).view(batch, -1, slots)
    fit_BTC += (overlap_BTC + OVERLAP_EPS).log_().mul_(OVERLAP_WEIGHT)
    return overlap_BTC, fit_BTC.add_(other_B1C - (valid.neg() + 1) * NEVER)


def _class_gains(level: Candidates, own: slice) -> tuple[Tensor, Tensor]:
    """Class cost, negative, of every slot in two parts: its own of each class (B, K, N * M), and what all
    classes share (B, 1, N * M). A score is the root of class times objectness.
    """
    logits, objectness = level.classes_BGKM[own], level.objectness_BNM[own].unsqueeze(2)
    log_score = (F.softplus(-logits) + F.softplus(-objectness)).mul_(-0.5)
    log_rest = log_score.exp().neg_().add_(1).clamp_(min=REST_EPS).log_()
    shared = log_rest.sum(2).flatten(1).unsqueeze(1)
    return (log_score - log_rest).transpose(1, 2).flatten(2), shared


def _settle(overlap_BTC: Tensor, fit_BTC: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Which box answers for each candidate, (B, C) int64, and 1.0 where one does."""
    boxes, slots = overlap_BTC.shape[1:]
    most = min(MOST, slots)
    wanted_BT1 = overlap_BTC.topk(most, 2).values.sum(2, keepdim=True).floor().clamp(min=1)
    best = fit_BTC.topk(most, 2)
    places = torch.arange(most, device=mask_BT.device, dtype=torch.float32)
    taken_BTJ = (places < wanted_BT1 * mask_BT.unsqueeze(2)).float() * (best.values > -NEVER / 2).float()
    count_BC, taker_BC = _takers(best.indices, taken_BTJ, slots)

    # of equal fits the first box; falling numbers, because max with indices is slow on a host
    falling_T1 = torch.arange(boxes, 0, -1, device=mask_BT.device, dtype=torch.float32).unsqueeze(1)
    fit_BTC = fit_BTC - (mask_BT.neg() + 1).unsqueeze(2) * (2 * NEVER)
    cheapest_BC = ((fit_BTC >= fit_BTC.amax(1, keepdim=True)).float() * falling_T1).amax(1).neg() + boxes
    contested_BC = (count_BC > 1).float()
    owner_BC = taker_BC * (count_BC == 1).float() + cheapest_BC * contested_BC
    return owner_BC.long().clamp(max=boxes - 1), (count_BC > 0).float()


def _takers(index_BTJ: Tensor, taken_BTJ: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """How many boxes took each of the slots, and the number of the box where it is one; both (B, C) float32.

    Sums of row times column indicators instead of a scatter.
    """
    batch, boxes, places = index_BTJ.shape
    index_BS = index_BTJ.flatten(1).float()  # exact up to 16 million
    row_BS = ((index_BS + 0.5) / DIGIT).floor()
    numbers = torch.arange(boxes, device=index_BTJ.device, dtype=torch.float32)
    high = (numbers / DIGIT).floor()
    weights_S3 = torch.stack((torch.ones_like(numbers), high, numbers - high * DIGIT), 1)
    weights_S3 = weights_S3.repeat_interleave(places, 0)
    rows = -(-slots // DIGIT)
    in_row_BSR = _is(row_BS, rows) * taken_BTJ.flatten(1).unsqueeze(2)
    in_column_BSD = _is(index_BS - row_BS * DIGIT, DIGIT)
    weighted = (in_row_BSR.unsqueeze(3) * weights_S3.unsqueeze(1)).flatten(2)
    found = torch.bmm(weighted.transpose(1, 2), in_column_BSD).view(batch, rows, 3, DIGIT)
    count, high, low = (part.flatten(1)[:, :slots] for part in found.unbind(2))
    return count, high * DIGIT + low


def _is(index_BS: Tensor, count: int) -> Tensor:
    """Indicators of whole numbers below ``count``, (B, S, count)."""
    return (index_BS.unsqueeze(2) == torch.arange(count, device=index_BS.device)).float()


def _matches(labels_BT5: Tensor, level: Candidates, owner_BC: Tensor, chosen_BC: Tensor) -> Matches:
    match = level.match
    own_BC5 = labels_BT5.gather(1, owner_BC.unsqueeze(2).expand(-1, -1, 5))
    true = own_BC5.view(*match.valid_BNM.shape, 5)
    cell_BM = match.cell_BM.float()
    row_BM = ((cell_BM + 0.5) / level.columns).floor()
    corner_BM2 = torch.stack((cell_BM - row_BM * level.columns, row_BM), 2)
    centre, size = torch.split(xyxy_to_cxcywh(true[..., 1:]) / level.stride, 2, 3)
    return replace(
        match,
        valid_BNM=chosen_BC.view_as(match.valid_BNM),
        boxes_BGM4=torch.cat((centre - corner_BM2.unsqueeze(1), size), 3),
        classes_BGM=true[..., 0],
    )
