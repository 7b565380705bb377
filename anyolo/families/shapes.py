"""Telling a model apart by the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anyolo.errors import AnyoloError
from anyolo.nn.blocks import BLOCKS
from anyolo.nn.model import Detector, assemble
from anyolo.nn.rows import parse


def fits(
    rows: Mapping[str, Any], tensors: Mapping[str, Tensor], *, size: str = "", nc: int | None = None
) -> bool:
    """Whether a model of these rows has exactly these tensors (batch counters aside)."""
    try:
        own = skeleton(rows, size=size, nc=nc)
    except AnyoloError:
        return False
    return _shapes(own.state_dict()) == _shapes(tensors)


def skeleton(
    rows: Mapping[str, Any], *, size: str = "", nc: int | None = None, where: str = "model"
) -> Detector:
    """The model of these rows with shapes instead of numbers; ModelError where it cannot be built."""
    plan = parse(rows, size=size, nc=nc, where=where)
    with torch.device("meta"):
        return assemble(plan)


def head_row(tensors: Mapping[str, Tensor], tail: str) -> int | None:
    """Number of the row that owns ``model.<row>.<tail>``, None if there is none."""
    for name in tensors:
        found = re.fullmatch(rf"model\.(\d+)\.{re.escape(tail)}", name)
        if found:
            return int(found[1])
    return None


def measured(rows: Mapping[str, Any], tensors: Mapping[str, Tensor], *, nc: int) -> dict[str, Any] | None:
    """The same rows with channels and repeats read off the tensors, for models of unusual width or depth.

    None where a row has not the tensor that would tell.
    """
    plan = parse(rows, nc=nc)
    written: list[list[Any]] = []
    for row in plan.rows:
        kind, args, repeats = BLOCKS.get(row.block), list(row.args), row.repeats
        if kind.width_tensor:
            weight = tensors.get(f"model.{row.index}.{kind.width_tensor}")
            if weight is None:
                return None
            args[0] = int(weight.shape[0])
        if kind.repeats_inside:
            repeats = max(
                1, len({m[1] for t in tensors if (m := re.match(rf"model\.{row.index}\.m\.(\d+)\.", t))})
            )
        written.append([list(row.sources) if row.many else row.sources[0], repeats, row.block, args])
    start = len(rows["backbone"])
    kept = {k: v for k, v in plan.mapping.items() if k in ("anchors", "activation", "ch", "channels")}
    return {**kept, "nc": nc, "backbone": written[:start], "head": written[start:]}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
