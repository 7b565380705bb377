"""YOLOX: a decoupled head without anchors, SimOTA, pictures as they come (BGR, 0-255)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from anyolo.families.base import FamilySpec, Identity
from anyolo.families.shapes import blocks_of, head_row, recognise
from anyolo.loss.yolox import DecoupledCriterion
from anyolo.structures import Preprocess

SIZES = ("nano", "tiny", "s", "m", "l", "x")
CLASSES = "cls_preds.0.weight"
HEAD = 24

RECIPE = {
    "nbs": 0, "lr0": 0.0025, "lrf": 0.05, "momentum": 0.9, "cos_lr": True, "clip_norm": 0.0,
    "warmup_epochs": 5.0, "warmup_momentum": 0.9, "warmup_bias_lr": 0.0,
    "box": 5.0, "cls": 1.0, "obj": 1.0, "close_mosaic": 15, "multi_scale": 0.22,
    "degrees": 10.0, "translate": 0.1, "scale": 0.9, "shear": 2.0, "mosaic": 1.0, "mixup": 1.0,
}  # fmt: skip
"""Upstream's yolox_base: 640 pixels, sizes 15 to 25 times 32, mosaic scale .1 to 2 (here at most 1.9),
warm-up by the square (here linear), lr .01 / 64 per picture of the batch (here that of 16). Colour jitter
and the chance of a flip are the defaults here.
"""
SMALL = {"imgsz": 416, "multi_scale": 0.23, "scale": 0.5, "mixup": 0.0}
"""Upstream's yolox_nano and yolox_tiny: 416 pixels, sizes 10 to 20 times 32, mosaic scale .5 to 1.5, no mixup
(upstream's tiny only lowers its scale; its published training has none).
"""
LEGACY = Preprocess(
    fit="letterbox_topleft", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
"""The input of releases 0.1.x, whose tensors have the same names and shapes."""


def _names() -> Iterator[tuple[str, str]]:
    """Upstream's and the own beginnings of tensor names, in upstream's order."""
    yield "backbone.backbone.stem.", "model.0."
    for stage in (2, 3, 4):
        for part in (0, 1):
            yield f"backbone.backbone.dark{stage}.{part}.", f"model.{2 * stage - 3 + part}."
    for part in (0, 1, 2):
        yield f"backbone.backbone.dark5.{part}.", f"model.{7 + part}."
    neck = {
        10: "lateral_conv0", 13: "C3_p4", 14: "reduce_conv1", 17: "C3_p3", 18: "bu_conv2", 20: "C3_n3",
        21: "bu_conv1", 23: "C3_n4",
    }  # fmt: skip
    yield from ((f"backbone.{name}.", f"model.{row}.") for row, name in neck.items())
    yield "head.", f"model.{HEAD}."


NAMES = tuple(_names())


def import_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Upstream's tree as rows. Own names stay."""
    if not any(name.startswith("backbone.") for name in tensors):
        return dict(tensors)
    found = {}
    for name, tensor in tensors.items():
        theirs, own = next(((t, o) for t, o in NAMES if name.startswith(t)), ("", ""))
        found[own + re.sub(r"(^|\.)conv(\d)\.", r"\1cv\2.", name.removeprefix(theirs))] = tensor
    return found


def export_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows as upstream's tree; other rows than the family's keep their names."""
    if head_row(tensors, CLASSES) != HEAD:
        return dict(tensors)
    return {
        theirs + re.sub(r"(^|\.)cv(\d)\.", r"\1conv\2.", name.removeprefix(own)): tensor
        for theirs, own in NAMES
        for name, tensor in tensors.items()
        if name.startswith(own)
    }


def identify(tensors: Mapping[str, Tensor], stored: Mapping[str, Any]) -> Identity | None:
    """A decoupled head with objectness, on the family's rows or the stored ones."""
    tensors = import_weights(tensors)
    row = head_row(tensors, CLASSES)
    if row is None or f"model.{row}.obj_preds.0.weight" not in tensors:
        return None
    weight = tensors[f"model.{row}.{CLASSES}"]
    if not weight.ndim:
        return None
    return recognise(
        SPEC, tensors, stored, nc=weight.shape[0], is_ours=lambda rows: "DecoupledDetect" in blocks_of(rows)
    )


SPEC = FamilySpec(
    name="yolox",
    models={f"yolox-{size}": size for size in SIZES},
    rows_file="yolox.yaml",
    other_rows={"nano": "yolox-nano.yaml"},
    criterion=DecoupledCriterion,
    recipe=RECIPE,
    other_recipes={"nano": SMALL, "tiny": SMALL},
    identify=identify,
    preprocess=Preprocess(channels="bgr", fit="letterbox_topleft", scale=1.0),
    variants={"legacy": LEGACY, "0.1": LEGACY},
    loss_reduction="mean",
    evaluation={"iou": 0.65},
    import_weights=import_weights,
    export_weights=export_weights,
    source="Ge et al. 2021, arXiv:2107.08430; YOLOX 0.3 (Apache-2.0), facts of commit 6ddff4824372",
)
