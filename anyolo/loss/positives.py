"""The few points that answer for a true box, out of the dense maps, with a gradient that needs no scatter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def slots(score_BA: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Give every positive point one of ``most`` slots of its image, in the order of the points.

    Args:
        score_BA: above 0 at the positive points.
        most: number of slots S; positives beyond it get none.

    Returns:
        (B, S) int64, the point of each slot (any other point where a slot stays empty), and (B, A) int64, the
        slot of each point, S for none.
    """
    positive = (score_BA > 0).float()
    # falling numbers, so that the first positive point comes out on top
    order = torch.arange(positive.shape[1], 0, -1, device=positive.device, dtype=torch.float32)
    point_BS = (positive * order).topk(most, dim=1).indices
    rank = positive.cumsum(1).clamp(max=most + 1)
    slot_BA = (rank * positive + (most + 1) * (1 - positive)).long() - 1
    return point_BS, slot_BA


def take(values_BNC: Tensor, index_BM: Tensor) -> Tensor:
    """Rows of each image: (B, N, C) at (B, M) to (B, M, C)."""
    batch, rows, channels = values_BNC.shape
    first = torch.arange(0, batch * rows, rows, device=index_BM.device).unsqueeze(1)
    found = values_BNC.reshape(-1, channels).index_select(0, (index_BM + first).flatten())
    return found.view(batch, -1, channels)


class PositivesAndClasses(torch.autograd.Function):
    """``apply(maps_BAC, point_BS, slot_BA, first)`` to two float32 tensors.

    The first holds the slots' rows, (B, S, C). The second is the sum of softplus over all points and the
    channels from ``first``: the part of the class loss that needs no target. So box terms cost by the slots,
    of which there are few. The way back is a gather too, since no two slots hold the same point.
    """

    @staticmethod
    def forward(
        ctx: Any, maps_BAC: Tensor, point_BS: Tensor, slot_BA: Tensor, first: int
    ) -> tuple[Tensor, Tensor]:
        logits = maps_BAC[..., first:].float()
        ctx.save_for_backward(logits, slot_BA)
        ctx.dtype = maps_BAC.dtype
        return take(maps_BAC, point_BS).float(), F.softplus(logits).sum()

    @staticmethod
    def backward(ctx: Any, rows_BSC: Tensor, dense: Tensor) -> tuple[Tensor, None, None, None]:
        logits, slot_BA = ctx.saved_tensors
        first = rows_BSC.shape[2] - logits.shape[2]
        rows_BSC = F.pad(rows_BSC, (0, 0, 0, 1))  # the last slot, for all points that have none, is 0
        to_boxes = take(rows_BSC[..., :first].to(ctx.dtype), slot_BA)
        to_classes = take(rows_BSC[..., first:], slot_BA).add_(logits.sigmoid().mul_(dense))
        return torch.cat((to_boxes, to_classes.to(ctx.dtype)), 2), None, None, None


def positives_and_classes(
    maps_BAC: Tensor, point_BS: Tensor, slot_BA: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    """``PositivesAndClasses.apply``, typed."""
    rows, classes = PositivesAndClasses.apply(maps_BAC, point_BS, slot_BA, first)  # type: ignore[no-untyped-call]
    return rows, classes
