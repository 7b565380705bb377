"""Yolo-FastestV2: ShuffleNet V2, two levels, one head for both, classes shared by the anchors of a cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from anyolo.families.base import FamilySpec, Identity
from anyolo.families.shapes import blocks_of, head_row, own_rows, recognise
from anyolo.loss.anchor import AnchorCriterion, AnchorRules
from anyolo.structures import Preprocess

STRIDES = (16, 32)
ANCHORS = "model.15.anchors"
CLASSES = "output_cls_layers.weight"
UNITS = {2: 4, 3: 8, 4: 4}
"""Shuffle units of each stage; the first has a row of its own, the others share the next."""

RECIPE = {
    "lr0": 0.001, "momentum": 0.949, "clip_norm": 0.0, "nbs": 0,
    "warmup_epochs": 5.0, "warmup_momentum": 0.949, "warmup_bias_lr": 0.0,
    "box": 3.2, "cls": 32.0, "obj": 64.0, "anchor_t": 2.0,
}  # fmt: skip
"""Upstream's training program and its coco.data (there: a tenth of the rate from epoch 150 and 250 of 300 on,
which its ``.data`` files say with ``steps``).
"""
EVALUATION = {"imgsz": 352, "iou": 0.6, "multi_label": False}
"""Upstream's, but for its own two thresholds (0.01 and 0.4): a box has the best of its exclusive classes."""


def _names() -> Iterator[tuple[str, str]]:
    """Upstream's and the own beginnings of tensor names, in upstream's order."""
    yield "backbone.first_conv.", "model.0.conv."
    for row, (stage, units) in zip((1, 3, 5), UNITS.items(), strict=True):
        yield f"backbone.stage{stage}.0.", f"model.{row}."
        for unit in range(1, units):
            yield f"backbone.stage{stage}.{unit}.", f"model.{row + 1}.{unit - 1}."
    for row, level in ((9, 2), (10, 3)):
        yield f"fpn.conv1x1_{level}.0.", f"model.{row}.conv."
        yield f"fpn.conv1x1_{level}.1.", f"model.{row}.bn."
    for row, name in zip(
        (11, 12, 13, 14), ("cls_head_2", "reg_head_2", "reg_head_3", "cls_head_3"), strict=True
    ):
        yield f"fpn.{name}.", f"model.{row}."
    yield "output_", "model.15.output_"


NAMES = tuple(_names())


def import_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Upstream's tree as rows, with the family's anchors, which its files lack. Own names stay."""
    if not any(name.startswith("backbone.") for name in tensors):
        return dict(tensors)
    found = {}
    for name, tensor in tensors.items():
        theirs, own = next(((t, o) for t, o in NAMES if name.startswith(t)), ("", ""))
        found[own + name.removeprefix(theirs)] = tensor
    written = own_rows(SPEC, "")["anchors"]
    pixels = torch.tensor(written).view(len(STRIDES), -1, 2)
    return {**found, ANCHORS: pixels / torch.tensor(STRIDES).view(-1, 1, 1)}


def export_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows as upstream's tree, without the anchors."""
    return {
        theirs + name.removeprefix(own): tensor
        for theirs, own in NAMES
        for name, tensor in tensors.items()
        if name.startswith(own)
    }


def identify(tensors: Mapping[str, Tensor], stored: Mapping[str, Any]) -> Identity | None:
    """A head shared by the levels, on the family's rows or the stored ones."""
    tensors = import_weights(tensors)
    row = head_row(tensors, CLASSES)
    if row is None or not tensors[f"model.{row}.{CLASSES}"].ndim:
        return None
    nc = tensors[f"model.{row}.{CLASSES}"].shape[0]
    return recognise(SPEC, tensors, stored, nc=nc, is_ours=lambda rows: "SharedDetect" in blocks_of(rows))


SPEC = FamilySpec(
    name="fastestv2",
    models={"yolo-fastestv2": "", "fastestv2": "", "yolo-fastest-v2": ""},
    rows_file="fastestv2.yaml",
    criterion=partial(
        AnchorCriterion,
        rules=AnchorRules(
            balance=(1.0, 0.4), overlap_is_objectness=False, gains_are_relative=False, sums_images=False
        ),
    ),
    recipe=RECIPE,
    identify=identify,
    preprocess=Preprocess(channels="bgr", fit="stretch"),
    loss_reduction="mean",
    batch_norm=(1e-5, 0.1),
    evaluation=EVALUATION,
    import_weights=import_weights,
    export_weights=export_weights,
    source="dog-qiuqiu 2021, Yolo-FastestV2 (no paper); facts of commit ac2a5e3060bf",
)
