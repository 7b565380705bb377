"""YOLOv5: anchors, a coupled head, assignment by shape; the layout of v6 and v7, and that of v4 and v5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anyolo.families.anchor_tensors import drop_grids, recognise_anchored
from anyolo.families.base import FamilySpec, Identity
from anyolo.families.shapes import blocks_of
from anyolo.loss.anchor import AnchorCriterion

BLOCKS = {"Conv", "DWConv", "C3", "SPP", "SPPF", "Focus", "Concat", "Upsample", "Detect"}
SIZES = "nsmlx"
FOCUS_SIZES = "smlx"

RECIPE = {"box": 0.05, "cls": 0.5, "obj": 1.0, "anchor_t": 4.0}
"""Upstream's hyp.scratch-low; its other settings are the defaults here. The gains are those of 640 px, 80
classes and 3 levels, which the loss scales.
"""


def identify(tensors: Mapping[str, Tensor], stored: Mapping[str, Any]) -> Identity | None:
    """A head with anchors on rows of the family, its own or others made of nothing but its blocks."""
    return recognise_anchored(SPEC, tensors, stored, lambda rows: blocks_of(rows) <= BLOCKS)


SPEC = FamilySpec(
    name="yolov5",
    models={
        **{f"yolov5{size}": size for size in SIZES},
        **{f"yolov5{size}-focus": f"focus-{size}" for size in FOCUS_SIZES},
        **{f"yolov5{size}-focus-v{era}": f"focus-{size}" for size in FOCUS_SIZES for era in ("4.0", "5.0")},
    },
    rows_file="yolov5.yaml",
    other_rows={f"focus-{size}": "yolov5-focus.yaml" for size in FOCUS_SIZES},
    criterion=AnchorCriterion,
    recipe=RECIPE,
    evaluation={"iou": 0.6},
    identify=identify,
    import_weights=drop_grids,
    source="Jocher et al. 2020, YOLOv5 (no paper); facts of releases 4.0, 5.0 and of commit 5081342f04fb",
)
