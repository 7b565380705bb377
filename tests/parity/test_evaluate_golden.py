"""The evaluator alone, fed the predictions behind the golden figures."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anyolo.data import AnnotationIndex, open_data
from anyolo.evaluate import judge
from anyolo.structures import Detections

Finder = Callable[[str], Path]


@pytest.fixture(scope="module")
def mini79(shared: Finder) -> AnnotationIndex:
    return open_data(str(shared("data/coco_mini_val79/annotations/instances_val2017.json")), "val")


@pytest.fixture(scope="module")
def predictions(shared: Finder, mini79: AnnotationIndex) -> dict[int | str, Detections]:
    path = shared("golden/real_weights/yolov8n_mini79_square_predictions.json.gz")
    rows = json.loads(gzip.decompress(path.read_bytes()))
    return to_detections(rows, mini79.category_ids)


def to_detections(rows: Sequence[dict], category_ids: Sequence[int]) -> dict[int | str, Detections]:  # type: ignore[type-arg]
    places = {number: place for place, number in enumerate(category_ids)}
    found = {}
    for number in {row["image_id"] for row in rows}:
        own = [row for row in rows if row["image_id"] == number]
        boxes = np.array([row["bbox"] for row in own])
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([row["score"] for row in own], np.float32)
        classes = np.array([places[row["category_id"]] for row in own])
        found[number] = Detections(boxes.astype(np.float32), scores, classes)
    return found


def test_equals_the_golden_pycocotools_figures(
    shared: Finder, mini79: AnnotationIndex, predictions: dict[int | str, Detections]
) -> None:
    """Five crowd boxes, tied scores, up to 300 boxes a picture of which COCO counts 100 a class."""
    golden = json.loads(shared("golden/real_weights/yolov8n.json").read_text())["maps"]["square"]["mini79"]
    stats = golden["pycocotools"]["stats"]
    ours = judge(mini79, predictions)
    assert ours.metrics["mAP50-95"] == pytest.approx(stats[0], abs=1e-4)
    assert ours.metrics["mAP50"] == pytest.approx(stats[1], abs=1e-4)
    assert list(ours.by_size.values()) == pytest.approx(stats[3:6], abs=1e-4)


def test_precision_and_recall_are_those_the_field_reports(
    shared: Finder, mini79: AnnotationIndex, predictions: dict[int | str, Detections]
) -> None:
    """The field judges without crowd boxes; its figures are at the confidence of the best mean F1."""
    golden = json.loads(shared("golden/real_weights/yolov8n.json").read_text())["maps"]["square"]["mini79"]
    ours = judge(replace(mini79, items=tuple(i.keep(~i.crowd) for i in mini79.items)), predictions)
    assert ours.metrics["precision"] == pytest.approx(golden["upstream_metric"]["P"], abs=1e-4)
    assert ours.metrics["recall"] == pytest.approx(golden["upstream_metric"]["R"], abs=1e-4)
    for row in ours.per_class:
        assert (row.precision, row.recall) == pytest.approx(golden["class_pr"][str(row.index)], abs=1e-3)
    assert len(ours.per_class) == len(golden["class_pr"])


def test_predictions_can_be_written_and_judged_again(
    tmp_path: Path, mini79: AnnotationIndex, predictions: dict[int | str, Detections]
) -> None:
    first = judge(mini79, predictions)
    first.write_predictions(tmp_path / "predictions.json")
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert {row["category_id"] for row in rows} <= set(mini79.category_ids)
    assert max(mini79.category_ids) == 90  # the numbers of COCO have gaps
    again = judge(mini79, to_detections(rows, mini79.category_ids))
    assert again.metrics == pytest.approx(first.metrics, abs=1e-4)
