"""Test-time augmentation: a predictor that looks several times, at other sizes and mirrored."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.structures import Predictions, Preprocess
from anyolo.types import SizeHW

LOOKS = ((1.0, False), (0.83, True), (0.67, False))
"""(scale, mirrored left to right) of each look, as in the field (YOLOv5, YOLOv8)."""


class Augmented:
    """Wraps ``predict``: the boxes of all looks, in pixels of the input; one suppression merges them.

    ``is_fixed``: the predictor takes one size only, so a smaller look is padded to all of it instead of to
    the stride. Objectness stays apart where ``predict`` has it apart.
    """

    def __init__(
        self, predict: Callable[[Tensor], Predictions], preprocess: Preprocess, *, is_fixed: bool = False
    ) -> None:
        self.predict, self.preprocess, self.is_fixed = predict, preprocess, is_fixed

    def __call__(self, images: Tensor) -> Predictions:
        """(B, C, H, W) uint8 on the host."""
        return Predictions.merged([self._look(images, scale, mirrored) for scale, mirrored in LOOKS])

    def _look(self, images: Tensor, scale: float, mirrored: bool) -> Predictions:
        height, width = images.shape[2:]
        seen = images.flip(3) if mirrored else images
        small_hw = round(height * scale), round(width * scale)
        if small_hw != (height, width):
            stride = self.preprocess.stride
            high, wide = (-(-side // stride) * stride for side in small_hw)
            whole = (height, width) if self.is_fixed else (high, wide)
            seen = resize_into(seen, small_hw, whole, pad_value=self.preprocess.pad_value)
        found = self.predict(seen)
        gain_y, gain_x = height / small_hw[0], width / small_hw[1]
        left, top, right_side, bottom = found.boxes_xyxy.unbind(-1)
        left, right_side = left * gain_x, right_side * gain_x
        if mirrored:
            left, right_side = width - right_side, width - left
        boxes = torch.stack((left, top * gain_y, right_side, bottom * gain_y), -1)
        return Predictions(boxes, found.scores, found.objectness)


def resize_into(images: Tensor, inner_hw: SizeHW, whole_hw: SizeHW, *, pad_value: float) -> Tensor:
    """(B, C, H, W) pictures at ``inner_hw``, top left in ``whole_hw``, of their own number type."""
    seen = F.interpolate(images, size=inner_hw, mode="bilinear", antialias=True)
    below, right = whole_hw[0] - inner_hw[0], whole_hw[1] - inner_hw[1]
    return F.pad(seen, (0, right, 0, below), value=pad_value)
