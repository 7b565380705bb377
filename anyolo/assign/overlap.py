"""Overlap of every true box with every prediction, where no gradient is needed and memory counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anyolo.ops.iou import EPS
from anyolo.ops.tiles import tile_of


@torch.no_grad()
def clipped_ciou(true_BT4: Tensor, boxes_BA4: Tensor, inside_BTA: Tensor) -> Tensor:
    """CIoU of every pair of xyxy boxes, (B, T, A), negative values and pairs with ``inside`` 0 set to 0.

    The values of ``ops.iou.ciou`` up to rounding, in two thirds of its passes over (B, T, A), in place and in
    tiles: this is most of what an assignment costs.

    Source: Zheng et al. 2020, arXiv:1911.08287, sections 3.3 and 4.1.
    """
    boxes_B4A = boxes_BA4.transpose(1, 2).contiguous()
    points = max(1, tile_of(boxes_BA4) // (true_BT4.shape[0] * true_BT4.shape[1]))
    parts = [
        _tile(true_BT4, boxes_B4A[..., start : start + points], inside_BTA[..., start : start + points])
        for start in range(0, boxes_B4A.shape[2], points)
    ]
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def _tile(true_BT4: Tensor, boxes_B4A: Tensor, inside_BTA: Tensor) -> Tensor:
    x1, y1, x2, y2 = boxes_B4A.unsqueeze(2).unbind(1)
    true_x1, true_y1, true_x2, true_y2 = true_BT4.unsqueeze(2).unbind(-1)
    w, h, true_w, true_h = x2 - x1, y2 - y1, true_x2 - true_x1, true_y2 - true_y1

    inter_w = torch.minimum(x2, true_x2).sub_(torch.maximum(x1, true_x1))
    inter_h = torch.minimum(y2, true_y2).sub_(torch.maximum(y1, true_y1))
    # both boxes span w + true_w less what they share, also where they share less than nothing
    diagonal = (w + true_w).sub_(inter_w).square_()
    diagonal += (h + true_h).sub_(inter_h).square_()
    diagonal += EPS

    # without an intersection CIoU is not positive
    inter = inter_w.clamp_(min=0).mul_(inter_h.clamp_(min=0)).mul_(inside_BTA)
    h, true_h = h + EPS, true_h + EPS
    iou = inter / (w * h + (true_w * true_h + EPS)).sub_(inter)

    distance = ((x1 + x2) / 2 - (true_x1 + true_x2) / 2).square_()
    distance += ((y1 + y2) / 2 - (true_y1 + true_y2) / 2).square_()
    scale = 2 / math.pi
    aspect = (torch.atan(w / h) * scale - torch.atan(true_w / true_h) * scale).square_()
    weight = (aspect - iou).add_(1 + EPS)
    overlap = iou.sub_(distance.div_(diagonal))
    return overlap.sub_(aspect.square_().div_(weight)).clamp_(min=0)
