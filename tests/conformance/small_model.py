"""A detector small enough for a second and lively enough to find boxes, without any weights file."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import torch
import yaml
from torch import nn

from anyolo.families import FAMILIES
from anyolo.families.base import FamilySpec
from anyolo.families.checkpoints import Checkpoint
from anyolo.nn.model import Detector, build
from anyolo.ops.image import fit_image, to_network
from anyolo.ops.letterbox import place

SIDE = 128
NAMES = ("white", "red", "green", "blue")


def pictures(count: int, *, height: int = 96, width: int = 160) -> list[np.ndarray]:
    """(H, W, 3) BGR: coloured discs on a rough floor, the same ones every time."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        canvas = cv2.resize(rng.integers(40, 120, (12, 20, 3), dtype=np.uint8), (width, height))
        for _ in range(12):
            x, y, radius = int(rng.integers(width)), int(rng.integers(height)), int(rng.integers(4, 18))
            cv2.circle(canvas, (x, y), radius, tuple(int(c) for c in rng.integers(0, 255, 3)), -1)
        made.append(canvas)
    return made


@cache
def small_checkpoint() -> Checkpoint:
    """Random weights, batch norms fitted to the pictures, class scores spread over 0..1."""
    torch.manual_seed(0)
    spec = FAMILIES.get("yolov8")
    rows = {**yaml.safe_load(spec.rows_text()), "scales": {"t": [0.33, 0.125, 256]}}
    model = build(rows, size="t", nc=len(NAMES), batch_norm=spec.batch_norm)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over what it sees
    seen = np.stack([cv2.resize(p, (SIDE, SIDE))[..., ::-1].transpose(2, 0, 1) for p in pictures(8)])
    with torch.no_grad():
        model.train()(torch.from_numpy(seen.copy()).float() / 255)
        for branch in model.head.cv3:
            branch[-1].weight.mul_(1.5)
            branch[-1].bias.fill_(-1)
    return Checkpoint(
        model=model.eval(),
        spec=spec,
        size="t",
        names=NAMES,
        preprocess=spec.preprocess,
        imgsz=None,
        meta={},
    )


def lively(spec: FamilySpec, model: Detector) -> Checkpoint:
    """Batch norms fitted to the pictures, class scores of a distribution head spread over 0..1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over what it sees
    seen = np.stack([network_input(pixels, SIDE) for pixels in pictures(8)])
    with torch.no_grad():
        model.train()(torch.from_numpy(seen).float() / 255)
        for conv in model.head.modules():
            if isinstance(conv, nn.Conv2d) and conv.out_channels == model.nc:
                conv.weight.mul_(1.5)
                conv.bias.fill_(-1)
    return Checkpoint(
        model=model.eval(),
        spec=spec,
        size=model.size,
        names=NAMES,
        preprocess=spec.preprocess,
        imgsz=None,
        meta={},
    )


def network_input(pixels: np.ndarray, side: int) -> np.ndarray:
    """(3, side, side) uint8 RGB, letterboxed."""
    placement = place((pixels.shape[0], pixels.shape[1]), (side, side))
    return to_network(fit_image(pixels, placement), "rgb")
