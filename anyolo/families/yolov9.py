"""YOLOv9: GELAN rows, YOLOv8's kind of head, and an auxiliary branch that guides the training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from anyolo.families.base import FamilySpec, Identity
from anyolo.families.shapes import blocks_of, head_row, recognise
from anyolo.loss.dfl import DFLCriterion
from anyolo.nn.heads.dual import GROUPS

SIZES = "tsmce"
HEADS = {"DDetect", "DualDDetect"}

RECIPE = {"scale": 0.9, "mixup": 0.15, "box": 7.5, "cls": 0.5, "dfl": 1.5, "aux": 0.25, "tal_min_side": 0.0}
"""Upstream's hyp.scratch-high, without its pasting of objects, which needs their outlines; its other settings
are the defaults here.
"""


def identify(tensors: Mapping[str, Tensor], stored: Mapping[str, Any]) -> Identity | None:
    """A distribution head whose second box convolution has groups, with the auxiliary branch or without, on
    rows that give these tensors.
    """
    row = head_row(tensors, "dfl.conv.weight")
    box = tensors.get(f"model.{row}.cv2.0.1.conv.weight")
    last = tensors.get(f"model.{row}.cv3.0.2.weight")
    if (
        box is None
        or last is None
        or not last.ndim
        or box.shape[:2] != (box.shape[0], box.shape[0] // GROUPS)
    ):
        return None
    return recognise(
        SPEC, tensors, stored, nc=last.shape[0], is_ours=lambda rows: not HEADS.isdisjoint(blocks_of(rows))
    )


SPEC = FamilySpec(
    name="yolov9",
    models={
        **{f"yolov9-{size}": size for size in SIZES},
        **{f"yolov9{size}": size for size in SIZES},
        **{f"gelan-{size}": f"gelan-{size}" for size in SIZES},
        **{f"yolov9-{size}-converted": f"gelan-{size}" for size in SIZES},
    },
    rows_file="yolov9-t.yaml",
    other_rows={
        **{size: f"yolov9-{size}.yaml" for size in SIZES},
        **{f"gelan-{size}": f"gelan-{size}.yaml" for size in SIZES},
    },
    criterion=partial(DFLCriterion, everywhere=True),
    recipe=RECIPE,
    identify=identify,
    source="Wang et al. 2024, arXiv:2402.13616; facts of commit 5b1ea9a8b3f0",
)
