"""The tensors of a head with anchors, as the field's files name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anyolo.families.base import FamilySpec, Identity
from anyolo.families.shapes import head_row, recognise

FINEST_STRIDE = 8
GRID = "anchor_grid"


@dataclass(frozen=True, slots=True)
class AnchorTensors:
    """``row`` of the head, ``nc`` classes, ``anchors`` (L, N, 2) in cells."""

    row: int
    nc: int
    anchors: Tensor

    def in_pixels(self) -> list[list[float]]:
        """Per level w, h, w, h, ... as a model file writes them, for strides 8, 16, 32, ...

        Of a skeleton, which has shapes only, squares of one cell.
        """
        anchors = torch.ones(self.anchors.shape) if self.anchors.is_meta else self.anchors
        return [(a.double() * FINEST_STRIDE * 2**level).flatten().tolist() for level, a in enumerate(anchors)]

    def settle(self, rows: Mapping[str, Any]) -> Mapping[str, Any]:
        """Rows that leave open which anchors they have (``anchors: 3``) or have another number of them get
        those of the tensors.
        """
        written = rows.get("anchors")
        shape = self.anchors.shape
        if (
            isinstance(written, list)
            and [len(level) for level in written if isinstance(level, list)] == [2 * shape[1]] * shape[0]
        ):
            return rows
        return {**rows, "anchors": self.in_pixels()}


def find_anchors(tensors: Mapping[str, Tensor]) -> AnchorTensors | None:
    """The head with one prediction convolution per level; None where there is none, or shapes disagree."""
    row = head_row(tensors, "anchors")
    anchors = tensors.get(f"model.{row}.anchors")
    last = tensors.get(f"model.{row}.m.0.weight")
    if (
        row is None
        or anchors is None
        or last is None
        or anchors.ndim != 3
        or not anchors.shape[1]
        or not last.ndim
    ):
        return None
    per_anchor, rest = divmod(last.shape[0], anchors.shape[1])
    return None if rest or per_anchor < 6 else AnchorTensors(row, per_anchor - 5, anchors)


def recognise_anchored(
    spec: FamilySpec,
    tensors: Mapping[str, Tensor],
    stored: Mapping[str, Any],
    is_ours: Callable[[Mapping[str, Any]], bool],
) -> Identity | None:
    """``shapes.recognise`` for a family whose head has anchors and one prediction convolution per level."""
    tensors = drop_grids(tensors)
    head = find_anchors(tensors)
    if head is None:
        return None
    return recognise(spec, tensors, stored, nc=head.nc, settle=head.settle, is_ours=is_ours)


def drop_grids(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the anchors in pixels that older files keep beside those in cells: they are always computed."""
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] != GRID}


def add_grids(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the anchors in pixels that older programs ask for, (L, 1, N, 1, 1, 2), behind those in cells."""
    found = find_anchors(tensors)
    if found is None:
        return dict(tensors)
    anchors = found.anchors
    strides = anchors.new_tensor([FINEST_STRIDE * 2**level for level in range(len(anchors))])
    grid = (anchors * strides.view(-1, 1, 1)).view(len(anchors), 1, -1, 1, 1, 2)
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        named[name] = tensor
        if name == f"model.{found.row}.anchors":
            named[f"model.{found.row}.{GRID}"] = grid
    return named
