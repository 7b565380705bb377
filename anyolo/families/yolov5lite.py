"""YOLOv5-Lite: head and loss of YOLOv5 on small backbones; sizes e, s, c, g and what came before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anyolo.families.anchor_tensors import add_grids, drop_grids, recognise_anchored
from anyolo.families.base import FamilySpec, Identity
from anyolo.families.shapes import blocks_of
from anyolo.loss.anchor import AnchorCriterion

BLOCKS = {
    "conv_bn_relu_maxpool", "Shuffle_Block", "DWConvblock", "ADD", "CBH", "LC_Block", "Dense", "RepVGGBlock",
}  # fmt: skip
SIZES = ("e", "s", "c", "g")

RECIPE = {
    "lr0": 0.001, "lrf": 0.2, "cos_lr": True, "clip_norm": 0.0,
    "box": 0.05, "cls": 0.5, "obj": 1.0, "anchor_t": 4.0,
}  # fmt: skip
"""Upstream's hyp.scratch and the fixed parts of its training program."""


def identify(tensors: Mapping[str, Tensor], stored: Mapping[str, Any]) -> Identity | None:
    """A head with anchors on rows of the family, its own or others with one of its blocks."""
    return recognise_anchored(SPEC, tensors, stored, lambda rows: not blocks_of(rows).isdisjoint(BLOCKS))


SPEC = FamilySpec(
    name="yolov5lite",
    models={
        **{f"v5lite-{size}": size for size in SIZES},
        **{f"{name}-{size}": size for name in ("yolov5-lite", "yolov5lite") for size in SIZES},
        "v5lite-2021": "2021",
        "yolov5-lite-2021": "2021",
        "yolov5-lite-ppogg2021": "2021",
    },
    rows_file="yolov5lite-e.yaml",
    other_rows={size: f"yolov5lite-{size}.yaml" for size in (*SIZES, "2021")},
    criterion=AnchorCriterion,
    recipe=RECIPE,
    evaluation={"iou": 0.6},
    identify=identify,
    import_weights=drop_grids,
    export_weights=add_grids,
    source="ppogg 2021, YOLOv5-Lite (doi:10.5281/zenodo.5241425); facts of commit 9d649a64f829",
)
