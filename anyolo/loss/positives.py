"""The few points that answer for a true box, out of the dense maps, with a gradient that needs no scatter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.assign.slots import slots as slots
from anyolo.assign.slots import take as take
from anyolo.ops.tiles import images_at_once


class PositivesAndClasses(torch.autograd.Function):
    """``apply(maps_BAC, point_BS, slot_BA, first, last)`` to two float32 tensors.

    The first holds the slots' rows, (B, S, C). The second is the sum of softplus over all points and the
    channels from ``first`` to before ``last``: the part of a cross entropy that needs no target. So box terms
    cost by the slots, of which there are few. The way back is a gather too, since no two slots hold the same
    point.
    """

    @staticmethod
    def forward(
        ctx: Any, maps_BAC: Tensor, point_BS: Tensor, slot_BA: Tensor, first: int, last: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(maps_BAC, slot_BA)
        ctx.dense = slice(first, last)
        dense = [F.softplus(logits.float()).sum() for logits in _tiles(maps_BAC[..., first:last])]
        return take(maps_BAC, point_BS).float(), torch.stack(dense).sum()

    @staticmethod
    def backward(ctx: Any, rows_BSC: Tensor, dense: Tensor) -> tuple[Tensor, None, None, None, None]:
        maps_BAC, slot_BA = ctx.saved_tensors
        padded = F.pad(rows_BSC, (0, 0, 0, 1))  # the last slot, for all points that have none, is 0
        grad_BAC = take(padded.to(maps_BAC.dtype), slot_BA)
        tiles = zip(_tiles(grad_BAC[..., ctx.dense]), _tiles(maps_BAC[..., ctx.dense]), strict=True)
        for grad, logits in tiles:
            grad += logits.float().sigmoid().mul_(dense).to(grad.dtype)
        return grad_BAC, None, None, None, None


def _tiles(values_BAC: Tensor) -> tuple[Tensor, ...]:
    return torch.split(values_BAC, images_at_once(values_BAC, values_BAC.shape[1] * values_BAC.shape[2]))


def positives_and_classes(
    maps_BAC: Tensor, point_BS: Tensor, slot_BA: Tensor, first: int, last: int | None = None
) -> tuple[Tensor, Tensor]:
    """``PositivesAndClasses.apply``, typed; to the last channel where ``last`` is not given."""
    last = maps_BAC.shape[2] if last is None else last
    slots_and_range = (point_BS, slot_BA, first, last)
    rows, dense = PositivesAndClasses.apply(maps_BAC, *slots_and_range)  # type: ignore[no-untyped-call]
    return rows, dense
