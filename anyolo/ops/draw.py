"""Boxes on pictures: readable on a photograph of a street and on a tile with a hundred lights."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from anyolo.ops.image import Pixels
from anyolo.types import SizeHW

# (R, G, B), neighbours in the table far apart in hue or lightness
COLOURS: tuple[tuple[int, int, int], ...] = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180),
    (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128),
    (255, 225, 25), (220, 190, 255), (170, 110, 40), (128, 128, 0), (170, 255, 195),
    (128, 0, 0), (67, 99, 216), (255, 215, 180), (0, 190, 120), (160, 160, 160),
)  # fmt: skip

FONT = cv2.FONT_HERSHEY_SIMPLEX
WRITES_ALL_SCRIPTS = int(cv2.__version__.partition(".")[0]) >= 5  # before, its letters were ASCII only


def colour_of(class_index: int) -> tuple[int, int, int]:
    """(B, G, R), as OpenCV takes it."""
    red, green, blue = COLOURS[class_index % len(COLOURS)]
    return blue, green, red


def label_of(name: str, class_index: int, score: float | None = None) -> str:
    """Name and score; where OpenCV cannot write the name's script, the class number instead."""
    shown = name if WRITES_ALL_SCRIPTS or name.isascii() else f"class {class_index}"
    return shown if score is None else f"{shown} {score:.2f}"


def draw_boxes(
    pixels: Pixels,
    boxes_xyxy: NDArray[np.float32],
    classes: Sequence[int],
    labels: Sequence[str],
    *,
    line_width: int | None = None,
    boxes: bool = True,
) -> Pixels:
    """A copy of ``pixels`` (HWC BGR) with boxes (N, 4), best first, and their labels ("" for none).

    The weakest are drawn first, so that the strongest lie on top. A label takes the first place at its box
    where it hides neither another label nor another box. Where there is none, and once labels cover a tenth
    of the picture, the colour alone says the class.
    """
    canvas = np.array(pixels, order="C")
    height, width = canvas.shape[:2]
    size = (height + width) / 2
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0).max(1) if len(boxes_xyxy) else [size]
    thickness = line_width or max(1, min(round(size * 0.003), round(float(np.percentile(sides, 20)) / 12)))
    corners = np.rint(boxes_xyxy).astype(np.int64).reshape(-1, 4)
    if boxes:
        for box, index in reversed(list(zip(corners.tolist(), classes, strict=True))):
            cv2.rectangle(canvas, box[:2], box[2:], colour_of(index), thickness)
    text = _Text(max(0.35, min(size * 0.0009, 2.5)))
    taken, room = np.zeros((0, 4), np.int64), height * width // 10
    for row, (index, label) in enumerate(zip(classes, labels, strict=True)):
        if label and room > 0:
            places = _places(corners[row], *text.extent(label), thickness, (height, width))
            free = ~_covers(places, taken, 0.0) & ~_covers(places, np.delete(corners, row, 0), 0.4)
            if free.any():
                place = places[int(free.argmax())]
                taken = np.concatenate((taken, place[None]))
                room -= int(np.prod(place[2:] - place[:2]))
                text.draw(canvas, place.tolist(), label, colour_of(index))
    return canvas


class _Text:
    """One size of writing on a filled ground."""

    def __init__(self, scale: float) -> None:
        self.scale, self.stroke = scale, max(1, round(scale * 1.5))

    def extent(self, label: str) -> tuple[int, int]:
        """Width and height of a label with its margin."""
        (width, height), base = cv2.getTextSize(label, FONT, self.scale, self.stroke)
        margin = self._margin(height)
        return width + 2 * margin, height + base // 2 + 2 * margin

    def draw(self, canvas: Pixels, place: Sequence[int], label: str, colour: tuple[int, int, int]) -> None:
        left, top, right, bottom = place
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, -1)
        (_, height), _ = cv2.getTextSize(label, FONT, self.scale, self.stroke)
        margin = self._margin(height)
        lightness = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]
        ink = (0, 0, 0) if lightness > 140 else (255, 255, 255)
        start = (left + margin, top + margin + height)
        cv2.putText(canvas, label, start, FONT, self.scale, ink, self.stroke, cv2.LINE_AA)

    @staticmethod
    def _margin(height: int) -> int:
        return max(1, height // 4)


def _places(
    box: NDArray[np.int64], across: int, down: int, thickness: int, size_hw: SizeHW
) -> NDArray[np.int64]:
    """Where a label may stand (P, 4), best first: above, below and inside its box, at its left and right."""
    x1, y1, x2, y2 = box.tolist()
    left, right = x1 - thickness // 2, x2 + thickness // 2 - across
    corners = [(left, y1 - down), (left, y2), (left, y1), (right, y1 - down), (right, y2), (right, y1)]
    places = np.array([(x, y, x + across, y + down) for x, y in corners])
    places[:, 0::2] += np.clip(-places[:, :1], 0, None) - np.clip(places[:, 2:3] - size_hw[1], 0, None)
    inside = (places[:, 0] >= 0) & (places[:, 1] >= 0) & (places[:, 3] <= size_hw[0])
    return places[inside] if inside.any() else np.clip(places[2:3], 0, None)


def _covers(places: NDArray[np.int64], others: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which of the places (P, 4) lie over more than ``share`` of one of the others (N, 4)."""
    low = np.maximum(places[:, None, :2], others[:, :2])
    high = np.minimum(places[:, None, 2:], others[:, 2:])
    hidden = np.maximum(high - low, 0).prod(2)
    areas = np.maximum((others[:, 2:] - others[:, :2]).prod(1), 1)
    covered: NDArray[np.bool_] = (hidden > share * areas).any(1)
    return covered
