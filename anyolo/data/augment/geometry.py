"""Pictures laid on a canvas, seen through a random window; and where their boxes went.

Coordinates are continuous: pixel ``k`` covers ``k..k+1``. ``labels`` are (n, 5) float32 ``class, x1, y1, x2,
y2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anyolo.config.schema import AugmentConfig
from anyolo.ops.image import Pixels
from anyolo.types import SizeHW

Labels: TypeAlias = NDArray[np.float32]
Matrix: TypeAlias = NDArray[np.float64]

MIN_SIDE, MIN_AREA_SHARE, MAX_ASPECT = 2.0, 0.1, 100.0
"""A moved box is kept if it is wider and higher than this, shows this share of itself, and is no sliver."""
_MIN_ZOOM = 0.1


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture on the canvas with its top left corner at ``left, top`` (may be negative); labels in its own
    pixels.
    """

    pixels: Pixels
    labels: Labels
    left: int
    top: int


def random_window(
    rng: np.random.Generator, config: AugmentConfig, canvas_hw: SizeHW, output_hw: SizeHW
) -> Matrix:
    """(3, 3) from canvas to output: zoom, rotation, shear and perspective about the middle, then a shift."""
    (canvas_h, canvas_w), (rows, columns) = canvas_hw, output_hw
    perspective = rng.uniform(-config.perspective, config.perspective, 2)
    degrees = rng.uniform(-config.degrees, config.degrees)
    zoom = max(rng.uniform(1 - config.scale, 1 + config.scale), _MIN_ZOOM)
    shear = np.tan(np.radians(rng.uniform(-config.shear, config.shear, 2)))
    shift = rng.uniform(0.5 - config.translate, 0.5 + config.translate, 2)
    centre = np.array([[1, 0, -canvas_w / 2], [0, 1, -canvas_h / 2], [0, 0, 1.0]])
    tilt = np.array([[1, 0, 0], [0, 1, 0], [perspective[0], perspective[1], 1.0]])
    cosine, sine = zoom * np.cos(np.radians(degrees)), zoom * np.sin(np.radians(degrees))
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1.0]])
    slant = np.array([[1, shear[0], 0], [shear[1], 1, 0], [0, 0, 1.0]])
    move = np.array([[1, 0, shift[0] * columns], [0, 1, shift[1] * rows], [0, 0, 1.0]])
    return cast(Matrix, move @ slant @ turn @ tilt @ centre)


def render(
    tiles: Sequence[Tile], matrix: Matrix, canvas_hw: SizeHW, output_hw: SizeHW, pad_value: int
) -> tuple[Pixels, Labels]:
    """The output picture and the boxes that are still worth learning in it, clipped to it."""
    corners = np.array([(tile.left, tile.top) * 2 for tile in tiles], np.float32)
    owner = np.repeat(np.arange(len(tiles)), [len(tile.labels) for tile in tiles])
    labels = np.concatenate([tile.labels for tile in tiles])
    boxes = np.clip(labels[:, 1:] + corners[owner], 0, _sides(canvas_hw))  # the canvas cuts pictures off
    if matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1]:
        pixels = _paint_warped(tiles, matrix, canvas_hw, output_hw, pad_value)
        moved = move_boxes(boxes, matrix)
    else:
        pixels, gains, shifts = _paint_upright(tiles, matrix, canvas_hw, output_hw, pad_value)
        moved = boxes * gains[owner] + shifts[owner]
    clipped = np.clip(moved, 0, _sides(output_hw))
    zoom = np.float32(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    kept = worth_keeping(boxes * zoom, clipped)
    return pixels, np.concatenate((labels[kept, :1], clipped[kept]), 1)


def _sides(size_hw: SizeHW) -> NDArray[np.float32]:
    return np.array((size_hw[1], size_hw[0]) * 2, np.float32)


def _paint_upright(
    tiles: Sequence[Tile], matrix: Matrix, canvas_hw: SizeHW, output_hw: SizeHW, pad_value: int
) -> tuple[Pixels, NDArray[np.float32], NDArray[np.float32]]:
    """Zoom and shift only: each tile's visible part is resized straight into the output.

    The canvas is never built (0.9 ms instead of 2.3 ms a mosaic at 416). Parts are whole pixels on both
    sides, so each tile gets a gain and a shift (x, y, x, y) of its own, at most half a source pixel off; its
    boxes are moved by exactly those. A tile out of sight keeps zeros, which no box survives.
    """
    output = np.full((*output_hw, 3), pad_value, np.uint8)
    gains, shifts = np.zeros((2, len(tiles), 4), np.float32)
    for number, tile in enumerate(tiles):
        height, width = tile.pixels.shape[:2]
        x = _visible(tile.left, width, matrix[0, 0], matrix[0, 2], canvas_hw[1], output_hw[1])
        y = _visible(tile.top, height, matrix[1, 1], matrix[1, 2], canvas_hw[0], output_hw[0])
        if x is None or y is None:
            continue
        part = tile.pixels[y.source : y.source + y.taken, x.source : x.source + x.taken]
        place = output[y.target : y.target + y.shown, x.target : x.target + x.shown]
        cv2.resize(part, (x.shown, y.shown), dst=place, interpolation=cv2.INTER_LINEAR)
        gains[number] = (x.gain, y.gain) * 2
        shifts[number] = (x.shift(tile.left), y.shift(tile.top)) * 2
    return output, gains, shifts


@dataclass(frozen=True, slots=True)
class _Span:
    """``taken`` pixels of a tile from ``source`` fill ``shown`` output pixels from ``target``, along one
    axis.
    """

    source: int
    taken: int
    target: int
    shown: int

    @property
    def gain(self) -> float:
        return self.shown / self.taken

    def shift(self, offset: int) -> float:
        """From canvas to output, for a tile at ``offset``."""
        return self.target - self.gain * (self.source + offset)


def _visible(offset: int, length: int, gain: float, shift: float, canvas: int, output: int) -> _Span | None:
    first, last = max(offset, 0), min(offset + length, canvas)
    target, end = max(round(gain * first + shift), 0), min(round(gain * last + shift), output)
    if end <= target:
        return None
    low, high = first - offset, last - offset
    source = min(max(round((target - shift) / gain) - offset, low), high - 1)
    stop = min(max(round((end - shift) / gain) - offset, source + 1), high)
    return _Span(source, stop - source, target, end - target)


def _paint_warped(
    tiles: Sequence[Tile], matrix: Matrix, canvas_hw: SizeHW, output_hw: SizeHW, pad_value: int
) -> Pixels:
    """Rotation, shear or perspective: build the canvas and warp it once."""
    canvas = np.full((*canvas_hw, 3), pad_value, np.uint8)
    for tile in tiles:
        height, width = tile.pixels.shape[:2]
        top, left = max(tile.top, 0), max(tile.left, 0)
        bottom, right = min(tile.top + height, canvas_hw[0]), min(tile.left + width, canvas_hw[1])
        if bottom > top and right > left:
            part = tile.pixels[top - tile.top : bottom - tile.top, left - tile.left : right - tile.left]
            canvas[top:bottom, left:right] = part
    # OpenCV counts from the centre of the first pixel, we from its corner.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    centred = np.linalg.inv(half) @ matrix @ half
    size_wh, fill = (output_hw[1], output_hw[0]), (pad_value,) * 3
    if matrix[2, 0] or matrix[2, 1]:
        output = cv2.warpPerspective(canvas, centred, size_wh, flags=cv2.INTER_LINEAR, borderValue=fill)
    else:
        output = cv2.warpAffine(canvas, centred[:2], size_wh, flags=cv2.INTER_LINEAR, borderValue=fill)
    return cast(Pixels, output)


def move_boxes(boxes_xyxy: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    """(n, 4): the upright box around each box's four moved corners."""
    corners = boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64)
    moved = corners @ matrix[:2, :2].T + matrix[:2, 2]
    if matrix[2, 0] or matrix[2, 1]:
        depth = corners @ matrix[2, :2][:, None] + matrix[2, 2]
        # a box partly behind the eye has no place; it becomes a point
        in_front = (depth > 0.1).all(1, keepdims=True)
        moved = np.where(in_front, moved / np.where(in_front, depth, 1), 0)
    return np.concatenate((moved.min(1), moved.max(1)), 1).astype(np.float32)


def worth_keeping(before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) which boxes still show enough; ``before`` is scaled to the output, not yet turned or clipped."""
    sides, old = after[:, 2:] - after[:, :2], before[:, 2:] - before[:, :2]
    shown = sides.prod(1) / np.maximum(old.prod(1), 1e-9)
    aspect = sides.max(1) / np.maximum(sides.min(1), 1e-9)
    kept: NDArray[np.bool_] = (sides > MIN_SIDE).all(1) & (shown > MIN_AREA_SHARE) & (aspect < MAX_ASPECT)
    return kept
