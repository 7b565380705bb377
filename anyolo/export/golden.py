"""Golden vectors: a picture, the network input it becomes, and the boxes in it, to check other code with.

Whoever feeds an artefact from Kotlin, Swift, C++ or JS can check his own steps one by one: ``X.golden.png``
is the picture, ``X.input.png`` what it must look like after letterboxing, and the manifest holds the hash of
the input's bytes and the boxes. ``X.check.png`` shows the boxes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anyolo.export.base import Images, Suppression
from anyolo.export.compare import final_boxes
from anyolo.export.manifest import Manifest
from anyolo.export.opened import OpenedArtifact
from anyolo.ops.draw import draw_boxes, label_of
from anyolo.ops.image import Pixels, encode_png, fit_image, to_network
from anyolo.ops.letterbox import Placement, place
from anyolo.structures import Detections

ENDINGS = (".golden.png", ".input.png", ".check.png")
TRIED = 4
ALLOWED = {"box_px": 0.5, "score": 0.002}
"""What other arithmetic may change where the very input was fed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """``fitted`` (H, W, 3) BGR is the network input before its channels were ordered; ``found`` is in it."""

    picture: Pixels
    fitted: Pixels
    placement: Placement
    images: Images
    found: Detections
    suppression: Suppression
    names: tuple[str, ...]

    def write(self, artifact: Path) -> dict[str, Any]:
        """Three pictures beside the artefact; returns the entry of its manifest."""
        size_hw = (self.picture.shape[0], self.picture.shape[1])
        in_picture = self.placement.inverse(self.found.boxes_xyxy, size_hw)
        drawn = draw_boxes(
            self.picture,
            in_picture,
            self.found.classes.tolist(),
            [
                label_of(self.names[k], k, score)
                for k, score in zip(self.found.classes.tolist(), self.found.scores.tolist(), strict=True)
            ],
        )
        paths = golden_paths(artifact)
        for path, pixels in zip(paths, (self.picture, self.fitted, drawn), strict=True):
            path.write_bytes(encode_png(pixels))
        return {
            "picture": paths[0].name,
            "picture_size_hw": list(size_hw),
            "input": paths[1].name,
            "input_sha256": hashlib.sha256(self.images.tobytes()).hexdigest(),
            "input_means": [round(float(plane.mean()), 4) for plane in self.images],
            "drawn": paths[2].name,
            "nms": asdict(self.suppression),
            "boxes": _rows(self.found.boxes_xyxy, self.found),
            "boxes_in_picture": _rows(in_picture, self.found),
            "allowed": ALLOWED,
        }


def make_golden(
    opened: OpenedArtifact, pictures: Sequence[Pixels], suppression: Suppression
) -> Golden | None:
    """Of the first pictures the one in which the artefact finds most; None where it finds nothing."""
    best: Golden | None = None
    for pixels in pictures[:TRIED]:
        tried = _look(opened, pixels, suppression)
        if len(tried.found) > (len(best.found) if best else 0):
            best = tried
    return best


def golden_paths(artifact: Path) -> list[Path]:
    return [artifact.with_name(artifact.name + ending) for ending in ENDINGS]


def _look(opened: OpenedArtifact, pixels: Pixels, suppression: Suppression) -> Golden:
    manifest: Manifest = opened.manifest
    preprocess, size_hw = manifest.preprocess, manifest.size_hw
    picture = _not_too_large(pixels, 2 * max(size_hw))
    placement = place((picture.shape[0], picture.shape[1]), size_hw, fit=preprocess.fit)
    fitted = fit_image(picture, placement, pad_value=preprocess.pad_value)
    images = to_network(fitted, preprocess.channels)
    found = final_boxes(opened.predict(torch.from_numpy(images[None])), suppression)[0]
    return Golden(
        picture=picture,
        fitted=fitted,
        placement=placement,
        images=images,
        found=found,
        suppression=suppression,
        names=manifest.names,
    )


def _not_too_large(pixels: Pixels, most: int) -> Pixels:
    """A camera's picture without loss has 30 MB, and shows no more at the network's size."""
    height, width = pixels.shape[:2]
    if max(height, width) <= most:
        return pixels
    gain = most / max(height, width)
    size_hw = (max(1, round(height * gain)), max(1, round(width * gain)))
    return fit_image(pixels, place((height, width), size_hw, fit="stretch"))


def _rows(boxes_xyxy: Any, found: Detections) -> list[list[float]]:
    rows = np.column_stack((boxes_xyxy, found.scores)).astype(np.float64).round(5).tolist()
    return [[*row, int(index)] for row, index in zip(rows, found.classes, strict=True)]
