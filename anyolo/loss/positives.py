"""The few points that answer for a true box, out of the dense maps, with a gradient that needs no scatter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.ops.tiles import images_at_once


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
    slot_BA = ((rank - (most + 1)) * positive + most).long()
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
        ctx.save_for_backward(maps_BAC, slot_BA)
        ctx.first = first
        dense = [F.softplus(logits.float()).sum() for logits in _tiles(maps_BAC[..., first:])]
        return take(maps_BAC, point_BS).float(), torch.stack(dense).sum()

    @staticmethod
    def backward(ctx: Any, rows_BSC: Tensor, dense: Tensor) -> tuple[Tensor, None, None, None]:
        maps_BAC, slot_BA = ctx.saved_tensors
        padded = F.pad(rows_BSC, (0, 0, 0, 1))  # the last slot, for all points that have none, is 0
        grad_BAC = take(padded.to(maps_BAC.dtype), slot_BA)
        tiles = zip(_tiles(grad_BAC[..., ctx.first :]), _tiles(maps_BAC[..., ctx.first :]), strict=True)
        for grad, logits in tiles:
            grad += logits.float().sigmoid().mul_(dense).to(grad.dtype)
        return grad_BAC, None, None, None


def _tiles(values_BAC: Tensor) -> tuple[Tensor, ...]:
    return torch.split(values_BAC, images_at_once(values_BAC, values_BAC.shape[1] * values_BAC.shape[2]))


def positives_and_classes(
    maps_BAC: Tensor, point_BS: Tensor, slot_BA: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    """``PositivesAndClasses.apply``, typed."""
    rows, classes = PositivesAndClasses.apply(maps_BAC, point_BS, slot_BA, first)  # type: ignore[no-untyped-call]
    return rows, classes
