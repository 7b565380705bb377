"""Few points out of many, in slots of a static number: gathers only, both ways."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def slots(score_BA: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Give every positive point one of ``most`` slots of its image, in the order of the points.

    Args:
        score_BA: above 0 at the positive points (or whatever is to get a slot).
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


def spread(values_BS: Tensor, slot_BA: Tensor) -> Tensor:
    """Values of slots back to their points, (B, A); 0 at points without a slot."""
    return F.pad(values_BS, (0, 1)).gather(1, slot_BA)
