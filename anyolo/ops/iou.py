"""Overlap of boxes, in operators that every backend has (no clamp with tensors, no boolean masks)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 1e-7


def pairwise_iou(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """IoU of every pair: (..., N, 4) and (..., M, 4) to (..., N, M), in 0..1; 0 for two empty boxes."""
    first, second = first_xyxy.unsqueeze(-2), second_xyxy.unsqueeze(-3)
    inter = _intersection(first, second)
    union = _area(first) + _area(second) - inter
    return inter / (union + EPS)


def ciou(first_xyxy: Tensor, second_xyxy: Tensor, *, eps: float = EPS) -> Tensor:
    """Complete IoU of boxes side by side: broadcastable (..., 4) to (...), in -1.5..1.

    ``eps`` is added to the heights, the union and the enclosing diagonal; the aspect weight carries no
    gradient.

    Source: Zheng et al. 2020, arXiv:1911.08287, section 3.3 and 4.1.
    """
    ax1, ay1, ax2, ay2 = first_xyxy.unbind(-1)
    bx1, by1, bx2, by2 = second_xyxy.unbind(-1)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1 + eps, bx2 - bx1, by2 - by1 + eps
    inter = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0) * (
        torch.minimum(ay2, by2) - torch.maximum(ay1, by1)
    ).clamp(min=0)
    iou = inter / (aw * ah + bw * bh - inter + eps)
    enclosing_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    enclosing_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    diagonal = enclosing_w * enclosing_w + enclosing_h * enclosing_h + eps
    dx, dy = bx1 + bx2 - ax1 - ax2, by1 + by2 - ay1 - ay2
    distance = (dx * dx + dy * dy) / 4
    angle = torch.atan(bw / bh) - torch.atan(aw / ah)
    aspect = (4 / math.pi**2) * angle * angle
    weight = (aspect / (aspect - iou + (1 + eps))).detach()
    return iou - (distance / diagonal + aspect * weight)


def _intersection(first: Tensor, second: Tensor) -> Tensor:
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    side = (high - low).clamp(min=0)
    return side[..., 0] * side[..., 1]


def _area(boxes: Tensor) -> Tensor:
    side = boxes[..., 2:] - boxes[..., :2]
    return side[..., 0] * side[..., 1]
