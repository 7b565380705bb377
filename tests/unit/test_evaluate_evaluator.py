"""evaluate() over a loader, and the small parts whose answer can be worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from anyolo.config.schema import EvalConfig
from anyolo.data.index import AnnotationIndex, Item
from anyolo.errors import DataError
from anyolo.evaluate import evaluate, judge
from anyolo.evaluate.matching import confusion_matrix, match
from anyolo.ops.letterbox import place
from anyolo.structures import Batch, Detections, ImageRecord, Predictions, Targets

INPUT = 320


def item(
    number: int, rows: list[tuple[int, float, float, float, float]], crowd: tuple[int, ...] = ()
) -> Item:
    """A picture of 400 x 600 (height x width); rows of class and corners in its pixels."""
    table = np.array(rows, np.float64).reshape(-1, 5)
    low, high = table[:, 1:3] / (600, 400), table[:, 3:] / (600, 400)
    labels = np.concatenate((table[:, :1], (low + high) / 2, high - low), 1).astype(np.float32)
    area = ((table[:, 3:] - table[:, 1:3]).prod(1)).astype(np.float32)
    is_crowd = np.isin(np.arange(len(rows)), crowd)
    return Item(f"{number}.jpg", (400, 600), labels, is_crowd, area, number)


def detections(rows: list[tuple[int, float, float, float, float, float]]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, 1:5], table[:, 5], table[:, 0].astype(np.int64))


INDEX = AnnotationIndex(
    ("cat", "dog", "bird"),
    (
        item(30, [(0, 10, 10, 110, 110), (1, 200, 100, 300, 300)]),
        item(10, []),
        item(20, [(1, 50, 50, 150, 150), (1, 400, 200, 500, 300)]),
    ),
    category_ids=(1, 5, 90),
)


class Oracle:
    """A loader that remembers what it gave, and a predictor that answers with the truth of the last batch."""

    def __init__(self, index: AnnotationIndex, order: list[list[int]]) -> None:
        self.index, self.order = index, order
        self.batch: list[int] = []
        self.placement = place((400, 600), (INPUT, INPUT))

    def epoch(self, number: int) -> Iterator[Batch]:
        for numbers in self.order:
            self.batch = numbers
            records = tuple(
                ImageRecord(self.index.items[k].path, (400, 600), self.placement, k) for k in self.batch
            )
            images = torch.zeros(len(records), 3, INPUT, INPUT, dtype=torch.uint8)
            yield Batch(images, Targets.pad([np.zeros((0, 5), np.float32)] * len(records)), records)

    def __call__(self, images: torch.Tensor) -> Predictions:
        boxes, scores = torch.zeros(len(images), 8, 4), torch.zeros(len(images), 8, len(self.index.names))
        for row, k in enumerate(self.batch):
            own = self.index.items[k]
            for point, box in enumerate(self.placement.forward(own.boxes_xyxy)):
                boxes[row, point] = torch.from_numpy(box)
                scores[row, point, int(own.labels[point, 0])] = 0.9
        return Predictions(boxes, scores)


def test_the_truth_scores_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Batches may come in any order (rect): records say which picture is which."""
    oracle = Oracle(INDEX, [[2, 0], [1]])
    result = evaluate(oracle, oracle, INDEX, EvalConfig())
    assert result.metrics == pytest.approx({"mAP50-95": 1, "mAP50": 1, "precision": 1, "recall": 1}, abs=1e-6)
    assert result.images == 3
    assert [(r.name, r.images, r.instances) for r in result.per_class] == [("cat", 1, 1), ("dog", 2, 3)]
    assert result.confusion.tolist() == [[1, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert set(result.speed_ms) == {"preprocess", "inference", "postprocess"}
    assert all(value >= 0 for value in result.speed_ms.values())
    assert result.rows()[0] == ("all", 3, 4, *(pytest.approx(1, abs=1e-6),) * 4)
    assert all(len(row) == len(result.columns) for row in result.rows())
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert {"metrics", "per_class", "speed_ms", "images"} <= set(document)
    assert capsys.readouterr().out == ""


def test_a_picture_that_could_not_be_read_is_not_a_miss() -> None:
    oracle = Oracle(INDEX, [[0, 1]])
    result = evaluate(oracle, oracle, INDEX, EvalConfig())
    assert result.images == 2
    assert result.metrics["mAP50"] == pytest.approx(1) and result.rows()[0][2] == 2
    nothing = Oracle(INDEX, [])
    with pytest.raises(DataError, match="no picture"):
        evaluate(nothing, nothing, INDEX, EvalConfig())


def test_another_number_of_classes_is_refused() -> None:
    oracle = Oracle(INDEX, [[0]])
    two = AnnotationIndex(("cat", "dog"), INDEX.items)
    with pytest.raises(DataError, match="3 classes, the data 2"):
        evaluate(oracle, oracle, two, EvalConfig())


def test_judge_refuses_strangers() -> None:
    with pytest.raises(DataError, match="no picture 99"):
        judge(INDEX, {99: Detections.empty()})
    with pytest.raises(DataError, match="class 3"):
        judge(INDEX, {10: detections([(3, 0, 0, 9, 9, 0.9)])})


def test_no_object_and_no_detection_are_zeros_not_nan() -> None:
    for index in (INDEX, INDEX.only([]), AnnotationIndex(("cat",), (item(1, []),))):
        result = judge(index, {})
        assert set(result.metrics.values()) == {0.0}
        json.dumps(result.to_json(), allow_nan=False)
    found = {10: detections([(0, 0, 0, 9, 9, 0.9)])}
    assert judge(INDEX.only([]), found).metrics["mAP50"] == 0


def test_precision_and_recall_by_hand() -> None:
    """Two of four objects found, with one false alarm above both; the best F1 keeps all three."""
    found = {
        30: detections(
            [(1, 400, 0, 500, 100, 0.9), (0, 10, 10, 110, 110, 0.8), (1, 200, 100, 300, 300, 0.7)]
        ),
    }
    result = judge(INDEX, found)
    cat, dog = result.per_class
    assert (cat.precision, cat.recall) == pytest.approx((1, 1))
    assert (dog.precision, dog.recall) == pytest.approx((1 / 2, 1 / 3), abs=1e-3)
    assert result.metrics["recall"] == pytest.approx(2 / 3, abs=1e-3)
    # dog: precision 1/2 up to recall 1/3 (34 of COCO's 101 points)
    assert (cat.map50, dog.map50) == pytest.approx((1, 0.5 * 34 / 101))


def test_an_object_is_found_once_and_crowds_are_neither_right_nor_wrong() -> None:
    own = item(1, [(0, 0, 0, 100, 100), (0, 200, 0, 400, 200)], crowd=(1,))
    found = detections(
        [
            (0, 0, 0, 100, 100, 0.9),
            (0, 5, 0, 105, 100, 0.8),  # the same object again: wrong
            (0, 210, 10, 250, 50, 0.7),  # in the crowd
            (0, 300, 100, 340, 140, 0.6),  # in the crowd: as many as there are
            (1, 210, 10, 250, 50, 0.5),  # another class
        ]
    )
    matches = match([own], [found])
    assert matches.hits.tolist() == [True, False, False, False, False]
    assert matches.ignored.tolist() == [False, False, True, True, False]
    # who meets whom does not ask for the class: all that lies in the crowd is left out
    assert confusion_matrix([own], [found], 2).tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_confusion_by_hand() -> None:
    own = item(1, [(0, 0, 0, 100, 100), (1, 200, 0, 300, 100), (1, 400, 0, 500, 100)])
    found = detections(
        [
            (0, 0, 0, 100, 100, 0.9),  # right
            (0, 200, 0, 300, 100, 0.8),  # cat for dog
            (1, 0, 200, 100, 300, 0.7),  # dog for nothing
            (1, 400, 0, 500, 100, 0.2),  # not sure enough: the dog is missed
        ]
    )
    matrix = confusion_matrix([own], [found], 2)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_predictions_are_written_with_the_numbers_of_the_data_set(tmp_path) -> None:  # type: ignore[no-untyped-def]
    result = judge(INDEX, {20: detections([(2, 10, 20, 30, 60, 0.125)])})
    result.write_predictions(tmp_path / "predictions.json")
    assert json.loads((tmp_path / "predictions.json").read_text()) == [
        {"image_id": 20, "category_id": 90, "bbox": [10, 20, 20, 40], "score": 0.125}
    ]


@pytest.mark.parametrize("count, wanted", [(100, 1.0), (129, 1.0)])
def test_a_picture_may_hold_more_objects_of_a_class_than_coco_counts(count: int, wanted: float) -> None:
    """COCO counts 100 boxes of a class in a picture; of 129 lights a perfect detector would find 0.78."""
    corners = [(k % 20 * 25.0, k // 20 * 25.0) for k in range(count)]
    truth = item(1, [(0, x, y, x + 20, y + 20) for x, y in corners])
    found = detections([(0, x, y, x + 20, y + 20, 1 - k / 1000) for k, (x, y) in enumerate(corners)])
    assert judge(AnnotationIndex(("light",), (truth,)), {1: found}).metrics["mAP50"] == wanted


def test_where_no_picture_holds_that_many_coco_counts_the_best_hundred() -> None:
    """A hundred wrong boxes come first, the right one after them is not counted."""
    wrong = [(0, 300.0, 300.0, 310.0, 310.0, 1 - k / 1000) for k in range(100)]
    index = AnnotationIndex(("light",), (item(1, [(0, 0, 0, 20, 20)]),))
    assert judge(index, {1: detections([*wrong, (0, 0.0, 0.0, 20.0, 20.0, 0.5)])}).metrics["mAP50"] == 0.0
