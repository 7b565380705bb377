"""Figures of a detector: COCO's average precision, by faster-coco-eval, and curves over the confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyolo.data.index import Item
from anyolo.evaluate.matching import Matches
from anyolo.structures import Detections

SIZES = ("small", "medium", "large")
PER_CLASS_LIMIT = 100  # COCO counts the best 100 boxes of a class in a picture; see _most_counted
CHUNK = 250_000  # detections handed over at once: as Python objects each takes 700 bytes
CONFIDENCES = np.linspace(0, 1, 1000)


@dataclass(frozen=True, slots=True, eq=False)
class AveragePrecision:
    """COCO's precision table: (10 IoU thresholds, 101 recalls, K classes, 4 areas), -1 where nothing is."""

    table: NDArray[np.float64]

    def mean(self) -> float:
        """mAP50-95 over the classes that occur; 0 when none does."""
        return _mean(self.table[..., 0])

    def mean_at_50(self) -> float:
        return _mean(self.table[0, ..., 0])

    def by_size(self) -> dict[str, float | None]:
        """mAP50-95 of small (area below 32 x 32 px), medium and large (from 96 x 96) objects."""
        areas = {size: self.table[..., 1 + place] for place, size in enumerate(SIZES)}
        return {size: _mean(table) if (table > -1).any() else None for size, table in areas.items()}

    def of_class(self, index: int) -> tuple[float, float]:
        """mAP50 and mAP50-95 of one class."""
        return _mean(self.table[0, :, index, 0]), _mean(self.table[:, :, index, 0])


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """At IoU 0.5, for the classes that occur (``classes``, K of them).

    ``precision``, ``recall`` and ``f1`` are (K, 1000) over ``confidence``; ``precision_at_recall`` is (K,
    101) over ``recalls``. ``best`` is the place on ``confidence`` where the mean F1, smoothed, is greatest.
    """

    classes: NDArray[np.int64]
    confidence: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    recalls: NDArray[np.float64]
    precision_at_recall: NDArray[np.float64]
    best: int

    def mean_precision_recall(self) -> tuple[float, float]:
        """At the best confidence, mean over classes; 0 when there is none."""
        if not len(self.classes):
            return 0.0, 0.0
        return float(self.precision[:, self.best].mean()), float(self.recall[:, self.best].mean())


def average_precision(items: Sequence[Item], found: Sequence[Detections], nc: int) -> AveragePrecision:
    """Equal to pycocotools. ``found[k]``, in pixels of the picture, belongs to ``items[k]``."""
    order = _coco_order(items)
    truth = _truth_columns([items[k] for k in order])
    guesses = _guess_columns([found[k] for k in order])
    most = _most_counted(truth, guesses)
    tables = [
        _precision_table(len(items), classes, truth, guesses, most)
        for classes in _chunks(guesses.classes, nc)
    ]
    return AveragePrecision(np.concatenate(tables, 2))


def draw_curves(matches: Matches, instances_K: NDArray[np.int64], precision: AveragePrecision) -> Curves:
    """``instances_K`` counts the objects to be found, of each class."""
    classes = np.flatnonzero(instances_K)
    counted = ~matches.ignored
    shape = (len(classes), len(CONFIDENCES))
    precisions, recalls = np.zeros(shape), np.zeros(shape)
    for row, index in enumerate(classes):
        own = counted & (matches.classes == index)
        order = np.argsort(-matches.scores[own], kind="stable")
        scores, hits = matches.scores[own][order], np.cumsum(matches.hits[own][order])
        if len(scores):  # between two scores the field interpolates; above the highest it counts 1 and 0
            precision_here = hits / np.arange(1, len(hits) + 1)
            precisions[row] = np.interp(-CONFIDENCES, -scores, precision_here, left=1)
            recalls[row] = np.interp(-CONFIDENCES, -scores, hits / instances_K[index], left=0)
    f1 = 2 * precisions * recalls / np.maximum(precisions + recalls, 1e-16)
    return Curves(
        classes=classes,
        confidence=CONFIDENCES,
        precision=precisions,
        recall=recalls,
        f1=f1,
        recalls=np.linspace(0, 1, precision.table.shape[1]),
        precision_at_recall=np.maximum(precision.table[0, :, classes, 0], 0),
        best=int(_smooth(f1.mean(0)).argmax()) if len(classes) else 0,
    )


def _smooth(values: NDArray[np.float64], share: float = 0.1) -> NDArray[np.float64]:
    """Running mean over ``share`` of the length: a few lucky boxes shall not make the best confidence."""
    half = int(len(values) * share / 2)
    padded = np.pad(values, half, mode="edge")
    return np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), "valid")


def _mean(table: NDArray[np.float64]) -> float:
    known = table[table > -1]
    return float(known.mean()) if known.size else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """Boxes of a whole data set: picture (place), class, left top width height, score, area, crowd."""

    pictures: NDArray[np.int64]
    classes: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.int64]

    def annotations(self, first_class: int, last_class: int) -> list[dict[str, object]]:
        """COCO's objects of a range of classes, numbered from 1: to the evaluator 0 means "no match"."""
        own = (self.classes >= first_class) & (self.classes < last_class)
        columns = (self.pictures, self.classes, self.boxes_xywh, self.scores, self.areas, self.crowd)
        rows = zip(*(column[own].tolist() for column in columns), strict=True)
        return [
            {
                "id": number,
                "image_id": picture,
                "category_id": index,
                "bbox": box,
                "score": score,
                "area": area,
                "iscrowd": crowd,
            }
            for number, (picture, index, box, score, area, crowd) in enumerate(rows, 1)
        ]


def _most_counted(truth: _Columns, guesses: _Columns) -> int:
    """Boxes of a class that count in a picture: COCO's limit, none where a picture holds more objects.

    With 129 lights of a class in a picture, the limit would keep a perfect detector's recall below 0.78.
    """
    whole = truth.crowd == 0
    pairs = np.stack((truth.pictures[whole], truth.classes[whole]))
    fullest = np.unique(pairs, axis=1, return_counts=True)[1].max(initial=0)
    return PER_CLASS_LIMIT if fullest <= PER_CLASS_LIMIT else max(PER_CLASS_LIMIT, len(guesses.pictures))


def _precision_table(
    pictures: int, classes: range, truth: _Columns, guesses: _Columns, most: int
) -> NDArray[np.float64]:
    from faster_coco_eval import COCO, COCOeval_faster

    frame = {
        "images": [{"id": place} for place in range(pictures)],
        "categories": [{"id": index, "name": str(index)} for index in classes],
    }
    first, last = classes.start, classes.stop
    true, guessed = (
        COCO({**frame, "annotations": c.annotations(first, last)}, print_function=_say_nothing)
        for c in (truth, guesses)
    )
    judge = COCOeval_faster(true, guessed, "bbox", print_function=_say_nothing)
    judge.params.maxDets = [most]
    judge.evaluate()
    judge.accumulate()
    table: NDArray[np.float64] = judge.eval["precision"][..., -1]
    return table


def _chunks(classes: NDArray[np.int64], nc: int) -> list[range]:
    """Ranges of classes with about ``CHUNK`` detections each: classes do not know each other."""
    group = np.cumsum(np.bincount(classes, minlength=nc)[:nc]) // CHUNK
    starts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist()]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], nc], strict=True)]


def _coco_order(items: Sequence[Item]) -> list[int]:
    """By picture number, as pycocotools goes: it decides which of two equal scores comes first."""
    numbers = [item.image_id for item in items]
    if all(isinstance(number, int) for number in numbers):
        return sorted(range(len(items)), key=numbers.__getitem__)
    return list(range(len(items)))


def _truth_columns(items: Sequence[Item]) -> _Columns:
    counts = [len(item.labels) for item in items]
    labels = np.concatenate([*(item.labels for item in items), np.zeros((0, 5))]).astype(np.float64)
    sizes = np.repeat(np.array([item.size_hw[::-1] for item in items], np.float64).reshape(-1, 2), counts, 0)
    corner = (labels[:, 1:3] - labels[:, 3:] / 2) * sizes
    return _Columns(
        pictures=np.repeat(np.arange(len(items)), counts),
        classes=labels[:, 0].astype(np.int64),
        boxes_xywh=np.concatenate((corner, labels[:, 3:] * sizes), 1),
        scores=np.zeros(len(labels)),
        areas=np.concatenate([*(item.area for item in items), np.zeros(0)]).astype(np.float64),
        crowd=np.concatenate([*(item.crowd for item in items), np.zeros(0)]).astype(np.int64),
    )


def _guess_columns(found: Sequence[Detections]) -> _Columns:
    boxes = np.concatenate([*(own.boxes_xyxy for own in found), np.zeros((0, 4))]).astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return _Columns(
        pictures=np.repeat(np.arange(len(found)), [len(own) for own in found]),
        classes=np.concatenate([*(own.classes for own in found), np.zeros(0, np.int64)]),
        boxes_xywh=boxes,
        scores=np.concatenate([*(own.scores for own in found), np.zeros(0)]).astype(np.float64),
        areas=boxes[:, 2:].prod(1),
        crowd=np.zeros(len(boxes), np.int64),
    )


def _say_nothing(*words: object) -> None:
    """faster-coco-eval prints by default in some versions; stdout belongs to ``--json``."""
