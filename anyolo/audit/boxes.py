"""Do two sides find the same boxes?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyolo.postprocess import postprocess
from anyolo.structures import Detections, Predictions

PER_PICTURE = 40


class Matched(NamedTuple):
    """Final boxes of one side, how many of them the other has too, and how many stand alone on either."""

    boxes: int
    matched: int
    alone: int

    @property
    def unmatched(self) -> float:
        return self.alone / max(1, self.boxes)


def confidence(predictions: Predictions) -> float:
    """A threshold that some 40 candidates per picture pass, whatever the scores mean."""
    best = predictions.scores.amax(2)
    if predictions.objectness is not None:
        best = best * predictions.objectness
    return float(best.topk(min(PER_PICTURE, best.shape[1]), 1).values[:, -1].median())


def match(
    expected: Predictions, found: Predictions, *, conf: float, min_iou: float, score_share: float
) -> Matched:
    """Pair final boxes (after suppression on the host) by class, overlap and score.

    Scores may differ by ``score_share`` of the highest; a box within that of ``conf`` needs no partner.
    """
    ours, theirs = (
        postprocess(p, conf=conf, iou=0.7, max_det=100, multi_label=False) for p in (expected, found)
    )
    highest = max((float(d.scores.max()) for d in ours if len(d)), default=1.0)
    slack = score_share * highest
    boxes = matched = alone = 0
    for own, other in zip(ours, theirs, strict=True):
        pairs = _pairs(own, other, min_iou, slack)
        clear_own, clear_other = (d.scores > conf + slack for d in (own, other))
        lonely_own, lonely_other = clear_own.copy(), clear_other.copy()
        for row, column in pairs:
            lonely_own[row] = lonely_other[column] = False
        boxes += len(own)
        matched += len(pairs)
        alone += int(lonely_own.sum()) + int(lonely_other.sum())
    return Matched(boxes, matched, alone)


def _pairs(own: Detections, other: Detections, min_iou: float, slack: float) -> list[tuple[int, int]]:
    overlap = _iou(own.boxes_xyxy, other.boxes_xyxy)
    fits = (own.classes[:, None] == other.classes) & (overlap >= min_iou)
    fits &= np.abs(own.scores[:, None] - other.scores) <= slack
    pairs: list[tuple[int, int]] = []
    for row in range(len(own)):
        free = np.flatnonzero(fits[row])
        if len(free):
            column = int(free[overlap[row, free].argmax()])
            fits[:, column] = False
            pairs.append((row, column))
    return pairs


def _iou(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float32]:
    low = np.maximum(ours[:, None, :2], theirs[:, :2])
    high = np.minimum(ours[:, None, 2:], theirs[:, 2:])
    cross = np.maximum(high - low, 0).prod(2)
    areas = [np.maximum(b[:, 2:] - b[:, :2], 0).prod(1) for b in (ours, theirs)]
    iou: NDArray[np.float32] = cross / np.maximum(areas[0][:, None] + areas[1] - cross, 1e-9)
    return iou
