"""Boxes on pictures: readable on a photograph of a street and on a tile with a hundred lights."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from anyolo.ops.image import Pixels

# (R, G, B), neighbours in the table far apart in hue or lightness
COLOURS: tuple[tuple[int, int, int], ...] = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180),
    (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128),
    (255, 225, 25), (220, 190, 255), (170, 110, 40), (128, 128, 0), (170, 255, 195),
    (128, 0, 0), (67, 99, 216), (255, 215, 180), (0, 190, 120), (160, 160, 160),
)  # fmt: skip

FONT = cv2.FONT_HERSHEY_SIMPLEX


def colour_of(class_index: int) -> tuple[int, int, int]:
    """(B, G, R), as OpenCV takes it."""
    red, green, blue = COLOURS[class_index % len(COLOURS)]
    return blue, green, red


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

    The weakest are drawn first, so that the strongest lie on top. A label that would cover another one is
    left out: in a crowded picture the colour still says the class.
    """
    canvas = np.array(pixels, order="C")
    size = (canvas.shape[0] + canvas.shape[1]) / 2
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0).max(1) if len(boxes_xyxy) else np.zeros(0)
    smallest = float(np.percentile(sides, 20)) if len(sides) else size
    width = line_width or max(1, min(round(size * 0.003), round(smallest / 12)))
    corners = np.rint(boxes_xyxy).astype(int)
    if boxes:
        for box, class_index in reversed(list(zip(corners.tolist(), classes, strict=True))):
            cv2.rectangle(canvas, box[:2], box[2:], colour_of(class_index), width, cv2.LINE_AA)
    scale = max(0.35, min(size * 0.0009, 2.5))
    taken: list[tuple[int, int, int, int]] = []
    for box, class_index, label in zip(corners.tolist(), classes, labels, strict=True):
        place = _label_place(canvas, box, label, scale, width) if label else None
        if place and not any(_overlap(place, other) for other in taken):
            taken.append(place)
            _draw_label(canvas, place, label, colour_of(class_index), scale)
    return canvas


def _label_place(
    canvas: Pixels, box: list[int], label: str, scale: float, width: int
) -> tuple[int, int, int, int]:
    """Above the box, or inside its top where there is no room; pushed in from the right edge."""
    (text_w, text_h), base = cv2.getTextSize(label, FONT, scale, _stroke(scale))
    pad = max(1, text_h // 4)
    across, down = text_w + 2 * pad, text_h + base // 2 + 2 * pad
    left = max(0, min(box[0] - width // 2, canvas.shape[1] - across))
    top = box[1] - down if box[1] >= down else max(0, box[1])
    return left, top, left + across, top + down


def _draw_label(
    canvas: Pixels,
    place: tuple[int, int, int, int],
    label: str,
    colour: tuple[int, int, int],
    scale: float,
) -> None:
    left, top, right, bottom = place
    cv2.rectangle(canvas, (left, top), (right, bottom), colour, -1)
    (_, text_h), _ = cv2.getTextSize(label, FONT, scale, _stroke(scale))
    pad = max(1, text_h // 4)
    lightness = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]
    ink = (0, 0, 0) if lightness > 140 else (255, 255, 255)
    cv2.putText(
        canvas, label, (left + pad, top + pad + text_h), FONT, scale, ink, _stroke(scale), cv2.LINE_AA
    )


def _stroke(scale: float) -> int:
    return max(1, round(scale * 1.5))


def _overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
