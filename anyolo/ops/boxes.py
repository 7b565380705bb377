"""Box layouts. Every function maps (..., 4) to the same shape; float dtype, torch or numpy are kept."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Boxes = TypeVar("Boxes", Tensor, NDArray[Any])


def xyxy_to_cxcywh(boxes: Boxes) -> Boxes:
    low, high = boxes[..., :2], boxes[..., 2:]
    return _join((low + high) / 2, high - low)


def cxcywh_to_xyxy(boxes: Boxes) -> Boxes:
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return _join(centre - half, centre + half)


def xywh_to_xyxy(boxes: Boxes) -> Boxes:
    """``x, y`` is the top left corner, as in COCO json."""
    low = boxes[..., :2]
    return _join(low, low + boxes[..., 2:])


def xyxy_to_xywh(boxes: Boxes) -> Boxes:
    low = boxes[..., :2]
    return _join(low, boxes[..., 2:] - low)


def _join(first: Boxes, second: Boxes) -> Boxes:
    if isinstance(first, Tensor):
        return torch.cat((first, second), -1)
    return np.concatenate((first, second), -1)
