"""Where a picture lies inside a network input, and the way back.

Source: the field's convention, fixed by ``golden/letterbox.npz``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anyolo.errors import ConfigError
from anyolo.types import SizeHW


@dataclass(frozen=True, slots=True)
class Placement:
    """``input = picture * gain + offset`` per axis (x, y); ``inner_hw``: the resized picture in it."""

    input_hw: SizeHW
    inner_hw: SizeHW
    gain_xy: tuple[float, float]
    offset_xy: tuple[float, float]

    def forward(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes of the picture (N, 4) to input pixels."""
        gain, offset = np.asarray(self.gain_xy * 2, np.float32), np.asarray(self.offset_xy * 2, np.float32)
        return boxes_xyxy * gain + offset

    def inverse(self, boxes_xyxy: NDArray[np.float32], size_hw: SizeHW) -> NDArray[np.float32]:
        """Boxes in input pixels (N, 4) back to the picture of ``size_hw``, clipped to it."""
        gain, offset = np.asarray(self.gain_xy * 2, np.float32), np.asarray(self.offset_xy * 2, np.float32)
        limits = np.asarray((size_hw[1], size_hw[0]) * 2, np.float32)
        boxes: NDArray[np.float32] = np.clip((boxes_xyxy - offset) / gain, 0, limits)
        return boxes


Fit = Literal["letterbox", "letterbox_topleft", "stretch"]


def place(size_hw: SizeHW, input_hw: SizeHW, *, fit: Fit = "letterbox", enlarge: bool = True) -> Placement:
    """How a picture of ``size_hw`` is laid into ``input_hw``.

    ``letterbox`` keeps the aspect and centres (odd padding puts the smaller half first),
    ``letterbox_topleft`` keeps the aspect and pads right and below, ``stretch`` does not keep it.
    ``enlarge=False`` never upscales.
    """
    (height, width), (rows, columns) = size_hw, input_hw
    if fit == "stretch":
        return Placement(input_hw, input_hw, (columns / width, rows / height), (0.0, 0.0))
    gain = min(rows / height, columns / width)
    if not enlarge:
        gain = min(gain, 1.0)
    if fit == "letterbox_topleft":
        inner = (max(1, int(height * gain)), max(1, int(width * gain)))
        return Placement(input_hw, inner, (gain, gain), (0.0, 0.0))
    inner = (max(1, round(height * gain)), max(1, round(width * gain)))
    top, left = round((rows - inner[0]) / 2 - 0.1), round((columns - inner[1]) / 2 - 0.1)
    return Placement(input_hw, inner, (gain, gain), (float(left), float(top)))


def rect_shape(size_hw: SizeHW, longest: int, stride: int) -> SizeHW:
    """The smallest input that holds the picture at ``longest`` pixels, both sides multiples of ``stride``."""
    gain = longest / max(size_hw)
    height, width = (max(stride, -(-round(side * gain) // stride) * stride) for side in size_hw)
    return height, width


def input_size(imgsz: int | tuple[int, int], stride: int) -> SizeHW:
    """``imgsz`` as (height, width).

    Raises:
        ConfigError: a side is not a positive multiple of ``stride``; the hint names the nearest that are.
    """
    size_hw = (imgsz, imgsz) if isinstance(imgsz, int) else (int(imgsz[0]), int(imgsz[1]))
    for side in size_hw:
        if side < stride or side % stride:
            below = max(stride, side // stride * stride)
            near = f"{below} or {below + stride}" if side > stride else f"{below}"
            raise ConfigError(
                f"{side} is not a multiple of the model's stride {stride}", where="imgsz", hint=f"Use {near}."
            )
    return size_hw
