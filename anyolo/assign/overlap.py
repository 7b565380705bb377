"""Overlap of every true box with every prediction, where no gradient is needed and memory counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anyolo.ops.iou import EPS
from anyolo.ops.tiles import tile_of


@torch.no_grad()
def measure(boxes_xyxy: Tensor) -> Tensor:
    """What an overlap needs to know of each box on its own, (B, N, 4) to (10, B, N).

    x1, y1, x2, y2, width, height, area, and the centre in x and y, then the angle of the diagonal.
    """
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    w, h = x2 - x1, y2 - y1
    angle = torch.atan(w / (h + EPS)) * (2 / math.pi)
    return torch.stack((x1, y1, x2, y2, w, h, w * (h + EPS), (x1 + x2) / 2, (y1 + y2) / 2, angle))


@torch.no_grad()
def clipped_ciou(true_MBT: Tensor, boxes_MBA: Tensor, inside_BTA: Tensor) -> Tensor:
    """CIoU of every pair of measured boxes, (B, T, A); negative values and pairs with ``inside`` 0 become 0.

    The values of ``ops.iou.ciou`` up to rounding, in two thirds of its passes over (B, T, A), in place and in
    tiles: this is most of what an assignment costs.

    Source: Zheng et al. 2020, arXiv:1911.08287, sections 3.3 and 4.1.
    """
    points = max(1, tile_of(inside_BTA) // (inside_BTA.shape[0] * inside_BTA.shape[1]))
    if points >= inside_BTA.shape[2]:
        return _tile(true_MBT, boxes_MBA, inside_BTA)
    parts = zip(torch.split(boxes_MBA, points, 2), torch.split(inside_BTA, points, 2), strict=True)
    return torch.cat([_tile(true_MBT, boxes, inside) for boxes, inside in parts], 2)


def _tile(true_MBT: Tensor, boxes_MBA: Tensor, inside_BTA: Tensor) -> Tensor:
    x1, y1, x2, y2, w, h, area, x, y, angle = boxes_MBA.unsqueeze(2).unbind()
    true_x1, true_y1, true_x2, true_y2, true_w, true_h, true_area, true_x, true_y, true_angle = (
        true_MBT.unsqueeze(3).unbind()
    )
    inter_w = torch.minimum(x2, true_x2).sub_(torch.maximum(x1, true_x1))
    inter_h = torch.minimum(y2, true_y2).sub_(torch.maximum(y1, true_y1))
    # both boxes span w + true_w less what they share, also where they share less than nothing
    diagonal = (w + true_w).sub_(inter_w).square_()
    diagonal += (h + true_h).sub_(inter_h).square_()
    diagonal += EPS

    # without an intersection CIoU is not positive
    inter = inter_w.clamp_(min=0).mul_(inter_h.clamp_(min=0)).mul_(inside_BTA)
    iou = inter / (area + (true_area + EPS)).sub_(inter)
    distance = (x - true_x).square_()
    distance += (y - true_y).square_()
    aspect = (angle - true_angle).square_()
    weight = (aspect - iou).add_(1 + EPS)
    overlap = iou.sub_(distance.div_(diagonal))
    return overlap.sub_(aspect.square_().div_(weight)).clamp_(min=0)
