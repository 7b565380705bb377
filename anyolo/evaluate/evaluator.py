"""Run a predictor over a data set and judge what it found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anyolo import console
from anyolo.config.schema import EvalConfig
from anyolo.data.index import AnnotationIndex, Item
from anyolo.devices.distributed import Group
from anyolo.errors import DataError
from anyolo.evaluate.matching import confusion_matrix, match
from anyolo.evaluate.metrics import Curves, average_precision, draw_curves
from anyolo.postprocess import postprocess, to_picture
from anyolo.structures import Batch, Detections, Predictions
from anyolo.types import JSONValue, PathLike


class Batches(Protocol):
    """What ``evaluate`` needs of a loader."""

    def epoch(self, number: int, /) -> Iterator[Batch]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One class that occurs. ``instances`` are the objects to be found, ``images`` the pictures with any."""

    index: int
    name: str
    images: int
    instances: int
    precision: float
    recall: float
    map50: float
    map50_95: float

    def to_json(self) -> dict[str, JSONValue]:
        return {
            "class": self.index,
            "name": self.name,
            "images": self.images,
            "instances": self.instances,
            "precision": self.precision,
            "recall": self.recall,
            "mAP50": self.map50,
            "mAP50-95": self.map50_95,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """The judgement of one predictor on one split; every figure is a share of 1.

    ``metrics`` has mAP50-95, mAP50, precision and recall (the last two at the confidence of the best mean
    F1). ``found[k]`` are the detections in picture ``items[k]``, in its pixels. ``confusion`` is (K + 1, K
    + 1), row predicted, column true, background last. ``speed_ms`` is per picture.
    """

    metrics: Mapping[str, float]
    per_class: tuple[ClassRow, ...]
    by_size: Mapping[str, float | None]
    curves: Curves
    confusion: NDArray[np.int64]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    items: tuple[Item, ...] = field(repr=False)
    found: tuple[Detections, ...] = field(repr=False)
    speed_ms: Mapping[str, float]

    columns = ("class", "images", "instances", "precision", "recall", "mAP50", "mAP50-95")

    @property
    def images(self) -> int:
        """How many pictures were judged."""
        return len(self.items)

    def rows(self) -> list[tuple[str | int | float, ...]]:
        """A table for people: all classes together, then each; under ``columns``."""
        instances = sum(row.instances for row in self.per_class)
        figures = (self.metrics[name] for name in self.columns[3:])
        return [
            ("all", self.images, instances, *figures),
            *(
                (row.name, row.images, row.instances, row.precision, row.recall, row.map50, row.map50_95)
                for row in self.per_class
            ),
        ]

    def to_json(self) -> dict[str, JSONValue]:
        return {
            "metrics": dict(self.metrics),
            "per_class": [row.to_json() for row in self.per_class],
            "by_size": dict(self.by_size),
            "speed_ms": dict(self.speed_ms),
            "images": self.images,
        }

    def write_predictions(self, path: PathLike) -> None:
        """COCO's results format, with the data set's own picture and category numbers."""
        rows = []
        for item, own in zip(self.items, self.found, strict=True):
            boxes = own.boxes_xyxy.astype(np.float64)
            boxes[:, 2:] -= boxes[:, :2]
            for box, score, index in zip(
                boxes.tolist(), own.scores.tolist(), own.classes.tolist(), strict=True
            ):
                rows.append(
                    {
                        "image_id": item.image_id,
                        "category_id": self.category_ids[index],
                        "bbox": [round(value, 3) for value in box],
                        "score": round(score, 6),
                    }
                )
        Path(path).write_text(json.dumps(rows), encoding="utf-8")


def evaluate(
    predict: Callable[[Tensor], Predictions],
    loader: Batches,
    index: AnnotationIndex,
    config: EvalConfig,
    *,
    group: Group | None = None,
) -> Evaluation:
    """Predict every picture of the loader and judge the boxes.

    ``predict`` takes (B, C, H, W) uint8 on the host; whatever runs behind it is judged alike. Pictures that
    the loader leaves out, because they cannot be read, are not counted as missed. Each process of ``group``
    predicts what its own loader gives; all of them judge what all found.

    Raises:
        DataError: the predictor has another number of classes than the data, or no picture could be read.
    """
    group = group or Group()
    found: dict[int, Detections] = {}
    clock = _Clock()
    with console.current().progress("validating", len(index.items), "img") as bar:
        for batch in clock.waiting(loader.epoch(0)):
            predictions = _to_host(predict(batch.images))
            clock.lap("inference")
            if predictions.scores.shape[2] != len(index.names):
                raise DataError(
                    f"the predictor knows {predictions.scores.shape[2]} classes, the data {len(index.names)}",
                    hint="Use the data set the model was trained for.",
                )
            kept = postprocess(
                predictions,
                conf=config.conf,
                iou=config.iou,
                max_det=config.max_det,
                agnostic=config.agnostic_nms,
                multi_label=config.multi_label,
            )
            for record, own in zip(batch.records, kept, strict=True):
                found[record.index] = to_picture(own, record)
            clock.lap("postprocess")
            bar.advance(min(len(batch.records) * group.world, len(index.items)))
    for part in group.gather(found):
        found |= part
    places = sorted(found)
    if not places:
        raise DataError("no picture of the split could be read", where=index.root)
    items = tuple(index.items[place] for place in places)
    return _judge(index, items, tuple(found[place] for place in places), clock.per_picture_ms(len(places)))


def judge(index: AnnotationIndex, found: Mapping[int | str, Detections]) -> Evaluation:
    """Judge boxes from anywhere, by ``image_id``, in pixels of the pictures; pictures not named have none.

    Raises:
        DataError: a picture that the index does not have, or a class beyond its names.
    """
    strangers = set(found) - {item.image_id for item in index.items}
    if strangers:
        raise DataError(f"there is no picture {min(strangers, key=str)!r}", where=index.root)
    none = Detections.empty()
    ordered = tuple(_best_first(found.get(item.image_id, none)) for item in index.items)
    highest = max((int(own.classes.max()) for own in ordered if len(own)), default=-1)
    if highest >= len(index.names):
        raise DataError(f"class {highest} was found, the data has {len(index.names)}", where=index.root)
    return _judge(index, index.items, ordered, {})


def _judge(
    index: AnnotationIndex,
    items: tuple[Item, ...],
    found: tuple[Detections, ...],
    speed_ms: Mapping[str, float],
) -> Evaluation:
    nc = len(index.names)
    classes = [item.labels[~item.crowd, 0].astype(np.int64) for item in items]
    instances_K = np.bincount(np.concatenate([*classes, np.zeros(0, np.int64)]), minlength=nc)
    images_K = np.bincount(np.concatenate([*map(np.unique, classes), np.zeros(0, np.int64)]), minlength=nc)
    if not instances_K.any():
        console.current().warn("the pictures have no labelled object: all figures are 0")
    precision = average_precision(items, found, nc)
    curves = draw_curves(match(items, found), instances_K, precision)
    mean_precision, mean_recall = curves.mean_precision_recall()
    rows = []
    for row, k in enumerate(curves.classes.tolist()):
        at_best = float(curves.precision[row, curves.best]), float(curves.recall[row, curves.best])
        average = precision.of_class(k)
        rows.append(
            ClassRow(
                index=k,
                name=index.names[k],
                images=int(images_K[k]),
                instances=int(instances_K[k]),
                precision=at_best[0],
                recall=at_best[1],
                map50=average[0],
                map50_95=average[1],
            )
        )
    return Evaluation(
        metrics={
            "mAP50-95": precision.mean(),
            "mAP50": precision.mean_at_50(),
            "precision": mean_precision,
            "recall": mean_recall,
        },
        per_class=tuple(rows),
        by_size=precision.by_size(),
        curves=curves,
        confusion=confusion_matrix(items, found, nc),
        names=index.names,
        category_ids=index.category_ids or tuple(range(nc)),
        items=items,
        found=found,
        speed_ms=speed_ms,
    )


def _best_first(own: Detections) -> Detections:
    order = np.argsort(-own.scores, kind="stable")
    return Detections(own.boxes_xyxy[order], own.scores[order], own.classes[order])


def _to_host(predictions: Predictions) -> Predictions:
    """Waits for the device, so that its time is counted as inference."""
    objectness = None if predictions.objectness is None else predictions.objectness.detach().cpu()
    return Predictions(predictions.boxes_xyxy.detach().cpu(), predictions.scores.detach().cpu(), objectness)


class _Clock:
    """Seconds spent waiting for pictures (preprocess), in the network and behind it."""

    def __init__(self) -> None:
        self.spent_s = {"preprocess": 0.0, "inference": 0.0, "postprocess": 0.0}
        self.last_s = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.spent_s[stage] += now - self.last_s
        self.last_s = now

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.lap("preprocess")
            yield batch

    def per_picture_ms(self, pictures: int) -> dict[str, float]:
        return {stage: seconds * 1000 / pictures for stage, seconds in self.spent_s.items()}
