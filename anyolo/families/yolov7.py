"""YOLOv7: the head of YOLOv5 with learned shifts and gains, layers aggregated at length, branches that fold.

A file has either form: in training the head is ``IDetect``, folded it is ``Detect``; the rows are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anyolo.families.anchor_tensors import add_grids, drop_grids, find_anchors
from anyolo.families.base import FamilySpec, Identity
from anyolo.families.shapes import blocks_of, recognise
from anyolo.loss.anchor import AnchorCriterion

BLOCKS = {"MP", "SP", "SPPCSPC", "RepConv", "IDetect"}

RECIPE = {
    "lr0": 0.01, "lrf": 0.01, "cos_lr": True, "clip_norm": 0.0,
    "box": 0.05, "cls": 0.5, "obj": 1.0, "anchor_t": 4.0, "loss_ota": True,
    "mixup": 0.05,
}  # fmt: skip
"""Upstream's hyp.scratch.tiny and the fixed parts of its training program; its ``paste_in`` is not here."""


def identify(tensors: Mapping[str, Tensor], stored: Mapping[str, Any]) -> Identity | None:
    """A head with anchors, in either form, on the family's rows or others with one of its blocks."""
    tensors = drop_grids(tensors)
    head = find_anchors(tensors)
    if head is None:
        return None
    name = "IDetect" if f"model.{head.row}.ia.0.implicit" in tensors else "Detect"
    return recognise(
        SPEC, tensors, stored, nc=head.nc,
        settle=lambda rows: _with_head(head.settle(rows), name),
        is_ours=lambda rows: not blocks_of(rows).isdisjoint(BLOCKS),
    )  # fmt: skip


def _with_head(rows: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The same rows, the last one of this name."""
    *before, last = rows["head"]
    return {**rows, "head": [*before, [*last[:2], name, *last[3:]]]}


SPEC = FamilySpec(
    name="yolov7",
    models={"yolov7-tiny": "tiny", "yolov7tiny": "tiny", "yolov7": "base"},
    rows_file="yolov7-tiny.yaml",
    other_rows={"base": "yolov7.yaml"},
    criterion=AnchorCriterion,
    recipe=RECIPE,
    identify=identify,
    import_weights=drop_grids,
    export_weights=add_grids,
    source="Wang et al. 2022, arXiv:2207.02696; facts of commit a207844b1ce8",
)
