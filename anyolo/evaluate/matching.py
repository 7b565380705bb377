"""Which detection found which object, picture by picture.

COCO's rules: the best detection chooses first, takes the free object of its class that it overlaps most,
and an object is found once. What falls into a crowd box and found nothing else is neither right nor wrong.

Source: Lin et al. 2014, arXiv:1405.0312, and the evaluation rules of cocodataset.org (iscrowd).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyolo.data.index import Item
from anyolo.structures import Detections


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Every detection of a data set, picture by picture: ``hits`` found an object, ``ignored`` a crowd."""

    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


def match(items: Sequence[Item], found: Sequence[Detections], *, iou: float = 0.5) -> Matches:
    """``found[k]`` belongs to ``items[k]`` and is best first, in pixels of the picture."""
    pairs = [_match_picture(item, own, iou) for item, own in zip(items, found, strict=True)]
    return Matches(
        np.concatenate([*(own.scores for own in found), np.zeros(0, np.float32)]),
        np.concatenate([*(own.classes for own in found), np.zeros(0, np.int64)]),
        np.concatenate([*(hits for hits, _ in pairs), np.zeros(0, np.bool_)]),
        np.concatenate([*(ignored for _, ignored in pairs), np.zeros(0, np.bool_)]),
    )


def confusion_matrix(
    items: Sequence[Item], found: Sequence[Detections], nc: int, *, conf: float = 0.25, iou: float = 0.45
) -> NDArray[np.int64]:
    """(nc + 1, nc + 1): row the class predicted, column the true one, the last of each being background.

    Classes do not matter for who meets whom: pairs above ``iou`` are joined best overlap first, one to one.
    """
    matrix = np.zeros((nc + 1, nc + 1), np.int64)
    for item, own in zip(items, found, strict=True):
        sure = own.scores > conf
        overlaps = overlap_matrix(own.boxes_xyxy[sure], item.boxes_xyxy, item.crowd)
        predicted, true = own.classes[sure], item.labels[:, 0].astype(np.int64)
        in_crowd = (overlaps[:, item.crowd] > iou).any(1)
        overlaps[:, item.crowd] = 0
        for row, column in _pairs_best_first(overlaps, iou):
            matrix[predicted[row], true[column]] += 1
            predicted[row] = true[column] = -1
        matrix[:nc, nc] += np.bincount(predicted[(predicted >= 0) & ~in_crowd], minlength=nc)
        matrix[nc, :nc] += np.bincount(true[(true >= 0) & ~item.crowd], minlength=nc)
    return matrix


def overlap_matrix(
    boxes: NDArray[np.float32], truth: NDArray[np.float32], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """IoU of (N, 4) with (M, 4); with a crowd box the share of the detection that lies inside it."""
    one, other = boxes.astype(np.float64)[:, None], truth.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    inter = np.maximum(sides, 0).prod(-1)
    area, true_area = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (one, other))
    union = area + np.where(crowd, 0, true_area - inter)
    overlaps: NDArray[np.float64] = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return overlaps


def _match_picture(item: Item, own: Detections, iou: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    hits, ignored = np.zeros(len(own), np.bool_), np.zeros(len(own), np.bool_)
    overlaps = overlap_matrix(own.boxes_xyxy, item.boxes_xyxy, item.crowd)
    overlaps[own.classes[:, None] != item.labels[:, 0].astype(np.int64)] = 0
    near = overlaps >= iou
    overlaps[~near] = 0
    free = ~item.crowd
    for row in np.flatnonzero(near[:, ~item.crowd].any(1)):
        open_to_it = overlaps[row] * free
        column = int(open_to_it.argmax())
        if open_to_it[column] > 0:
            hits[row], free[column] = True, False
    ignored[~hits] = near[np.ix_(~hits, item.crowd)].any(1)
    return hits, ignored


def _pairs_best_first(overlaps: NDArray[np.float64], iou: float) -> list[tuple[int, int]]:
    """One-to-one pairs above ``iou``, the greatest overlap first."""
    rows, columns = np.nonzero(overlaps > iou)
    pairs, used_rows, used_columns = [], set(), set()
    for place in np.argsort(-overlaps[rows, columns], kind="stable"):
        row, column = int(rows[place]), int(columns[place])
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            pairs.append((row, column))
    return pairs
