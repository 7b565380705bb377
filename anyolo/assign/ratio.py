"""Assignment by the ratio of sides: every anchor that resembles a true box answers for it.

No overlap is asked for and nothing competes: a box has as many matches as anchors of all levels fit it, each
in the cell of its centre and in up to two next to it, and an anchor of a cell may answer for several boxes.

Source: topology facts of YOLOv5. The slots are our own: one for each of the five cells that a box may have
in a level, in the order in which they are written upstream, so that shapes are static and nothing is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.ops.boxes import xyxy_to_cxcywh
from anyolo.structures import Targets
from anyolo.types import SizeHW

STEPS = ((0.0, 0.0), (-0.5, 0.0), (0.0, -0.5), (0.5, 0.0), (0.0, 0.5))
"""From a centre into the five cells, x and y: its own, left, up, right, down."""


@dataclass(frozen=True, slots=True)
class Matches:
    """The matches of one level in M = 5 * T slots per image: cell by cell of ``STEPS``, boxes inside.

    ``valid_BNM`` float32 is 1 where an anchor answers; all else means nothing in a slot without a match.
    ``cell_BM`` int64 is y * W + x, inside the grid; ``boxes_BGM4`` the true box, centre from the cell's
    corner, width and height, all in cells; ``classes_BGM`` float32. G is N, or 1 where the anchors of a slot
    answer for the same box.
    """

    valid_BNM: Tensor
    cell_BM: Tensor
    boxes_BGM4: Tensor
    classes_BGM: Tensor


@torch.no_grad()
def match_by_ratio(
    targets: Targets, anchors_N2: Tensor, stride: int, size_hw: SizeHW, ratio: float
) -> Matches:
    """Match one level.

    Args:
        targets: true boxes. Slots are made for as many as the fullest image of the batch has.
        anchors_N2: widths and heights in cells.
        stride: pixels per cell.
        size_hw: rows and columns of cells.
        ratio: an anchor fits where each side is less than so many times the true one, and the other way.
    """
    labels, mask_BT = targets.labels[:, : targets.most()], targets.mask[:, : targets.most()]
    centre_BT2, size_BT2 = torch.split(xyxy_to_cxcywh(labels[..., 1:]) / stride, 2, 2)
    relation = size_BT2.unsqueeze(1) / anchors_N2.view(1, -1, 1, 2)
    worst_BNT = torch.maximum(relation, relation.reciprocal()).amax(3)
    fits_BNT = (worst_BNT < ratio).float() * mask_BT.unsqueeze(1)

    limit = centre_BT2.new_tensor(size_hw[::-1])
    steps = centre_BT2.new_tensor(STEPS)
    # towards the left and top edge, then towards the right and bottom one, as columns of (B, 5, T)
    reaches_BT4 = torch.cat((_reaches(centre_BT2), _reaches(centre_BT2.neg() + limit)), 2)
    reaches_B5T = torch.cat((torch.ones_like(mask_BT).unsqueeze(1), reaches_BT4.transpose(1, 2)), 1)
    cell_B5T2 = (centre_BT2.unsqueeze(1) + steps.view(1, -1, 1, 2)).floor()
    cell_B5T2 = torch.minimum(cell_B5T2.clamp(min=0), limit - 1)

    boxes = torch.cat((centre_BT2.unsqueeze(1) - cell_B5T2, size_BT2.unsqueeze(1).expand_as(cell_B5T2)), 3)
    column_B5T, row_B5T = cell_B5T2.unbind(3)
    return Matches(
        valid_BNM=(fits_BNT.unsqueeze(2) * reaches_B5T.unsqueeze(1)).flatten(2),
        cell_BM=(row_B5T * size_hw[1] + column_B5T).flatten(1).long(),
        boxes_BGM4=boxes.flatten(1, 2).unsqueeze(1),
        classes_BGM=labels[..., 0].repeat(1, len(STEPS)).unsqueeze(1),
    )


def _reaches(distance_BT2: Tensor) -> Tensor:
    """1.0 where a centre lies in the nearer half of its cell, seen from an edge more than a cell away."""
    share = distance_BT2 - distance_BT2.floor()
    return (share < 0.5).float() * (distance_BT2 > 1).float()


@torch.no_grad()
def last_in_cell(cell_BM: Tensor, valid_BGM: Tensor) -> Tensor:
    """For every slot the number of the last valid slot of its cell, (B, G, M) int64 from 1; 0 if none is.

    In upstream's order of writing this is the one whose number stays. Slots of a cell are brought side by
    side, and the largest number spreads among them over twice the distance at every turn: comparing every
    slot with every other takes a hundred times as long where a picture has 300 boxes.
    """
    cell_BM, order_BM = cell_BM.float().sort(1)  # exact up to 16 million cells
    place_B1M = order_BM.float().sort(1).indices.unsqueeze(1)
    order_B1M = order_BM.unsqueeze(1)
    number_BGM = valid_BGM.gather(2, order_B1M.expand_as(valid_BGM)) * (order_B1M.float() + 1)
    reach = 1
    while reach < cell_BM.shape[1]:
        same_B1M = (cell_BM[:, reach:] == cell_BM[:, :-reach]).float().unsqueeze(1)
        later = F.pad(number_BGM[..., reach:] * same_B1M, (0, reach))
        earlier = F.pad(number_BGM[..., :-reach] * same_B1M, (reach, 0))
        number_BGM = torch.maximum(number_BGM, torch.maximum(later, earlier))
        reach *= 2
    return number_BGM.gather(2, place_B1M.expand_as(valid_BGM)).long()


def same_cell(cell_BM: Tensor) -> Tensor:
    """1.0 for every pair of slots of one cell, (B, M, M)."""
    return (cell_BM.unsqueeze(2) == cell_BM.unsqueeze(1)).float()
