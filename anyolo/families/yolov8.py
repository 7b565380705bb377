"""YOLOv8: anchor-free, decoupled, box sides as distributions, task-aligned assignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from torch import Tensor

from anyolo.families.base import FamilySpec, Identity
from anyolo.families.shapes import fits, head_row, measured
from anyolo.loss.dfl import DFLCriterion


def identify(tensors: Mapping[str, Tensor], stored: Mapping[str, Any]) -> Identity | None:
    """A plain distribution head (its second box convolution is not grouped), on rows that give these tensors.

    The rows are the stored ones if they fit, else the family's own in the size that fits, else the stored or
    own ones with channels and depth read off the tensors.
    """
    row = head_row(tensors, "dfl.conv.weight")
    if row is None or not _is_plain(tensors, f"model.{row}."):
        return None
    nc = int(tensors[f"model.{row}.cv3.0.2.weight"].shape[0])
    own = yaml.safe_load(SPEC.rows_text())
    size = next((s for s in own["scales"] if fits(own, tensors, size=s, nc=nc)), "")
    rows: Mapping[str, Any] | None = None
    if stored.get("backbone") and fits(stored, tensors, nc=nc):
        rows = {**stored, "nc": nc}
    elif size:
        rows = {**own, "nc": nc, "scale": size}
    else:
        candidates = [measured(r, tensors, nc=nc) for r in (stored, own) if r.get("backbone")]
        rows = next((r for r in candidates if r and fits(r, tensors)), None)
    return Identity(family=SPEC.name, size=size, nc=nc, rows=rows) if rows else None


def _is_plain(tensors: Mapping[str, Tensor], head: str) -> bool:
    box = tensors.get(f"{head}cv2.0.1.conv.weight")
    return (
        box is not None
        and box.shape[0] == box.shape[1]
        and f"{head}cv3.0.2.weight" in tensors
        and f"{head}cv3.0.0.conv.weight" in tensors
    )


SPEC = FamilySpec(
    name="yolov8",
    models={f"yolov8{size}": size for size in "nsmlx"},
    rows_file="yolov8.yaml",
    criterion=DFLCriterion,
    identify=identify,
    source="Jocher et al. 2023, Ultralytics YOLOv8 (no paper); facts of release 8.4.190",
)
