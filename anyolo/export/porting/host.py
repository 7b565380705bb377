"""The host's side of a detector whose network ends at its raw maps, in numpy alone (Python 3.5 or later).

Picture -> ``letterbox`` -> ``to_planes`` -> ``normalise`` -> network -> ``decode`` -> ``final_boxes`` ->
``to_picture``. Pictures are (height, width, 3) uint8 in the order blue, green, red, as OpenCV reads them.
"""
# ruff: noqa: UP006, UP035

import os
from typing import Dict, List, Tuple  # noqa: F401

import numpy as np

MOST_CANDIDATES = 30000
TINY = float(np.finfo(np.float32).tiny)


def resize(picture: np.ndarray, size_hw: Tuple[int, int]) -> np.ndarray:
    """Bilinear, as OpenCV's INTER_LINEAR, whose fixed point differs by one level at most."""
    mixed = picture.astype(np.float32)
    for axis in (0, 1):
        before, after = picture.shape[axis], size_hw[axis]
        place = np.clip((np.arange(after) + 0.5) * (before / after) - 0.5, 0, before - 1)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, before - 1)
        share = np.reshape((place - low).astype(np.float32), (-1, 1, 1) if axis == 0 else (1, -1, 1))
        mixed = np.take(mixed, low, axis) * (1 - share) + np.take(mixed, high, axis) * share
    rounded = np.floor(mixed + 0.5).astype(np.uint8)  # type: np.ndarray
    return rounded


def place(
    size_hw: Tuple[int, int], input_hw: Tuple[int, int], fit: str
) -> Tuple[Tuple[int, int], Tuple[float, float], Tuple[int, int]]:
    """Where a picture lies in the network's input: its size there, gain (x, y) and offset (x, y)."""
    height, width = size_hw
    rows, columns = input_hw
    if fit == "stretch":
        return (rows, columns), (columns / width, rows / height), (0, 0)
    gain = min(rows / height, columns / width)
    if fit == "letterbox_topleft":
        return (max(1, int(height * gain)), max(1, int(width * gain))), (gain, gain), (0, 0)
    inner = (max(1, round(height * gain)), max(1, round(width * gain)))
    top, left = round((rows - inner[0]) / 2 - 0.1), round((columns - inner[1]) / 2 - 0.1)
    return inner, (gain, gain), (left, top)


def letterbox(picture: np.ndarray, input_hw: Tuple[int, int], fit: str, pad_value: int) -> np.ndarray:
    """The picture in a canvas of ``input_hw``, the rest filled with ``pad_value``."""
    inner, _, offset = place((picture.shape[0], picture.shape[1]), input_hw, fit)
    fitted = picture if picture.shape[:2] == inner else resize(picture, inner)
    canvas = np.full((input_hw[0], input_hw[1], 3), pad_value, np.uint8)
    canvas[offset[1] : offset[1] + inner[0], offset[0] : offset[0] + inner[1]] = fitted
    return canvas


def to_planes(canvas: np.ndarray, channels: str) -> np.ndarray:
    """(H, W, 3) to (3, H, W) uint8, red first for ``rgb``, blue first for ``bgr``."""
    ordered = canvas[:, :, ::-1] if channels == "rgb" else canvas
    return np.ascontiguousarray(np.transpose(ordered, (2, 0, 1)))


def normalise(
    images: np.ndarray, scale: float, mean: Tuple[float, ...], std: Tuple[float, ...]
) -> np.ndarray:
    """(B, 3, H, W) uint8 to the float32 that the network reads."""
    found = images.astype(np.float32)  # type: np.ndarray
    if scale != 1:
        found = found * np.float32(scale)
    if mean:
        found = found - np.reshape(np.array(mean, np.float32), (1, -1, 1, 1))
    if std:
        found = found / np.reshape(np.array(std, np.float32), (1, -1, 1, 1))
    return found


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    found = 1 / (1 + np.exp(np.minimum(-x, np.float32(88))))  # type: np.ndarray
    return found


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """Shares that sum to 1 along ``axis``."""
    powers = np.exp(x - np.max(x, axis, keepdims=True))
    found = powers / np.sum(powers, axis, keepdims=True)  # type: np.ndarray
    return found


def suppress(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float, max_det: int, agnostic: bool
) -> np.ndarray:
    """Exact greedy non-maximum suppression: places of the boxes kept, best first.

    A box goes when its IoU with a better kept one of its class (of any with ``agnostic``) is above ``iou``.
    """
    areas = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    left = np.argsort(-scores, kind="mergesort")
    kept = []  # type: List[int]
    while len(left) and len(kept) < max_det:
        best, left = left[0], left[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        sides = np.maximum(high - low, 0)
        inter = sides[:, 0] * sides[:, 1]
        union = np.maximum(areas[best] + areas[left] - inter, np.float32(TINY))
        overlaps = inter / union > np.float32(iou)
        if not agnostic:
            overlaps = overlaps & (classes[left] == classes[best])
        left = left[~overlaps]
    return np.array(kept, np.int64)


def final_boxes(
    decoded: Tuple[np.ndarray, ...], conf: float, iou: float, max_det: int, agnostic: bool
) -> np.ndarray:
    """What ``decode`` gives to (B, max_det, 6): x1 y1 x2 y2 score class, best first, zero rows behind.

    Every box takes part with its best class, if that scores above ``conf``.
    """
    boxes, scores = decoded[0], decoded[1]
    rows = np.zeros((len(boxes), max_det, 6), np.float32)
    for picture in range(len(boxes)):
        classes = np.argmax(scores[picture], 1)
        best = scores[picture][np.arange(len(classes)), classes]
        if len(decoded) == 3:
            best = best * decoded[2][picture]
        places = np.flatnonzero((best > conf) & np.all(np.isfinite(boxes[picture]), 1))
        if len(places) > MOST_CANDIDATES:
            places = places[np.argsort(-best[places], kind="mergesort")[:MOST_CANDIDATES]]
        kept = places[suppress(boxes[picture][places], best[places], classes[places], iou, max_det, agnostic)]
        rows[picture, : len(kept), :4] = boxes[picture][kept]
        rows[picture, : len(kept), 4] = best[kept]
        rows[picture, : len(kept), 5] = classes[kept]
    return rows


def to_picture(rows: np.ndarray, size_hw: Tuple[int, int], input_hw: Tuple[int, int], fit: str) -> np.ndarray:
    """Rows (N, 6) of one picture from input pixels to its own, clipped to it, zero rows left out."""
    _, gain, offset = place(size_hw, input_hw, fit)
    found = rows[rows[:, 4] > 0]
    limits = np.array((size_hw[1], size_hw[0]) * 2, np.float32)
    corners = (found[:, :4] - np.array(offset * 2, np.float32)) / np.array(gain * 2, np.float32)
    return np.concatenate([np.clip(corners, 0, limits), found[:, 4:]], 1)


def arrays_beside(file: str) -> Dict[str, np.ndarray]:
    """The arrays of constants.npz in the folder of ``file``."""
    with np.load(
        os.path.join(os.path.dirname(os.path.abspath(file)), "constants.npz"), allow_pickle=False
    ) as own:
        return {name: own[name] for name in own.files}
