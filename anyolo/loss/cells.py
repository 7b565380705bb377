"""Numbers of few cells out of dense maps, and of few cells into dense maps, without a scatter.

Several slots may hold the same cell, so the way back from slots to a map has to add up. An addition at
indices is absent or wrong on several backends and has no fixed order on others. Here the slots of a cell are
added up by a product of matrices, and each cell then looks up its sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.assign.ratio import last_in_cell, same_cell
from anyolo.ops.tiles import images_at_once
from anyolo.types import SizeHW

DIGIT = 128
"""Base in which slots are numbered: both digits are exact in every number type a product may run in."""


@torch.no_grad()
def slots_of_cells(cell_BM: Tensor, size_hw: SizeHW) -> Tensor:
    """For every cell the number of the last slot that holds it, (B, H * W) int64 from 1; 0 if none does.

    A sum over slots of row times column indicators, in which each cell has at most one term.
    """
    rows, columns = size_hw
    device, slots = cell_BM.device, cell_BM.shape[1]
    numbers = torch.arange(1, slots + 1, device=device, dtype=torch.float32)
    last_BM = last_in_cell(cell_BM, torch.ones_like(cell_BM, dtype=torch.float32).unsqueeze(1)).squeeze(1)
    number_BM = (last_BM.float() == numbers).float() * numbers
    high_BM = (number_BM / DIGIT).floor()
    digits_BM2 = torch.stack((high_BM, number_BM - high_BM * DIGIT), 2)

    cell = cell_BM.float()  # exact up to 16 million cells
    row_BM = ((cell + 0.5) / columns).floor()
    in_row_BMH = _is(row_BM, rows)
    in_column_BMW = _is(cell - row_BM * columns, columns)
    weighted = (in_row_BMH.unsqueeze(3) * digits_BM2.unsqueeze(2)).flatten(2)
    found_BH2W = torch.bmm(weighted.transpose(1, 2), in_column_BMW).view(-1, rows, 2, columns)
    high, low = found_BH2W.unbind(2)
    return (high * DIGIT + low).flatten(1).long()


def _is(index_BM: Tensor, count: int) -> Tensor:
    """Indicators of whole numbers below ``count``, (B, M, count)."""
    return (index_BM.unsqueeze(2) == torch.arange(count, device=index_BM.device)).float()


def spread(values_BGM: Tensor, slot_BP: Tensor) -> Tensor:
    """Values of slots to a map of cells, (B, G, P), 0 in cells without a slot; of several slots the last."""
    index = slot_BP.unsqueeze(1).expand(-1, values_BGM.shape[1], -1)
    return F.pad(values_BGM, (1, 0)).gather(2, index)


class PickCells(torch.autograd.Function):
    """``apply(maps_BGCP, cell_BM, slot_BP)`` to (B, G, C, M) float32, the cells' numbers."""

    @staticmethod
    def forward(ctx: Any, maps_BGCP: Tensor, cell_BM: Tensor, slot_BP: Tensor) -> Tensor:
        ctx.save_for_backward(cell_BM, slot_BP)
        ctx.dtype = maps_BGCP.dtype
        index = cell_BM.view(len(cell_BM), 1, 1, -1).expand(*maps_BGCP.shape[:3], -1)
        return maps_BGCP.gather(3, index).float()

    @staticmethod
    def backward(ctx: Any, rows_BGCM: Tensor) -> tuple[Tensor, None, None]:
        cell_BM, slot_BP = ctx.saved_tensors
        images = images_at_once(cell_BM, cell_BM.shape[1] ** 2)
        tiles = zip(torch.split(rows_BGCM.flatten(1, 2), images), torch.split(cell_BM, images), strict=True)
        sums_BCM = torch.cat([torch.bmm(rows, same_cell(cells)) for rows, cells in tiles]).to(ctx.dtype)
        grad_BCP = spread(sums_BCM, slot_BP)
        return grad_BCP.view(*rows_BGCM.shape[:3], -1), None, None


def pick_cells(maps_BGCP: Tensor, cell_BM: Tensor, slot_BP: Tensor) -> Tensor:
    """``PickCells.apply``, typed."""
    rows: Tensor = PickCells.apply(maps_BGCP, cell_BM, slot_BP)  # type: ignore[no-untyped-call]
    return rows
