"""Telling a model apart by the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import yaml
from torch import Tensor

from anyolo.errors import AnyoloError
from anyolo.families.base import FamilySpec, Identity
from anyolo.nn.blocks import BLOCKS
from anyolo.nn.model import Detector, assemble
from anyolo.nn.rows import Plan, parse

Rows = Mapping[str, Any]


def recognise(
    spec: FamilySpec,
    tensors: Mapping[str, Tensor],
    stored: Rows,
    *,
    nc: int,
    is_ours: Callable[[Rows], bool] = lambda rows: True,
    settle: Callable[[Rows], Rows] = lambda rows: rows,
) -> Identity | None:
    """The rows that give these tensors: the stored ones if they fit, else the family's own in the size that
    fits, else the stored or own ones with channels and depth read off the tensors.

    ``is_ours`` says whether rows that no size of the family has are the family's all the same; ``settle``
    writes into rows what they leave to the tensors. What the tensors do not show (the activation) is as
    stored.
    """
    kept = {key: stored[key] for key in ("activation",) if key in stored}
    own = {size: settle({**own_rows(spec, size), **kept}) for size in spec.sizes()}
    stored = settle(stored) if stored.get("backbone") else {}
    size = next((s for s, rows in own.items() if fits(rows, tensors, size=s, nc=nc)), None)
    if size is None and not (stored and is_ours(stored)):
        stored = {}
    rows: Rows | None = None
    if stored and fits(stored, tensors, nc=nc):
        rows = stored
    elif size is not None:
        rows = {**own[size], "scale": size} if "scales" in own[size] else own[size]
    else:
        patterns = [stored] * bool(stored) + list({spec.file_of(s): r for s, r in own.items()}.values())
        candidates = (measured(pattern, tensors, nc=nc) for pattern in patterns)
        rows = next((r for r in candidates if r and fits(r, tensors)), None)
    return Identity(family=spec.name, size=size or "", nc=nc, rows={**rows, "nc": nc}) if rows else None


@cache
def _parsed(text: str) -> Rows:
    rows: Rows = yaml.safe_load(text)
    return rows


def own_rows(spec: FamilySpec, size: str) -> Rows:
    """The mapping of the family's YAML that has this size; not to be changed."""
    return _parsed(spec.rows_text(size))


def blocks_of(rows: Rows) -> frozenset[str]:
    """The blocks that rows name, as the table spells them; unknown ones as they are written."""
    names = {str(row[2]) for row in (*rows.get("backbone", ()), *rows.get("head", ()))}
    return frozenset(BLOCKS.resolve(name) if name in BLOCKS else name for name in names)


def fits(rows: Rows, tensors: Mapping[str, Tensor], *, size: str = "", nc: int | None = None) -> bool:
    """Whether a model of these rows has exactly these tensors (batch counters aside)."""
    try:
        plan = parse(rows, size=size, nc=nc)
        if not _widths_agree(plan, tensors):  # building a network of shapes takes a thousand times as long
            return False
        own = _shaped(plan)
    except AnyoloError:
        return False
    return _shapes(own.state_dict()) == _shapes(tensors)


def skeleton(rows: Rows, *, size: str = "", nc: int | None = None, where: str = "model") -> Detector:
    """The model of these rows with shapes instead of numbers; ModelError where it cannot be built."""
    return _shaped(parse(rows, size=size, nc=nc, where=where))


def _shaped(plan: Plan) -> Detector:
    with torch.device("meta"):
        return assemble(plan)


def _widths_agree(plan: Plan, tensors: Mapping[str, Tensor]) -> bool:
    """Whether rows that tell their output channels by a tensor have them; True proves nothing."""
    for row in plan.rows:
        kind = BLOCKS.get(row.block)
        if kind.width_tensor and (row.repeats == 1 or kind.repeats_inside):
            weight = tensors.get(f"model.{row.index}.{kind.width_tensor}")
            wanted = row.args[0] if row.args else None
            if weight is None or not isinstance(wanted, int) or not weight.ndim:
                return False
            if weight.shape[0] != plan.scale.channels(wanted):
                return False
    return True


def head_row(tensors: Mapping[str, Tensor], tail: str) -> int | None:
    """Number of the row that owns ``model.<row>.<tail>``, None if there is none."""
    for name in tensors:
        found = re.fullmatch(rf"model\.(\d+)\.{re.escape(tail)}", name)
        if found:
            return int(found[1])
    return None


def measured(rows: Rows, tensors: Mapping[str, Tensor], *, nc: int) -> dict[str, Any] | None:
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
