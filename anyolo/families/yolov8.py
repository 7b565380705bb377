"""YOLOv8: anchor-free, decoupled, box sides as distributions, task-aligned assignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anyolo.families.base import FamilySpec, Identity
from anyolo.families.shapes import head_row, recognise
from anyolo.loss.dfl import DFLCriterion


def identify(tensors: Mapping[str, Tensor], stored: Mapping[str, Any]) -> Identity | None:
    """A plain distribution head (its second box convolution is not grouped), on rows that give these
    tensors.
    """
    row = head_row(tensors, "dfl.conv.weight")
    if row is None or not _is_plain(tensors, f"model.{row}."):
        return None
    nc = int(tensors[f"model.{row}.cv3.0.2.weight"].shape[0])
    return recognise(SPEC, tensors, stored, nc=nc)


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
