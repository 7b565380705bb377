"""What a network is compared on: drawn pictures with their boxes, and random weights that are alive."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from anyolo.data.synth import draw
from anyolo.nn.model import Detector
from anyolo.ops.image import fit_image, to_network
from anyolo.ops.letterbox import place
from anyolo.structures import Batch, ImageRecord, Preprocess, Targets
from anyolo.types import SizeHW

SMALLEST_DRAWING = 160


def draw_batch(preprocess: Preprocess, size_hw: SizeHW, *, classes: int, pictures: int = 3) -> Batch:
    """The same pictures every time. The last one is a picture without any box."""
    images, boxes, records = [], [], []
    side = max(SMALLEST_DRAWING, *size_hw)
    placement = place((side, side), size_hw, fit=preprocess.fit)
    for number in range(pictures):
        pixels, labels = draw(0, "val", number, side)
        centre, size = labels[:, 1:3] * side, labels[:, 3:5] * side
        corners = placement.forward(np.concatenate((centre - size / 2, centre + size / 2), 1))
        rows = np.concatenate((labels[:, :1] % classes, corners), 1).astype(np.float32)
        boxes.append(rows if number < pictures - 1 else rows[:0])
        fitted = fit_image(pixels, placement, pad_value=preprocess.pad_value)
        images.append(to_network(fitted, preprocess.channels))
        records.append(ImageRecord(f"drawn {number}", (side, side), placement))
    return Batch(torch.from_numpy(np.stack(images)), Targets.pad(boxes), tuple(records))


def enliven(model: Detector, images: Tensor) -> Detector:
    """A copy whose batch norms know these normalised images: untrained, its maps would fade to nothing."""
    alive = copy.deepcopy(model)
    norms = [module for module in alive.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean over what it sees
    with torch.no_grad():
        alive.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return alive.eval()
